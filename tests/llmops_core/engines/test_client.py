"""The client against a real socket that plays servers as they are in the wild, byte for byte."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
import pytest

from llmops_core.engines import client as client_module
from llmops_core.engines.chat import Completion, GenerationParams, Message, Usage
from llmops_core.engines.client import EngineClient, UnknownModelError, engine_session
from llmops_core.errors import ContextOverflowError, EngineError, InvalidRequestError, LlmopsError

T = TypeVar("T")
QUESTION = [Message("user", "Why?")]
PARAMS = GenerationParams(max_tokens=8, temperature=0.0, top_p=1.0)
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


@dataclass
class Upstream:
    """Answers every request with the same pieces of bytes, each in a packet of its own; keeps what it was sent."""

    pieces: Sequence[bytes]
    hang: bool = False
    """Whether it keeps the connection open after the pieces, until the client closes it."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    connections: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client has closed a connection."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await _head(reader):
                self.headers.append(head)
                self.requests.append(json.loads(await reader.readexactly(_length(head))))
                for piece in self.pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if not self.hang and b"Connection: close" in self.pieces[0]:
                    break
            self.left.set()
        finally:
            writer.close()


async def _head(reader: asyncio.StreamReader) -> str:
    try:
        return (await reader.readuntil(b"\r\n\r\n")).decode()
    except (asyncio.IncompleteReadError, ConnectionError):
        return ""


def _length(head: str) -> int:
    return next(int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-length"))


def _chunk(text: str, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return f"data: {json.dumps({'choices': [choice]}, ensure_ascii=False)}\n\n".encode()


USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}\n\n'
DONE = b"data: [DONE]\n\n"


@asynccontextmanager
async def _client(upstream: Upstream, api_key: str | None = None) -> AsyncIterator[EngineClient]:
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with engine_session() as session:
        yield EngineClient(f"http://127.0.0.1:{port}/v1", "small", api_key, session)
    server.close()


def _ask(upstream: Upstream, use: Callable[[EngineClient], Awaitable[T]], api_key: str | None = None) -> T:
    async def ask() -> T:
        async with _client(upstream, api_key) as client:
            return await asyncio.wait_for(use(client), 30)

    return asyncio.run(ask())


def _complete(*pieces: bytes) -> Completion:
    return _ask(Upstream(pieces), lambda client: client.complete(QUESTION, PARAMS))


def _error(*pieces: bytes) -> LlmopsError:
    with pytest.raises(LlmopsError) as caught:
        _complete(*pieces)
    return caught.value


def _refusal(status: int, body: str) -> LlmopsError:
    data = body.encode()
    return _error(b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (status, len(data), data))


def test_an_answer_is_put_together_with_its_end_and_its_tokens() -> None:
    answer = _complete(STREAM, _chunk("Be"), _chunk("cause", "stop"), USAGE, DONE)
    assert answer == Completion("Because", "stop", Usage(5, 2))


def test_frames_may_be_split_at_every_byte() -> None:
    body = _chunk("naïve 日本 ") + _chunk("🙂", "length") + USAGE + DONE
    answer = _complete(STREAM, *(body[i : i + 1] for i in range(len(body))))
    assert answer == Completion("naïve 日本 🙂", "length", Usage(5, 2))


def test_carriage_returns_comments_other_fields_and_empty_events_are_passed_over() -> None:
    frames = [b": keep-alive\n\n", b"event: x\nid: 1\nretry: 5\n", b"data:\n\n", _chunk("a"), _chunk("b", "stop"), DONE]
    assert _complete(STREAM, *(frame.replace(b"\n", b"\r\n") for frame in frames)).text == "ab"


def test_a_space_after_the_colon_is_optional() -> None:
    assert _complete(STREAM, _chunk("a", "stop").replace(b"data: ", b"data:"), b"data:[DONE]\n\n").text == "a"


def test_a_last_event_without_a_line_end_counts() -> None:
    assert _complete(STREAM, _chunk("a"), _chunk("b", "stop").rstrip(), b"").text == "ab"


def test_an_answer_without_usage_counts_no_tokens() -> None:
    assert _complete(STREAM, _chunk("a", "stop"), DONE).usage is None


def test_the_request_carries_model_parameters_and_key() -> None:
    upstream = Upstream([STREAM, _chunk("a", "stop"), DONE])
    params = GenerationParams(9, 0.5, 0.9, seed=7, stop=("\n", "END"))
    _ask(upstream, lambda client: client.complete(QUESTION, params), api_key="secret")
    assert upstream.requests == [
        {
            "model": "small",
            "messages": [{"role": "user", "content": "Why?"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 9,
            "temperature": 0.5,
            "top_p": 0.9,
            "seed": 7,
            "stop": ["\n", "END"],
        }
    ]
    assert "Authorization: Bearer secret" in upstream.headers[0]


def test_seed_stop_and_key_are_left_out_when_there_are_none() -> None:
    upstream = Upstream([STREAM, _chunk("a", "stop"), DONE])
    _ask(upstream, lambda client: client.complete(QUESTION, PARAMS))
    assert not {"seed", "stop"} & upstream.requests[0].keys()
    assert "Authorization" not in upstream.headers[0]


def test_a_connection_is_used_again_after_a_whole_stream() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = _chunk("a", "stop") + DONE
    upstream = Upstream([head, b"%x\r\n%s\r\n" % (len(body), body), b"0\r\n\r\n"])

    async def twice(client: EngineClient) -> list[str]:
        return [(await client.complete(QUESTION, PARAMS)).text for _ in range(2)]

    assert _ask(upstream, twice) == ["a", "a"]
    assert upstream.connections == 1


def test_a_server_that_stays_silent_after_the_end_is_not_waited_for() -> None:
    upstream = Upstream([STREAM, _chunk("a", "stop"), DONE], hang=True)
    assert _ask(upstream, lambda client: client.complete(QUESTION, PARAMS)).text == "a"


def test_an_answer_that_breaks_off_is_an_engine_error() -> None:
    error = _error(STREAM, _chunk("Because it"))
    assert isinstance(error, EngineError)
    assert "in the middle" in str(error)


def test_a_connection_that_breaks_inside_a_chunk_is_an_engine_error() -> None:
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    assert isinstance(_error(head, b"ff\r\ndata: {"), EngineError)


@pytest.mark.parametrize(
    "frame",
    [
        b"data: {not json\n\n",
        b"data: 7\n\n",
        b"data: []\n\n",
        b'data: {"choices": 7}\n\n',
        b'data: {"choices": [], "usage": {}, "x": 1}\n\ndata: {"choices": [], "usage": {"prompt_tokens": 1}}\n\n',
        b"data: \xff\xfe\n\n",
        b'data: {"choices": [{"delta": {"content": 7}}]}\n\n',
        b'data: {"choices": [], "usage": {"prompt_tokens": null, "completion_tokens": 1}}\n\n',
    ],
)
def test_a_chunk_that_is_none_is_an_engine_error_that_shows_it(frame: bytes) -> None:
    error = _error(STREAM, frame)
    assert isinstance(error, EngineError)
    assert "no chat chunk" in str(error)


def test_an_error_inside_the_stream_is_an_engine_error_with_its_message() -> None:
    error = _error(STREAM, _chunk("a"), b'data: {"error": {"message": "out of memory"}}\n\n')
    assert isinstance(error, EngineError)
    assert "out of memory" in str(error)


def test_an_error_that_is_none_is_no_error() -> None:
    assert _complete(STREAM, _chunk("a", "stop").replace(b'{"choices"', b'{"error": null, "choices"')).text == "a"


def test_half_a_character_is_replaced() -> None:
    halves = [b'data: {"choices": [{"delta": {"content": "\\ud83d"}}]}\n\n', _chunk("!", "stop")]
    assert _complete(STREAM, *halves, DONE).text == "\ufffd!"


def test_an_answer_that_is_no_stream_is_an_engine_error() -> None:
    error = _error(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n", b"{}")
    assert isinstance(error, EngineError)
    assert "application/json" in str(error)


def test_what_is_no_http_is_an_engine_error() -> None:
    assert isinstance(_error(b"SSH-2.0-OpenSSH_9.2\r\n", b"Connection: close\r\n\r\n"), EngineError)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_keeps_the_message_of_the_engine(status: int) -> None:
    error = _refusal(status, '{"error": {"message": "top_p must be below 2", "code": 400}}')
    assert isinstance(error, InvalidRequestError)
    assert "top_p must be below 2" in str(error)


@pytest.mark.parametrize(
    "body",
    [
        '{"error": {"message": "Too long.", "type": "BadRequestError", "code": "context_length_exceeded"}}',
        '{"error": {"message": "This model\'s maximum context length is 2048 tokens.", "code": 400}}',
        '{"error": {"message": "Too long.", "type": "exceed_context_size_error", "code": 400}}',
    ],
)
def test_a_prompt_that_is_too_long_is_told_apart(body: str) -> None:
    assert isinstance(_refusal(400, body), ContextOverflowError)


def test_a_server_error_that_speaks_of_the_context_is_still_the_servers() -> None:
    assert isinstance(_refusal(500, "cannot allocate the context window"), EngineError)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_names_the_setting(status: int) -> None:
    error = _refusal(status, '{"error": {"message": "bad key"}}')
    assert isinstance(error, EngineError)
    assert "api_key_env" in str(error)


@pytest.mark.parametrize("status", [404, 429, 500, 502, 503])
def test_trouble_of_the_server_may_pass(status: int) -> None:
    error = _refusal(status, "<html>upstream is away</html>")
    assert isinstance(error, EngineError)
    assert f"HTTP {status}: <html>upstream is away" in str(error)


@pytest.mark.parametrize("body", ["", "null", "[]", '{"error": "no"}', '{"error": null}', "{"])
def test_a_refusal_of_any_shape_is_reported(body: str) -> None:
    assert isinstance(_refusal(400, body), InvalidRequestError)


def test_nobody_listening_is_an_engine_error_that_names_the_address() -> None:
    async def ask() -> None:
        async with aiohttp.ClientSession() as session:
            await EngineClient("http://127.0.0.1:9/v1", "small", None, session).complete(QUESTION, PARAMS)

    with pytest.raises(EngineError, match=r"http://127\.0\.0\.1:9/v1/chat/completions does not answer"):
        asyncio.run(ask())


@pytest.mark.parametrize("pieces", [[b""], [STREAM], [STREAM, _chunk("a")]], ids=["before the head", "head", "chunk"])
def test_a_server_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, pieces: list[bytes]) -> None:
    monkeypatch.setattr(client_module, "IDLE_TIMEOUT_S", 0.2)
    upstream = Upstream(pieces, hang=True)
    with pytest.raises(EngineError, match="does not answer"):
        _ask(upstream, lambda client: client.complete(QUESTION, PARAMS))


def test_closing_the_iterator_closes_the_connection() -> None:
    upstream = Upstream([STREAM, _chunk("a"), _chunk("b")], hang=True)

    async def first_only(client: EngineClient) -> str:
        async with aclosing(client.stream(QUESTION, PARAMS)) as deltas:
            async for delta in deltas:
                text = delta.text
                break
        await upstream.left.wait()
        return text

    assert _ask(upstream, first_only) == "a"


def test_cancelling_the_caller_closes_the_connection() -> None:
    upstream = Upstream([STREAM, _chunk("a")], hang=True)

    async def cancelled(client: EngineClient) -> None:
        task = asyncio.ensure_future(client.complete(QUESTION, PARAMS))
        while not upstream.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await upstream.left.wait()

    _ask(upstream, cancelled)


def test_a_model_that_the_server_does_not_know_is_an_error_of_its_own() -> None:
    assert isinstance(_refusal(404, '{"error": {"message": "The model `a` does not exist."}}'), UnknownModelError)


def test_the_client_is_the_first_to_close_an_idle_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uvicorn does so after 5 s, aiohttp by itself after 15."""
    assert client_module.KEEP_ALIVE_S < 5
    monkeypatch.setattr(client_module, "KEEP_ALIVE_S", 0.1)
    body = _chunk("a", "stop") + DONE
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(body)
    upstream = Upstream([head + body])

    async def ask_and_idle(client: EngineClient) -> None:
        await client.complete(QUESTION, PARAMS)
        assert not upstream.left.is_set()
        await asyncio.wait_for(upstream.left.wait(), 10)

    _ask(upstream, ask_and_idle)
