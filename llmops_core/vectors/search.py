"""The retrieval modes: dense, full text, and both fused; a reranker on top.

Ranks are fused here and not by LanceDB, since a library's fusion inherits the order in which ties happen to come.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llmops_core.chunks.chunk import embedded_text
from llmops_core.errors import ConfigError
from llmops_core.vectors.hit import Hit
from llmops_core.vectors.reader import IndexReader

# Cormack, Clarke, Büttcher (2009), Reciprocal Rank Fusion outperforms Condorcet: k = 60.
RRF_K = 60
# Deep enough for a chunk that one list has low and the other high.
POOL = 50


class Scores(Protocol):
    """A reranker."""

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Relevance of each text to the query."""
        ...


def search(
    reader: IndexReader,
    mode: str,
    query: str,
    vector: NDArray[np.float32] | None,
    top_k: int,
    *,
    reranker: Scores | None = None,
    pool: int = 0,
) -> list[Hit]:
    """The `top_k` best chunks, ordered by (score descending, chunk id).

    `mode` is dense, full_text or hybrid. With a reranker, the first `pool` hits of the mode, and `top_k` if that is more,
    get its score and order, so that all scores of an answer are of one kind. Raises `ConfigError` for an unknown mode, or
    one that needs a vector and got none.
    """
    wanted = max(top_k, pool) if reranker else top_k
    hits = _by_mode(reader, mode, query, vector, wanted)[:wanted]
    if reranker is None or not hits:
        return hits
    scores = reranker.score(query, [embedded_text(hit.title, hit.heading_path, hit.text) for hit in hits])
    reranked = [replace(hit, score=float(score)) for hit, score in zip(hits, scores, strict=True)]
    return in_order(reranked)[:top_k]


def fuse(lists: Sequence[Sequence[Hit]]) -> list[Hit]:
    """Reciprocal rank fusion: a chunk's score is the sum of 1 / (60 + rank) over the lists that have it.

    Chunks that tie within a list share the better rank, so that the order of ids does not decide between them.
    """
    scores: dict[str, float] = {}
    found: dict[str, Hit] = {}
    for hits in lists:
        rank, previous = 0, None
        for position, hit in enumerate(hits, start=1):
            if hit.score != previous:
                rank, previous = position, hit.score
            scores[hit.chunk_id] = scores.get(hit.chunk_id, 0.0) + 1.0 / (RRF_K + rank)
            found[hit.chunk_id] = hit
    return in_order([replace(found[chunk_id], score=score) for chunk_id, score in scores.items()])


def in_order(hits: Sequence[Hit]) -> list[Hit]:
    """Best first; equal scores by chunk id."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.chunk_id))


def _by_mode(reader: IndexReader, mode: str, query: str, vector: NDArray[np.float32] | None, wanted: int) -> list[Hit]:
    if mode == "full_text":
        return reader.full_text(query, wanted)
    if mode not in ("dense", "hybrid"):
        raise ConfigError(f"There is no retrieval mode {mode!r}; there are dense, full_text and hybrid.")
    if vector is None:
        raise ConfigError(f"Retrieval mode {mode} needs an embedder; only full_text does without.")
    if mode == "dense":
        return reader.dense(vector, wanted)
    depth = max(POOL, wanted)
    return fuse([reader.dense(vector, depth), reader.full_text(query, depth)])
