"""Brings a table to exactly the wanted rows, with work in proportion to what changed.

The wanted rows stream through once and are never all in memory: a row that the table has is dropped, the others go straight
into data files, and what remains of the table and was not wanted is deleted. What is present is told by `row_hash` alone,
so a table that a killed or racing build left behind is repaired like any other difference.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from llmops_core.errors import EmptyCorpusError, InvalidRequestError
from llmops_core.vectors.rows import ROW_HASH, VECTOR, arrow_schema, dimension_of, to_arrow, with_row_hash
from llmops_core.vectors.storage import TableLocation, conflict, readable, sole_writer, storage_options

if TYPE_CHECKING:
    from lance import LanceDataset

ROWS_PER_DELETE = 10_000
# Files are merged when there are more, or when more of their rows are deleted: each merge rewrites them, vectors included,
# and every version that is kept keeps its own copy.
MOST_FRAGMENTS = 16
MOST_DELETED = 0.2


@dataclass(frozen=True)
class Changes:
    """What a table went through: rows that it has now, were written (new or changed), and are gone."""

    rows: int
    added: int
    deleted: int
    touched: bool
    """Whether the table changed at all."""


class _Missing:
    """Iterates over the wanted rows that are not present, and keeps account."""

    def __init__(self, batches: Iterable[pl.DataFrame], present: set[str]) -> None:
        self.wanted: dict[str, str] = {}
        """Chunk id → row hash of all rows that came."""
        self.added = 0
        self._error: BaseException | None = None
        self._batches = batches
        self._present = present

    def __iter__(self) -> Iterator[pl.DataFrame]:
        for batch in self._batches:
            rows = with_row_hash(batch)
            self._note(rows)
            missing = rows.filter(pl.Series([h not in self._present for h in rows[ROW_HASH]], dtype=pl.Boolean))
            if not missing.is_empty():
                self.added += missing.height
                yield missing

    def arrow(self, frames: Iterable[pl.DataFrame], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Rows as Arrow, for a reader that Lance pulls."""
        try:
            for frame in frames:
                yield to_arrow(frame, schema)
        except BaseException as error:
            self._error = error
            raise

    @contextmanager
    def own_errors(self) -> Iterator[None]:
        """Raise an error of the rows themselves as it was, and not as what became of it on its way through Lance."""
        try:
            yield
        except BaseException:
            if self._error is not None:
                raise self._error from None
            raise

    def _note(self, rows: pl.DataFrame) -> None:
        before = len(self.wanted)
        self.wanted.update(rows.select("chunk_id", ROW_HASH).iter_rows())
        if len(self.wanted) - before != rows.height:
            raise InvalidRequestError(
                f"The rows of an index must have chunk ids that differ, without nulls; in a batch of {rows.height} rows,"
                f" {rows.height - len(self.wanted) + before} came twice."
            )


def synchronise(
    location: TableLocation, dataset: "LanceDataset | None", batches: Iterable[pl.DataFrame], *, fresh: bool
) -> "tuple[LanceDataset, Changes]":
    """Make the table hold exactly the rows of `batches`; `fresh` writes all of them anew, beside what older versions use.

    Raises `EmptyCorpusError` if there are none, `InvalidRequestError` for bad rows, `ConflictError` after a race.
    """
    # A table with other columns was made by another release of this package.
    fresh = dataset is None or fresh or dataset.schema.names != arrow_schema(1).names
    present = _NOTHING if fresh else _present(location, dataset)
    missing = _Missing(batches, set(present[ROW_HASH]))
    written = _write(location, dataset, missing, fresh=fresh)
    if written is None or not missing.wanted:
        raise EmptyCorpusError(f"There is not one chunk to put into {location}.")
    wanted = pl.col(ROW_HASH).is_in(list(missing.wanted.values())) & pl.col(ROW_HASH).is_first_distinct()
    surplus = present.filter(~wanted)
    with readable(location):
        _delete(location, written, surplus["_rowid"].to_list())
        _merge_files(location, written)
        if written.count_rows() != len(missing.wanted):
            raise conflict(location)
    gone = set(present["chunk_id"]) - missing.wanted.keys()
    return written, Changes(len(missing.wanted), missing.added, len(gone), bool(missing.added or surplus.height))


_NOTHING = pl.DataFrame(schema={"chunk_id": pl.String, ROW_HASH: pl.String, "_rowid": pl.UInt64})


def _present(location: TableLocation, dataset: "LanceDataset") -> pl.DataFrame:
    with readable(location):
        return pl.DataFrame(dataset.to_table(columns=["chunk_id", ROW_HASH], with_row_id=True))


def _write(
    location: TableLocation, dataset: "LanceDataset | None", missing: _Missing, *, fresh: bool
) -> "LanceDataset | None":
    """Write the missing rows in one commit; without any, the table stays as it is."""
    import lance
    from lance.fragment import write_fragments

    batches = iter(missing)
    first = next(batches, None)
    if first is None:
        return dataset
    new = dataset is None or fresh
    schema = arrow_schema(dimension_of(first)) if new else _schema(dataset)
    reader = pa.RecordBatchReader.from_batches(schema, missing.arrow(chain([first], batches), schema))
    options = storage_options()
    with missing.own_errors(), readable(location):
        if dataset is None:
            return lance.write_dataset(reader, location.path, mode="create", storage_options=options)
        # Files first, and the commit right after a look at the newest version: so builds that race on an object store
        # miss each other's commits by milliseconds at most, not by the whole time of writing.
        mode = "overwrite" if fresh else "append"
        transaction = write_fragments(reader, dataset, mode=mode, return_transaction=True, storage_options=options)
        if dataset.latest_version != dataset.version:
            raise conflict(location)
        written = lance.LanceDataset.commit(dataset, transaction, storage_options=options)
        if written.version != dataset.version + 1:
            raise conflict(location)
        return written


def _schema(dataset: "LanceDataset") -> pa.Schema:
    return arrow_schema(dataset.schema.field(VECTOR).type.list_size)


def _delete(location: TableLocation, dataset: "LanceDataset", row_ids: list[int]) -> None:
    for start in range(0, len(row_ids), ROWS_PER_DELETE):
        some = ", ".join(map(str, row_ids[start : start + ROWS_PER_DELETE]))
        with sole_writer(location, dataset, commits=1):
            dataset.delete(f"_rowid IN ({some})")


def _merge_files(location: TableLocation, dataset: "LanceDataset") -> None:
    fragments = dataset.get_fragments()
    rows = sum(fragment.physical_rows for fragment in fragments)
    deleted = sum(fragment.num_deletions for fragment in fragments)
    if len(fragments) > MOST_FRAGMENTS or deleted > rows * MOST_DELETED:
        # One version reserves the numbers of the new files, the other one swaps them in.
        with sole_writer(location, dataset, commits=2):
            dataset.optimize.compact_files(num_threads=1)
