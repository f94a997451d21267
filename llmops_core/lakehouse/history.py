"""The snapshots of an Iceberg table: which one is the data's, when each stopped being current, and how old ones go.

An append slows with every snapshot that the table remembers (20 ms at 10, 280 ms at 288 with PyIceberg as it comes), so a
table that nobody asks for past snapshots forgets them as it is written, and does not wait for the daily maintenance.
"""

import logging
import time
from collections.abc import Collection, Iterator
from itertools import accumulate

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update.snapshot import ExpireSnapshots

from llmops_core.lakehouse.transaction import LakeTransaction

COMPACTION = "llmops.compaction_of"
"""Snapshot property of a compaction: the snapshot with the same rows that was current before."""

# A table whose past is in its rows, written by a running append: more snapshots than this, and those go that stopped being
# current so long ago that no run may still name them.
MOST_SNAPSHOTS = 30
NAMED_MS = 2 * 60 * 60 * 1000

# Of racing expiries one wins; the others look again.
ATTEMPTS = 5

log = logging.getLogger(__name__)


def data_snapshot_id(table: IcebergTable) -> int | None:
    """The snapshot that brought the present rows: the current one, or the one that compaction rewrote; None if none."""
    snapshot = table.current_snapshot()
    if snapshot is None:
        return None
    of = snapshot.summary[COMPACTION] if snapshot.summary else None
    # A compaction whose original is gone stands for itself.
    return int(of) if of and table.snapshot_by_id(int(of)) else snapshot.snapshot_id


def superseded(table: IcebergTable) -> Iterator[tuple[Snapshot, int]]:
    """Each snapshot that no branch or tag names, oldest first, with the moment (Unix ms) when it stopped being current.

    Writers' clocks may disagree: a snapshot counts as made no earlier than those before it, which errs on keeping.
    """
    ordered = sorted(table.metadata.snapshots, key=lambda s: s.sequence_number or 0)
    times = list(accumulate((snapshot.timestamp_ms for snapshot in ordered), max))
    named = {ref.snapshot_id for ref in table.metadata.refs.values()}
    for snapshot, ended in zip(ordered, times[1:], strict=False):
        if snapshot.snapshot_id not in named:
            yield snapshot, ended


def expire(table: IcebergTable, gone: Collection[int]) -> None:
    """Forget these snapshots, in one commit, but for those that are gone already or named by a branch or tag.

    Raises `CommitFailedException`.
    """
    for attempt in range(1, ATTEMPTS + 1):
        there = [snapshot.snapshot_id for snapshot, _ in superseded(table) if snapshot.snapshot_id in gone]
        if not there:
            return
        try:
            with LakeTransaction(table) as transaction:
                ExpireSnapshots(transaction).by_ids(there).commit()
            return
        except (CommitFailedException, ValueError) as error:  # the latter: somebody else has expired them
            if attempt == ATTEMPTS:
                raise CommitFailedException(str(error)) from error
            table.refresh()


def bound_history(table: IcebergTable) -> None:
    """Forget old snapshots of a table that is written all the time; what fails is tried again after the next write."""
    if len(table.metadata.snapshots) <= MOST_SNAPSHOTS:
        return
    limit = time.time_ns() // 1_000_000 - NAMED_MS
    gone = [snapshot.snapshot_id for snapshot, ended in superseded(table) if ended < limit]
    if len(gone) < MOST_SNAPSHOTS // 2:
        return
    try:
        expire(table, gone)
    except Exception as error:  # catalogs, drivers and storage raise what they like, and the rows are written
        log.warning("%s: old snapshots stay until the next write: %s", ".".join(table.name()), error)
