"""One maintenance of an assistant, from what is needed to the report.

A dry run and a real one make the same plan and tell the same; the real one then carries it out. Of two on one machine the
second is refused; two on different machines waste work and harm nothing, since every commit is a compare-and-set and a file
that is gone already does not matter.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

from filelock import FileLock, Timeout

from llmops_core.assistant import Assistant
from llmops_core.errors import ConflictError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.schemas import TABLES
from llmops_core.lakehouse.table import Provenance
from llmops_core.maintenance.index_versions import IndexPlan, apply_index_versions, plan_index_versions
from llmops_core.maintenance.local import LocalPlan, apply_local, plan_local
from llmops_core.maintenance.needed import needed
from llmops_core.maintenance.notes import Notes
from llmops_core.maintenance.report import Maintained
from llmops_core.maintenance.spool import apply_segments, plan_segments
from llmops_core.maintenance.tables import TablePlan, apply_table, plan_table
from llmops_core.maintenance.vectors import DeadVectors, dead_vectors, delete_vectors
from llmops_core.settings import Settings


def maintain(
    lakehouse: Lakehouse,
    settings: Settings,
    assistant: Assistant,
    recorded: Mapping[str, str],
    provenance: Provenance,
    *,
    dry_run: bool = False,
    now: datetime | None = None,
) -> Maintained:
    """Apply the assistant's retention; `dry_run` says what would go and changes nothing.

    `recorded`: snapshot id or data version → asset whose latest materialisation names it. Raises `ConflictError` when
    another maintenance of the assistant is under way here, or writers leave no gap; the next run completes what is left.
    """
    with _alone(settings, assistant.name, dry_run=dry_run):
        present = now or datetime.now(UTC)
        notes = Notes(lakehouse, assistant.name)
        doubt = notes.doubt(present)
        if doubt:
            if not dry_run:
                notes.doubted(present)
            return Maintained(dry_run=dry_run, counted_from=present.isoformat(), doubt=doubt)
        keep = needed(lakehouse, assistant, recorded, present)
        index = plan_index_versions(lakehouse, settings, assistant, keep, present)
        local = plan_local(lakehouse, settings, assistant.name, keep, present)
        segments = plan_segments(lakehouse, assistant.name)
        tables = {
            name: plan_table(lakehouse, lakehouse.table(assistant.name, name), assistant.retention, keep, present)
            for name in TABLES
        }
        ending = set(tables["corpus_chunks"].snapshots)
        if dry_run:
            vectors = dead_vectors(lakehouse, assistant.name, ending, index.tables)
        else:
            # Channels move and requests come while the plan is made: what that needs stays, though it was to go.
            still = needed(lakehouse, assistant, recorded, present)
            # Before the tables of former embedders, by which a later run would find what a kill has left.
            former = [revision for revision in index.tables if revision not in index.revisions_of(still)]
            vectors = dead_vectors(lakehouse, assistant.name, ending.difference(still.snapshots), former)
            delete_vectors(lakehouse, assistant.name, vectors, provenance)
            apply_index_versions(lakehouse, assistant, index, still, provenance)
            apply_local(settings, local, still)
            apply_segments(lakehouse, assistant.name, segments)
            for name, plan in tables.items():
                apply_table(lakehouse, lakehouse.table(assistant.name, name), plan, still, provenance)
            notes.ran(present)
        return _report(index, vectors, local, segments, tables, present, dry_run=dry_run)


def _report(
    index: IndexPlan,
    vectors: DeadVectors,
    local: LocalPlan,
    segments: Mapping[str, tuple[int, int]],
    tables: Mapping[str, TablePlan],
    present: datetime,
    *,
    dry_run: bool,
) -> Maintained:
    kept = dict(index.kept)
    for plan in tables.values():
        kept |= plan.kept
    return Maintained(
        dry_run=dry_run,
        tables={name: plan.work for name, plan in tables.items()},
        index_versions=tuple(version for _, version in index.due),
        index_tables=tuple(index.tables),
        vectors=vectors.rows,
        adapters=tuple(local.adapters),
        segments=sum(there for _, there in segments.values()),
        local_copies=len(local.copies),
        waiting=(*index.waiting, *local.waiting),
        kept=kept,
        counted_from=present.isoformat(),
    )


@contextmanager
def _alone(settings: Settings, assistant: str, *, dry_run: bool) -> Iterator[None]:
    if dry_run:
        yield
        return
    folder = settings.home / "maintenance"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # The operating system lets go of the lock when its holder dies.
        with FileLock(folder / f"{assistant}.lock", timeout=0):
            yield
    except Timeout as error:
        raise ConflictError(
            f"{assistant}: another maintenance is under way here (it holds {folder / assistant}.lock). Wait for it to end;"
            " what it does need not be done twice."
        ) from error
