"""The log as clients meet it: nothing is served without it, whatever gateway answered is known to the others, and it says what
the context window had no room for."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest

from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.prompts.versions import PromptVersions
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings, load_settings
from llmops_core.traffic.ingest import ingest
from llmops_gateway.spools import Spools
from tests.fake_engine import PIECES, FakeEngine
from tests.running_gateway import (
    DOCUMENTS,
    NAME,
    QUESTION,
    Running,
    create,
    release_by_words,
    running_gateway,
    until,
)

ANSWER = "".join(PIECES)
RUN = Provenance("test")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, fake_engine: FakeEngine) -> Iterator[Settings]:
    """A home with a release on prod."""
    home = tmp_path_factory.mktemp("log") / "home"
    release_by_words(load_settings(home=home), fake_engine.base_url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMOPS_HOME", str(home))
        yield load_settings()


@pytest.fixture(scope="module")
def gateway(settings: Settings) -> Iterator[Running]:
    with running_gateway(settings) as running:
        yield running


@pytest.fixture
def other(settings: Settings) -> Iterator[Running]:
    """A second gateway of the same home."""
    with running_gateway(settings) as running:
        yield running


@contextmanager
def in_the_way(spool: Path) -> Iterator[None]:
    """A file stands where the spool's folder was, as soon as nothing is written there."""
    until(lambda: None if list(spool.glob("*/*.open")) else True)
    aside = spool.parent.with_name("aside")
    spool.rename(aside)
    spool.write_text("")
    try:
        yield
    finally:
        spool.unlink()
        aside.rename(spool)


def healed(gateway: Running) -> None:
    """Wait until the gateway says that it logs again, and see that it does."""
    until(lambda: True if httpx.get(f"{gateway.url}/readyz").status_code == 200 else None)
    assert gateway.logged(gateway.ask().id)["answer"] == ANSWER


def never_logged(gateway: Running, *request_ids: str) -> None:
    """Wait until all that was logged so far is shipped, and see that these requests are not in it."""
    last = gateway.ask().id
    logged = until(lambda: ids if last in (ids := {row["request_id"] for row in gateway.shipped_requests()}) else None)
    assert logged.isdisjoint(request_ids)


def test_nothing_is_served_while_the_log_cannot_be_written(gateway: Running, fake_engine: FakeEngine) -> None:
    spool = gateway.settings.spool / NAME
    with in_the_way(spool):
        with pytest.raises(openai.InternalServerError, match="a file stands where a folder should be") as first:
            gateway.ask()
        asked = len(fake_engine.received)
        with pytest.raises(openai.InternalServerError, match="cannot be written") as second:
            gateway.ask()
        with pytest.raises(openai.InternalServerError, match="cannot be written") as third:
            gateway.stream()
        assert len(fake_engine.received) == asked
        refused = [error.value.response for error in (first, second, third)]
        for response in refused:
            assert response.status_code == 503
            assert response.headers["retry-after"]
            assert PIECES[0] not in response.text
        ready = httpx.get(f"{gateway.url}/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
        assert str(spool) in ready.json()["spool"][NAME]
    healed(gateway)
    never_logged(gateway, *(response.headers["x-request-id"] for response in refused))


def test_a_stream_that_cannot_be_logged_does_not_end_as_an_answer(gateway: Running) -> None:
    body = {"model": NAME, "stream": True, "messages": [{"role": "user", "content": QUESTION}]}
    with in_the_way(gateway.settings.spool / NAME):
        reply = httpx.post(f"{gateway.url}/v1/chat/completions", json=body)
        events = [line.removeprefix("data: ") for line in reply.text.splitlines() if line]
        assert "cannot be written" in json.loads(events[-1])["error"]["message"]
        assert all(json.loads(event)["choices"][0]["finish_reason"] is None for event in events[:-1])
    healed(gateway)
    never_logged(gateway, reply.headers["x-request-id"])


def test_what_one_gateway_answered_the_other_knows_at_once(gateway: Running, other: Running) -> None:
    request_id = gateway.ask(user="ada").id
    row = httpx.get(f"{other.url}/v1/requests/{request_id}").json()
    assert (row["request_id"], row["user"], row["answer"]) == (request_id, "ada", ANSWER)
    rated = {row["chunks"][0]["chunk_id"]: 1}
    assert other.feedback(request_id=request_id, thumbs=1, chunk_ratings=rated).status_code == 200
    assert httpx.get(f"{gateway.url}/v1/requests/{request_id}").json() == row


def test_what_a_killed_gateway_answered_the_other_knows_at_once(gateway: Running, settings: Settings) -> None:
    with running_gateway(settings) as killed:
        request_id = killed.ask().id
        os.kill(killed.pid, signal.SIGKILL)
        assert gateway.feedback(request_id=request_id, thumbs=-1).status_code == 200
        assert httpx.get(f"{gateway.url}/v1/requests/{request_id}").json()["answer"] == ANSWER
    until(lambda: True if request_id in {row["request_id"] for row in gateway.shipped_requests()} else None)
    assert gateway.feedback(request_id=request_id, thumbs=1).status_code == 200


def test_what_a_gateway_on_another_machine_answered_is_known_when_it_is_shipped(
    gateway: Running, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = gateway.ask().id
    until(lambda: True if request_id in {row["request_id"] for row in gateway.shipped_requests()} else None)
    # Another home with the same lakehouse.
    lakehouse = Lakehouse.open(settings)
    monkeypatch.setattr(Lakehouse, "open", lambda _: lakehouse)
    elsewhere = Spools(load_settings(home=tmp_path / "elsewhere"))
    waiting = elsewhere.find(request_id)
    assert waiting["answer"] == ANSWER
    ingest(lakehouse.table(NAME, "traffic_requests"), "request", *lakehouse.spool(), NAME, RUN)
    assert elsewhere.find(request_id) == waiting


def test_a_prompt_that_overflows_though_all_is_cut_is_a_bad_request(gateway: Running, fake_engine: FakeEngine) -> None:
    asked = len(fake_engine.received)
    turns = [{"role": "user", "content": "Tea?"}, {"role": "assistant", "content": "Tea."}]
    with pytest.raises(openai.BadRequestError, match="Shorten the question") as refused:
        gateway.ask(messages=[*turns, {"role": "user", "content": "tea " * 10_000}])
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="leaves room for 0") as refused:
        gateway.ask(max_tokens=9_000)
    assert refused.value.code == "context_length_exceeded"
    assert len(fake_engine.received) == asked
    row = gateway.logged(refused.value.response.headers["x-request-id"])
    assert (row["status"], row["error_type"], row["answer"]) == (400, "ContextOverflowError", None)


def test_the_log_says_what_the_context_window_had_no_room_for(gateway: Running, fake_engine: FakeEngine) -> None:
    question = " ".join(DOCUMENTS.values())
    assert len(gateway.ask(question).model_extra["llmops"]["chunks"]) == len(DOCUMENTS)
    turns = [
        {"role": "system", "content": "Answer in rhymes."},
        {"role": "user", "content": "tea " * 10_000},
        {"role": "assistant", "content": "Tea."},
        {"role": "user", "content": "Bread?"},
        {"role": "assistant", "content": "Bread."},
        {"role": "user", "content": question},
    ]
    completion = gateway.ask(messages=turns)
    cut = {"chunks": len(DOCUMENTS), "history": 2}
    assert completion.model_extra["llmops"]["cut"] == gateway.logged(completion.id)["cut"] == cut
    sent = fake_engine.received[-1]["messages"]
    assert sent[1:-1] == [turns[0], *turns[3:5]]


def test_a_prompt_that_does_not_render_is_told_with_its_release_and_version(gateway: Running) -> None:
    text = "{% block system %}{% endblock %}{% block user %}{{ nobody_knows }}{% endblock %}"
    lakehouse = Lakehouse.open(gateway.settings)
    version, _ = PromptVersions(lakehouse, NAME).register("answer", text, author="test", message="", provenance=RUN)
    pin = Releases(lakehouse, NAME).get("dev").manifest.prompt
    broken = create(gateway.settings, prompt=pin.model_copy(update={"version": version.version, "hash": version.hash}))
    with pytest.raises(
        openai.InternalServerError, match=f"{broken}, version {version.version} .*nobody_knows"
    ) as failed:
        gateway.ask(model=f"{NAME}@{broken}")
    assert failed.value.status_code == 500
    row = gateway.logged(failed.value.response.headers["x-request-id"])
    assert (row["status"], row["error_type"], row["prompt_version"]) == (500, "PromptError", version.version)
