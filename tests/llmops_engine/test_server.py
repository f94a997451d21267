"""The engine as a child process with the real model: what it answers over HTTP."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import aiohttp
import httpx
import psutil
import pytest

from llmops_core.engines.chat import Completion, GenerationParams, Message
from llmops_core.engines.client import EngineClient
from llmops_core.engines.local import LocalEngine
from llmops_core.errors import ContextOverflowError, EngineError
from llmops_engine.server import MOST_UNDER_WAY

T = TypeVar("T")
MODEL = "smollm2-135m-instruct"
CAPITAL = "What is the capital of France? Answer in one word."
LONG = "Write a long story about a lighthouse keeper and a whale."


def _ask(engine: LocalEngine, use: Callable[[EngineClient], Coroutine[Any, Any, T]], model: str = MODEL) -> T:
    async def ask() -> T:
        async with aiohttp.ClientSession() as session:
            return await asyncio.wait_for(use(EngineClient(engine.base_url, model, None, session)), 120)

    return asyncio.run(ask())


def _complete(engine: LocalEngine, question: str, **params: Any) -> Completion:
    wanted = GenerationParams(**{"max_tokens": 12, "temperature": 0.0, "top_p": 1.0, **params})
    return _ask(engine, lambda client: client.complete([Message("user", question)], wanted))


def _body(**changes: Any) -> dict[str, Any]:
    message = {"role": "user", "content": CAPITAL}
    return {"model": MODEL, "messages": [message], "temperature": 0, "max_tokens": 12, **changes}


def test_the_model_answers_a_question_and_stops_by_itself(engine: LocalEngine) -> None:
    answer = _complete(engine, CAPITAL)
    assert "Paris" in answer.text
    assert answer.finish_reason == "stop"
    assert answer.usage
    assert answer.usage.prompt_tokens > 20
    assert 0 < answer.usage.completion_tokens < 12


def test_temperature_0_answers_identically_again(engine: LocalEngine) -> None:
    assert _complete(engine, LONG) == _complete(engine, LONG)


def test_an_answer_that_is_cut_says_so(engine: LocalEngine) -> None:
    answer = _complete(engine, LONG, max_tokens=5)
    assert answer.usage
    assert (answer.finish_reason, answer.usage.completion_tokens) == ("length", 5)


def test_a_seed_makes_a_sampled_answer_repeatable(engine: LocalEngine) -> None:
    def sampled(seed: int) -> str:
        return _complete(engine, LONG, temperature=1.0, top_p=0.95, seed=seed).text

    assert sampled(1) == sampled(1)
    assert len({sampled(1), sampled(2), sampled(3)}) > 1


def test_a_tiny_top_p_leaves_the_most_probable_token_alone(engine: LocalEngine) -> None:
    assert _complete(engine, LONG, temperature=1.5, top_p=1e-6, seed=1).text == _complete(engine, LONG).text


def test_a_stop_string_ends_the_answer_and_is_not_in_it(engine: LocalEngine) -> None:
    whole = _complete(engine, LONG).text
    word = whole.split()[3]
    answer = _complete(engine, LONG, stop=(word,))
    assert answer.text == whole[: whole.index(word)]
    assert answer.finish_reason == "stop"


def test_the_plain_answer_is_the_streamed_one(engine: LocalEngine, http: httpx.Client) -> None:
    plain = http.post("/chat/completions", json=_body()).json()
    streamed = _complete(engine, CAPITAL)
    assert plain["object"] == "chat.completion"
    assert plain["choices"][0]["message"] == {"role": "assistant", "content": streamed.text}
    assert plain["choices"][0]["finish_reason"] == streamed.finish_reason
    assert streamed.usage
    assert plain["usage"]["total_tokens"] == streamed.usage.prompt_tokens + streamed.usage.completion_tokens


def test_a_stream_comes_piece_by_piece_in_openais_form(http: httpx.Client) -> None:
    with http.stream("POST", "/chat/completions", json=_body(stream=True)) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        frames = [line.removeprefix("data: ") for line in reply.iter_lines() if line]
    assert frames.pop() == "[DONE]"
    chunks = [json.loads(frame) for frame in frames]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert len(chunks) > 1
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
    assert len({c["id"] for c in chunks}) == 1
    assert not any("usage" in c for c in chunks)


def test_requests_at_once_are_all_answered_as_if_alone(engine: LocalEngine) -> None:
    questions = [CAPITAL, LONG, "What is 2 + 2?", "Name a colour."]
    params = GenerationParams(max_tokens=6, temperature=0.0, top_p=1.0)

    async def all_at_once(client: EngineClient) -> list[Completion]:
        return await asyncio.gather(*(client.complete([Message("user", q)], params) for q in questions))

    assert _ask(engine, all_at_once) == [_complete(engine, q, max_tokens=6) for q in questions]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_the_engine(engine: LocalEngine, stream: bool) -> None:
    """This answer would take minutes, so the next one comes in time only if decoding was stopped."""
    message = {"role": "user", "content": "Write the letter a forever: a a a a a a"}
    body = _body(messages=[message], max_tokens=8000, stream=stream)
    process = psutil.Process(engine.pid)

    async def leave_and_ask(client: EngineClient) -> Completion:
        before = process.cpu_times().user
        async with aiohttp.ClientSession() as session:
            asked = asyncio.ensure_future(session.post(f"{engine.base_url}/chat/completions", json=body))
            if stream:
                reply = await asked
                await reply.content.readline()
                reply.close()
            else:
                while process.cpu_times().user < before + 0.3:  # until it is being decoded
                    await asyncio.sleep(0.02)
                assert not asked.done()
                asked.cancel()
        return await client.complete([Message("user", CAPITAL)], GenerationParams(12, 0.0, 1.0))

    assert "Paris" in _ask(engine, leave_and_ask).text


def test_who_comes_when_too_many_wait_is_told_to_come_later(engine: LocalEngine) -> None:
    """Each answer before it would take minutes, so that it is refused at once is the only way to an end in time."""
    params = GenerationParams(max_tokens=8000, temperature=0.0, top_p=1.0)
    said = [Message("user", "Write the letter a forever: a a a a a a")]

    async def crowd(client: EngineClient) -> tuple[EngineError, Completion]:
        waiting = [asyncio.create_task(client.complete(said, params)) for _ in range(MOST_UNDER_WAY + 1)]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        (refused,) = done
        error = refused.exception()
        assert isinstance(error, EngineError)
        # The engine sees one by one that they have left.
        while True:
            try:
                return error, await client.complete([Message("user", CAPITAL)], GenerationParams(12, 0.0, 1.0))
            except EngineError:
                await asyncio.sleep(0.1)

    error, answer = _ask(engine, crowd)
    assert "HTTP 503" in str(error)
    assert f"{MOST_UNDER_WAY} answers are under way" in str(error)
    assert "Paris" in answer.text


def test_a_prompt_that_does_not_fit_is_refused_with_the_numbers(engine: LocalEngine, http: httpx.Client) -> None:
    for stream in (True, False):
        reply = http.post("/chat/completions", json=_body(max_tokens=8192, stream=stream))
        assert reply.status_code == 400
        assert reply.json()["error"]["code"] == "context_length_exceeded"
    with pytest.raises(ContextOverflowError, match="maximum context length is 8192 tokens"):
        _complete(engine, CAPITAL, max_tokens=8192)


def test_an_unknown_model_is_not_found(engine: LocalEngine, http: httpx.Client) -> None:
    reply = http.post("/chat/completions", json=_body(model="other"))
    assert reply.status_code == 404
    assert "'other' does not exist" in reply.json()["error"]["message"]
    with pytest.raises(EngineError, match="'other' does not exist"):
        _ask(engine, lambda client: client.complete([Message("user", "a")], GenerationParams(1, 0.0, 1.0)), "other")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"{", "Invalid JSON"),
        (b"[]", "body"),
        (json.dumps({"model": MODEL}).encode(), "messages"),
        (json.dumps(_body(messages=[])).encode(), "messages"),
        (json.dumps(_body(messages=[{"role": "wizard", "content": "a"}])).encode(), "messages.0.role"),
        (json.dumps(_body(max_tokens=0)).encode(), "max_tokens"),
        (json.dumps(_body(temperature=3)).encode(), "temperature"),
        (json.dumps(_body(seed=2**70)).encode(), "seed"),
        (json.dumps(_body(n=2)).encode(), "n:"),
    ],
)
def test_a_malformed_request_is_refused_by_naming_the_field(http: httpx.Client, body: bytes, named: str) -> None:
    reply = http.post("/chat/completions", content=body)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert named in error["message"]
    assert set(error) == {"message", "type", "param", "code"}


def test_an_unknown_route_answers_in_openais_form(http: httpx.Client) -> None:
    reply = http.get("/embeddings")
    assert (reply.status_code, reply.json()["error"]["message"]) == (404, "Not Found")


def test_health_and_models_tell_what_is_loaded(engine: LocalEngine, http: httpx.Client) -> None:
    assert http.get(engine.base_url.removesuffix("/v1") + "/health").status_code == 200
    models = http.get("/models").json()["data"]
    assert [(m["id"], m["parent"]) for m in models] == [(MODEL, None)]
