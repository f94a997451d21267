"""OpenAI's HTTP around the decoder."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from llmops_core.engines.chat import Delta, GenerationParams, Message, Usage
from llmops_core.errors import (
    ContextOverflowError,
    EngineError,
    InvalidRequestError,
    LlmopsError,
    ModelError,
    NotFoundError,
)
from llmops_engine.decoder import Decoder, Job

T = TypeVar("T")
# Answers are made one after the other, each in seconds: who comes later would wait for minutes.
MOST_UNDER_WAY = 32
CLIENT_CLOSED_REQUEST = 499  # nginx's; nobody reads it


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
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | list[str] | None = None
    n: Literal[1] = 1


class AdapterBody(BaseModel):
    """Body of the adapter routes, in vLLM's form."""

    # peft makes the name an attribute of a torch module.
    lora_name: Annotated[str, Field(pattern=r"^[^.]+$")]
    lora_path: str = ""


class EngineServer:
    """The routes around one decoder."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._under_way = 0

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/v1/models", self._models),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/load_lora_adapter", self._load_adapter, methods=["POST"]),
                Route("/v1/unload_lora_adapter", self._unload_adapter, methods=["POST"]),
            ],
            exception_handlers={
                ValidationError: _malformed,
                LlmopsError: _refused,
                HTTPException: _no_route,
                Exception: _failed,
            },
        )

    async def _health(self, _: Request) -> Response:
        return Response(status_code=200 if self._decoder.loaded.done() else 503)

    async def _models(self, _: Request) -> Response:
        base = {"id": self._decoder.name, "object": "model", "owned_by": "llmops", "parent": None}
        adapters = [
            {"id": name, "object": "model", "owned_by": "llmops", "parent": self._decoder.name, "root": folder}
            for name, folder in dict(self._decoder.adapters).items()
        ]
        return JSONResponse({"object": "list", "data": [base, *adapters]})

    async def _load_adapter(self, request: Request) -> Response:
        body = AdapterBody.model_validate_json(await request.body())
        if not (Path(body.lora_path) / "adapter_config.json").exists():
            raise NotFoundError(f"No adapter found for '{body.lora_path}'.")
        await asyncio.wrap_future(self._decoder.load_adapter(body.lora_name, body.lora_path))
        return Response(f"Success: LoRA adapter '{body.lora_name}' added successfully.")

    async def _unload_adapter(self, request: Request) -> Response:
        body = AdapterBody.model_validate_json(await request.body())
        await asyncio.wrap_future(self._decoder.unload_adapter(body.lora_name))
        return Response(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")

    async def _chat(self, request: Request) -> Response:
        if not self._decoder.loaded.done():
            raise EngineError("The model is being loaded.")
        body = ChatBody.model_validate_json(await request.body())
        if body.model not in {self._decoder.name, *self._decoder.adapters}:
            raise NotFoundError(f"The model '{body.model}' does not exist.")
        answer = self._answer(body)
        if not body.stream:
            async with aclosing(answer):
                deltas = await _unless_gone(request, _all(answer))
            return JSONResponse(_completion(body, deltas)) if deltas else Response(status_code=CLIENT_CLOSED_REQUEST)
        # The first piece is waited for, so that a refusal has its own status.
        first = await _unless_gone(request, anext(answer))
        if first is None:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        return StreamingResponse(_sse(body, first, answer), media_type="text/event-stream")

    async def _answer(self, body: ChatBody) -> AsyncGenerator[Delta]:
        """The deltas of an answer; closing the iterator stops the decoder. Raises `EngineError` if too many are under way."""
        if self._under_way >= MOST_UNDER_WAY:
            raise EngineError(f"{self._under_way} answers are under way or waiting already: retry in some seconds.")
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
        self._under_way += 1
        try:
            while (item := await deltas.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self._under_way -= 1
            job.cancelled.set()


async def _all(answer: AsyncIterator[Delta]) -> list[Delta]:
    return [delta async for delta in answer]


async def _unless_gone(request: Request, work: Awaitable[T]) -> T | None:
    """What `work` gives, or None as soon as the client has closed its connection; then `work` is cancelled."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait({working, leaving})


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _sse(body: ChatBody, first: Delta, rest: AsyncGenerator[Delta]) -> AsyncIterator[str]:
    """The frames of a streamed answer; what fails on the way is a frame of its own, since the status is out already."""
    head = _head(body, "chat.completion.chunk")

    def chunk(delta: Delta, **role: str) -> str:
        choice = {"index": 0, "delta": {**role, "content": delta.text}, "finish_reason": delta.finish_reason}
        return _frame({**head, "choices": [choice]})

    last = first
    async with aclosing(rest):
        yield chunk(first, role="assistant")
        try:
            async for last in rest:
                yield chunk(last)
        except Exception as error:  # the decoder has logged it
            yield _frame(_error_body(str(error), "InternalServerError"))
            return
    if (body.stream_options or {}).get("include_usage"):
        yield _frame({**head, "choices": [], "usage": _usage(last.usage)})
    yield "data: [DONE]\n\n"


def _frame(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def _completion(body: ChatBody, deltas: list[Delta]) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "".join(delta.text for delta in deltas)},
        "finish_reason": deltas[-1].finish_reason,
    }
    return {**_head(body, "chat.completion"), "choices": [choice], "usage": _usage(deltas[-1].usage)}


def _head(body: ChatBody, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": body.model}


def _usage(usage: Usage | None) -> dict[str, int]:
    prompt, completion = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _error_body(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _error(status: int, message: str, kind: str = "BadRequestError", code: str | None = None) -> JSONResponse:
    return JSONResponse(_error_body(message, kind, code), status_code=status)


def _malformed(_: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)
    return _error(400, "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors()))


def _refused(_: Request, error: Exception) -> Response:
    if isinstance(error, ContextOverflowError):
        return _error(400, str(error), code="context_length_exceeded")
    if isinstance(error, NotFoundError):
        return _error(404, str(error), "NotFoundError")
    if isinstance(error, InvalidRequestError | ModelError):
        return _error(400, str(error))
    if isinstance(error, EngineError):
        return _error(503, str(error), "ServiceUnavailableError")
    return _failed(_, error)


def _no_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail, "NotFoundError" if error.status_code == 404 else "BadRequestError")


def _failed(_: Request, error: Exception) -> Response:
    return _error(500, f"{type(error).__name__}: {error}", "InternalServerError")
