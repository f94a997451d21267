"""Moves spool segments into Iceberg exactly once.

Segments of a gateway are contiguous and taken in order. The rows and the mark `spool.<gateway_id>` (the last segment taken)
are one commit without automatic retry: of two ingesters one wins, the other reads the mark again and goes on from there.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from operator import and_
from typing import TYPE_CHECKING, Any

import polars as pl

from llmops_core.errors import ConflictError, LakehouseError
from llmops_core.lakehouse.table import LakeTable, Provenance
from llmops_core.traffic.columns import feedback_frame, request_frame
from llmops_core.traffic.line import segment_name
from llmops_core.traffic.segments import (
    gap_after,
    gateways,
    numbers_after,
    segments_across_gaps,
    segments_after,
)

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

# One commit takes at most so many segments (of at most 8 MiB each), which bounds its memory.
SEGMENTS_PER_COMMIT = 16
ATTEMPTS = 20

FRAMES: Mapping[str, Callable[[Iterable[Mapping[str, Any]]], pl.DataFrame]] = {
    "request": request_frame,
    "feedback": feedback_frame,
}


@dataclass(frozen=True)
class Ingested:
    """What one ingest did: new rows, segments taken, and the table's snapshot after it."""

    rows: int
    segments: int
    snapshot: int | None


_MARK = "spool."


def mark_name(gateway_id: str) -> str:
    """The table property that holds the last segment of a gateway that the table has."""
    return f"{_MARK}{gateway_id}"


def ingest(
    table: LakeTable, kind: str, fs: "FileSystem", root: str, assistant: str, provenance: Provenance
) -> Ingested:
    """Take all segments that lie below `root` and are not in the table yet; only lines of `kind` become rows.

    Raises `LakehouseError` when a segment of a gateway is missing, after all that can be taken was: rows of that gateway wait
    behind the gap.
    """
    rows = segments = 0
    gaps: list[str] = []
    for gateway_id in gateways(fs, root, assistant):
        conflicts = 0
        while True:
            # Before the mark: whoever commits between the two makes this commit fail, so that no segment comes twice.
            before = table.snapshot_id()
            last = _taken(table)[gateway_id]
            batch = list(islice(segments_after(fs, root, assistant, gateway_id, last), SEGMENTS_PER_COMMIT))
            if not batch:
                break
            frame = FRAMES[kind](line for segment in batch for line in segment.rows if line["kind"] == kind)
            try:
                table.append_after(frame, provenance, before, {mark_name(gateway_id): str(batch[-1].number)})
            except ConflictError:
                conflicts += 1
                if conflicts == ATTEMPTS:
                    raise
                continue
            rows += frame.height
            segments += len(batch)
        gaps += _gap(last, fs, root, assistant, gateway_id)
    if gaps:
        raise LakehouseError(f"The request log is not taken whole: {'; '.join(dict.fromkeys(gaps))}. {_WAY_OUT}")
    return Ingested(rows, segments, table.snapshot_id())


def pending(tables: Sequence[LakeTable], fs: "FileSystem", root: str, assistant: str) -> int:
    """Count the segments that some table has not taken yet and can take.

    Raises `LakehouseError` when none can be taken, but some wait behind one that is missing.
    """
    waiting: set[tuple[str, int]] = set()
    gaps: list[str] = []
    marks = [_taken(table) for table in tables]
    for gateway_id in gateways(fs, root, assistant):
        for taken in marks:
            last = taken[gateway_id]
            numbers = numbers_after(fs, root, assistant, gateway_id, last)
            waiting.update((gateway_id, number) for number in numbers)
            gaps += [] if numbers else _gap(last, fs, root, assistant, gateway_id)
    if gaps and not waiting:
        raise LakehouseError(f"The request log is not taken whole: {'; '.join(dict.fromkeys(gaps))}. {_WAY_OUT}")
    return len(waiting)


def waiting_rows(
    table: LakeTable, kind: str, fs: "FileSystem", root: str, assistant: str
) -> Iterator[Mapping[str, Any]]:
    """The payloads of a kind that were shipped and are not in the table yet, also those behind a segment that is missing."""
    taken = _taken(table)
    for gateway_id in gateways(fs, root, assistant):
        for segment in segments_across_gaps(fs, root, assistant, gateway_id, taken[gateway_id]):
            yield from (line["payload"] for line in segment.rows if line["kind"] == kind)


def taken_by_all(tables: Iterable[LakeTable]) -> Counter[str]:
    """By gateway, the last segment that every table has taken, 0 where there is none: up to it, spool files may go."""
    # What two counters have in common is the smaller number of each.
    return reduce(and_, map(_taken, tables))


_WAY_OUT = (
    "Put the segment back from a copy, or from the gateway's own spool; if it is lost, an empty file of that name lets the"
    " later rows be taken."
)


def _taken(table: LakeTable) -> Counter[str]:
    """By gateway, the last segment that a table has taken."""
    properties = table.load().properties
    return Counter({name[len(_MARK) :]: int(last) for name, last in properties.items() if name.startswith(_MARK)})


def _gap(last: int, fs: "FileSystem", root: str, assistant: str, gateway_id: str) -> list[str]:
    """What is missing for the later segments of a gateway to be taken by a table that has taken `last`, if anything."""
    number = gap_after(fs, root, assistant, gateway_id, last)
    if number is None:
        return []
    return [
        f"segment {number} of gateway {gateway_id} is missing, and later ones wait for it:"
        f" {root}/{assistant}/{gateway_id}/{segment_name(number)}"
    ]
