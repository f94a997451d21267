"""Every chunk gets the vector of its text once, whoever is killed and however the work is shared."""

import hashlib
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from llmops_core.chunks.chunk import embedded_text
from llmops_core.embedders import sync as sync_module
from llmops_core.embedders.embedder import l2_normalised
from llmops_core.embedders.sync import EmbeddingTables, embed_bucket, is_complete, missing_by_bucket
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance

RUN = Provenance("run")
CHUNKS = 50


class HashEmbedder:
    """Makes a vector of a text's hash; breaks when it has made as many as it may."""

    model, revision, dimension, max_tokens = "hash", "hash-1", 8, 256

    def __init__(self, may_make: int = CHUNKS) -> None:
        self.made = 0
        self._may_make = may_make

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.made += len(texts)
        if self.made > self._may_make:
            raise InterruptedError
        return np.stack([self.embed_query(text) for text in texts])

    def embed_query(self, text: str) -> NDArray[np.float32]:
        numbers = np.frombuffer(hashlib.sha256(text.encode()).digest()[:8], dtype=np.uint8)
        vector: NDArray[np.float32] = l2_normalised(numbers.astype(np.float32)[None] + 1)[0]
        return vector


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_module, "CHUNKS_PER_COMMIT", 8)
    monkeypatch.setattr(sync_module, "CHUNKS_PER_BATCH", 3)


@pytest.fixture
def tables(lakehouse: Lakehouse) -> EmbeddingTables:
    chunks = lakehouse.table("helper", "corpus_chunks")
    for start in range(0, CHUNKS, 20):
        rows = [
            {
                "chunk_id": hashlib.sha256(str(n).encode()).hexdigest()[:32],
                "title": "Guide",
                "heading_path": ["Part"],
                "text": f"text {n}",
                "tokens": n % 7,
            }
            for n in range(start, min(start + 20, CHUNKS))
        ]
        chunks.append(pl.DataFrame(rows, schema=chunks.spec.frame_schema), RUN)
    snapshot = chunks.snapshot_id()
    assert snapshot is not None
    return EmbeddingTables.of(lakehouse, "helper", snapshot)


def embed(tables: EmbeddingTables, embedder: HashEmbedder, bucket: int = 0, buckets: int = 1) -> list[tuple[int, int]]:
    """Embed a bucket; the progress that was told."""
    told: list[tuple[int, int]] = []
    embed_bucket(tables, embedder, "hash-1", bucket, buckets, RUN, lambda done, of: told.append((done, of)))
    return told


def assert_whole(tables: EmbeddingTables) -> None:
    """Each chunk has one vector, that of its text."""
    vectors = dict(tables.embeddings.read()["chunk_id", "vector"].iter_rows())
    chunks = tables.chunks.read()
    assert (len(vectors), tables.embeddings.read().height) == (CHUNKS, CHUNKS)
    for row in chunks.iter_rows(named=True):
        text = embedded_text(row["title"], tuple(row["heading_path"]), row["text"])
        assert np.array_equal(np.float32(vectors[row["chunk_id"]]), HashEmbedder().embed_query(text))


def test_every_chunk_gets_the_vector_of_its_text(tables: EmbeddingTables) -> None:
    told = embed(tables, HashEmbedder())
    assert_whole(tables)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1] == (CHUNKS, CHUNKS)


def test_what_has_a_vector_is_not_embedded_again(tables: EmbeddingTables) -> None:
    embed(tables, HashEmbedder())
    again = HashEmbedder()
    assert embed(tables, again) == []
    assert (again.made, missing_by_bucket(tables, "hash-1", 4)) == (0, {})
    assert sum(missing_by_bucket(tables, "hash-2", 4).values()) == CHUNKS


def test_a_run_that_breaks_keeps_its_commits_and_the_next_does_the_rest(tables: EmbeddingTables) -> None:
    with pytest.raises(InterruptedError):
        embed(tables, HashEmbedder(may_make=30))
    kept = tables.embeddings.read().height
    assert kept == 24
    rest = HashEmbedder()
    embed(tables, rest)
    assert rest.made == CHUNKS - kept
    assert_whole(tables)


def test_buckets_share_the_work(tables: EmbeddingTables) -> None:
    planned = missing_by_bucket(tables, "hash-1", 4)
    assert planned.keys() == {0, 1, 2, 3}
    for bucket, count in planned.items():
        embedder = HashEmbedder()
        embed(tables, embedder, bucket, 4)
        assert embedder.made == count
    assert_whole(tables)


def test_a_snapshot_with_all_vectors_is_complete_and_an_older_one_is_not(tables: EmbeddingTables) -> None:
    embed(tables, HashEmbedder(), 0, 2)
    half = tables.embeddings.snapshot_id()
    embed(tables, HashEmbedder(), 1, 2)
    whole = tables.embeddings.snapshot_id()
    assert half is not None
    assert whole is not None
    assert is_complete(tables, "hash-1", whole)
    assert not is_complete(tables, "hash-1", half)
    assert not is_complete(tables, "hash-1", 12345)
