"""A generator for tests: speaks OpenAI's protocol, streams the same answer always, and fails as it is told to."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

PIECES = ("Eighty ", "degrees ", "[1].")


class FakeEngine:
    """Serves in a thread while its context lasts; `behaviour` says how, `received` what it was asked.

    `adapters` are those that it was told to load; without them it is as if it had been started again.
    """

    def __init__(self) -> None:
        self.behaviour = "normal"
        self.received: list[dict[str, Any]] = []
        self.adapters: set[str] = set()
        app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._answer, methods=["POST"]),
                Route("/v1/load_lora_adapter", self._load_adapter, methods=["POST"]),
            ]
        )
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="critical", log_config=None))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})

    def __enter__(self) -> "FakeEngine":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    async def _answer(self, request: Request) -> Response:
        self.received.append(await request.json())
        model = self.received[-1]["model"]
        if model not in {"fake", *self.adapters}:
            message = f"The model `{model}` does not exist."
            return JSONResponse({"error": {"message": message, "code": 404}}, status_code=404)
        if self.behaviour == "error":
            return JSONResponse({"error": {"message": "out of memory", "code": None}}, status_code=500)
        return StreamingResponse(self._events(self.behaviour), media_type="text/event-stream")

    async def _load_adapter(self, request: Request) -> Response:
        self.adapters.add((await request.json())["lora_name"])
        return Response()

    async def _events(self, behaviour: str) -> AsyncIterator[str]:
        yield _event(choices=[{"index": 0, "delta": {"content": PIECES[0]}, "finish_reason": None}])
        if behaviour == "hang up":
            raise ConnectionError("the engine dies")
        for _ in range(1_000 if behaviour == "slow" else 0):
            await asyncio.sleep(0.05)
            yield _event(choices=[{"index": 0, "delta": {"content": "… "}, "finish_reason": None}])
        for piece in PIECES[1:]:
            yield _event(choices=[{"index": 0, "delta": {"content": piece}, "finish_reason": None}])
        yield _event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
        if behaviour != "uncounted":
            yield _event(choices=[], usage={"prompt_tokens": 40, "completion_tokens": 5, "total_tokens": 45})
        yield "data: [DONE]\n\n"


def _event(**value: Any) -> str:
    return f"data: {json.dumps(value)}\n\n"
