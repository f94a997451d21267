"""Which snapshots of a table may go."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from pyiceberg.table import Table as IcebergTable

from llmops_core.lakehouse.history import NAMED_MS, superseded
from llmops_core.lakehouse.schemas import TableSpec

_NAMED = timedelta(milliseconds=NAMED_MS)


def old_snapshots(
    table: IcebergTable, spec: TableSpec, index_days: int, needed: Mapping[int, str], now: datetime
) -> tuple[list[int], dict[str, str]]:
    """The snapshots that may go, and old ones that stay: thing → why.

    A snapshot is as old as the moment since which it is no longer current: until then, a look at the past finds it, and a
    run may have begun to read it.
    """
    period = timedelta(days=index_days) if spec.past == "snapshots" else _NAMED
    limit = (now - period).timestamp() * 1000
    old = [snapshot.snapshot_id for snapshot, ended in superseded(table) if ended < limit]
    kept = {f"{spec.name} {snapshot}": needed[snapshot] for snapshot in old if snapshot in needed}
    return [snapshot for snapshot in old if snapshot not in needed], kept
