"""When a snapshot stopped being current, and tables that forget as they are written."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import polars as pl
import pytest
from pyiceberg.exceptions import RESTError

from llmops_core.lakehouse import history
from llmops_core.lakehouse.history import data_snapshot_id, expire, superseded
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import LakeTable, Provenance

RUN = Provenance("test")


@pytest.fixture
def table(lakehouse: Lakehouse) -> LakeTable:
    return lakehouse.table("helper", "traffic_feedback")


def feedback(table: LakeTable, number: int) -> pl.DataFrame:
    row = {**dict.fromkeys(table.spec.frame_schema.names()), "feedback_id": str(number), "at": datetime.now(UTC)}
    return pl.DataFrame([row], schema=table.spec.frame_schema)


def test_a_snapshot_ends_when_the_next_one_comes(table: LakeTable) -> None:
    first = table.append(feedback(table, 1), RUN)
    time.sleep(0.05)
    table.append(feedback(table, 2), RUN)
    loaded = table.load()
    second = loaded.current_snapshot()
    assert second
    assert [(snapshot.snapshot_id, ended) for snapshot, ended in superseded(loaded)] == [(first, second.timestamp_ms)]


def test_a_writer_whose_clock_is_behind_makes_no_snapshot_older(table: LakeTable) -> None:
    for number in range(3):
        table.append(feedback(table, number), RUN)
    loaded = table.load()
    first, *others = loaded.metadata.snapshots
    behind = [snapshot.model_copy(update={"timestamp_ms": 0}) for snapshot in others]
    loaded.metadata = loaded.metadata.model_copy(update={"snapshots": [first, *behind]})
    assert [ended for _, ended in superseded(loaded)] == [first.timestamp_ms, first.timestamp_ms]


def test_a_log_table_forgets_its_snapshots_as_it_is_written_and_no_row(
    table: LakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "NAMED_MS", 0)
    for number in range(60):
        table.append_after(feedback(table, number), RUN, table.snapshot_id(), {"spool.g": str(number)})
    assert len(table.load().metadata.snapshots) <= history.MOST_SNAPSHOTS + 1
    assert sorted(map(int, table.read()["feedback_id"])) == list(range(60))
    assert table.property("spool.g") == "59"


def test_what_a_run_may_still_name_is_not_forgotten_while_writing(table: LakeTable) -> None:
    first = table.append(feedback(table, 0), RUN)
    for number in range(1, 50):
        table.append(feedback(table, number), RUN)
    assert table.read(first).height == 1


def test_of_many_expiries_at_once_all_end_well(table: LakeTable) -> None:
    for number in range(12):
        table.append(feedback(table, number), RUN)
    gone = [snapshot.snapshot_id for snapshot, _ in superseded(table.load())]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda part: expire(table.load(), part), [gone[:6], gone[3:9], gone[6:], gone]))
    assert [snapshot.snapshot_id for snapshot in table.load().metadata.snapshots] == [data_snapshot_id(table.load())]
    assert table.read().height == 12


def test_a_snapshot_that_somebody_tagged_stays_and_the_others_are_forgotten(table: LakeTable) -> None:
    first, second, third = (table.append(feedback(table, number), RUN) for number in range(3))
    loaded = table.load()
    assert first
    assert second
    loaded.manage_snapshots().create_tag(first, "audit").commit()
    assert [snapshot.snapshot_id for snapshot, _ in superseded(table.load())] == [second]
    expire(table.load(), [first, second])
    assert {snapshot.snapshot_id for snapshot in table.load().metadata.snapshots} == {first, third}


def test_an_append_that_was_written_is_reported_whatever_becomes_of_forgetting(
    table: LakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RESTError("503 Service Unavailable")

    monkeypatch.setattr(history, "NAMED_MS", 0)
    monkeypatch.setattr(history, "MOST_SNAPSHOTS", 2)
    monkeypatch.setattr(history, "expire", fail)
    written = [table.append(feedback(table, number), RUN) for number in range(4)]
    assert [snapshot.snapshot_id for snapshot in table.load().metadata.snapshots] == written
