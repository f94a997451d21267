"""Requests that a gateway answered, refused or lost, run again."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import openai
import polars as pl
import pytest

from llmops_core.assistant import Assistant
from llmops_core.engines.pool import EnginePool
from llmops_core.errors import InvalidRequestError, NotFoundError, PermanentError
from llmops_core.ids import content_hash
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.prompts.versions import PromptVersions
from llmops_core.release.manifest import RetrievalPin
from llmops_core.release.registry import Releases
from llmops_core.replay import window
from llmops_core.replay.request import Replay, Replayer
from llmops_core.settings import Settings
from llmops_core.traffic.find import Sought
from llmops_core.traffic.ingest import ingest
from llmops_core.traffic.row import RequestRow
from tests.fake_engine import PIECES, FakeEngine
from tests.running_gateway import NAME, QUESTION, TEMPLATE, create, running_gateway, until, write_assistant

TURNS: Any = [
    {"role": "developer", "content": "Answer in English."},
    {"role": "user", "content": [{"type": "text", "text": "How long does "}, {"type": "text", "text": "dough rest?"}]},
    {"role": "assistant", "content": "One hour."},
    {"role": "user", "content": "And before it is baked?"},
]
ALL_IDENTICAL = {"chunks": True, "scores": True, "prompt": True, "answer": True}


@dataclass
class Log:
    """A home with a log of every kind of request; the gateway that answered them has ended."""

    settings: Settings
    engine: FakeEngine
    ids: dict[str, str]

    def row(self, kind: str) -> RequestRow:
        found = Sought(self.ids[kind]).on_disk(self.settings.spool)
        if found is None:
            found = Sought(self.ids[kind]).in_lakehouse(Lakehouse.open(self.settings), [NAME])
        return RequestRow.from_payload(found)

    def replay(self, row: RequestRow, release: str | None = None, **more: Any) -> Replay:
        with EnginePool(self.settings) as engines:
            replayer = Replayer(Lakehouse.open(self.settings), self.settings, NAME, engines)
            return replayer.replay(row, release, **more)


@pytest.fixture(scope="module")
def condensing(shared_home: Settings, fake_engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Assistant:
    """Like `notes`, but questions of a conversation are rewritten before they are searched for."""
    from llmops_cli.build import build

    generator = {"engine": "openai", "model": "fake", "base_url": fake_engine.base_url, "max_tokens": 64}
    retrieval = {
        "mode": "hybrid",
        "top_k": 2,
        "query": "condensed",
        "reranker": {"model": "ms-marco-minilm", "pool": 3},
    }
    assistant = write_assistant(tmp_path_factory.mktemp(NAME), generator=generator, retrieval=retrieval)
    build(shared_home, assistant)
    return assistant


@pytest.fixture(scope="module")
def log(shared_home: Settings, fake_engine: FakeEngine, condensing: Assistant) -> Log:
    ids: dict[str, str] = {}
    with running_gateway(shared_home) as gateway:
        ids["plain"] = gateway.ask().id
        ids["turns"] = gateway.ask(messages=TURNS, temperature=0.5, seed=7, max_tokens=9, stop=["."]).id
        ids["streamed"] = next(iter([chunk.id for chunk in gateway.stream()]))

        def failed(kind: str, behaviour: str = "normal", **more: Any) -> None:
            fake_engine.behaviour = behaviour
            with pytest.raises(openai.APIStatusError) as error:
                gateway.ask(**more)
            fake_engine.behaviour = "normal"
            ids[kind] = error.value.response.headers["x-request-id"]

        failed("engine failed", "error")
        failed("overflow", max_tokens=100_000)
        failed("no question", messages=[{"role": "assistant", "content": "Hello."}])
        failed("refused", model=f"{NAME}@{'0' * 32}")
        fake_engine.behaviour = "slow"
        events = gateway.stream()
        pieces = [next(events) for _ in range(4)]
        events.close()
        fake_engine.behaviour = "normal"
        ids["client left"] = pieces[0].id
        until(lambda: gateway.logged(ids["client left"]) or None)
    return Log(shared_home, fake_engine, ids)


@pytest.mark.parametrize("kind", ["plain", "turns", "streamed", "overflow", "no question"])
def test_a_request_comes_out_as_it_did(log: Log, kind: str) -> None:
    row = log.row(kind)
    done = log.replay(row)
    assert (done.comparison.identical, done.comparison.differences) == (ALL_IDENTICAL, ())
    assert (done.release_id, done.index_version) == (row.release_id, row.index_version)
    assert (done.query_vector and done.query_vector.reproduced) == (True if row.query_vector else None)


def test_of_a_request_whose_client_left_the_answer_is_compared_as_far_as_it_came(log: Log) -> None:
    row = log.row("client left")
    assert row.status == 499
    assert row.answer
    # When it is slow, the engine of these tests goes on in another way than when it is not.
    assert row.answer.startswith(PIECES[0])
    assert dict(log.replay(replace(row, answer=PIECES[0])).comparison.identical) == ALL_IDENTICAL
    assert dict(log.replay(row).comparison.identical) == {**ALL_IDENTICAL, "answer": row.answer == PIECES[0]}


def test_the_engine_is_asked_as_it_was_asked_then(log: Log) -> None:
    row = log.row("turns")
    asked = next(body for body in log.engine.received if body["max_tokens"] == 9)
    done = log.replay(row)
    assert log.engine.received[-1] == asked
    # The question was rewritten, by an engine that always says the same; it is not rewritten again.
    assert row.query == "Eighty degrees [1]."
    assert done.now.prompt == done.then.prompt


def test_nothing_is_condensed_again(log: Log) -> None:
    before = len(log.engine.received)
    log.replay(log.row("turns"))
    assert len(log.engine.received) == before + 1


def test_a_failed_engine_that_answers_now_differs_in_the_answer_alone(log: Log) -> None:
    done = log.replay(log.row("engine failed"))
    assert dict(done.comparison.identical) == {**ALL_IDENTICAL, "answer": False}
    (found,) = done.comparison.differences
    assert found.part == "answer"
    assert "EngineError" in found.difference
    assert "out of memory" in found.difference


def test_a_request_that_came_to_no_release_is_told_so_and_can_be_put_to_one(log: Log) -> None:
    row = log.row("refused")
    with pytest.raises(PermanentError, match="came to no release"):
        log.replay(row)
    done = log.replay(row, "prod")
    assert done.now.answer == "Eighty degrees [1]."
    assert (done.logged_release_id, set(done.comparison.identical.values())) == (None, {False})


@pytest.mark.parametrize("part", ["chunks", "scores", "prompt", "answer"])
def test_a_log_that_says_something_else_is_found_out_where_it_does(log: Log, part: str) -> None:
    row = log.row("plain")
    first, *others = row.chunks
    assert row.prompt
    changes: dict[str, dict[str, Any]] = {
        "chunks": {"chunks": [replace(first, chunk_id="another"), *others]},
        "scores": {"chunks": [replace(first, score=first.score + 1e-12), *others]},
        "prompt": {"prompt": [*row.prompt[:-1], {**row.prompt[-1], "content": row.prompt[-1]["content"] + " "}]},
        "answer": {"answer": "Ninety degrees."},
    }
    done = log.replay(replace(row, **changes[part]))
    assert done.comparison.differences[0].part == part


def test_the_logged_vector_is_searched_with_and_the_embedder_told_apart(log: Log) -> None:
    row = log.row("plain")
    assert row.query_vector
    other = replace(row, query_vector=[-number for number in row.query_vector])
    done = log.replay(other)
    assert done.query_vector
    assert not done.query_vector.reproduced
    assert done.query_vector.largest_difference == pytest.approx(2 * max(map(abs, row.query_vector)), rel=1e-6)


def test_what_is_searched_with_is_the_logged_vector(log: Log) -> None:
    dense = RetrievalPin(mode="dense", top_k=3, query="last_turn")
    row = replace(log.row("plain"), release_id=create(log.settings, retrieval=dense))
    assert row.query_vector
    there = log.replay(row, answer=False).now.chunks
    opposite = log.replay(replace(row, query_vector=[-number for number in row.query_vector]), answer=False).now.chunks
    assert there
    assert opposite
    assert {chunk_id: -score for chunk_id, score in opposite} == dict(there)


def test_without_an_answer_nothing_is_asked(log: Log) -> None:
    before = len(log.engine.received)
    done = log.replay(log.row("plain"), answer=False)
    assert dict(done.comparison.identical) == {**ALL_IDENTICAL, "answer": None}
    assert len(log.engine.received) == before


def test_another_release_is_asked_as_the_gateway_would_ask_it(log: Log) -> None:
    text = TEMPLATE.read_text(encoding="utf-8").replace("{% block user %}", "{% block user %}Dear assistant. ")
    prompt, _ = PromptVersions(Lakehouse.open(log.settings), NAME).register(
        "answer", text, author="test", message="", provenance=Provenance("test")
    )
    pin = Releases(Lakehouse.open(log.settings), NAME).get("dev").manifest.prompt
    other = create(log.settings, prompt=pin.model_copy(update={"version": prompt.version, "hash": prompt.hash}))
    row = log.row("plain")
    done = log.replay(row, other)
    assert (done.logged_release_id, done.release_id) == (row.release_id, other)
    assert dict(done.comparison.identical) == {**ALL_IDENTICAL, "prompt": False}
    assert "Dear assistant." in str(done.now.prompt)
    assert done.to_dict()["differences"][0]["part"] == "prompt"
    # The parameters of the request stay, the others are those of the release.
    log.replay(log.row("turns"), other)
    asked = log.engine.received[-1]
    assert (asked["max_tokens"], asked["seed"], asked["stop"]) == (9, 7, ["."])
    assert log.engine.received[-2]["messages"][0]["content"].startswith("Rewrite the last question")


def test_an_index_that_is_gone_is_made_anew_and_gives_the_same(log: Log) -> None:
    shutil.rmtree(Path(log.settings.lancedb) / NAME)
    done = log.replay(log.row("turns"))
    assert (done.index_made, dict(done.comparison.identical)) == (True, ALL_IDENTICAL)
    assert log.replay(log.row("turns")).index_made is False


def test_a_release_that_is_not_there_is_named(log: Log) -> None:
    with pytest.raises(NotFoundError, match="99"):
        log.replay(log.row("plain"), "99")


def test_the_question_is_the_one_of_the_log(log: Log) -> None:
    assert log.row("plain").query == QUESTION


def test_a_span_of_time_is_run_again_with_what_cannot_be_counted_apart(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    lakehouse, run = Lakehouse.open(log.settings), Provenance("test")
    table = lakehouse.table(NAME, "traffic_requests")
    ingest(table, "request", *lakehouse.spool(), NAME, run)
    monkeypatch.setattr(window, "ROWS_PER_READ", 3)
    asked = window.window_of(None, None)
    with EnginePool(log.settings) as engines:
        replayer = Replayer(lakehouse, log.settings, NAME, engines)
        rows = window.replay_window(
            replayer, table, table.snapshot_id(), asked, release=None, answers=3, progress=lambda line: None
        )
    assert sorted(rows["request_id"]) == sorted(log.ids.values())
    chosen = sorted(rows["request_id"], key=content_hash)[:3]
    answered = rows.filter(pl.col("answer").is_not_null())["request_id"].to_list()
    assert set(answered) <= set(chosen)
    (refused,) = rows.filter(pl.col("error").is_not_null()).iter_rows(named=True)
    assert refused["request_id"] == log.ids["refused"]
    assert "came to no release" in refused["error"]
    summary = window.summarise(asked, rows, Releases(lakehouse, NAME).all())
    assert (summary.requests, summary.failed) == (len(log.ids), 1)
    assert summary.total["chunks"] == window.Share(len(log.ids) - 1, len(log.ids) - 1)
    assert summary.total["answer"].compared == len(answered)
    assert "1 of them could not be run again" in summary.markdown()
    with pytest.raises(InvalidRequestError, match="is empty"):
        window.window_of("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z")
