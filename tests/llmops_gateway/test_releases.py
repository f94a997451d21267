"""Which release answers while others are loaded, fail, or are replaced."""

import asyncio
import os
import sys
import threading
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from llmops_core.assistant import Assistant
from llmops_core.engines.pool import Endpoint, EnginePool
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.models.adapters import CONFIG, WEIGHTS, store_adapter
from llmops_core.models.revisions import generator_revision
from llmops_core.release.manifest import GeneratorParams, GeneratorPin, IndexPin
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings, load_settings
from llmops_gateway import releases as releases_module
from llmops_gateway.releases import LOADED_ON_DEMAND, LoadedReleases
from tests.fake_engine import FakeEngine
from tests.running_gateway import NAME, QUESTION, WAIT_S, Running, create, promote, running_gateway, until

PROD = f"{NAME}@prod"
PARAMS = GeneratorParams(max_tokens=8, temperature=0.0, top_p=1.0)
NO_INDEX = {"index": IndexPin(version="gone", snapshots={})}


def _behind(gateway: Running, state: str, release_id: str) -> dict[str, Any]:
    """What /readyz says of the channel prod, once it says this state of this release."""

    def look() -> dict[str, Any] | None:
        said = gateway.state()["behind"].get(PROD, {})
        return said if (said.get("state"), said.get("release_id")) == (state, release_id) else None

    return until(look)


def _serves(gateway: Running, release_id: str) -> None:
    until(lambda: True if gateway.state()["serving"] == {NAME: release_id} else None)


def _tokens(settings: Settings, max_tokens: int) -> dict[str, GeneratorPin]:
    """What makes a release of its own: how long an answer may be."""
    generator = Releases(Lakehouse.open(settings), NAME).get("dev").manifest.generator
    params = generator.params.model_copy(update={"max_tokens": max_tokens})
    return {"generator": generator.model_copy(update={"params": params})}


def _status(gateway: Running, model: str) -> int:
    """The status of an answer by a release."""
    body = {"model": model, "messages": [{"role": "user", "content": QUESTION}]}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=60).status_code


def _broken_generator(models: Path, folder: Path) -> GeneratorPin:
    """A local engine that takes its time and then fails."""
    folder = folder / "broken"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((models / "smollm2-135m-instruct" / "tokenizer.json").read_bytes())
    (folder / "model.safetensors").write_bytes(b"no weights")
    model = f"path:{folder}"
    revision = generator_revision(load_settings(home=models.parent), model)
    return GeneratorPin(engine="local", model=model, revision=revision, context_window=2048, params=PARAMS)


def test_a_release_that_does_not_load_leaves_the_one_before_serving(gateway: Running) -> None:
    first = gateway.state()["serving"][NAME]
    broken = promote(gateway.settings, **NO_INDEX)
    assert "There is no version gone" in _behind(gateway, "failed", broken)["reason"]
    assert gateway.state()["status"] == "ready"
    assert gateway.state()["serving"] == {NAME: first}
    assert gateway.raw()[1]["x-llmops-release"] == first
    assert promote(gateway.settings) == first
    until(lambda: None if gateway.state()["behind"] else True)


def test_an_engine_that_does_not_start_is_loading_until_it_failed(
    gateway: Running, models: Path, tmp_path: Path
) -> None:
    first = gateway.state()["serving"][NAME]
    broken = promote(gateway.settings, generator=_broken_generator(models, tmp_path))
    assert _behind(gateway, "loading", broken)["reason"] is None
    assert "cannot be loaded" in _behind(gateway, "failed", broken)["reason"]
    assert promote(gateway.settings) == first
    until(lambda: None if gateway.state()["behind"] else True)


def test_a_gateway_whose_only_release_does_not_load_is_not_ready_and_says_why(
    shared_home: Settings, notes: Assistant
) -> None:
    broken = promote(shared_home, **NO_INDEX)
    with running_gateway(shared_home, status=503) as gateway:
        assert "There is no version gone" in _behind(gateway, "failed", broken)["reason"]
        assert (gateway.state()["status"], gateway.state()["serving"]) == ("not ready", {})
        with pytest.raises(openai.InternalServerError, match="There is no version gone") as refused:
            gateway.ask()
        assert refused.value.status_code == 503
        assert gateway.ask(model=f"{NAME}@dev").choices[0].message.content
        mended = promote(shared_home)
        _serves(gateway, mended)
        assert gateway.state()["behind"] == {}


def test_many_who_ask_for_a_release_at_once_get_the_same_loaded_one(shared_home: Settings, notes: Assistant) -> None:
    """By its id, or by its number."""
    pin = GeneratorPin(
        engine="openai", model="m", revision="m", base_url="http://127.0.0.1:9/v1", context_window=2048, params=PARAMS
    )
    release_id = create(shared_home, generator=pin)
    number = Releases(Lakehouse.open(shared_home), NAME).get(release_id).number
    releases = LoadedReleases(shared_home)
    releases.start()
    try:
        asked = [releases.load(f"{NAME}@{reference}") for reference in (release_id, release_id, number, number)]
        wait(asked)
        assert len({id(loading.result().release) for loading in asked}) == 1
    finally:
        releases.stop()


def test_those_who_wait_for_a_release_hold_up_nobody_else(gateway: Running, models: Path, tmp_path: Path) -> None:
    release_id = create(gateway.settings, generator=_broken_generator(models, tmp_path))
    more_than_threads = (os.cpu_count() or 1) + 8

    async def ask(client: httpx.AsyncClient, model: str) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "user": model}
        return await client.post("/v1/chat/completions", json=body)

    async def ask_meanwhile() -> None:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=120) as client:
            waiting = [asyncio.create_task(ask(client, f"{NAME}@{release_id}")) for _ in range(more_than_threads)]
            for _ in range(3):
                assert (await ask(client, NAME)).status_code == 200
            assert not any(task.done() for task in waiting)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)

    asyncio.run(ask_meanwhile())

    def left() -> bool | None:
        rows = [row for row in gateway.shipped_requests() if row["user"] == f"{NAME}@{release_id}"]
        return True if [row["status"] for row in rows].count(499) == more_than_threads else None

    until(left)


def test_the_engine_of_the_release_before_runs_on_for_a_rollback_and_no_longer(gateway: Running) -> None:
    def is_engine(child: psutil.Process) -> bool:
        try:
            return "llmops_engine" in child.cmdline()
        except psutil.NoSuchProcess:  # it ended meanwhile
            return False

    def engines() -> list[int]:
        return [child.pid for child in psutil.Process(gateway.pid).children() if is_engine(child)]

    name = "smollm2-135m-instruct"
    revision = generator_revision(gateway.settings, name)
    pin = GeneratorPin(engine="local", model=name, revision=revision, context_window=2048, params=PARAMS)
    local = promote(gateway.settings, generator=pin)
    _serves(gateway, local)
    started = engines()
    assert len(started) == 1
    _serves(gateway, promote(gateway.settings))
    assert promote(gateway.settings, generator=pin) == local
    _serves(gateway, local)
    assert engines() == started
    for max_tokens in (21, 22):
        _serves(gateway, promote(gateway.settings, **_tokens(gateway.settings, max_tokens)))
    until(lambda: None if engines() else True)
    _serves(gateway, promote(gateway.settings))


def test_what_a_rollback_goes_to_is_loaded_after_a_start_and_after_each_rollback(
    shared_home: Settings, notes: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release is loaded when its engine was asked for."""
    asked_for = []

    def started(pool: EnginePool, pin: GeneratorPin) -> Endpoint:
        asked_for.append(pin.params.max_tokens)
        return Endpoint(str(pin.base_url), pin.model, None)

    def known(pool: EnginePool, pin: GeneratorPin) -> Endpoint | None:
        return Endpoint(str(pin.base_url), pin.model, None) if pin.params.max_tokens in asked_for else None

    monkeypatch.setattr(EnginePool, "endpoint", started)
    monkeypatch.setattr(EnginePool, "ready", known)
    monkeypatch.setattr(releases_module, "WARM_AFTER_S", 0.0)
    _, before, _ = (promote(shared_home, **_tokens(shared_home, max_tokens)) for max_tokens in (51, 52, 53))
    channels = Releases(Lakehouse.open(shared_home), NAME).channels
    releases = LoadedReleases(shared_home)
    releases.start()
    try:
        until(lambda: True if asked_for == [53, 52] else None)
        releases.watch.roll_back(NAME, "prod", None, author="me", reason="")
        until(lambda: True if asked_for == [53, 52, 51] else None)
        until(lambda: True if channels.state()["prod"].release_id == before else None)
    finally:
        releases.stop()
        promote(shared_home)


def test_a_release_that_is_warm_serves_at_once_while_the_loader_is_busy_with_another(
    shared_home: Settings, notes: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a rollback follows a promotion that takes its time."""
    begun, may_end = threading.Event(), threading.Event()
    really_start, really_ready = EnginePool.endpoint, EnginePool.ready

    def start(pool: EnginePool, pin: GeneratorPin) -> Endpoint:
        begun.set()
        may_end.wait()
        return really_start(pool, pin)

    def ready(pool: EnginePool, pin: GeneratorPin) -> Endpoint | None:
        return really_ready(pool, pin) if pin.params.max_tokens != 63 else None

    monkeypatch.setattr(EnginePool, "endpoint", start)
    monkeypatch.setattr(EnginePool, "ready", ready)

    def serves(release_id: str) -> None:
        until(lambda: True if releases.serving() == {NAME: release_id} else None)

    made: dict[int, str] = {}
    releases = LoadedReleases(shared_home)
    releases.start()
    try:
        for max_tokens in (61, 62):
            made[max_tokens] = promote(shared_home, **_tokens(shared_home, max_tokens))
            serves(made[max_tokens])
        promote(shared_home, **_tokens(shared_home, 63))
        assert begun.wait(WAIT_S)
        releases.watch.roll_back(NAME, "prod", made[61], author="me", reason="")
        assert releases.serving() == {NAME: made[61]}
        assert not may_end.is_set()
    finally:
        may_end.set()
        releases.stop()
        promote(shared_home)


def test_more_releases_than_may_be_loaded_are_refused_while_answers_hold_the_others(
    gateway: Running, fake_engine: FakeEngine
) -> None:
    made = [create(gateway.settings, **_tokens(gateway.settings, 30 + n)) for n in range(LOADED_ON_DEMAND + 1)]
    *held, another = (f"{NAME}@{release_id}" for release_id in made)
    messages: Any = [{"role": "user", "content": QUESTION}]

    def ask(model: str) -> Any:
        return gateway.client.chat.completions.create(model=model, messages=messages, stream=True)

    fake_engine.behaviour = "slow"
    streams = []
    try:
        for model in held:
            streams.append(ask(model))
        for stream in streams:
            assert next(iter(stream))
        with pytest.raises(openai.InternalServerError, match="retry in some seconds") as refused:
            ask(another)
        assert (refused.value.status_code, refused.value.response.headers["retry-after"]) == (503, "1")
        # Those that are loaded are not refused, and neither is prod.
        ask(held[0]).close()
        ask(NAME).close()
        streams[1].close()
        fake_engine.behaviour = "normal"
        until(lambda: True if _status(gateway, another) == 200 else None)
    finally:
        fake_engine.behaviour = "normal"
        for stream in streams:
            stream.close()
    until(lambda: True if _status(gateway, held[1]) == 200 else None)


def test_an_adapter_is_loaded_again_into_a_server_that_was_started_again(
    gateway: Running, fake_engine: FakeEngine, tmp_path: Path
) -> None:
    (tmp_path / CONFIG).write_text("{}")
    (tmp_path / WEIGHTS).write_bytes(b"weights")
    adapter = store_adapter(gateway.settings, tmp_path)
    plain = Releases(Lakehouse.open(gateway.settings), NAME).get("dev").manifest.generator
    release_id = create(gateway.settings, generator=plain.model_copy(update={"adapter": adapter}))
    gateway.ask(model=f"{NAME}@{release_id}")
    fake_engine.adapters.clear()
    with pytest.raises(openai.InternalServerError, match="does not exist") as lost:
        gateway.ask(model=f"{NAME}@{release_id}")
    assert lost.value.status_code == 503
    until(lambda: True if fake_engine.adapters == {adapter} else None)
    again = gateway.client.with_options(max_retries=5).chat.completions.create(
        model=f"{NAME}@{release_id}", messages=[{"role": "user", "content": QUESTION}]
    )
    assert again.choices[0].message.content


def test_stopping_does_not_wait_for_an_engine_that_is_loading(
    shared_home: Settings, notes: Assistant, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine would take its time to say that it listens: for ever, if nobody ended it."""
    release_id = create(shared_home, generator=_broken_generator(models, tmp_path))
    monkeypatch.setattr(sys, "executable", _sleeper(tmp_path))
    releases = LoadedReleases(shared_home)
    releases.start()
    loading = releases.load(f"{NAME}@{release_id}")
    sleeping = until(lambda: next((c for c in psutil.Process().children() if _sleeps(c)), None))
    releases.stop()
    assert not sleeping.is_running()
    assert "was still loading" in str(loading.exception())


def test_stopping_while_the_release_on_prod_is_loading_is_no_fault_of_the_release(
    shared_home: Settings,
    notes: Assistant,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    promote(shared_home, generator=_broken_generator(models, tmp_path))
    monkeypatch.setattr(sys, "executable", _sleeper(tmp_path))
    releases = LoadedReleases(shared_home)
    releases.start()
    until(lambda: next((c for c in psutil.Process().children() if _sleeps(c)), None))
    releases.stop()
    promote(shared_home)
    assert not caplog.records


def _sleeper(folder: Path) -> str:
    """A program that only sleeps, whatever it is told."""
    program = folder / "sleeper"
    program.write_text("#!/bin/sh\nexec sleep 86399\n")
    program.chmod(0o755)
    return str(program)


def _sleeps(process: psutil.Process) -> bool:
    try:
        return "86399" in process.cmdline()
    except psutil.NoSuchProcess:
        return False
