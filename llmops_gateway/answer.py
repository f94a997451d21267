"""One request on its way: retrieve → render → generate, and the log row that tells it all."""

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import aiohttp

from llmops_core.answering.citations import Citation, cite
from llmops_core.answering.conversation import condense, read_conversation
from llmops_core.answering.loaded import Retrieved
from llmops_core.engines.chat import Usage
from llmops_core.engines.client import EngineClient
from llmops_core.errors import LlmopsError
from llmops_core.prompts.budget import Rendered
from llmops_core.release.manifest import GeneratorPin
from llmops_core.traffic.row import LoggedChunk, RequestRow
from llmops_core.version import code_version, lock_hash
from llmops_gateway.protocol import ChatRequest
from llmops_gateway.releases import Served


class Answer:
    """Answers one request on one release; every field that the log needs is kept as it becomes known."""

    def __init__(
        self, request_id: str, request: ChatRequest, served: Served, session: aiohttp.ClientSession, threads: Executor
    ) -> None:
        self.request_id = request_id
        self.request = request
        self.served = served
        self._threads = threads
        self._client = EngineClient(served.endpoint.base_url, served.endpoint.model, served.endpoint.api_key, session)
        pin = served.release.manifest.generator.params
        self._params = request.params(pin.max_tokens, pin.temperature, pin.top_p)
        self._started_at = datetime.now(UTC)
        self._clock = time.perf_counter()
        self._timings: dict[str, float] = {}
        self._query: str | None = None
        self._condensing: Usage | None = None
        self._retrieved: Retrieved | None = None
        self._rendered: Rendered | None = None
        self._pieces: list[str] = []
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self.logged = False
        """Whether the row of a whole answer is on its way: then a client that leaves makes no second one."""

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._pieces)

    async def prepare(self) -> None:
        """Find the chunks and make the prompt; raises `InvalidRequestError`, `ContextOverflowError`, …"""
        release = self.served.release
        conversation = read_conversation([message.to_message() for message in self.request.messages])
        self._query = conversation.question
        loop = asyncio.get_running_loop()
        # A long conversation takes seconds to count.
        if asks := await loop.run_in_executor(self._threads, release.condensing, conversation):
            started = time.perf_counter()
            condensed = await condense(self._client, asks)
            self._query = condensed.text or conversation.question
            self._condensing = condensed.usage
            self._timings["condense"] = _ms_since(started)
        self._retrieved = await loop.run_in_executor(self._threads, release.retrieve, self._query)
        self._timings["retrieve"] = self._retrieved.milliseconds
        started = time.perf_counter()
        self._rendered = await loop.run_in_executor(
            self._threads, release.render, conversation, self._retrieved.hits, {}, self._params.max_tokens
        )
        self._timings["render"] = _ms_since(started)

    async def pieces(self) -> AsyncIterator[str]:
        """The answer piece by piece; raises `EngineError` or `InvalidRequestError`."""
        assert self._rendered
        started = time.perf_counter()
        try:
            # Closed at once when the client leaves, so that the engine stops decoding then and not at some later collection.
            async with aclosing(self._client.stream(self._rendered.messages, self._params)) as deltas:
                async for delta in deltas:
                    self.finish_reason = delta.finish_reason or self.finish_reason
                    self.usage = delta.usage or self.usage
                    if delta.text:
                        self._timings.setdefault("first_token", _ms_since(self._clock))
                        self._pieces.append(delta.text)
                        yield delta.text
        finally:
            self._timings["generate"] = _ms_since(started)

    def citations(self) -> list[Citation]:
        """The chunks that the answer rests on."""
        return cite(self.text, self._rendered.chunks) if self._rendered else []

    def extension(self) -> dict[str, Any]:
        """The `llmops` part of a response: what the answer was made from."""
        cited = {citation.chunk_id: citation for citation in self.citations()}
        chunks = self._rendered.chunks if self._rendered else ()
        return {
            "request_id": self.request_id,
            "release_id": self.served.release.release_id,
            "chunks": [
                {
                    **asdict(hit),
                    "number": number,
                    "cited": cited[hit.chunk_id].by if hit.chunk_id in cited else None,
                }
                for number, hit in enumerate(chunks, start=1)
            ],
            "cut": self._rendered.cut if self._rendered else {},
        }

    def row(self, status: int, error: Exception | None = None) -> RequestRow:
        """The log row of the request as it ended."""
        manifest = self.served.release.manifest
        rendered, retrieved = self._rendered, self._retrieved
        total = _ms_since(self._clock)
        vector = retrieved.query_vector if retrieved else None
        # What the engine was paid for; the answer's own tokens have fields of their own.
        paid = [usage for usage in (self._condensing, self.usage) if usage]
        return RequestRow(
            request_id=self.request_id,
            assistant=self.served.assistant,
            started_at=self._started_at,
            # Without API keys everybody on loopback is the one local admin, who may name any user.
            subject=LOCAL_SUBJECT,
            user=self.request.user or LOCAL_SUBJECT,
            model=self.request.model,
            release_id=self.served.release.release_id,
            channel=self.served.channel,
            experiment=self.served.experiment,
            routing={"instead_of_canary": self.served.instead} if self.served.instead else None,
            status=status,
            error_type=type(error).__name__ if error else None,
            error_message=str(error) if error else None,
            stream=self.request.stream,
            messages=_received(self.request),
            query=self._query,
            query_vector=vector.tolist() if vector is not None else None,
            embedder_revision=manifest.embedder.revision if vector is not None else None,
            index_version=manifest.index.version,
            prompt_name=manifest.prompt.name,
            prompt_version=manifest.prompt.version,
            prompt_hash=manifest.prompt.hash,
            prompt=[asdict(message) for message in rendered.messages] if rendered else None,
            chunks=_logged_chunks(rendered),
            cut=rendered.cut if rendered else None,
            generator_model=manifest.generator.model,
            generator_revision=manifest.generator.revision,
            adapter=manifest.generator.adapter,
            sampling=asdict(self._params),
            answer=self.text if self._pieces or self.finish_reason else None,
            citations=[asdict(citation) for citation in self.citations()],
            finish_reason=self.finish_reason,
            prompt_tokens=self.usage.prompt_tokens if self.usage else None,
            completion_tokens=self.usage.completion_tokens if self.usage else None,
            cost_basis={
                "model": manifest.generator.model,
                "prompt_tokens": sum(usage.prompt_tokens for usage in paid) if paid else None,
                "completion_tokens": sum(usage.completion_tokens for usage in paid) if paid else None,
                "engine_seconds": (self._timings.get("condense", 0.0) + self._timings.get("generate", 0.0)) / 1000,
            },
            timings_ms={**{k: round(v, 3) for k, v in self._timings.items()}, "total": round(total, 3)},
            reproducible=_reproducible(manifest.generator, self._params.temperature, self._params.seed),
            code_version=code_version(),
            lock_hash=lock_hash(),
        )


LOCAL_SUBJECT = "local"


def refused(
    request_id: str, assistant: str, request: ChatRequest, status: int, error: LlmopsError | None = None
) -> RequestRow:
    """The log row of a request that found no release to answer it."""
    return RequestRow(
        request_id=request_id,
        assistant=assistant,
        started_at=datetime.now(UTC),
        subject=LOCAL_SUBJECT,
        user=request.user or LOCAL_SUBJECT,
        model=request.model,
        status=status,
        error_type=type(error).__name__ if error else None,
        error_message=str(error) if error else None,
        stream=request.stream,
        messages=_received(request),
        timings_ms={},
        code_version=code_version(),
        lock_hash=lock_hash(),
    )


def _received(request: ChatRequest) -> list[dict[str, Any]]:
    return [message.model_dump() for message in request.messages]


def _logged_chunks(rendered: Rendered | None) -> list[LoggedChunk]:
    return [
        LoggedChunk(
            chunk_id=hit.chunk_id,
            document_id=hit.document_id,
            title=hit.title,
            char_start=hit.char_start,
            char_end=hit.char_end,
            score=hit.score,
            rank=rank,
        )
        for rank, hit in enumerate(rendered.chunks if rendered else (), start=1)
    ]


def _reproducible(pin: GeneratorPin, temperature: float, seed: int | None) -> dict[str, Any]:
    if pin.engine != "local":
        return {"answer": False, "reason": "a remote engine batches requests and does not promise the same again"}
    if temperature > 0 and seed is None:
        return {"answer": False, "reason": "sampled without a seed"}
    return {"answer": True, "reason": None}


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
