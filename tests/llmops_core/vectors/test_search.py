"""Modes, fusion and reranking."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmops_core.errors import ConfigError
from llmops_core.vectors.hit import Hit
from llmops_core.vectors.index import IndexSettings, VectorIndex
from llmops_core.vectors.reader import IndexReader
from llmops_core.vectors.search import fuse, search


def hit(chunk_id: str, score: float = 0.0) -> Hit:
    return Hit(chunk_id, "d", "Title", ("Heading",), f"text of {chunk_id}", 0, 1, score)


class LastFirst:
    """A reranker that gives the greatest chunk the best score, and remembers what it saw."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        self.seen = list(texts)
        return np.arange(len(texts), dtype=np.float32)


@pytest.fixture
def reader(tmp_path: Path, make_row: Any, batches: Any) -> IndexReader:
    index = VectorIndex(str(tmp_path), "t")
    index.build(batches([make_row(n, n % 60) for n in range(150)]), "v1", IndexSettings())
    return index.open("v1")


def test_fusion_sums_reciprocal_ranks() -> None:
    fused = fuse([[hit("a", 0.9), hit("b", 0.8)], [hit("b", 7.0), hit("c", 5.0)]])
    assert [(one.chunk_id, one.score) for one in fused] == [
        ("b", 1 / 62 + 1 / 61),
        ("a", 1 / 61),
        ("c", 1 / 62),
    ]


def test_equal_sums_come_in_the_order_of_chunk_ids() -> None:
    assert [one.chunk_id for one in fuse([[hit("z", 2.0)], [hit("a", 3.0)]])] == ["a", "z"]


def test_chunks_that_tie_in_a_list_share_its_better_rank() -> None:
    fused = fuse([[hit("a", 0.9), hit("b", 0.9), hit("c", 0.5)]])
    assert [one.score for one in fused] == [1 / 61, 1 / 61, 1 / 63]


def test_hybrid_fuses_both_lists(reader: IndexReader, query_vector: Any) -> None:
    query, vector = "running city word3", query_vector(1)
    fused = fuse([reader.dense(vector, 50), reader.full_text(query, 50)])
    assert search(reader, "hybrid", query, vector, 10) == fused[:10]
    assert search(reader, "dense", query, vector, 10) == reader.dense(vector, 10)
    assert search(reader, "full_text", query, None, 10) == reader.full_text(query, 10)


def test_hybrid_without_a_word_to_find_is_dense(reader: IndexReader, query_vector: Any) -> None:
    found = search(reader, "hybrid", "😀", query_vector(1), 5)
    assert [one.chunk_id for one in found] == [one.chunk_id for one in reader.dense(query_vector(1), 5)]


def test_more_than_the_pool_can_be_asked_for(reader: IndexReader, query_vector: Any) -> None:
    assert len(search(reader, "hybrid", "running", query_vector(1), 120)) == 120


def test_the_reranker_orders_the_first_of_the_pool(reader: IndexReader, query_vector: Any) -> None:
    reranker = LastFirst()
    plain = search(reader, "hybrid", "running city", query_vector(1), 8)
    reranked = search(reader, "hybrid", "running city", query_vector(1), 3, reranker=reranker, pool=8)
    assert [one.chunk_id for one in reranked] == [one.chunk_id for one in reversed(plain[-3:])]
    assert [one.score for one in reranked] == [7.0, 6.0, 5.0]
    assert len(reranker.seen) == 8
    assert plain[0].text in reranker.seen[0]
    assert reranker.seen[0].startswith("Guide > Part > ")


def test_all_that_is_asked_for_is_reranked_even_beyond_the_pool(reader: IndexReader, query_vector: Any) -> None:
    reranked = search(reader, "dense", "", query_vector(1), 20, reranker=LastFirst(), pool=5)
    assert [one.score for one in reranked] == [float(score) for score in reversed(range(20))]


def test_a_reranker_is_not_asked_about_nothing(reader: IndexReader) -> None:
    assert search(reader, "full_text", "😀", None, 5, reranker=LastFirst(), pool=5) == []


def test_equal_scores_of_a_reranker_come_in_the_order_of_chunk_ids(reader: IndexReader, query_vector: Any) -> None:
    class Indifferent:
        def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
            return np.ones(len(texts), dtype=np.float32)

    found = search(reader, "dense", "", query_vector(1), 9, reranker=Indifferent(), pool=9)
    assert [one.chunk_id for one in found] == sorted(one.chunk_id for one in found)


def test_modes_that_need_a_vector_say_so(reader: IndexReader, query_vector: Any) -> None:
    for mode in ("dense", "hybrid"):
        with pytest.raises(ConfigError, match=f"{mode} needs an embedder"):
            search(reader, mode, "running", None, 5)
    with pytest.raises(ConfigError, match="no retrieval mode 'bm25'"):
        search(reader, "bm25", "running", query_vector(1), 5)
