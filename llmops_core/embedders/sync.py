"""Embeds what has no vector yet: the work behind `index/embeddings`.

The anti-join on (embedder revision, chunk) decides what is missing, so a run that was killed resumes where its last commit
was, and an unchanged chunk is never embedded twice. Buckets by hash of the chunk id let several steps share the work.
"""

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

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
    counts = missing.group_by("bucket").len().collect().sort("bucket")
    return {int(bucket): int(count) for bucket, count in counts.iter_rows()}


def is_complete(tables: EmbeddingTables, revision: str, embeddings_snapshot: int) -> bool:
    """Whether every chunk has its vector already in an older snapshot, so that nothing new needs to be recorded."""
    try:
        return bool(_missing(tables, revision, embeddings_snapshot).select(pl.len()).collect().item() == 0)
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
    missing = _missing(tables, revision).filter(_bucket(buckets) == bucket).sort("chunk_id").collect()
    for start in range(0, missing.height, CHUNKS_PER_COMMIT):
        part = missing.slice(start, CHUNKS_PER_COMMIT)
        vectors: list[list[float]] = []
        for offset in range(0, part.height, CHUNKS_PER_BATCH):
            texts = [
                embedded_text(row["title"], tuple(row["heading_path"]), row["text"])
                for row in part.slice(offset, CHUNKS_PER_BATCH).iter_rows(named=True)
            ]
            vectors.extend(embedder.embed_documents(texts).tolist())
            progress(start + len(vectors), missing.height)
        frame = pl.DataFrame(
            {
                "embedder_revision": [revision] * part.height,
                "chunk_id": part["chunk_id"],
                "vector": pl.Series(vectors, dtype=pl.List(pl.Float32)),
            }
        )
        tables.embeddings.append(frame, provenance)
    return missing.height


def _missing(tables: EmbeddingTables, revision: str, embeddings_snapshot: int | None = None) -> pl.LazyFrame:
    chunks = tables.chunks.scan(tables.chunks_snapshot).select("chunk_id", "title", "heading_path", "text")
    present = (
        tables.embeddings.scan(embeddings_snapshot).filter(pl.col("embedder_revision") == revision).select("chunk_id")
    )
    return chunks.join(present, on="chunk_id", how="anti")


def _bucket(buckets: int) -> pl.Expr:
    """The bucket of a chunk: the first 32 bits of its id, which is a hash, modulo their number."""
    return pl.col("chunk_id").str.slice(0, 8).str.to_integer(base=16, dtype=pl.Int64) % buckets
