"""What the gateway answers, to whom and how, in front of an engine that fails as it is told to."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from llmops_core.ids import uuid7
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release.registry import Releases
from tests.fake_engine import PIECES, FakeEngine
from tests.running_gateway import NAME, QUESTION, Running, until


@pytest.fixture
def behave(fake_engine: FakeEngine) -> Iterator[Callable[[str], None]]:
    """Sets how the engine behaves until the test is over."""
    yield lambda behaviour: setattr(fake_engine, "behaviour", behaviour)
    fake_engine.behaviour = "normal"


def test_an_answer_says_which_chunks_it_was_made_from(gateway: Running) -> None:
    completion, headers = gateway.raw()
    assert completion.choices[0].message.content == "".join(PIECES)
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.total_tokens == 45
    made_from = completion.model_extra["llmops"]
    assert made_from["request_id"] == completion.id == headers["x-request-id"]
    assert made_from["release_id"] == headers["x-llmops-release"]
    documents = Lakehouse.open(gateway.settings).table(NAME, "corpus_documents").read()
    texts = dict(zip(documents["document_id"], documents["text"], strict=True))
    assert made_from["chunks"]
    for chunk in made_from["chunks"]:
        assert texts[chunk["document_id"]][chunk["char_start"] : chunk["char_end"]] == chunk["text"]
    assert "eighty degrees" in made_from["chunks"][0]["text"]
    assert made_from["chunks"][0]["cited"] is not None


def test_a_streamed_answer_is_the_same_answer(gateway: Running) -> None:
    chunks = list(gateway.stream(stream_options={"include_usage": True}))
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == "".join(PIECES)
    last = [chunk for chunk in chunks if chunk.choices][-1]
    assert last.choices[0].finish_reason == "stop"
    assert last.model_extra["llmops"]["request_id"] == last.id
    assert chunks[-1].usage.prompt_tokens == 40
    row = gateway.logged(last.id)
    assert (row["status"], row["stream"], row["answer"]) == (200, True, "".join(PIECES))
    gateway.answered.append(last.id)


def test_usage_is_streamed_only_to_those_who_ask(gateway: Running) -> None:
    assert all(chunk.usage is None for chunk in gateway.stream())


def test_an_engine_that_counts_no_tokens_answers_all_the_same(gateway: Running, behave: Callable[[str], None]) -> None:
    behave("uncounted")
    completion = gateway.ask()
    assert completion.choices[0].message.content == "".join(PIECES)
    assert completion.usage is None
    assert gateway.logged(completion.id)["prompt_tokens"] is None


def test_earlier_turns_reach_the_engine(gateway: Running, fake_engine: FakeEngine) -> None:
    turns = [
        {"role": "user", "content": "How long does bread dough rest?"},
        {"role": "assistant", "content": "One hour."},
        {"role": "user", "content": "And how often is a bike chain oiled?"},
    ]
    completion = gateway.ask(messages=turns)
    sent = fake_engine.received[-1]["messages"]
    assert [m["role"] for m in sent if m["role"] != "system"] == ["user", "assistant", "user"]
    assert "One hour." in sent[-2]["content"]
    assert "bike chain" in completion.model_extra["llmops"]["chunks"][0]["text"]


@pytest.mark.parametrize(
    "form", [lambda message: message, lambda message: message.model_dump()], ids=["object", "dict"]
)
def test_a_message_of_an_answer_is_sent_back_as_the_client_has_it(
    gateway: Running, fake_engine: FakeEngine, form: Callable[[Any], Any]
) -> None:
    answered = form(gateway.ask().choices[0].message)
    gateway.ask(messages=[{"role": "user", "content": QUESTION}, answered, {"role": "user", "content": "Why?"}])
    assert fake_engine.received[-1]["messages"][-2] == {"role": "assistant", "content": "".join(PIECES)}


def test_what_is_null_counts_as_not_given(gateway: Running) -> None:
    nothing = dict.fromkeys(("stream", "stream_options", "max_tokens", "tools", "response_format"))
    assert gateway.ask(extra_body=nothing).choices[0].message.content == "".join(PIECES)


def test_an_unknown_model_is_answered_with_the_known_ones(gateway: Running) -> None:
    with pytest.raises(openai.NotFoundError, match="notes@prod"):
        gateway.ask(model="letters")


def test_an_unknown_release_is_not_found(gateway: Running) -> None:
    with pytest.raises(openai.NotFoundError, match="0123456789abcdef"):
        gateway.ask(model=f"{NAME}@0123456789abcdef")


@pytest.mark.parametrize("reference", ["../channels", "a" * 300, "\0"])
def test_a_reference_that_can_be_no_release_is_not_found(gateway: Running, reference: str) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no release"):
        gateway.ask(model=f"{NAME}@{reference}")


def test_what_the_gateway_does_not_carry_out_is_refused_by_name(gateway: Running) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    with pytest.raises(openai.BadRequestError, match="tools"):
        gateway.ask(tools=[tool])
    with pytest.raises(openai.BadRequestError, match="metadata"):
        gateway.ask(metadata={"ticket": "7"})
    with pytest.raises(openai.BadRequestError, match=r"messages\.0\.name: is not supported"):
        gateway.ask(messages=[{"role": "user", "name": "ada", "content": QUESTION}])
    with pytest.raises(openai.BadRequestError, match=r"stream_options\.include_obfuscation: is not supported"):
        gateway.stream(stream_options={"include_obfuscation": True})


def test_a_refusal_carries_the_id_under_which_it_is_logged(gateway: Running) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        gateway.ask(model=f"{NAME}@0123456789abcdef", user="curious")
    row = gateway.logged(refused.value.response.headers["x-request-id"])
    assert (row["status"], row["error_type"], row["user"]) == (404, "NotFoundError", "curious")
    assert (row["release_id"], row["answer"], row["chunks"]) == (None, None, [])


@pytest.mark.parametrize("path", ["/v1/models", "/v1/nothing", "/v1/requests/none"])
def test_every_answer_has_an_id_of_its_own(gateway: Running, path: str) -> None:
    ids = {httpx.get(f"{gateway.url}{path}").headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2


def test_a_body_that_is_no_json_is_a_bad_request(gateway: Running) -> None:
    reply = httpx.post(
        f"{gateway.url}/v1/chat/completions", content=b"{not json", headers={"content-type": "application/json"}
    )
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/feedback"])
@pytest.mark.parametrize("sent", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
def test_what_a_web_page_can_have_a_browser_post_is_refused(gateway: Running, path: str, sent: str | None) -> None:
    body = json.dumps({"model": NAME, "messages": [{"role": "user", "content": QUESTION}]}).encode()
    reply = httpx.post(f"{gateway.url}{path}", content=body, headers={"content-type": sent} if sent else {})
    assert reply.status_code == 415
    assert "application/json" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8400", "localhost.evil.example", "192.168.0.7", "0.0.0.0", "::1", ""]
)
@pytest.mark.parametrize("path", ["/v1/requests/none", "/v1/models", "/readyz", "/healthz", "/v1/nothing"])
def test_a_page_whose_name_was_made_to_point_to_loopback_reads_nothing(gateway: Running, path: str, host: str) -> None:
    reply = httpx.get(f"{gateway.url}{path}", headers={"host": host})
    assert reply.status_code == 421
    assert "http://127.0.0.1" in reply.json()["error"]["message"]
    assert reply.headers["x-request-id"]


def test_a_page_whose_name_was_made_to_point_to_loopback_asks_nothing(
    gateway: Running, fake_engine: FakeEngine
) -> None:
    body = {"model": NAME, "messages": [{"role": "user", "content": QUESTION}]}
    asked = len(fake_engine.received)
    reply = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers={"host": "evil.example"})
    assert reply.status_code == 421
    assert len(fake_engine.received) == asked


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8400", "127.0.0.1", "127.8.9.1:80", "[::1]", "[::1]:8400"])
def test_any_name_of_this_machine_will_do(gateway: Running, host: str) -> None:
    assert httpx.get(f"{gateway.url}/healthz", headers={"host": host}).status_code == 200


def test_a_content_type_may_name_its_charset(gateway: Running) -> None:
    body = json.dumps({"model": NAME, "messages": [{"role": "user", "content": QUESTION}]}).encode()
    sent = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert httpx.post(f"{gateway.url}/v1/chat/completions", content=body, headers=sent).status_code == 200


def test_a_release_is_asked_for_by_channel_or_id(gateway: Running) -> None:
    release_id = gateway.ask().model_extra["llmops"]["release_id"]
    for reference in ("dev", release_id):
        completion = gateway.ask(model=f"{NAME}@{reference}")
        assert completion.model_extra["llmops"]["release_id"] == release_id
    assert gateway.logged(completion.id)["channel"] == "pinned"


def test_models_are_listed(gateway: Running) -> None:
    names = {model.id for model in gateway.client.models.list()}
    assert {NAME, "notes@dev", "notes@prod"} <= names
    assert gateway.client.models.retrieve("notes@dev").id == "notes@dev"


def test_a_request_can_be_looked_up(gateway: Running) -> None:
    completion = gateway.ask(user="ada")
    row = gateway.logged(completion.id)
    assert (row["status"], row["user"], row["query"]) == (200, "ada", QUESTION)
    assert [chunk["chunk_id"] for chunk in row["chunks"]] == [
        chunk["chunk_id"] for chunk in completion.model_extra["llmops"]["chunks"]
    ]
    assert httpx.get(f"{gateway.url}/v1/requests/{uuid7()}").status_code == 404


def test_feedback_is_taken_for_a_known_request(gateway: Running) -> None:
    completion = gateway.ask()
    chunk_id = completion.model_extra["llmops"]["chunks"][0]["chunk_id"]
    reply = gateway.feedback(request_id=completion.id, thumbs=1, chunk_ratings={chunk_id: 1})
    assert reply.status_code == 200
    assert reply.json()["request_id"] == completion.id


def test_feedback_that_fits_no_answer_is_refused(gateway: Running) -> None:
    completion = gateway.ask()
    assert gateway.feedback(request_id=uuid7(), thumbs=1).status_code == 404
    assert gateway.feedback(request_id=completion.id).status_code == 400
    refused = gateway.feedback(request_id=completion.id, chunk_ratings={"nochunk": 1})
    assert refused.status_code == 400
    assert "nochunk" in refused.json()["error"]["message"]


def test_an_engine_that_fails_is_reported_and_logged(gateway: Running, behave: Callable[[str], None]) -> None:
    behave("error")
    with pytest.raises(openai.InternalServerError, match="out of memory") as failed:
        gateway.ask(user="unlucky")
    assert failed.value.status_code == 503

    def look() -> dict[str, Any] | None:
        return next((row for row in gateway.shipped_requests() if row["user"] == "unlucky"), None)

    row = until(look)
    assert (row["status"], row["error_type"]) == (503, "EngineError")
    assert row["answer"] is None


def test_an_engine_that_dies_in_mid_stream_ends_the_answer_with_an_error(
    gateway: Running, behave: Callable[[str], None]
) -> None:
    behave("hang up")
    stream = gateway.stream()
    opening = next(stream)
    with pytest.raises(openai.APIError, match="engine"):
        list(stream)
    row = gateway.logged(opening.id)
    assert (row["status"], row["error_type"], row["answer"]) == (503, "EngineError", PIECES[0])


def test_a_client_that_goes_away_is_logged(gateway: Running, behave: Callable[[str], None]) -> None:
    behave("slow")
    stream = gateway.stream()
    chunk = next(chunk for chunk in stream if chunk.choices[0].delta.content)
    stream.close()
    row = gateway.logged(chunk.id)
    assert row["status"] == 499
    assert row["answer"].startswith(PIECES[0])


def test_a_client_that_does_not_wait_for_a_whole_answer_is_logged(
    gateway: Running, behave: Callable[[str], None]
) -> None:
    behave("slow")
    with pytest.raises(openai.APITimeoutError):
        gateway.ask(user="hasty", timeout=1)

    def look() -> dict[str, Any] | None:
        return next((row for row in gateway.shipped_requests() if row["user"] == "hasty"), None)

    row = until(look)
    assert row["status"] == 499
    assert row["answer"].startswith(PIECES[0])
    # The engine would go on for 50 seconds.
    assert row["timings_ms"]["generate"] < 25_000


def test_a_condensed_query_is_what_is_searched_for(gateway: Running, fake_engine: FakeEngine) -> None:
    releases = Releases(Lakehouse.open(gateway.settings), NAME)
    manifest = releases.get("prod").manifest
    condensed = manifest.retrieval.model_copy(update={"query": "condensed"})
    release, _ = releases.create(
        manifest.model_copy(update={"retrieval": condensed}), author="test", message="", provenance=Provenance("test")
    )
    turns = [
        {"role": "user", "content": "How long does bread dough rest?"},
        {"role": "assistant", "content": "One hour."},
        {"role": "user", "content": "And then?"},
    ]
    completion = gateway.ask(model=f"{NAME}@{release.release_id}", messages=turns)
    condensing, answering = fake_engine.received[-2:]
    assert "One hour." in condensing["messages"][-1]["content"]
    assert "And then?" in answering["messages"][-1]["content"]
    row = gateway.logged(completion.id)
    assert row["query"] == "".join(PIECES)
    assert row["timings_ms"]["condense"] > 0
    assert (row["prompt_tokens"], row["completion_tokens"]) == (40, 5)
    assert (row["cost_basis"]["prompt_tokens"], row["cost_basis"]["completion_tokens"]) == (80, 10)
    assert row["cost_basis"]["engine_seconds"] > row["timings_ms"]["generate"] / 1000
    assert "eighty degrees" in completion.model_extra["llmops"]["chunks"][0]["text"]


def test_the_gateway_is_healthy_and_says_what_it_serves(gateway: Running) -> None:
    assert httpx.get(f"{gateway.url}/healthz").json()["status"] == "ok"
    ready = httpx.get(f"{gateway.url}/readyz").json()
    assert ready["serving"].keys() == {NAME}
    assert ready["home"] == str(gateway.settings.home)
