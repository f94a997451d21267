"""Runs a logged request again: on its own release, index version and query vector, or on another release.

What it runs through is `LoadedRelease`, as in the gateway. On its own release the logged query and its logged vector are
searched with, so that neither a rewritten question nor the embedder can hide what else changed; whether the embedder still makes
that vector is told beside it. Another release is asked as the gateway would ask it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmops_core.answering.conversation import condense, read_conversation, read_message
from llmops_core.answering.loaded import LoadedRelease, ModelPool, load_release
from llmops_core.engines.chat import GenerationParams
from llmops_core.engines.client import EngineClient, engine_session
from llmops_core.engines.pool import Endpoint, EnginePool
from llmops_core.errors import PermanentError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.manifest import GeneratorPin, Release
from llmops_core.release.registry import Releases
from llmops_core.replay.compare import Comparison, Outcome, compare, logged_outcome
from llmops_core.settings import Settings
from llmops_core.traffic.row import CLIENT_CLOSED_REQUEST, RequestRow
from llmops_core.vectors.past import index_of_release
from llmops_core.version import code_version


@dataclass(frozen=True)
class QueryVector:
    """Whether embedding the query again gives the logged vector."""

    reproduced: bool
    largest_difference: float | None
    """Of two numbers in one place; None if the vectors have another length."""


@dataclass(frozen=True)
class Replay:
    """A request then and now."""

    request_id: str
    logged_release_id: str | None
    """Release that answered then."""
    release_id: str
    """Release that it was run on now."""
    then: Outcome
    now: Outcome
    comparison: Comparison
    query_vector: QueryVector | None
    """None where words alone are searched for, or no vector was logged."""
    index_version: str
    index_made: bool
    """Whether the index version had to be made anew from the lakehouse."""
    promised: Mapping[str, Any]
    """`answer`: whether the engine promised the same answer again; `reason` if not."""
    logged_code_version: str

    def to_dict(self) -> dict[str, Any]:
        """The JSON value."""
        return {
            "request_id": self.request_id,
            "release_id": self.release_id,
            "logged_release_id": self.logged_release_id,
            "identical": dict(self.comparison.identical),
            "differences": [asdict(difference) for difference in self.comparison.differences],
            "query_vector": asdict(self.query_vector) if self.query_vector else None,
            "index": {"version": self.index_version, "made_anew": self.index_made},
            "promised": dict(self.promised),
            "then": {**_shown(self.then), "code_version": self.logged_code_version},
            "now": {**_shown(self.now), "code_version": code_version()},
        }


def _shown(outcome: Outcome) -> dict[str, Any]:
    return {
        "chunks": [{"chunk_id": chunk_id, "score": score} for chunk_id, score in outcome.chunks or ()],
        "prompt": None if outcome.prompt is None else [asdict(message) for message in outcome.prompt],
        "answer": outcome.answer,
        "error": outcome.error or None,
    }


@dataclass(frozen=True)
class _Ready:
    """A release that can be asked again."""

    release: Release
    loaded: LoadedRelease
    index_made: bool


class Replayer:
    """Replays requests of one assistant; releases and models are loaded once. One replay at a time."""

    def __init__(self, lakehouse: Lakehouse, settings: Settings, assistant: str, engines: EnginePool) -> None:
        self._lakehouse = lakehouse
        self._settings = settings
        self._releases = Releases(lakehouse, assistant)
        self._engines = engines
        self._models = ModelPool(settings)
        self._ready: dict[str, _Ready] = {}

    def replay(self, row: RequestRow, release: str | None = None, *, answer: bool = True) -> Replay:
        """Run a request again, on its own release or on `release`; without `answer`, as far as the prompt.

        What the request itself brings about, an error too, is part of the outcome. Raises `PermanentError` for a request that
        came to no release, `NotFoundError` if the index is no longer retained, `ModelError`.
        """
        if row.release_id is None and release is None:
            why = f"{row.status} {row.error_type}: {row.error_message}" if row.error_type else "its client left"
            raise PermanentError(
                f"Request {row.request_id} came to no release ({why}), so there is nothing to run again. To hear what a release"
                " answers, name one: llmops replay … --release RELEASE"
            )
        ready = self._load(release or str(row.release_id))
        is_own = ready.release.release_id == row.release_id
        params = self._params(row, ready)
        now = asyncio.run(self._run(row, ready, params, is_own=is_own, answer=answer))
        then = logged_outcome(row)
        return Replay(
            request_id=row.request_id,
            logged_release_id=row.release_id,
            release_id=ready.release.release_id,
            then=then,
            now=now,
            comparison=compare(then, now, client_left=row.status == CLIENT_CLOSED_REQUEST),
            query_vector=_embedded_again(row, ready.loaded) if is_own else None,
            index_version=ready.release.manifest.index.version,
            index_made=ready.index_made,
            promised=row.reproducible or {"answer": False, "reason": "the log does not say"},
            logged_code_version=row.code_version,
        )

    def _load(self, reference: str) -> _Ready:
        if reference not in self._ready:
            release = self._releases.get(reference)
            index = index_of_release(self._lakehouse, self._settings, release)
            prompt = self._releases.prompt_text(release)
            loaded = load_release(self._settings, self._models, release.manifest, prompt)
            self._ready[reference] = _Ready(release, loaded, index.made)
        return self._ready[reference]

    async def _run(
        self, row: RequestRow, ready: _Ready, params: GenerationParams, *, is_own: bool, answer: bool
    ) -> Outcome:
        """The way of the gateway's `Answer`, with what is logged put in where it is the release's own."""
        loaded, found = ready.loaded, Outcome(asked=answer)
        async with engine_session() as session:
            try:
                conversation = read_conversation([read_message(message) for message in row.messages])
                query, vector = conversation.question, None
                if is_own:
                    query, vector = row.query or query, _logged_vector(row)
                elif asks := loaded.condensing(conversation):
                    endpoint = self._endpoint(ready.release.manifest.generator)
                    query = (await condense(_client(endpoint, session), asks)).text or query
                hits = loaded.retrieve(query, vector=vector).hits
                rendered = loaded.render(conversation, hits, _features(row), params.max_tokens)
                chunks = tuple((hit.chunk_id, hit.score) for hit in rendered.chunks)
                found = Outcome(chunks, rendered.messages, asked=answer)
                if not answer:
                    return found
                endpoint = self._endpoint(ready.release.manifest.generator)
                completion = await _client(endpoint, session).complete(rendered.messages, params)
                return Outcome(chunks, rendered.messages, completion.text)
            except Exception as error:  # as the gateway logs it, a fault of its own included
                return Outcome(
                    found.chunks, found.prompt, error_type=type(error).__name__, error_message=str(error), asked=answer
                )

    def _endpoint(self, pin: GeneratorPin) -> Endpoint:
        """The engine of a release; others that were started for the requests before are ended."""
        self._engines.keep({pin.revision})
        return self._engines.endpoint(pin)

    def _params(self, row: RequestRow, ready: _Ready) -> GenerationParams:
        """How the answer was sampled; on another release, its own parameters where the request gave none.

        The log has the parameters as they were used: one that is the logged release's own counts as not given.
        """
        own = ready.release.manifest.generator.params.model_dump()
        used = dict(row.sampling or {})
        if row.release_id not in (None, ready.release.release_id):
            defaults = self._releases.get(str(row.release_id)).manifest.generator.params.model_dump()
            used = {name: value for name, value in used.items() if defaults.get(name, ...) != value}
        merged = {**own, **used}
        return GenerationParams(**{**merged, "stop": tuple(merged.get("stop") or ())})


def _client(endpoint: Endpoint, session: Any) -> EngineClient:
    return EngineClient(endpoint.base_url, endpoint.model, endpoint.api_key, session)


def _logged_vector(row: RequestRow) -> NDArray[np.float32] | None:
    return None if row.query_vector is None else np.asarray(row.query_vector, dtype=np.float32)


def _features(row: RequestRow) -> dict[str, Any]:
    return {view: feature["values"] for view, feature in (row.features or {}).items()}


def _embedded_again(row: RequestRow, loaded: LoadedRelease) -> QueryVector | None:
    logged = _logged_vector(row)
    if logged is None or row.query is None:
        return None
    again = loaded.embed(row.query)
    if again is None or again.shape != logged.shape:
        return QueryVector(reproduced=False, largest_difference=None)
    largest = float(np.abs(again - logged).max())
    return QueryVector(reproduced=bool(np.array_equal(again, logged)), largest_difference=largest)
