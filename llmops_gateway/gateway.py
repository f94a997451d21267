"""The routes of the gateway.

Nothing is served unlogged: a row is durable in the spool before the last byte of its answer goes out, and when rows cannot be
written the gateway says 503 with the reason.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TypeVar

import aiohttp
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from llmops_core.engines.client import engine_session
from llmops_core.errors import (
    EngineError,
    InvalidRequestError,
    LlmopsError,
    NotFoundError,
    SpoolError,
)
from llmops_core.ids import uuid7
from llmops_core.settings import Settings
from llmops_core.traffic.row import CLIENT_CLOSED_REQUEST, FeedbackRow, RequestRow
from llmops_core.traffic.spool import SpoolWriter
from llmops_core.version import code_version
from llmops_gateway.answer import LOCAL_SUBJECT, Answer, refused
from llmops_gateway.errors import (
    error_of,
    on_crash,
    on_disconnect,
    on_error,
    on_http_error,
    status_of,
)
from llmops_gateway.hosts import LoopbackHosts
from llmops_gateway.protocol import (
    MAX_BODY_BYTES,
    ChatRequest,
    FeedbackRequest,
    RollbackRequest,
    Stream,
    completion_body,
    parse,
)
from llmops_gateway.releases import LoadedReleases, Served
from llmops_gateway.request_ids import RequestIds
from llmops_gateway.shadows import Copy, CountsUsers, Shadows, answered
from llmops_gateway.spools import Spools

log = logging.getLogger("llmops.gateway")

# Embedding and search of one question use the cores by themselves; more threads only wait for each other.
RETRIEVAL_THREADS = 2

T = TypeVar("T")


class Gateway:
    """The serving process: releases, spools, and the HTTP around them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.releases = LoadedReleases(settings)
        self._spools = Spools(settings)
        self._threads = ThreadPoolExecutor(RETRIEVAL_THREADS, "retrieval")
        self._shadow_threads = ThreadPoolExecutor(1, "shadows")
        self._session: aiohttp.ClientSession
        self._shadows = Shadows(self._answer_copy, self._append)
        self._logging: set[asyncio.Task[None]] = set()

    def app(self) -> Starlette:
        """The ASGI application; its lifespan starts and stops everything."""
        return Starlette(
            lifespan=self._lifespan,
            middleware=[
                Middleware(RequestIds),
                Middleware(LoopbackHosts),
                Middleware(CountsUsers, self._shadows),
            ],
            exception_handlers={
                LlmopsError: on_error,
                HTTPException: on_http_error,
                ClientDisconnect: on_disconnect,
                Exception: on_crash,
            },
            routes=[
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/v1/models/{model:path}", self._model),
                Route("/v1/feedback", self._feedback, methods=["POST"]),
                Route("/v1/requests/{request_id}", self._request),
                Route("/admin/rollback", self._rollback, methods=["POST"]),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
            ],
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._session = engine_session()
        await asyncio.to_thread(self.releases.start)
        await asyncio.to_thread(self._spools.start, self.releases.watch.assistants())
        self._shadows.start()
        yield
        await self._shadows.stop()
        await asyncio.gather(*self._logging, return_exceptions=True)
        await self._session.close()
        await asyncio.to_thread(self._spools.stop)
        await asyncio.to_thread(self.releases.stop)
        self._threads.shutdown()
        self._shadow_threads.shutdown()

    async def _chat(self, http: Request) -> Response:
        started = time.perf_counter()
        request: ChatRequest = parse(ChatRequest, await _body(http))
        assistant = self.releases.assistant_of(request.model)
        spool = await self._spool(assistant)
        request_id = http.state.request_id
        try:
            served = self.releases.chosen(request.model, request.user)
            if served is None:
                served = await _while_connected(http, self._loaded(request.model))
        except LlmopsError as error:
            await spool.append("request", refused(request_id, assistant, request, status_of(error), error).to_payload())
            raise
        except (asyncio.CancelledError, ClientDisconnect):
            self._log_late(refused(request_id, assistant, request, CLIENT_CLOSED_REQUEST))
            raise
        if served.shadow:
            await self._shadows.offer(Copy(request_id, request, served.shadow))
        answer = Answer(request_id, request, served, self._session, self._threads)
        pieces = answer.pieces()
        try:
            first = await _while_connected(http, _begin(answer, pieces))
        except (asyncio.CancelledError, ClientDisconnect):
            self._log_late(answer.row(CLIENT_CLOSED_REQUEST))
            raise
        except Exception as error:  # a fault of the gateway itself is logged with the request, too
            if isinstance(error, EngineError):
                self.releases.engine_failed(served, error)
            await spool.append("request", answer.row(status_of(error), error).to_payload())
            raise
        headers = {
            "x-llmops-release": served.release.release_id,
            "openai-processing-ms": str(round((time.perf_counter() - started) * 1000)),
            "openai-version": "2020-10-01",
        }
        if request.stream:
            events = self._events(answer, first, pieces)
            return StreamingResponse(events, media_type="text/event-stream", headers=headers)
        await spool.append("request", answer.row(200).to_payload())
        body = completion_body(
            answer.request_id,
            request.model,
            answer.text,
            answer.finish_reason or "stop",
            answer.usage,
            answer.extension(),
        )
        return JSONResponse(body, headers=headers)

    async def _events(self, answer: Answer, first: str, pieces: AsyncIterator[str]) -> AsyncIterator[bytes]:
        """The events of a streamed answer; the last ones wait until the row is durable."""
        stream = Stream(answer.request_id, answer.request.model)
        options = answer.request.stream_options
        try:
            yield stream.opening()
            if first:
                yield stream.text(first)
            async for piece in pieces:
                yield stream.text(piece)
            answer.logged = True
            await self._spools.of(answer.served.assistant).append("request", answer.row(200).to_payload())
        except Exception as error:  # the status is out already, so whatever it is becomes an event
            log.warning("%s: %s", answer.request_id, error, exc_info=not isinstance(error, LlmopsError))
            if isinstance(error, EngineError):
                self.releases.engine_failed(answer.served, error)
            if not isinstance(error, SpoolError):
                self._log_late(answer.row(status_of(error), error))
            yield stream.error(error_of(error))
            return
        except (asyncio.CancelledError, GeneratorExit):
            if not answer.logged:
                self._log_late(answer.row(CLIENT_CLOSED_REQUEST))
            raise
        yield stream.closing(answer.finish_reason or "stop", answer.extension())
        if options and options.include_usage and answer.usage:
            yield stream.usage(answer.usage)
        yield stream.end()

    async def _spool(self, assistant: str) -> SpoolWriter:
        if not self._spools.is_open(assistant):
            return await asyncio.to_thread(self._spools.of, assistant)
        return self._spools.of(assistant)

    async def _loaded(self, model: str) -> Served:
        # Not in a thread that waits: the few there are would not be there for anybody else.
        return await asyncio.wrap_future(self.releases.load(model))

    async def _answer_copy(self, copy: Copy) -> RequestRow:
        return await answered(copy, self._session, self._shadow_threads, self.releases.engine_failed)

    async def _append(self, row: RequestRow) -> None:
        await self._spools.of(row.assistant).append("request", row.to_payload())

    def _log_late(self, row: RequestRow) -> None:
        """Log a request whose client has its error already or is gone, so that nobody waits for the row."""

        def appended(task: asyncio.Task[None]) -> None:
            self._logging.discard(task)
            if not task.cancelled() and (error := task.exception()):
                log.error("%s is not in the request log: %s", row.request_id, error)

        task = asyncio.get_running_loop().create_task(self._append(row))
        self._logging.add(task)
        task.add_done_callback(appended)

    async def _models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(name) for name in self.releases.models()]})

    async def _model(self, http: Request) -> Response:
        name = http.path_params["model"]
        if name not in self.releases.models():
            raise NotFoundError(f"There is no model {name!r}. Models are: {', '.join(self.releases.models())}")
        return JSONResponse(_model(name))

    async def _feedback(self, http: Request) -> Response:
        feedback: FeedbackRequest = parse(FeedbackRequest, await _body(http))
        if not feedback.says_something():
            raise InvalidRequestError(
                "The feedback says nothing: give thumbs, score, comment, corrected_answer or chunk_ratings."
            )
        row = await asyncio.to_thread(self._spools.find, feedback.request_id)
        unknown = set(feedback.chunk_ratings or {}) - {chunk["chunk_id"] for chunk in row["chunks"]}
        if unknown:
            raise InvalidRequestError(f"chunk_ratings: the answer was not made from {', '.join(sorted(unknown))}")
        said = FeedbackRow(
            feedback_id=uuid7(),
            assistant=row["assistant"],
            at=datetime.now(UTC),
            subject=LOCAL_SUBJECT,
            **feedback.model_dump(),
        )
        spool = await self._spool(row["assistant"])
        await spool.append("feedback", said.to_payload())
        return JSONResponse({"feedback_id": said.feedback_id, "request_id": said.request_id})

    async def _request(self, http: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(self._spools.find, http.path_params["request_id"]))

    async def _rollback(self, http: Request) -> Response:
        asked: RollbackRequest = parse(RollbackRequest, await _body(http))
        watch = self.releases.watch
        if asked.assistant not in watch.assistants():
            raise NotFoundError(
                f"There is no assistant {asked.assistant!r} here: {', '.join(watch.assistants()) or 'none'}"
            )
        release_id = await asyncio.to_thread(
            watch.roll_back, asked.assistant, asked.channel, asked.to, author=asked.author, reason=asked.reason
        )
        number = (await asyncio.to_thread(watch.fetch, asked.assistant, release_id))["number"]
        said = {"assistant": asked.assistant, "channel": asked.channel, "release_id": release_id, "number": number}
        return JSONResponse(said)

    async def _healthz(self, _: Request) -> Response:
        return JSONResponse({"status": "ok", "version": code_version()})

    async def _readyz(self, _: Request) -> Response:
        serving, spools = self.releases.serving(), self._spools.problems()
        away = self.releases.watch.away_since
        ready = bool(serving) and not spools
        known = self.releases.watch.assistants()
        body = {
            "status": "ready" if ready else "not ready" if known else "no assistant has a release yet: llmops build",
            "serving": serving,
            "behind": {name: asdict(behind) for name, behind in self.releases.behind().items()},
            "canary": self.releases.canaries(),
            "rollbacks": {
                assistant: [move.model_dump(mode="json") for move in waiting]
                for assistant, waiting in self.releases.watch.rollbacks().items()
            },
            "spool": spools,
            "home": str(self._settings.home),
            "lakehouse": f"away since {away.isoformat()}" if away else "ok",
        }
        return JSONResponse(body, status_code=200 if ready else 503)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "llmops"}


async def _begin(answer: Answer, pieces: AsyncIterator[str]) -> str:
    """Come as far as the first piece of a stream, or to the end of a whole answer; the first piece."""
    await answer.prepare()
    first = await anext(pieces, "")
    if not answer.request.stream:
        async for _ in pieces:
            pass
    return first


async def _while_connected(http: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do the work, and leave it when the client leaves; then raises `ClientDisconnect`."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(http))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        for task in (working, gone):
            task.cancel()
        # The work closes its connection to the engine before anything is logged of it.
        await asyncio.wait({working, gone})


async def _disconnected(http: Request) -> None:
    """Wait until the client is gone; its body has been read."""
    while (await http.receive())["type"] != "http.disconnect":
        pass


async def _body(http: Request) -> bytes:
    """The body, if it is JSON and not too long.

    Any web page can have its visitor's browser post a form or plain text to loopback, and JSON only if the server allows it.
    """
    media_type = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise HTTPException(415, f"The content type is {media_type or 'missing'}; send application/json.")
    parts: list[bytes] = []
    size = 0
    async for part in http.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise HTTPException(413, f"The body is longer than {MAX_BODY_BYTES} bytes.")
        parts.append(part)
    return b"".join(parts)
