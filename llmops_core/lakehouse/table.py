"""One Iceberg table, with polars frames on both sides.

Reads are lazy and may name a snapshot; every write says which run and which code made it, in the rows and in the
snapshot's properties. Concurrency: appends commute and are retried by PyIceberg; a replace that lost a race raises
`ConflictError`, and so does any write to a table whose commits are compare-and-set (see schemas.py).
"""

import os
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, ValidationException
from pyiceberg.expressions import AlwaysTrue, BooleanExpression, In, Reference
from pyiceberg.table import Table as IcebergTable

from llmops_core.errors import ConflictError, NotFoundError, PermanentError
from llmops_core.lakehouse.catalog_errors import mapped_errors
from llmops_core.lakehouse.history import bound_history, data_snapshot_id
from llmops_core.lakehouse.schemas import WRITE_COLUMNS, TableSpec
from llmops_core.lakehouse.transaction import LakeTransaction
from llmops_core.version import code_version

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from pyiceberg.catalog import Catalog
    from pyiceberg.manifest import DataFile

# Without this, polars warns at each scan that its own (separate, young) planner is not installed.
os.environ.setdefault("POLARS_ICEBERG_PLANNER", "pyiceberg")

# An overwrite of rows that are not there yet is an append here, and nothing to warn of.
warnings.filterwarnings("ignore", message="Delete operation did not match any records")

R = TypeVar("R")

# How often a decision is made anew after somebody else was faster.
DECISIONS = 20

# A filter with more values than this makes Iceberg's expression evaluation the slow part of a commit.
IDS_PER_FILTER = 5_000


@dataclass(frozen=True)
class Provenance:
    """Who writes, and from what: goes into rows (`run_id`) and into snapshot properties (all of it)."""

    run_id: str
    reads: Mapping[str, int | str] = field(default_factory=dict)
    """Table or asset → snapshot id or content hash that was read to make the rows."""

    def properties(self) -> dict[str, str]:
        """The snapshot properties of a write."""
        read = {f"llmops.read.{name}": str(version) for name, version in self.reads.items()}
        return {"llmops.run_id": self.run_id, "llmops.code_version": code_version(), **read}


class LakeTable:
    """A table of one assistant; cheap to make, loads its metadata at each use so that it is never stale."""

    def __init__(self, catalog: "Catalog", assistant: str, spec: TableSpec) -> None:
        self._catalog = catalog
        self.spec = spec
        self.identifier = f"{assistant}.{spec.name}"

    def load(self) -> IcebergTable:
        """Load the table's current metadata; raises `NotFoundError` if it was never made, `LakehouseError` if it is away."""
        try:
            with mapped_errors(self.identifier):
                return self._catalog.load_table(self.identifier)
        except NoSuchTableError as error:
            raise NotFoundError(
                f"Iceberg table {self.identifier} does not exist. Build the assistant first: llmops build"
            ) from error

    def snapshot_id(self) -> int | None:
        """The newest snapshot with other rows than the one before; None while nothing was ever written.

        Compaction changes files and no rows, so what it makes is no new version of the data.
        """
        return data_snapshot_id(self.load())

    def scan(self, snapshot_id: int | None = None) -> pl.LazyFrame:
        """Read lazily, at `snapshot_id` or at the newest; the columns of the spec, then those of the write.

        Raises `NotFoundError` when the snapshot is no longer retained, `LakehouseError` when catalog or storage fail.
        """
        table = self.load()
        columns = {**self.spec.frame_schema, **{name: kind for name, (kind, _) in WRITE_COLUMNS.items()}}
        if table.current_snapshot() is None:
            return pl.LazyFrame(schema=columns)
        if snapshot_id is not None and table.snapshot_by_id(snapshot_id) is None:
            raise NotFoundError(
                f"{self.identifier}: snapshot {snapshot_id} is no longer retained (see retention in assistant.yaml)."
                " Build again to read the newest."
            )
        with mapped_errors(self.identifier):
            frame = pl.scan_iceberg(table, snapshot_id=snapshot_id)
            # A snapshot has the columns of its time; those that came since are null in it, as they are at the newest.
            present = frame.collect_schema()
        return frame.with_columns(
            pl.lit(None, kind).alias(name) for name, kind in columns.items() if name not in present
        )

    def read(self, snapshot_id: int | None = None) -> pl.DataFrame:
        """Read all rows, with the columns of the spec alone."""
        frame = self.scan(snapshot_id).select(self.spec.frame_schema.names())
        with mapped_errors(self.identifier):
            return frame.collect()

    def append(self, frame: pl.DataFrame, provenance: Provenance) -> int | None:
        """Append rows and return the snapshot; an empty frame writes nothing and returns the current one."""
        table = self.load()
        return data_snapshot_id(table) if frame.is_empty() else self._append(table, frame, provenance, {})

    def append_after(
        self,
        frame: pl.DataFrame,
        provenance: Provenance,
        expected_snapshot: int | None,
        marks: Mapping[str, str] | None = None,
    ) -> int | None:
        """Append only if the table is still at `expected_snapshot`; else `ConflictError` and nothing is written.

        `marks` are table properties, set by the same commit. This is a compare-and-set only on tables of the spec
        `COMPARE_AND_SET`, whose commits are not retried.
        """
        return self._append(self._at(expected_snapshot), frame, provenance, marks or {})

    def append_decided(
        self,
        decide: Callable[[pl.DataFrame], tuple[R, Mapping[str, Any] | Sequence[Mapping[str, Any]] | None]],
        provenance: Provenance,
    ) -> R:
        """Append the row, or rows, that `decide` makes of the present ones; if somebody wrote meanwhile, decide anew.

        `decide` returns what the caller wants to know, and what to write: nothing if None or empty. Only on tables of the spec
        `COMPARE_AND_SET`. Raises `ConflictError` when others write all the time.
        """
        for _ in range(DECISIONS):
            snapshot = self.snapshot_id()
            # An empty table has no snapshot to read at; what came since is caught by `append_after`.
            try:
                present = self.read(snapshot)
            except NotFoundError:
                # It was a compaction's original, and has expired since: the compaction now stands for itself.
                continue
            result, made = decide(present)
            if not made:
                return result
            rows = [made] if isinstance(made, Mapping) else made
            try:
                self.append_after(pl.DataFrame(rows, schema=self.spec.frame_schema), provenance, snapshot)
            except ConflictError:
                continue
            return result
        raise ConflictError(f"{self.identifier} is being written all the time; try again.")

    def replace(
        self,
        column: str,
        values: Collection[str],
        frames: Iterable[pl.DataFrame],
        provenance: Provenance,
        expected_snapshot: int | None,
    ) -> int | None:
        """Delete the rows whose `column` is one of `values` and append `frames`, in one commit; nothing of both: no commit.

        Frames go into a file each as they come and are never held together; `values` is read after the last of them, so
        whoever makes the frames may still add to it. What goes and what comes was worked out from `expected_snapshot`: if
        the table has moved on, `ConflictError`. Only on tables of the spec `COMPARE_AND_SET`.
        """
        table = self._at(expected_snapshot)
        properties = provenance.properties()
        files: list[DataFile] = []
        for frame in frames:
            if not frame.is_empty():
                with self._mapped_errors():
                    files.extend(self._data_files(table, frame, provenance))
        gone = sorted(set(values))
        if not gone and not files:
            return expected_snapshot
        # Loaded anew: what compaction did while the frames were made changed no rows and is no conflict.
        table = self._at(expected_snapshot)
        with self._mapped_errors(), LakeTransaction(table) as transaction:
            for start in range(0, len(gone), IDS_PER_FILTER):
                literals = set(gone[start : start + IDS_PER_FILTER])
                transaction.delete(In(term=Reference(column), literals=literals), snapshot_properties=properties)
            if files:
                with transaction.update_snapshot(snapshot_properties=properties).merge_append() as append:
                    for file in files:
                        append.append_data_file(file)
        return data_snapshot_id(table)

    def delete(self, where: BooleanExpression, provenance: Provenance) -> int | None:
        """Delete the rows that match, in one commit; files that hold others as well are written anew without them."""
        table = self.load()
        with self._mapped_errors(), LakeTransaction(table) as transaction:
            transaction.delete(where, snapshot_properties=provenance.properties())
        return data_snapshot_id(table)

    def overwrite(
        self, frame: pl.DataFrame, provenance: Provenance, where: BooleanExpression | None = None
    ) -> int | None:
        """Replace all rows (or those matching `where`) by `frame`, in one commit."""
        table = self.load()
        with self._mapped_errors(), LakeTransaction(table) as transaction:
            transaction.overwrite(
                self._arrow(table, frame, provenance),
                overwrite_filter=where or AlwaysTrue(),
                snapshot_properties=provenance.properties(),
            )
        return data_snapshot_id(table)

    def property(self, name: str) -> str | None:
        """Read a table property (a mark set by `append`)."""
        return self.load().properties.get(name)

    def _append(
        self, table: IcebergTable, frame: pl.DataFrame, provenance: Provenance, marks: Mapping[str, str]
    ) -> int | None:
        transaction = LakeTransaction(table)
        if marks:
            transaction.require_current_snapshot()
            transaction.set_properties(dict(marks))
        with self._mapped_errors(), transaction:
            if not frame.is_empty():
                transaction.append(self._arrow(table, frame, provenance), snapshot_properties=provenance.properties())
        written = data_snapshot_id(table)
        if self.spec.past == "rows":
            bound_history(table)
        return written

    def _at(self, expected_snapshot: int | None) -> IcebergTable:
        """Load the table if its rows are still those of a snapshot; raises `ConflictError`."""
        table = self.load()
        if data_snapshot_id(table) != expected_snapshot:
            raise ConflictError(f"{self.identifier} was changed by somebody else: reload, compare, try again.")
        return table

    def _data_files(self, table: IcebergTable, frame: pl.DataFrame, provenance: Provenance) -> "Iterable[DataFile]":
        """Write a frame beside the table; a commit has to make its files part of it."""
        from pyiceberg.io.pyarrow import _dataframe_to_data_files

        return _dataframe_to_data_files(table.metadata, self._arrow(table, frame, provenance), table.io)

    def _arrow(self, table: IcebergTable, frame: pl.DataFrame, provenance: Provenance) -> "pa.Table":
        """Bring a frame to the table's exact Arrow schema, write columns added."""
        missing = set(self.spec.arrow_schema.names).difference(table.schema().column_names)
        if missing:
            raise PermanentError(
                f"{self.identifier} was made by an earlier version and lacks {', '.join(sorted(missing))}. Bring the home to this"
                " version, then try again: llmops upgrade"
            )
        written = frame.select(
            *(pl.col(name).cast(kind) for name, kind in self.spec.frame_schema.items()),
            pl.lit(provenance.run_id).alias("run_id"),
            pl.lit(code_version()).alias("code_version"),
        )
        return written.to_arrow().cast(self.spec.arrow_schema)

    @contextmanager
    def _mapped_errors(self) -> "Iterator[None]":
        try:
            with mapped_errors(self.identifier):
                yield
        except (CommitFailedException, ValidationException) as error:
            raise ConflictError(
                f"{self.identifier} was changed by somebody else: reload, compare, try again ({error})"
            ) from error
