"""A canary from its beginning to its end: the events, who is told what, and what a kill leaves."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from llmops_core.assistant.schema import Canary
from llmops_core.errors import ConflictError, InvalidRequestError, NotFoundError
from llmops_core.ids import uuid7
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release.arms import Experiment
from llmops_core.release.canary import beginning, conclude, end, look, refreshing, running
from llmops_core.release.channels import Channels, Pointer, Step
from llmops_core.release.registry import Releases
from llmops_core.traffic.columns import request_frame
from llmops_core.traffic.row import RequestRow
from tests.llmops_core.release.test_manifest import manifest
from tests.moving import move

RUN = Provenance("test")
SECTION = Canary(share=0.5, min_requests=20, max_hours=2, metrics=["errors", "empty"])


@pytest.fixture
def lake(lakehouse: Lakehouse) -> Lakehouse:
    """A home for a canary."""
    return with_releases(lakehouse)


def with_releases(lakehouse: Lakehouse) -> Lakehouse:
    """Release 1 on prod, release 2 beside it, and both with fresh documents."""
    releases = Releases(lakehouse, "helper")
    for made in (manifest(), manifest(prompt=2), manifest("i2"), manifest("i2", prompt=2)):
        releases.create(made, author="me", message="", provenance=RUN)
    promote(lakehouse, manifest().release_id)
    return lakehouse


def promote(lakehouse: Lakehouse, release_id: str) -> None:
    channels = Channels(lakehouse, "helper")
    move(channels, "prod", release_id)


def begun(lakehouse: Lakehouse, section: Canary = SECTION) -> Experiment:
    seen = Channels(lakehouse, "helper").state()
    found = running(taken(lakehouse, beginning(section, manifest(prompt=2).release_id, seen)))
    assert found
    return found


def taken(lakehouse: Lakehouse, step: Step) -> dict[str, Pointer]:
    channels = Channels(lakehouse, "helper")
    return channels.take([step], author="me", reason="", provenance=RUN, expected=channels.state())


def on(lakehouse: Lakehouse) -> dict[str, str]:
    return {name: pointer.release_id for name, pointer in Channels(lakehouse, "helper").state().items()}


def row(experiment: Experiment, number: int, status: int = 200) -> dict[str, Any]:
    user = f"user {number}"
    made = RequestRow(
        request_id=uuid7(),
        assistant="helper",
        started_at=experiment.began_at + timedelta(minutes=1, seconds=number),
        subject="local",
        user=user,
        model="helper",
        channel="canary" if experiment.drawn(user) else "prod",
        status=status,
        stream=False,
        messages=[],
        answer="Yes.",
        timings_ms={"total": 10.0},
        code_version="1",
        lock_hash="1",
        experiment=experiment.experiment,
    )
    return {"payload": made.to_payload(), "gateway_id": "g", "segment": 1, "row": number}


def ask(lakehouse: Lakehouse, experiment: Experiment, *, users: int = 100, broken: bool = False) -> None:
    """Let these users ask, and the canary fail if it is broken."""
    lines = [
        row(experiment, number, 503 if broken and experiment.drawn(f"user {number}") else 200)
        for number in range(users)
    ]
    lakehouse.table("helper", "traffic_requests").append(request_frame(lines), RUN)


def concluded(lakehouse: Lakehouse, hours: float = 0.1) -> str:
    found = conclude(
        lakehouse, "helper", author="run 1", provenance=RUN, now=datetime.now(UTC) + timedelta(hours=hours)
    )
    return found.comparison.outcome if found else "none"


def test_a_canary_that_does_no_harm_goes_to_prod_in_the_commit_that_ends_it(lake: Lakehouse) -> None:
    experiment = begun(lake)
    assert on(lake) == {"prod": manifest().release_id, "canary": manifest(prompt=2).release_id}
    assert concluded(lake) == "waiting"
    ask(lake, experiment)
    before = lake.table("helper", "release_events").load().metadata.current_snapshot_id
    assert concluded(lake) == "passed"
    assert on(lake) == {"prod": manifest(prompt=2).release_id}
    current = lake.table("helper", "release_events").load().current_snapshot()
    assert current is not None
    assert current.parent_snapshot_id == before
    last = Channels(lake, "helper").events().sort("at").tail(2)
    assert set(last["action"]) == {"promote", "passed"}
    assert all("no harm found" in gate for gate in last["gate"])
    # Again, as after a kill that came when all was written.
    assert concluded(lake) == "none"


def test_a_canary_that_fails_its_users_is_taken_back(lake: Lakehouse) -> None:
    ask(lake, begun(lake), broken=True)
    found = look(lake, "helper")
    assert found
    assert found.comparison.outcome == "rolled_back"
    assert "harm in errors" in found.headline()
    assert concluded(lake) == "rolled_back"
    assert on(lake) == {"prod": manifest().release_id}


def test_too_little_data_is_taken_back_when_time_is_up(lake: Lakehouse) -> None:
    ask(lake, begun(lake), users=5)
    assert concluded(lake, 1.9) == "waiting"
    assert concluded(lake, 2.1) == "rolled_back"
    assert on(lake) == {"prod": manifest().release_id}


def test_fresh_documents_on_both_sides_keep_the_experiment(lake: Lakehouse) -> None:
    experiment = begun(lake)
    ask(lake, experiment, users=50)
    promote(lake, manifest("i2").release_id)
    channels = Channels(lake, "helper")
    fresh = manifest("i2", prompt=2).release_id
    after = running(taken(lake, refreshing(fresh, channels.state())))
    assert after
    assert (after.experiment, after.release_id, after.plan) == (experiment.experiment, fresh, experiment.plan)
    found = look(lake, "helper")
    assert found
    assert sum(found.comparison.requests.values()) == 50
    ask(lake, after)
    assert concluded(lake) == "passed"
    assert on(lake) == {"prod": fresh}


def test_another_release_on_prod_makes_the_comparison_void(lake: Lakehouse) -> None:
    ask(lake, begun(lake))
    other, _ = Releases(lake, "helper").create(manifest(prompt=3), author="me", message="", provenance=RUN)
    promote(lake, other.release_id)
    assert concluded(lake) == "rolled_back"
    assert on(lake) == {"prod": other.release_id}


def test_its_own_release_cut_otherwise_on_prod_makes_the_comparison_void(lake: Lakehouse) -> None:
    """A candidate that changes the chunking differs in its index alone, and is another release all the same."""
    table = lake.table("helper", "index_vector_index")
    rows = [
        {
            "index_version": version,
            "embedder_revision": manifest().embedder.revision,
            "rows": 1,
            "kind": "flat",
            "settings": settings,
            "snapshots": "{}",
            "built_at": datetime.now(UTC),
        }
        for version, settings in (("i1", "{}"), ("i2", '{"language": "ru"}'))
    ]
    table.append(pl.DataFrame(rows, schema=table.spec.frame_schema), RUN)
    taken(lake, beginning(SECTION, manifest("i2").release_id, Channels(lake, "helper").state()))
    assert concluded(lake) == "waiting"
    promote(lake, manifest("i2").release_id)
    assert concluded(lake) == "rolled_back"
    assert on(lake) == {"prod": manifest("i2").release_id}


def test_a_release_that_was_rejected_meanwhile_does_not_pass(lake: Lakehouse) -> None:
    ask(lake, begun(lake))
    channels = Channels(lake, "helper")
    # Under the id that it has with other documents.
    step = Step(None, manifest("i2", prompt=2).release_id, "reject")
    channels.take([step], author="ann", reason="rude", provenance=RUN, expected={})
    assert concluded(lake) == "rolled_back"
    assert on(lake) == {"prod": manifest().release_id}
    assert channels.events().filter(pl.col("action") == "rolled_back")["reason"].to_list() == [
        "canary rolled back: ann rejected it: rude"
    ]


def test_prod_moved_after_the_look_wins(lake: Lakehouse) -> None:
    begun(lake)
    channels = Channels(lake, "helper")
    seen = channels.state()
    promote(lake, manifest("i2").release_id)
    with pytest.raises(ConflictError, match="prod was moved meanwhile"):
        end(channels, "passed", author="me", reason="", provenance=RUN, seen=seen)
    assert running(channels.state())


def test_of_two_at_once_one_canary_begins(lake: Lakehouse) -> None:
    begun(lake)
    with pytest.raises(ConflictError, match="canary stop"):
        begun(lake)


def test_a_canary_needs_another_release_that_serves(lake: Lakehouse) -> None:
    with pytest.raises(InvalidRequestError, match="has this release already"):
        beginning(SECTION, manifest().release_id, Channels(lake, "helper").state())


def test_one_after_another_each_is_an_experiment_of_its_own(lake: Lakehouse) -> None:
    channels = Channels(lake, "helper")
    experiments = []
    for _ in range(3):
        experiments.append(begun(lake).experiment)
        end(channels, "stopped", author="me", reason="", provenance=RUN)
    assert len(set(experiments)) == 3
    events = channels.events().filter(pl.col("channel") == "canary")
    assert events["action"].to_list() == ["begin", "stopped"] * 3
    assert events["experiment"].to_list() == [experiment for experiment in experiments for _ in range(2)]
    with pytest.raises(NotFoundError, match="No canary is running"):
        end(channels, "stopped", author="me", reason="", provenance=RUN)


def test_what_assistant_yaml_says_later_changes_no_experiment_that_runs(lake: Lakehouse) -> None:
    experiment = begun(lake, SECTION)
    found = look(lake, "helper")
    assert found
    assert found.experiment.plan == experiment.plan
    assert found.to_dict()["plan"]["min_requests"] == 20


def test_requests_in_no_arm_are_told_and_not_compared(lake: Lakehouse) -> None:
    experiment = begun(lake)
    line = row(experiment, 1)
    line["payload"] |= {"channel": "prod", "experiment": None}
    lake.table("helper", "traffic_requests").append(request_frame([line]), RUN)
    found = look(lake, "helper")
    assert found
    assert (found.comparison.outside, sum(found.comparison.requests.values())) == (1, 0)


def test_a_log_from_before_there_were_experiments_is_read(lake: Lakehouse) -> None:
    old = row(begun(lake), 1)
    del old["payload"]["experiment"], old["payload"]["shadow_of"]
    assert request_frame([old]).select("experiment", "shadow_of").row(0) == (None, None)
