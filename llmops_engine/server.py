"""OpenAI's HTTP around the decoder."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from llmops_core.engines.chat import Delta, GenerationParams, Message, Usage
from llmops_core.errors import ContextOverflowError, NotFoundError
from llmops_engine.decoder import Decoder, Job


class Turn(BaseModel):
    """One message."""

    role: Literal["system", "user", "assistant"]
    content: str


class ChatBody(BaseModel):
    """Body of `POST /v1/chat/completions`."""

    model: str
    messages: Annotated[list[Turn], Field(min_length=1)]
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    max_tokens: Annotated[int, Field(ge=1)] = 128
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: int | None = None
    stop: str | list[str] | None = None


class AdapterBody(BaseModel):
    """Body of the adapter routes, in vLLM's form."""

    lora_name: str
    lora_path: str = ""


class EngineServer:
    """The routes around one decoder."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/v1/models", self._models),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/load_lora_adapter", self._load_adapter, methods=["POST"]),
                Route("/v1/unload_lora_adapter", self._unload_adapter, methods=["POST"]),
            ]
        )

    async def _health(self, _: Request) -> Response:
        return Response(status_code=200 if self._decoder.loaded.done() else 503)

    async def _models(self, _: Request) -> Response:
        base = {"id": self._decoder.name, "object": "model", "owned_by": "llmops", "parent": None}
        adapters = [
            {"id": name, "object": "model", "owned_by": "llmops", "parent": self._decoder.name, "root": folder}
            for name, folder in self._decoder.adapters.items()
        ]
        return JSONResponse({"object": "list", "data": [base, *adapters]})

    async def _load_adapter(self, request: Request) -> Response:
        body = AdapterBody.model_validate_json(await request.body())
        if body.lora_name in {self._decoder.name, *self._decoder.adapters}:
            return _error(400, f"The lora adapter '{body.lora_name}' has already been loaded.")
        if not (Path(body.lora_path) / "adapter_config.json").exists():
            return _error(404, f"No adapter found for '{body.lora_path}'.")
        try:
            await asyncio.wrap_future(self._decoder.load_adapter(body.lora_name, body.lora_path))
        except (ValueError, RuntimeError, OSError, KeyError) as error:
            return _error(400, f"The adapter in {body.lora_path} does not fit the model: {error}")
        return Response(f"Success: LoRA adapter '{body.lora_name}' added successfully.")

    async def _unload_adapter(self, request: Request) -> Response:
        body = AdapterBody.model_validate_json(await request.body())
        try:
            await asyncio.wrap_future(self._decoder.unload_adapter(body.lora_name))
        except NotFoundError as error:
            return _error(404, str(error))
        return Response(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")

    async def _chat(self, request: Request) -> Response:
        if not self._decoder.loaded.done():
            return _error(503, "The model is being loaded.", "service_unavailable")
        try:
            body = ChatBody.model_validate_json(await request.body())
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors())
            return _error(400, problems)
        if body.model not in {self._decoder.name, *self._decoder.adapters}:
            return _error(404, f"The model '{body.model}' does not exist.", "NotFoundError")
        answer = self._answer(body)
        try:
            first = await anext(answer)
        except ContextOverflowError as error:
            return _error(400, str(error), code="context_length_exceeded")
        if body.stream:
            return StreamingResponse(_sse(body, first, answer), media_type="text/event-stream")
        text, last = first.text, first
        async for delta in answer:
            text, last = text + delta.text, delta
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": last.finish_reason,
        }
        return JSONResponse({**_head(body, "chat.completion"), "choices": [choice], "usage": _usage(last.usage)})

    async def _answer(self, body: ChatBody) -> AsyncIterator[Delta]:
        """The deltas of an answer; leaving the iterator stops the decoder."""
        loop = asyncio.get_running_loop()
        deltas: asyncio.Queue[Delta | Exception | None] = asyncio.Queue()
        stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())

        def emit(item: Delta | Exception | None) -> None:
            loop.call_soon_threadsafe(deltas.put_nowait, item)

        job = Job(
            body.model,
            [Message(turn.role, turn.content) for turn in body.messages],
            GenerationParams(body.max_tokens, body.temperature, body.top_p, body.seed, stop),
            emit,
        )
        self._decoder.submit(job)
        try:
            while (item := await deltas.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            job.cancelled.set()


async def _sse(body: ChatBody, first: Delta, rest: AsyncIterator[Delta]) -> AsyncIterator[str]:
    head = _head(body, "chat.completion.chunk")
    include_usage = bool((body.stream_options or {}).get("include_usage"))

    def chunk(delta: Delta) -> str:
        choice = {"index": 0, "delta": {"content": delta.text}, "finish_reason": delta.finish_reason}
        return f"data: {json.dumps({**head, 'choices': [choice]}, ensure_ascii=False)}\n\n"

    last = first
    yield chunk(first)
    async for last in rest:
        yield chunk(last)
    if include_usage:
        yield f"data: {json.dumps({**head, 'choices': [], 'usage': _usage(last.usage)})}\n\n"
    yield "data: [DONE]\n\n"


def _head(body: ChatBody, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": body.model}


def _usage(usage: Usage | None) -> dict[str, int]:
    prompt, completion = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _error(status: int, message: str, kind: str = "BadRequestError", code: str | None = None) -> JSONResponse:
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return JSONResponse(body, status_code=status)
