"""Moves spool segments into Iceberg exactly once.

Segments of a gateway are contiguous and taken in order. The rows and the mark `spool.<gateway_id>` (the last segment taken)
are one commit without automatic retry: of two ingesters one wins, the other reads the mark again and goes on from there.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import polars as pl

from llmops_core.errors import ConflictError
from llmops_core.lakehouse.table import LakeTable, Provenance
from llmops_core.traffic.columns import feedback_frame, request_frame
from llmops_core.traffic.segments import gateways, numbers_after, segments_after

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


def mark_name(gateway_id: str) -> str:
    """The table property that holds the last segment of a gateway that the table has."""
    return f"spool.{gateway_id}"


def ingest(
    table: LakeTable, kind: str, fs: "FileSystem", root: str, assistant: str, provenance: Provenance
) -> Ingested:
    """Take all segments that lie below `root` and are not in the table yet; only lines of `kind` become rows."""
    rows = segments = 0
    for gateway_id in gateways(fs, root, assistant):
        conflicts = 0
        while True:
            # Before the mark: whoever commits between the two makes this commit fail, so that no segment comes twice.
            before = table.snapshot_id()
            last = int(table.property(mark_name(gateway_id)) or 0)
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
    return Ingested(rows, segments, table.snapshot_id())


def pending(tables: Iterable[LakeTable], fs: "FileSystem", root: str, assistant: str) -> int:
    """Count the segments that some table has not taken yet."""
    waiting: set[tuple[str, int]] = set()
    for table in tables:
        for gateway_id in gateways(fs, root, assistant):
            last = int(table.property(mark_name(gateway_id)) or 0)
            waiting.update((gateway_id, number) for number in numbers_after(fs, root, assistant, gateway_id, last))
    return len(waiting)


def taken_by_all(tables: Iterable[LakeTable], gateway_id: str) -> int:
    """The last segment of a gateway that every table has taken: up to it, spool files may go."""
    return min((int(table.property(mark_name(gateway_id)) or 0) for table in tables), default=0)
