"""`canary_verdict` on a real instance: what it says while it waits, what it launches, and what a failed run leaves."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

import llmops_core.release.canary
from llmops_assets.definitions import build_definitions
from llmops_core.assistant import Assistant
from llmops_core.errors import PermanentError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.settings import Settings
from resources.platform import resources
from tests.llmops_core.release.test_canary import SECTION, ask, begun, on, with_releases
from tests.llmops_core.release.test_manifest import manifest
from tests.running_gateway import until, write_assistant


@pytest.fixture
def helper(tmp_path: Path) -> Assistant:
    return write_assistant(tmp_path / "helper", name="helper")


@pytest.fixture
def lake(home_with_models: Settings, helper: Assistant) -> Lakehouse:
    lakehouse = Lakehouse.open(home_with_models)
    lakehouse.prepare(helper.name)
    return with_releases(lakehouse)


Tick = Callable[[], tuple[list[dg.RunRequest], str]]


@pytest.fixture
def tick(instance: dg.DagsterInstance, helper: Assistant, lake: Lakehouse) -> Tick:
    """What the sensor launches now, or else says."""
    repository = build_definitions(helper.folder).get_repository_def()
    cursor: str | None = None

    def decide() -> tuple[list[dg.RunRequest], str]:
        nonlocal cursor
        context = dg.build_sensor_context(
            instance=instance, repository_def=repository, resources=resources(), cursor=cursor
        )
        data = repository.get_sensor_def("canary_verdict").evaluate_tick(context)
        cursor = data.cursor
        return list(data.run_requests or []), str(data.skip_message)

    return decide


def launch(instance: dg.DagsterInstance, helper: Assistant, request: dg.RunRequest) -> bool:
    """Run what the sensor asked for, as the daemon would."""
    job = build_definitions(helper.folder).resolve_job_def("canary_end")
    return job.execute_in_process(instance=instance, tags=request.tags, raise_on_error=False).success


def test_every_tick_says_what_is_waited_for(tick: Tick, lake: Lakehouse) -> None:
    assert tick() == ([], llmops_core.release.canary.NONE_RUNS)
    experiment = begun(lake)
    ask(lake, experiment, users=10)
    requests, said = tick()
    assert requests == []
    assert "of 20 in canary" in said
    drawn = sum(experiment.drawn(f"user {number}") for number in range(10))
    assert f"requests: prod {10 - drawn}, canary {drawn}, in no arm 0" in said
    assert "bets on harm: errors " in said
    assert "of 2 hours left" in said


def test_while_nothing_comes_the_log_is_not_read_again(
    tick: Tick, lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = begun(lake)
    _, said = tick()
    with monkeypatch.context() as patch:
        patch.delattr(llmops_core.release.canary, "read_log")
        assert tick() == ([], said)
    ask(lake, experiment)
    requests, _ = tick()
    assert len(requests) == 1


def test_time_that_is_up_is_seen_without_a_new_row(tick: Tick, lake: Lakehouse) -> None:
    begun(lake, SECTION.model_copy(update={"max_hours": 2 / 3600}))
    requests = until(lambda: tick()[0] or None)
    assert len(requests) == 1


def test_a_verdict_is_carried_out_by_one_run(
    tick: Tick, lake: Lakehouse, instance: dg.DagsterInstance, helper: Assistant
) -> None:
    experiment = begun(lake)
    ask(lake, experiment)
    (request,), _ = tick()
    assert request.run_key == f"{experiment.experiment}:1"
    assert launch(instance, helper, request)
    assert on(lake) == {"prod": manifest(prompt=2).release_id}
    assert tick() == ([], llmops_core.release.canary.NONE_RUNS)
    # Again, as the daemon does after a crash between the launch and its own note of it.
    assert launch(instance, helper, request)
    assert on(lake) == {"prod": manifest(prompt=2).release_id}


def test_a_run_that_fails_is_tried_again_and_then_left_to_a_person(
    tick: Tick, lake: Lakehouse, instance: dg.DagsterInstance, helper: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(lake, begun(lake), broken=True)

    def broken(*_: object, **__: object) -> None:
        raise PermanentError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(llmops_core.release.canary, "end", broken)
        keys = []
        for _ in range(3):
            (request,), _ = tick()
            keys.append(request.run_key)
            assert not launch(instance, helper, request)
    assert len(set(keys)) == 3
    requests, said = tick()
    assert requests == []
    assert "failed 3 times" in said
    assert "harm in errors" in said
    assert launch(instance, helper, request)
    assert on(lake) == {"prod": manifest().release_id}
