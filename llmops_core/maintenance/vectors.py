"""Vectors that nothing needs any more: of chunks that are in no snapshot, and of former embedders.

While a look at the past still finds a chunk it may come back, and its vectors are not to be computed again. A file is written
anew only when many of its rows are dead, so that little changes each day do not rewrite the whole table each day.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask
from pyiceberg.table import Table as IcebergTable

from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.maintenance.compaction import entries, rewrite

# From this share of dead rows on a file is written anew.
SHARE = 0.2


@dataclass(frozen=True)
class DeadVectors:
    """The dead rows of files that have many of them."""

    rows: int
    files: list[DataFile]
    keep: Callable[[pa.Table], pa.Table]
    """The rows of a file that stay."""


def dead_vectors(lakehouse: Lakehouse, assistant: str, ending: Collection[int], former: Collection[str]) -> DeadVectors:
    """Look which vectors may go when the snapshots `ending` of the chunks do; `former`: embedder revisions that go whole."""
    chunks, vectors = (lakehouse.table(assistant, name).load() for name in ("corpus_chunks", "index_embeddings"))
    present = vectors.current_snapshot()
    alive = pl.Series("chunk_id", [], pl.String)
    for entry in entries(chunks, (s for s in chunks.snapshots() if s.snapshot_id not in ending)):
        # Snapshots have most chunks in common: never all their files together.
        alive = pl.concat([alive, _chunk_ids(chunks, entry.data_file)]).unique()

    def keep(rows: pa.Table) -> pa.Table:
        frame = pl.DataFrame(rows.select(["chunk_id", "embedder_revision"]))
        is_former = frame["embedder_revision"].is_in(list(former))
        return rows.filter(pa.array((frame["chunk_id"].is_in(alive.implode()) & ~is_former).to_list()))

    count, files = 0, []
    for file in (entry.data_file for entry in entries(vectors, [present] if present else [])):
        dead = file.record_count
        if file.partition[0] not in former:
            dead -= int(_chunk_ids(vectors, file).is_in(alive.implode()).sum())
        if dead >= SHARE * file.record_count:
            count += dead
            files.append(file)
    return DeadVectors(count, files, keep)


def delete_vectors(lakehouse: Lakehouse, assistant: str, dead: DeadVectors, provenance: Provenance) -> None:
    """Write the files anew without their dead rows, a commit each; what others changed meanwhile waits for the next time."""
    table = lakehouse.table(assistant, "index_embeddings").load()
    for file in dead.files:
        if not rewrite(table, [file], provenance.properties(), dead.keep):
            return


def _chunk_ids(table: IcebergTable, file: DataFile) -> pl.Series:
    """The chunk ids in a file, without reading its other columns."""
    from pyiceberg.io.pyarrow import ArrowScan

    scan = ArrowScan(table.metadata, table.io, table.schema().select("chunk_id"), AlwaysTrue())
    return pl.Series("chunk_id", scan.to_table([FileScanTask(file)])["chunk_id"], pl.String)
