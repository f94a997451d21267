"""Embeds what has no vector yet: the work behind `index/embeddings`.

The anti-join on (embedder revision, chunk) decides what is missing, so a run that was killed resumes where its last commit
was, and an unchanged chunk is never embedded twice. Buckets by hash of the chunk id let several steps share the work.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llmops_core.chunks.chunk import embedded_text
from llmops_core.embedders.embedder import Embedder
from llmops_core.errors import NotFoundError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import LakeTable, Provenance

# A commit each: a kill loses at most this many vectors, and memory holds no more.
CHUNKS_PER_COMMIT = 2_048
# Between two lines of progress.
CHUNKS_PER_BATCH = 256


@dataclass(frozen=True)
class EmbeddingTables:
    """The two tables that embedding reads and the one it writes, at the snapshot of the chunks to embed."""

    chunks: LakeTable
    embeddings: LakeTable
    chunks_snapshot: int

    @classmethod
    def of(cls, lakehouse: Lakehouse, assistant: str, chunks_snapshot: int) -> "EmbeddingTables":
        """The tables of an assistant."""
        return cls(
            lakehouse.table(assistant, "corpus_chunks"),
            lakehouse.table(assistant, "index_embeddings"),
            chunks_snapshot,
        )


def missing_by_bucket(tables: EmbeddingTables, revision: str, buckets: int) -> dict[int, int]:
    """Count the chunks without a vector of this revision, by bucket; buckets with none are absent."""
    missing = _missing(tables, revision).with_columns(bucket=_bucket(buckets))
    counts = missing.group_by("bucket").len().collect(engine="streaming").sort("bucket")
    return {int(bucket): int(count) for bucket, count in counts.iter_rows()}


def is_complete(tables: EmbeddingTables, revision: str, embeddings_snapshot: int) -> bool:
    """Whether every chunk has its vector already in an older snapshot, so that nothing new needs to be recorded."""
    try:
        return bool(
            _missing(tables, revision, embeddings_snapshot).select(pl.len()).collect(engine="streaming").item() == 0
        )
    except NotFoundError:  # the snapshot has been expired
        return False


def embed_bucket(
    tables: EmbeddingTables,
    embedder: Embedder,
    revision: str,
    bucket: int,
    buckets: int,
    provenance: Provenance,
    progress: Callable[[int, int], None],
) -> int:
    """Embed and commit the missing chunks of one bucket; returns how many.

    `progress` gets (done, of) after each batch.
    """
    missing = _missing(tables, revision).filter(_bucket(buckets) == bucket)
    of = int(missing.select(pl.len()).collect(engine="streaming").item())
    done = 0
    for unsorted in missing.collect_batches(chunk_size=CHUNKS_PER_COMMIT, lazy=True):
        # Texts of one length together: a batch is padded to its longest.
        part = unsorted.sort("tokens", "chunk_id", descending=True)
        vectors: list[NDArray[np.float32]] = []
        for some in part.iter_slices(CHUNKS_PER_BATCH):
            texts = [
                embedded_text(row["title"], tuple(row["heading_path"]), row["text"])
                for row in some.iter_rows(named=True)
            ]
            vectors.append(embedder.embed_documents(texts))
            done += some.height
            progress(done, of)
        frame = pl.DataFrame(
            {
                "embedder_revision": [revision] * part.height,
                "chunk_id": part["chunk_id"],
                "vector": pl.Series(np.concatenate(vectors)).cast(pl.List(pl.Float32)),
            }
        )
        tables.embeddings.append(frame, provenance)
    return done


def _missing(tables: EmbeddingTables, revision: str, embeddings_snapshot: int | None = None) -> pl.LazyFrame:
    chunks = tables.chunks.scan(tables.chunks_snapshot).select("chunk_id", "title", "heading_path", "text", "tokens")
    present = (
        tables.embeddings.scan(embeddings_snapshot).filter(pl.col("embedder_revision") == revision).select("chunk_id")
    )
    # In one order, since a vector differs a little with the texts beside it.
    return chunks.join(present, on="chunk_id", how="anti", maintain_order="left")


def _bucket(buckets: int) -> pl.Expr:
    """The bucket of a chunk: the first 32 bits of its id, which is a hash, modulo their number."""
    return pl.col("chunk_id").str.slice(0, 8).str.to_integer(base=16, dtype=pl.Int64) % buckets
