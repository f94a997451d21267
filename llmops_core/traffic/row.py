"""The log row of a request and of a message of feedback: what the gateway writes and the lakehouse keeps.

A row holds everything that replaying the request and paying for it needs. Strict, since both sides are ours: an unknown
or missing key means that gateway and lakehouse run different versions, and a silent default would be a hole in the log.
"""

import base64
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import numpy as np

from llmops_core.errors import PermanentError

Json = Mapping[str, Any]

CLIENT_CLOSED_REQUEST = 499
"""Nginx's status of a request whose client left before the end: nobody reads it, but the log tells such requests from failures
and has what there was until then."""


@dataclass(frozen=True, kw_only=True)
class LoggedChunk:
    """A chunk that went to the prompt; its text is `document[char_start:char_end]` in the pinned snapshot."""

    chunk_id: str
    document_id: str
    title: str
    char_start: int
    char_end: int
    score: float
    rank: int
    """From 1."""

    def to_payload(self) -> dict[str, Any]:
        """The chunk as JSON."""
        return dict(vars(self))

    @classmethod
    def from_payload(cls, payload: Json) -> Self:
        """Read a chunk; raises `PermanentError` that names unknown or missing keys."""
        return cls(**_exactly(cls, payload))


@dataclass(frozen=True, kw_only=True)
class RequestRow:
    """One request that the gateway answered or refused. None: the request did not come that far."""

    request_id: str
    """UUIDv7."""
    assistant: str
    started_at: datetime
    """UTC, to the microsecond."""
    subject: str
    """Of the API key."""
    user: str
    model: str
    """As asked for."""
    release_id: str | None = None
    channel: str | None = None
    """How the release was chosen: prod, canary, staging, dev or pinned; shadow for a copy that no user sees."""
    experiment: str | None = None
    """The canary's experiment, if this request counts for one of its arms."""
    shadow_of: str | None = None
    """The request that this is a copy of."""
    status: int
    """HTTP."""
    error_type: str | None = None
    error_message: str | None = None
    stream: bool
    messages: Sequence[Json]
    """As received."""
    query: str | None = None
    """What was searched for."""
    query_vector: Sequence[float] | None = None
    """Embedding of `query`, float32; base64 of its little-endian bytes in JSON: exact, and a quarter of the digits."""
    embedder_revision: str | None = None
    index_version: str | None = None
    prompt_name: str | None = None
    prompt_version: int | None = None
    prompt_hash: str | None = None
    prompt: Sequence[Json] | None = None
    """The messages that were sent to the engine."""
    chunks: Sequence[LoggedChunk] = ()
    cut: Json | None = None
    """What the token budget took away: how many `chunks`, turns of `history`, `features`."""
    features: Json | None = None
    """View → `version` and `values`."""
    generator_model: str | None = None
    generator_revision: str | None = None
    adapter: str | None = None
    sampling: Json | None = None
    """`max_tokens`, `temperature`, `top_p`, `seed`, `stop`."""
    answer: str | None = None
    citations: Sequence[Json] = ()
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_basis: Json | None = None
    """`model`, `prompt_tokens`, `completion_tokens`, `engine_seconds`: cost follows from it under any price."""
    cache: Json | None = None
    routing: Json | None = None
    timings_ms: Mapping[str, float]
    """`retrieve`, `render`, `first_token`, `generate`, `total`."""
    reproducible: Json | None = None
    """`answer`: whether the engine promises the same again; `reason` if not."""
    code_version: str
    """Of the gateway."""
    lock_hash: str

    def to_payload(self) -> dict[str, Any]:
        """The row as JSON for the spool; `request_id` comes first."""
        payload = dict(vars(self))
        payload["started_at"] = _time_to_json(self.started_at)
        payload["query_vector"] = None if self.query_vector is None else _vector_to_json(self.query_vector)
        payload["chunks"] = [chunk.to_payload() for chunk in self.chunks]
        return payload

    @classmethod
    def from_payload(cls, payload: Json) -> Self:
        """Read a row from the spool; raises `PermanentError` that names unknown, missing or unreadable keys."""
        values = _exactly(cls, payload)
        values["started_at"] = _read(cls, payload, "started_at", _time_from_json)
        values["query_vector"] = _read(cls, payload, "query_vector", _vector_from_json)
        values["chunks"] = _read(cls, payload, "chunks", _chunks_from_json)
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class FeedbackRow:
    """What a person said of an answer; the last word of a request counts."""

    feedback_id: str
    """UUIDv7."""
    request_id: str
    assistant: str
    at: datetime
    """UTC, to the microsecond."""
    subject: str
    thumbs: int | None
    """-1 or 1."""
    score: float | None
    """0 to 1."""
    comment: str | None
    corrected_answer: str | None
    chunk_ratings: Mapping[str, int] | None
    """Chunk id → -1 or 1."""

    def to_payload(self) -> dict[str, Any]:
        """The row as JSON for the spool."""
        return {**vars(self), "at": _time_to_json(self.at)}

    @classmethod
    def from_payload(cls, payload: Json) -> Self:
        """Read a row from the spool; raises `PermanentError` that names unknown, missing or unreadable keys."""
        values = _exactly(cls, payload)
        values["at"] = _read(cls, payload, "at", _time_from_json)
        return cls(**values)


# Fields that came after a release of format 1 belong here (with a default): rows of older gateways lack them.
LATER_FIELDS: frozenset[str] = frozenset(("experiment", "shadow_of"))


def _exactly(row: type[Any], payload: Json) -> dict[str, Any]:
    """Copy a payload that has the keys of `row` and no others."""
    known = _KEYS[row]
    if payload.keys() != known:
        unknown, missing = payload.keys() - known, known - payload.keys() - LATER_FIELDS
        if unknown or missing:
            raise PermanentError(
                f"{row.__name__} {_id(payload)} does not fit: unknown keys {sorted(unknown)}, missing keys {sorted(missing)}."
                " Gateway and lakehouse run different versions of llmops: upgrade the older one, then ingest again."
            )
    return dict(payload)


def _read(row: type[Any], payload: Json, key: str, how: Callable[[Any], Any]) -> Any:
    """Convert one value; an error names row and key."""
    try:
        return how(payload[key])
    except (TypeError, ValueError, AttributeError) as error:
        raise PermanentError(f"{row.__name__} {_id(payload)}: {key} cannot be read: {error}") from error


def _id(payload: Json) -> str:
    return str(payload.get("feedback_id") or payload.get("request_id"))


def _time_to_json(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def _time_from_json(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return time.astimezone(UTC)


def _vector_to_json(vector: Sequence[float]) -> str:
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()


def _vector_from_json(text: str | None) -> list[float] | None:
    if text is None:
        return None
    numbers: list[float] = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").tolist()
    return numbers


def _chunks_from_json(chunks: Sequence[Json]) -> list[LoggedChunk]:
    return [LoggedChunk.from_payload(chunk) for chunk in chunks]


_KEYS: Mapping[type[Any], frozenset[str]] = {
    row: frozenset(field.name for field in dataclasses.fields(row)) for row in (LoggedChunk, RequestRow, FeedbackRow)
}
