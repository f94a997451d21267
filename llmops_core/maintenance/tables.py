"""One Iceberg table: merge small files, delete log rows past their time, expire snapshots, delete files."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import LessThan, Reference

from llmops_core.assistant import Retention
from llmops_core.errors import ConflictError
from llmops_core.lakehouse.catalog_errors import mapped_errors
from llmops_core.lakehouse.history import expire
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import LakeTable, Provenance
from llmops_core.maintenance.compaction import groups, rewrite
from llmops_core.maintenance.needed import Needed
from llmops_core.maintenance.notes import Notes
from llmops_core.maintenance.report import TableWork
from llmops_core.maintenance.snapshots import old_snapshots
from llmops_core.maintenance.unreferenced import delete, unreferenced

# A delete that met an ingest looks again; both take less than a second.
ATTEMPTS = 5


@dataclass(frozen=True)
class TablePlan:
    """What is to be done, and which old snapshots stay for which reason."""

    work: TableWork
    snapshots: list[int]
    files: list[str]
    log_limit: datetime | None
    notes: Notes
    kept: dict[str, str]


def plan_table(
    lakehouse: Lakehouse, lake_table: LakeTable, retention: Retention, needed: Needed, now: datetime
) -> TablePlan:
    """Look what may go; changes nothing."""
    with mapped_errors(lake_table.identifier):
        return _plan(lakehouse, lake_table, retention, needed, now)


def _plan(
    lakehouse: Lakehouse, lake_table: LakeTable, retention: Retention, needed: Needed, now: datetime
) -> TablePlan:
    table = lake_table.load()
    snapshots, kept = old_snapshots(table, lake_table.spec, retention.index_days, needed.snapshots, now)
    log_limit = now - timedelta(days=retention.log_days) if lake_table.spec.log_time else None
    sizes = unreferenced(lakehouse, table)
    notes = Notes(lakehouse, lake_table.identifier)
    files = notes.due(sizes, now)
    work = TableWork(
        rows=_rows_before(lake_table, log_limit),
        snapshots=len(snapshots),
        merged_files=sum(len(group) for group in groups(table)),
        files=len(files),
        bytes=sum(sizes[path] for path in files),
        waiting_files=len(sizes) - len(files),
    )
    return TablePlan(work, snapshots, files, log_limit, notes, kept)


def apply_table(
    lakehouse: Lakehouse, lake_table: LakeTable, plan: TablePlan, needed: Needed, provenance: Provenance
) -> None:
    """Do what was planned, but for what is needed by now; after a kill at any point, the next run does the rest."""
    with mapped_errors(lake_table.identifier):
        _apply(lakehouse, lake_table, plan, needed, provenance)


def _apply(
    lakehouse: Lakehouse, lake_table: LakeTable, plan: TablePlan, needed: Needed, provenance: Provenance
) -> None:
    table = lake_table.load()
    for group in groups(table) if plan.work.merged_files else []:
        if not rewrite(table, group, provenance.properties()):
            break
    if plan.log_limit and plan.work.rows:
        _delete_rows(lake_table, plan.log_limit, provenance)
    table = lake_table.load()
    try:
        expire(table, set(plan.snapshots).difference(needed.snapshots))
    except CommitFailedException as error:
        raise ConflictError(f"{lake_table.identifier} is being written all the time; try again. ({error})") from error
    delete(lakehouse, table, plan.files)
    plan.notes.save(plan.files)


def _rows_before(table: LakeTable, limit: datetime | None) -> int:
    if limit is None or table.spec.log_time is None:
        return 0
    return int(table.scan().filter(pl.col(table.spec.log_time) < limit).select(pl.len()).collect().item())


def _delete_rows(table: LakeTable, limit: datetime, provenance: Provenance) -> None:
    assert table.spec.log_time
    for attempt in range(1, ATTEMPTS + 1):
        try:
            table.delete(LessThan(term=Reference(table.spec.log_time), value=limit.isoformat()), provenance)
            return
        except ConflictError:
            if attempt == ATTEMPTS:
                raise
