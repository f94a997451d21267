"""Looks at tables as people do: their snapshots and who wrote them, rows at a moment, and what lies between two moments.

A moment is a snapshot id or a time. Of tables whose past is in their rows (see schemas.py), a time is told by the rows' own times
and snapshots are there for running readers alone.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Snapshot

from llmops_core.errors import InvalidRequestError, NotFoundError
from llmops_core.lakehouse.history import COMPACTION
from llmops_core.lakehouse.schemas import TIME
from llmops_core.lakehouse.table import LakeTable
from llmops_core.times import parse_time


@dataclass(frozen=True)
class TableSnapshot:
    """A snapshot: its rows in all, and the run and code that wrote it."""

    snapshot: str
    """Decimal; a string, since JSON readers round numbers of this size."""
    at: datetime
    rows: int | None
    operation: str
    run_id: str | None
    code_version: str | None
    reads: Mapping[str, str]
    """Table or asset → snapshot or version that was read to make it."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON value."""
        return {**asdict(self), "at": self.at.isoformat()}


def snapshot_of(snapshot: Snapshot) -> TableSnapshot:
    """What a snapshot says of itself."""
    said: Mapping[str, str] = snapshot.summary.additional_properties if snapshot.summary else {}
    rows = said.get("total-records")
    operation = snapshot.summary.operation.value if snapshot.summary else ""
    return TableSnapshot(
        snapshot=str(snapshot.snapshot_id),
        at=datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC),
        rows=None if rows is None else int(rows),
        operation="compaction" if COMPACTION in said else operation,
        run_id=said.get("llmops.run_id"),
        code_version=said.get("llmops.code_version"),
        reads={name.removeprefix(_READ): version for name, version in said.items() if name.startswith(_READ)},
    )


_READ = "llmops.read."


def snapshots(table: LakeTable) -> list[TableSnapshot]:
    """The retained snapshots of a table, newest first."""
    return [snapshot_of(snapshot) for snapshot in _ordered(table.load())][::-1]


def rows_at(table: LakeTable, moment: str | None) -> pl.LazyFrame:
    """The rows at a moment, by default now.

    Raises `NotFoundError` if the moment is no longer retained, with the nearest one that is; `InvalidRequestError` for a
    text that is neither a snapshot id nor a time.
    """
    if moment is None:
        return table.scan()
    if moment.isdecimal():
        return table.scan(int(moment))
    at = parse_time(moment)
    if table.spec.past == "rows":
        return table.scan().filter(pl.col(_time_column(table)) <= at)
    snapshot = _snapshot_at(table, at)
    return table.scan(snapshot) if snapshot else table.scan().clear()


@dataclass(frozen=True)
class TableDiff:
    """What lies between two moments of a table; frames have the columns of the table."""

    key: tuple[str, ...]
    added: pl.DataFrame
    removed: pl.DataFrame
    changed: pl.DataFrame
    """The key and `columns`: the names of the columns whose values changed."""


def diff(table: LakeTable, before: str, after: str | None) -> TableDiff:
    """Compare the rows of two moments by the table's key; who wrote a row is no difference."""
    columns = table.spec.frame_schema.names()
    key = table.spec.key
    if not key:
        raise InvalidRequestError(
            f"The rows of {table.identifier} have no key, so two moments of it cannot be compared."
        )
    old, new = (rows_at(table, moment).select(columns).collect() for moment in (before, after))
    both = old.join(new, on=key, how="inner", suffix=_AFTER, nulls_equal=True)
    values = [name for name in columns if name not in key]
    # A list that a snapshot lacks is null, which equals null here.
    differs = [pl.when(pl.col(v).ne_missing(pl.col(v + _AFTER))).then(pl.lit(v)) for v in values]
    changed = both.select(*key, columns=pl.concat_list(differs).list.drop_nulls() if differs else pl.lit([]))
    return TableDiff(
        key=key,
        added=new.join(old, on=key, how="anti", nulls_equal=True),
        removed=old.join(new, on=key, how="anti", nulls_equal=True),
        changed=changed.filter(pl.col("columns").list.len() > 0),
    )


_AFTER = "\x1fafter"


def _time_column(table: LakeTable) -> str:
    return next(name for name, (kind, _) in table.spec.columns.items() if kind == TIME)


def _ordered(table: IcebergTable) -> list[Snapshot]:
    return sorted(table.metadata.snapshots, key=lambda snapshot: snapshot.sequence_number or 0)


def _snapshot_at(table: LakeTable, at: datetime) -> int | None:
    """The snapshot that was current at a time; None if nothing had been written yet.

    A snapshot was current until the one that was made upon it. If that is not the next one that is retained, another one between
    the two is gone. Raises `NotFoundError` for that.
    """
    known = _ordered(table.load())
    at_ms = (at - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)
    before = [snapshot for snapshot in known if snapshot.timestamp_ms <= at_ms]
    after = [snapshot for snapshot in known if snapshot.timestamp_ms > at_ms]
    current = before[-1].snapshot_id if before else None
    if not after or after[0].parent_snapshot_id == current or (before and before[-1].timestamp_ms == at_ms):
        return current
    nearest = min((*before[-1:], after[0]), key=lambda snapshot: abs(snapshot.timestamp_ms - at_ms))
    found = snapshot_of(nearest)
    raise NotFoundError(
        f"{table.identifier}: what it was at {at.isoformat()} is no longer retained (see retention in assistant.yaml). The"
        f" nearest moment that is: {found.at.isoformat()} (snapshot {found.snapshot})."
    )
