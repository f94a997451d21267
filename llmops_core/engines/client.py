"""Speaks to any OpenAI-compatible server; all answers come as a stream, whole ones are put together here.

What the server refuses because of the request is an `InvalidRequestError` (or `ContextOverflowError`); everything that is the
server's own trouble is an `EngineError`, which may pass.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import aiohttp

from llmops_core.engines.chat import Completion, Delta, GenerationParams, Message, Usage
from llmops_core.errors import ContextOverflowError, EngineError, InvalidRequestError, LlmopsError
from llmops_core.models.tokens import valid_unicode

# Uvicorn, and so vLLM and the local engine, closes a connection that is idle for 5 s. If it does so while the next
# request is on its way, that fails: the client has to be the first to close.
KEEP_ALIVE_S = 4.0
CONNECT_TIMEOUT_S = 5.0
# A long prompt on a slow machine takes minutes before its first token.
IDLE_TIMEOUT_S = 300.0
# How long the end of the body may come after the last event before the connection is given up instead of used again.
END_OF_BODY_TIMEOUT_S = 0.5
SHOWN_OF_AN_ERROR = 500
# How servers say that a request is too long: OpenAI and vLLM; llama.cpp; Ollama and others.
OVERFLOW_CODES = {"context_length_exceeded", "exceed_context_size_error"}
OVERFLOW_WORDS = ("context length", "context size", "context window")


class UnknownModelError(EngineError):
    """The server does not know the model: it may have been started again without its adapters."""


def engine_session() -> aiohttp.ClientSession:
    """A session for clients of any number of engines; the caller closes it."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S))


class EngineClient:
    """A generator at an address; the session belongs to the caller."""

    def __init__(self, base_url: str, model: str, api_key: str | None, session: aiohttp.ClientSession) -> None:
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._model = model
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session = session

    async def stream(self, messages: Sequence[Message], params: GenerationParams) -> AsyncGenerator[Delta]:
        """Answer piece by piece; closing the iterator early closes the connection, which stops the engine.

        Raises `InvalidRequestError`, `ContextOverflowError`, `UnknownModelError` or another `EngineError`.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=IDLE_TIMEOUT_S)
        body = {
            "model": self._model,
            "messages": [asdict(message) for message in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": params.max_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
            **({"seed": params.seed} if params.seed is not None else {}),
            **({"stop": list(params.stop)} if params.stop else {}),
        }
        try:
            async with self._session.post(self._url, json=body, headers=self._headers, timeout=timeout) as reply:
                if reply.status != 200:
                    raise _refusal(self._url, reply.status, await reply.text(errors="replace"))
                if reply.content_type != "text/event-stream":
                    raise EngineError(
                        f"The engine at {self._url} answers with {reply.content_type}, not with a stream."
                    )
                ended = False
                async for data in _events(reply.content):
                    if data == "[DONE]":
                        ended = True
                        await _read_to_the_end(reply.content)
                        break
                    delta = _delta(self._url, data)
                    ended = ended or delta.finish_reason is not None
                    yield delta
                if not ended:
                    raise EngineError(f"The engine at {self._url} ended its answer in the middle.")
        except (OSError, aiohttp.ClientError) as error:
            reason = str(error) or type(error).__name__
            raise EngineError(f"The engine at {self._url} does not answer: {reason}. Is it running?") from error

    async def complete(self, messages: Sequence[Message], params: GenerationParams) -> Completion:
        """Answer as a whole."""
        text, finish_reason, usage = list[str](), "stop", None
        async for delta in self.stream(messages, params):
            text.append(delta.text)
            finish_reason = delta.finish_reason or finish_reason
            usage = delta.usage or usage
        return Completion("".join(text), finish_reason, usage)


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[str]:
    """The data of server-sent events; frames may be split anywhere, comments and other fields are passed over.

    A line is an event: no server of this kind spreads one JSON value over several `data:` lines.
    """
    pending = b""
    async for piece in content.iter_any():
        *lines, pending = (pending + piece).split(b"\n")
        for line in lines:
            if data := _data(line):
                yield data
    if data := _data(pending):
        yield data


def _data(line: bytes) -> str:
    return line[5:].strip().decode("utf-8", "replace") if line.startswith(b"data:") else ""


async def _read_to_the_end(content: aiohttp.StreamReader) -> None:
    """Read past the last event, so that the connection can carry the next request."""
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(END_OF_BODY_TIMEOUT_S):
            while not content.at_eof():
                await content.readany()


def _delta(url: str, data: str) -> Delta:
    try:
        value = json.loads(data)
        if value.get("error"):
            raise EngineError(f"The engine at {url} failed: {str(value['error'])[:SHOWN_OF_AN_ERROR]}")
        usage = value.get("usage")
        choice: dict[str, Any] = value["choices"][0] if value.get("choices") else {}
        return Delta(
            # Some servers cut a pair of surrogates in two; halves can neither be sent on nor logged.
            valid_unicode((choice.get("delta") or {}).get("content") or ""),
            choice.get("finish_reason"),
            Usage(int(usage["prompt_tokens"]), int(usage["completion_tokens"])) if usage else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise EngineError(f"The engine at {url} sent what is no chat chunk: {data[:SHOWN_OF_AN_ERROR]}") from error


def _refusal(url: str, status: int, text: str) -> LlmopsError:
    """The error that an HTTP status stands for."""
    message, codes = text[:SHOWN_OF_AN_ERROR], set[str]()
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        error = json.loads(text)["error"]
        message, codes = str(error["message"]), {str(error.get("code")), str(error.get("type"))}
    if status in {400, 413, 422}:
        if codes & OVERFLOW_CODES or any(words in message for words in OVERFLOW_WORDS):
            return ContextOverflowError(message)
        return InvalidRequestError(f"The engine refuses the request: {message}")
    if status in {401, 403}:
        return EngineError(
            f"The engine at {url} refuses the key (HTTP {status}): {message}. The key is read from the variable that"
            " generator.api_key_env names in assistant.yaml."
        )
    kind = UnknownModelError if status == 404 else EngineError
    return kind(f"The engine at {url} answers HTTP {status}: {message}")
