"""Rollbacks by several processes: gateways that follow, operators at once, a lakehouse that is away, and kills."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release import rollback
from llmops_core.release.manifest import Manifest
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings, load_settings
from llmops_gateway.channel_watch import ChannelWatch
from tests.fake_engine import FakeEngine
from tests.kills import Killing, needs_seccomp
from tests.lakehouse_away import lakehouse_away
from tests.locked_catalog import locked_catalog
from tests.running_gateway import NAME, Running, promote, release_by_words, running_gateway, until, write_assistant

LLMOPS = [sys.executable, "-m", "llmops_cli.main"]


@pytest.fixture
def settings(tmp_path: Path, fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home whose prod had three releases, which differ in how long an answer may be."""
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    settings = load_settings()
    release_by_words(settings, fake_engine.base_url)
    write_assistant(tmp_path / "notes")
    for max_tokens in (11, 12):
        promote_longer(settings, max_tokens)
    return settings


def promote_longer(settings: Settings, max_tokens: int) -> str:
    generator = Releases(Lakehouse.open(settings), NAME).get("dev").manifest.generator
    params = generator.params.model_copy(update={"max_tokens": max_tokens})
    return promote(settings, generator=generator.model_copy(update={"params": params}))


def release(settings: Settings, number: int) -> str:
    return Releases(Lakehouse.open(settings), NAME).get(str(number)).release_id


def on_prod(settings: Settings) -> Manifest:
    return Releases(Lakehouse.open(settings), NAME).get("prod").manifest


def events(settings: Settings) -> list[dict[str, Any]]:
    """The moves of prod."""
    found = Releases(Lakehouse.open(settings), NAME).channels.events()
    return found.filter(pl.col("channel") == "prod").to_dicts()


def start(settings: Settings, *options: str, port: int = 1) -> "subprocess.Popen[str]":
    """`llmops release rollback`, where a gateway may be found on this port."""
    folder = settings.home.parent / "notes"
    command = [*LLMOPS, "release", "rollback", "--assistant", str(folder), "--message", "it is bad", "--json", *options]
    environment = {**os.environ, "LLMOPS_PORT": str(port)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def said(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """What a command said, once it ended."""
    out, errors = process.communicate(timeout=120)
    assert out, errors
    return dict(json.loads(out))


def port_of(gateway: Running) -> int:
    return httpx.URL(gateway.url).port or 0


def serves(gateway: Running, release_id: str) -> None:
    until(lambda: True if gateway.state()["serving"] == {NAME: release_id} else None)
    assert gateway.raw()[1]["x-llmops-release"] == release_id


def test_all_gateways_go_back_and_further_back(settings: Settings) -> None:
    with running_gateway(settings) as one, running_gateway(settings) as other:
        for number in (2, 1):
            done = said(start(settings))
            assert (done["number"], done["recorded"]) == (number, True)
            for gateway in (one, other):
                serves(gateway, release(settings, number))
        nothing = said(start(settings))
    assert "prod has no release to go back to" in nothing["error"]["message"]
    assert [(event["action"], event["reason"]) for event in events(settings)[-2:]] == [("rollback", "it is bad")] * 2


def test_of_operators_at_once_one_wins_and_the_other_is_told(settings: Settings) -> None:
    """Both have read the channels before either can write: their commits wait for a lock."""
    before = set(metadata_files(settings))
    with locked_catalog(settings, "IMMEDIATE"):
        operators = [start(settings), start(settings, "--to", "1")]
        until(lambda: True if len(metadata_files(settings) - before) == 2 else None)
    done = [said(operator) for operator in operators]
    won = [result for result in done if "error" not in result]
    lost = [result["error"] for result in done if "error" in result]
    assert len(won) == 1
    assert lost[0]["type"] == "ConflictError"
    assert f"moved meanwhile, to {won[0]['release_id']}" in lost[0]["message"]
    assert [operator.returncode for operator in operators].count(1) == 1
    assert [event["action"] for event in events(settings)].count("rollback") == 1


def metadata_files(settings: Settings) -> set[str]:
    folder = settings.lakehouse / "warehouse" / NAME / "release_events" / "metadata"
    return {file.name for file in folder.glob("*.metadata.json")}


def test_a_gateway_goes_back_without_the_lakehouse_and_the_history_catches_up(settings: Settings) -> None:
    """Also when it is killed in between, and when it started without the lakehouse."""
    first, second = release(settings, 1), release(settings, 2)
    with running_gateway(settings) as gateway:
        with lakehouse_away(settings):
            until(lambda: True if gateway.state()["lakehouse"] != "ok" else None)
            done = said(start(settings, port=port_of(gateway)))
            assert (done["release_id"], done["number"], done["recorded"]) == (second, 2, False)
            serves(gateway, second)
            waiting = gateway.state()["rollbacks"][NAME]
            assert [(move["release_id"], move["reason"]) for move in waiting] == [(second, "it is bad")]
            os.kill(gateway.pid, signal.SIGKILL)
            with running_gateway(settings) as again:
                assert again.state()["rollbacks"][NAME] == waiting
                serves(again, second)
                assert said(start(settings, port=port_of(again)))["release_id"] == first
                serves(again, first)
                moves = again.state()["rollbacks"][NAME]
                os.kill(again.pid, signal.SIGKILL)
        with running_gateway(settings) as last:
            until(lambda: None if last.state()["rollbacks"] else True)
            serves(last, first)
    assert on_prod(settings).release_id == first
    written = [(event["event_id"], event["author"], event["action"]) for event in events(settings)[-2:]]
    assert written == [(move["event_id"], move["author"], "rollback") for move in moves]
    assert [event["action"] for event in events(settings)].count("rollback") == 2


def test_a_lakehouse_that_hangs_is_not_waited_for(settings: Settings) -> None:
    second = release(settings, 2)
    with running_gateway(settings) as gateway:
        with locked_catalog(settings):
            done = said(start(settings, port=port_of(gateway)))
            assert (done["release_id"], done["recorded"]) == (second, False)
            serves(gateway, second)
        until(lambda: None if gateway.state()["rollbacks"] else True)
        serves(gateway, second)
    assert [event["action"] for event in events(settings)].count("rollback") == 1
    assert on_prod(settings).release_id == second


def test_who_moved_the_channel_meanwhile_wins(settings: Settings) -> None:
    with running_gateway(settings) as gateway, lakehouse_away(settings):
        body = {"assistant": NAME, "to": "1", "author": "ada", "reason": "wrong numbers"}
        assert httpx.post(f"{gateway.url}/admin/rollback", json=body).json()["release_id"] == release_on_disk(
            settings, 1
        )
        os.kill(gateway.pid, signal.SIGKILL)
    newer = promote_longer(settings, 13)
    with running_gateway(settings) as gateway:
        until(lambda: None if gateway.state()["rollbacks"] else True)
        serves(gateway, newer)
    assert on_prod(settings).release_id == newer
    log = (settings.home / "gateway.log").read_text()
    assert "by ada has ended: somebody moved the channel meanwhile" in log
    assert "rollback" not in {event["action"] for event in events(settings)}


def release_on_disk(settings: Settings, number: int) -> str:
    """The id of a release by what gateways keep of it."""
    folder = settings.gateway / NAME / "releases"
    bundles = [json.loads(file.read_text()) for file in folder.glob("*.json")]
    return next(str(bundle["release_id"]) for bundle in bundles if bundle["number"] == number)


def test_what_a_gateway_has_no_copy_of_is_told(settings: Settings) -> None:
    with running_gateway(settings) as gateway, lakehouse_away(settings):
        (settings.gateway / NAME / "releases" / f"{release_on_disk(settings, 2)}.json").unlink()
        for to in (None, "2", "9"):
            reply = httpx.post(f"{gateway.url}/admin/rollback", json={"assistant": NAME, "to": to})
            assert reply.status_code == 404
            assert "that this gateway has on disk: 1 (" in reply.json()["error"]["message"]
        assert gateway.state()["rollbacks"] == {}
        # Not from any web page that the operator looks at.
        assert httpx.post(f"{gateway.url}/admin/rollback", content=json.dumps({"assistant": NAME})).status_code == 415


def test_without_lakehouse_and_gateway_nothing_is_done_and_both_are_named(settings: Settings) -> None:
    with lakehouse_away(settings):
        told = said(start(settings))["error"]["message"]
    assert "cannot be opened" in told
    assert "nothing was rolled back" in told
    assert "rollback" not in {event["action"] for event in events(settings)}


def roll_back(home: Path) -> None:
    """What `llmops release rollback --to 1` does."""
    settings = load_settings(home=home)
    lakehouse, provenance = Lakehouse.open(settings), Provenance("run")
    decided = rollback.decide(lakehouse, settings, NAME, "prod", "1")
    rollback.apply(lakehouse, NAME, decided, author="me", reason="", provenance=provenance)


def roll_back_by_gateway(home: Path) -> None:
    """What a gateway does that is told to, until the history has it."""
    watch = ChannelWatch(load_settings(home=home), lambda: None)
    watch.start()
    watch.roll_back(NAME, "prod", "1", author="me", reason="")
    until(lambda: None if watch.rollbacks() else True)
    watch.stop()


@needs_seccomp
@pytest.mark.parametrize("work", [roll_back, roll_back_by_gateway])
def test_killed_anywhere_the_channel_is_on_one_of_both_and_the_next_try_ends_it(settings: Settings, work: Any) -> None:
    first, third = release(settings, 1), release(settings, 3)
    before = events(settings)

    def assert_sound() -> None:
        found = events(settings)
        assert found[: len(before)] == before
        assert on_prod(settings).release_id == (third if found == before else first)

    killing = Killing(settings.home, work, settings.home)
    killing.undisturbed()
    for _ in killing.rounds(assert_sound):
        assert [event["action"] for event in events(settings)[len(before) :]] == ["rollback"]
        assert_sound()
