"""From shipped segments to Iceberg: each row once, whoever else ingests."""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl
import pytest

from llmops_core.errors import LakehouseError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import LakeTable, Provenance
from llmops_core.traffic import ingest as module
from llmops_core.traffic.columns import feedback_frame
from llmops_core.traffic.ingest import (
    SEGMENTS_PER_COMMIT,
    Ingested,
    ingest,
    mark_name,
    pending,
    taken_by_all,
    waiting_rows,
)
from llmops_core.traffic.line import encode_line, encode_payload, segment_name
from llmops_core.traffic.row import FeedbackRow

ASSISTANT, GATEWAY = "helper", "0a1b2c3d4e5f"
RUN = Provenance("test")


@pytest.fixture
def table(lakehouse: Lakehouse) -> LakeTable:
    return lakehouse.table(ASSISTANT, "traffic_feedback")


def ship(lakehouse: Lakehouse, row: FeedbackRow, *numbers: int, gateway: str = GATEWAY) -> None:
    """Segments of one message of feedback each; its comment is the segment's number."""
    filesystem, root = lakehouse.spool()
    folder = f"{root}/{ASSISTANT}/{gateway}"
    filesystem.create_dir(folder, recursive=True)
    for number in numbers:
        payload = encode_payload({**row.to_payload(), "comment": str(number)})
        with filesystem.open_output_stream(f"{folder}/{segment_name(number)}") as stream:
            stream.write(encode_line("feedback", gateway, number, 0, payload))


def take(lakehouse: Lakehouse, noun: str = "feedback") -> Ingested:
    table = lakehouse.table(ASSISTANT, f"traffic_{noun}")
    kind = {"feedback": "feedback", "requests": "request"}[noun]
    return ingest(table, kind, *lakehouse.spool(), ASSISTANT, RUN)


def taken(table: LakeTable) -> list[int]:
    return sorted(map(int, table.read()["comment"]))


def test_every_segment_is_taken_once_in_commits_of_bounded_size(
    lakehouse: Lakehouse, table: LakeTable, feedback_row: FeedbackRow
) -> None:
    numbers = range(1, SEGMENTS_PER_COMMIT + 4)
    ship(lakehouse, feedback_row, *numbers)
    first = take(lakehouse)
    assert (first.rows, first.segments, first.snapshot) == (len(numbers), len(numbers), table.snapshot_id())
    assert taken(table) == list(numbers)
    assert table.property(mark_name(GATEWAY)) == str(len(numbers))
    assert take(lakehouse) == Ingested(0, 0, first.snapshot)


def test_lines_of_the_other_kind_make_a_mark_and_no_row(lakehouse: Lakehouse, feedback_row: FeedbackRow) -> None:
    ship(lakehouse, feedback_row, 1, 2)
    tables = [lakehouse.table(ASSISTANT, f"traffic_{noun}") for noun in ("requests", "feedback")]
    assert pending(tables, *lakehouse.spool(), ASSISTANT) == 2
    assert take(lakehouse, "requests") == Ingested(0, 2, None)
    assert (pending(tables, *lakehouse.spool(), ASSISTANT), taken_by_all(tables)[GATEWAY]) == (2, 0)
    take(lakehouse)
    assert (pending(tables, *lakehouse.spool(), ASSISTANT), taken_by_all(tables)[GATEWAY]) == (0, 2)


@pytest.mark.parametrize("later", [(), (3,)], ids=["the same segments", "one more"])
def test_of_two_ingests_at_once_neither_loses_a_row_nor_doubles_one(
    lakehouse: Lakehouse,
    table: LakeTable,
    feedback_row: FeedbackRow,
    monkeypatch: pytest.MonkeyPatch,
    later: tuple[int, ...],
) -> None:
    ship(lakehouse, feedback_row, 1, 2)

    def while_another_ingests(lines: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
        frame = feedback_frame(lines)
        monkeypatch.setitem(module.FRAMES, "feedback", feedback_frame)
        ship(lakehouse, feedback_row, *later)
        take(lakehouse)
        return frame

    monkeypatch.setitem(module.FRAMES, "feedback", while_another_ingests)
    take(lakehouse)
    assert taken(table) == [1, 2, *later]
    assert table.property(mark_name(GATEWAY)) == str(2 + len(later))


def test_a_missing_segment_is_told_while_all_before_it_and_all_of_other_gateways_are_taken(
    lakehouse: Lakehouse, table: LakeTable, feedback_row: FeedbackRow
) -> None:
    ship(lakehouse, feedback_row, 1, 3, 4)
    ship(lakehouse, feedback_row, 1, 2, gateway="ffffffffffff")
    assert pending([table], *lakehouse.spool(), ASSISTANT) == 3
    with pytest.raises(LakehouseError) as told:
        take(lakehouse)
    for part in (f"segment 2 of gateway {GATEWAY}", "helper/0a1b2c3d4e5f/000000000002.jsonl", "empty file"):
        assert part in str(told.value)
    assert taken(table) == [1, 1, 2]
    with pytest.raises(LakehouseError, match="segment 2"):
        pending([table], *lakehouse.spool(), ASSISTANT)


def test_what_waits_behind_a_missing_segment_is_taken_once_it_is_back(
    lakehouse: Lakehouse, table: LakeTable, feedback_row: FeedbackRow
) -> None:
    ship(lakehouse, feedback_row, 2, 3)
    with pytest.raises(LakehouseError, match="segment 1"):
        take(lakehouse)
    waiting = waiting_rows(table, "feedback", *lakehouse.spool(), ASSISTANT)
    assert [payload["comment"] for payload in waiting] == ["2", "3"]
    filesystem, root = lakehouse.spool()
    with filesystem.open_output_stream(f"{root}/{ASSISTANT}/{GATEWAY}/{segment_name(1)}"):
        pass  # an empty file, as the message says
    assert take(lakehouse).segments == 3
    assert taken(table) == [2, 3]
    assert list(waiting_rows(table, "feedback", *lakehouse.spool(), ASSISTANT)) == []
