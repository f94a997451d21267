"""OpenAI's wire format: what a request may say, how answers, chunks and errors look.

Validation is strict about what would change the answer: an option that the gateway does not carry out is refused by name,
since an answer that silently ignored it would be wrong.
"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llmops_core.answering.conversation import read_message
from llmops_core.engines.chat import GenerationParams, Message, Usage
from llmops_core.errors import InvalidRequestError

MAX_BODY_BYTES = 4 * 1024 * 1024


class Strict(BaseModel):
    """Refuses keys that it does not know. A key that is null counts as not given, as in OpenAI's API."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data


class TextPart(Strict):
    """A part of a message's content; only text is understood."""

    type: Literal["text"]
    text: str


class ChatMessage(Strict):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    def to_message(self) -> Message:
        """The turn as engines take it."""
        return read_message(self.model_dump())


class StreamOptions(Strict):
    """Options of a stream."""

    include_usage: bool = False


class ChatRequest(Strict):
    """Body of `POST /v1/chat/completions`."""

    model: str
    """Required: which release answers."""
    messages: list[ChatMessage]
    """Required: the turns of the conversation, the user's question last."""
    stream: bool = False
    """Whether the answer comes piece by piece, as server-sent events."""
    stream_options: StreamOptions | None = None
    """`{"include_usage": true}`: the stream ends with the token counts."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens that the answer may have; the release's own limit if not given."""
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """The newer name of `max_tokens`; wins over it."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0 to 2; the release's if not given. 0 takes the most probable token each time."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Above 0, up to 1; the release's if not given."""
    seed: int | None = None
    """Makes sampling repeatable where the engine can."""
    stop: str | list[str] | None = None
    """A text, or several, before which the answer ends."""
    n: Literal[1] | None = None
    """1: there is one answer."""
    user: str | None = None
    """On whose behalf it is asked; goes to the log as it is, and draws who meets a canary."""
    store: Literal[False] | None = None
    """Only `false`: nothing is stored for other APIs of OpenAI's. The log is kept all the same."""

    def params(self, max_tokens: int, temperature: float, top_p: float) -> GenerationParams:
        """Sampling parameters: the request's where it has them, else the release's."""
        asked = self.max_completion_tokens or self.max_tokens
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return GenerationParams(
            max_tokens=asked or max_tokens,
            temperature=temperature if self.temperature is None else self.temperature,
            top_p=top_p if self.top_p is None else self.top_p,
            seed=self.seed,
            stop=stop,
        )


class RollbackRequest(Strict):
    """Body of `POST /admin/rollback`."""

    assistant: str
    """Required: the assistant."""
    channel: Literal["dev", "staging", "prod"] = "prod"
    """The channel that goes back; `prod` if not given."""
    to: str | None = None
    """A release that the channel had before: a number, an id, or its first 8 or more characters; the one before if not given."""
    author: str = "local"
    """Who decides."""
    reason: str = ""
    """Why."""


class FeedbackRequest(Strict):
    """Body of `POST /v1/feedback`."""

    request_id: str
    """Required: `id` of the answer."""
    thumbs: Literal[-1, 1] | None = None
    """1 for a good answer, -1 for a bad one."""
    score: Annotated[float, Field(ge=0, le=1)] | None = None
    """0 to 1."""
    comment: Annotated[str, Field(max_length=10_000)] | None = None
    """At most 10,000 characters."""
    corrected_answer: Annotated[str, Field(max_length=50_000)] | None = None
    """What the answer should have been; at most 50,000 characters."""
    chunk_ratings: dict[str, Literal[-1, 1]] | None = None
    """`chunk_id` of chunks of the answer → 1 or -1."""

    def says_something(self) -> bool:
        """Whether there is anything in it but the request's id."""
        return any(v is not None for k, v in self.model_dump().items() if k != "request_id")


def parse(model: type[BaseModel], body: bytes) -> Any:
    """Read a body; raises `InvalidRequestError` that names the field and what is allowed."""
    try:
        return model.model_validate_json(body or b"null")
    except ValidationError as error:
        raise InvalidRequestError("; ".join(_problem(e) for e in error.errors())) from error


def _problem(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "body"
    if error["type"] == "extra_forbidden":
        return f"{where}: is not supported by this gateway; leave it out"
    return f"{where}: {error['msg']}"


def error_body(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's form."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def completion_body(
    request_id: str,
    model: str,
    text: str,
    finish_reason: str,
    usage: Usage | None,
    extension: Mapping[str, Any],
) -> dict[str, Any]:
    """A whole answer; `llmops` is our own part: release, chunks and citations. Not every engine counts tokens."""
    return {
        "id": request_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "finish_reason": finish_reason,
                "logprobs": None,
            }
        ],
        "usage": usage_body(usage) if usage else None,
        "llmops": extension,
    }


def usage_body(usage: Usage) -> dict[str, int]:
    """Token counts."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


class Stream:
    """Makes the server-sent events of one streamed answer."""

    def __init__(self, request_id: str, model: str) -> None:
        self._base = {
            "id": request_id,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }

    def opening(self) -> bytes:
        """The first chunk, which names the role."""
        return self._chunk([_choice({"role": "assistant", "content": ""})])

    def text(self, text: str) -> bytes:
        """A piece of the answer."""
        return self._chunk([_choice({"content": text})])

    def closing(self, finish_reason: str, extension: Mapping[str, Any]) -> bytes:
        """The chunk that ends the answer."""
        return self._chunk([_choice({}, finish_reason)], llmops=extension)

    def usage(self, usage: Usage) -> bytes:
        """The chunk with the token counts, for a client that asked for it."""
        return self._chunk([], usage=usage_body(usage))

    def error(self, body: Mapping[str, Any]) -> bytes:
        """An error in mid-stream."""
        return _event(body)

    def end(self) -> bytes:
        """What ends the stream."""
        return b"data: [DONE]\n\n"

    def _chunk(self, choices: Sequence[Mapping[str, Any]], **more: Any) -> bytes:
        return _event({**self._base, "choices": choices, **more})


def _choice(delta: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
