"""Speaks to any OpenAI-compatible server; all answers come as a stream, whole ones are put together here.

What the server refuses because of the request is an `InvalidRequestError` (or `ContextOverflowError`); everything that is the
server's own trouble is an `EngineError`, which may pass.
"""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Any

import aiohttp

from llmops_core.engines.chat import Completion, Delta, GenerationParams, Message, Usage
from llmops_core.errors import ContextOverflowError, EngineError, InvalidRequestError

CONNECT_TIMEOUT_S = 5.0
# A long prompt on a slow machine takes minutes before its first token.
IDLE_TIMEOUT_S = 300.0
SHOWN_OF_AN_ERROR = 500


class EngineClient:
    """A generator at an address; the session belongs to the caller."""

    def __init__(self, base_url: str, model: str, api_key: str | None, session: aiohttp.ClientSession) -> None:
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._model = model
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session = session

    async def stream(self, messages: Sequence[Message], params: GenerationParams) -> AsyncIterator[Delta]:
        """Answer piece by piece; closing the iterator early stops the engine."""
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
                    raise _refusal(self._url, reply.status, await reply.text())
                ended = False
                async for data in _events(reply.content):
                    if data == "[DONE]":
                        ended = True
                        break
                    delta = _delta(self._url, data)
                    ended = ended or delta.finish_reason is not None
                    yield delta
                if not ended:
                    raise EngineError(f"The engine at {self._url} ended its answer in the middle.")
        except (TimeoutError, aiohttp.ClientError) as error:
            reason = str(error) or type(error).__name__
            raise EngineError(f"The engine at {self._url} does not answer: {reason}. Is it running?") from error

    async def complete(self, messages: Sequence[Message], params: GenerationParams) -> Completion:
        """Answer as a whole."""
        text, finish_reason, usage = [], "stop", Usage(0, 0)
        async for delta in self.stream(messages, params):
            text.append(delta.text)
            finish_reason = delta.finish_reason or finish_reason
            usage = delta.usage or usage
        return Completion("".join(text), finish_reason, usage)


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[str]:
    """The data of server-sent events; frames may be split anywhere, comments and other fields are passed over."""
    pending = b""
    async for piece in content.iter_any():
        pending += piece
        *lines, pending = pending.split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip().decode("utf-8", "replace")
    if pending.startswith(b"data:"):
        yield pending[5:].strip().decode("utf-8", "replace")


def _delta(url: str, data: str) -> Delta:
    try:
        value = json.loads(data)
        if "error" in value:
            raise EngineError(f"The engine at {url} failed: {str(value['error'])[:SHOWN_OF_AN_ERROR]}")
        usage = value.get("usage")
        choice: dict[str, Any] = value["choices"][0] if value.get("choices") else {}
        return Delta(
            (choice.get("delta") or {}).get("content") or "",
            choice.get("finish_reason"),
            Usage(usage["prompt_tokens"], usage["completion_tokens"]) if usage else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise EngineError(f"The engine at {url} sent what is no chat chunk: {data[:SHOWN_OF_AN_ERROR]}") from error


def _refusal(url: str, status: int, text: str) -> Exception:
    """The error that an HTTP status stands for."""
    message = text[:SHOWN_OF_AN_ERROR]
    try:
        error = json.loads(text)["error"]
        message, code = str(error["message"]), error.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        code = None
    if code == "context_length_exceeded" or "context length" in message:
        return ContextOverflowError(message)
    if status in {400, 413, 422}:
        return InvalidRequestError(f"The engine refuses the request: {message}")
    if status in {401, 403}:
        return EngineError(
            f"The engine at {url} refuses the key (HTTP {status}): {message}. Look at generator.api_key_env."
        )
    return EngineError(f"The engine at {url} answers HTTP {status}: {message}")
