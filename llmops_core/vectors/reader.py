"""Searches one version of an index, the same way every time.

What makes a search repeatable: hits are fetched past the k-th score until a lower one is seen, ties are ordered by chunk id,
and a search through the ANN index probes all partitions and refines with the full vectors. Safe for use by several threads.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmops_core.vectors.hit import Hit

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import LanceTable

COLUMNS = ["chunk_id", "document_id", "title", "heading_path", "text", "char_start", "char_end"]
# How many candidates of the quantised index are compared by their full vectors, for each hit wanted.
REFINE = 10
# Fetched beyond k at first, so that most searches see a lower score at once.
OVERFETCH = 8


class IndexReader:
    """A version of an index, open for reading."""

    def __init__(self, table: "LanceTable", version: str) -> None:
        self._table = table
        self.version = version
        self.rows: int = table.count_rows()
        self._partitions = _partitions(table)

    def dense(self, vector: NDArray[np.float32], k: int) -> list[Hit]:
        """The `k` nearest chunks by cosine similarity (the score)."""
        return self._through_ties(lambda n: self._nearest(vector, n), k)

    def exact(self, vector: NDArray[np.float32], k: int) -> list[Hit]:
        """Like `dense`, by comparing with every vector."""
        return self._through_ties(lambda n: self._nearest(vector, n, use_index=False), k)

    def full_text(self, query: str, k: int) -> list[Hit]:
        """The `k` best chunks by BM25 of the words of `query`; none if it has only stop words."""
        from lancedb.query import MatchQuery

        if not query.strip():
            return []

        def fetch(n: int) -> list[Hit]:
            search = self._table.search(MatchQuery(query, "search_text"), query_type="fts")
            return _hits(search.select([*COLUMNS, "_score"]).limit(n).to_arrow(), "_score", lambda score: score)

        return self._through_ties(fetch, k)

    def vectors(self, limit: int) -> NDArray[np.float32]:
        """Some stored vectors, evenly spread over the table: (at most `limit`, dimension)."""
        step = max(1, self.rows // limit)
        rows = self._table.to_lance().take(list(range(0, self.rows, step))[:limit], columns=["vector"])
        return np.stack(rows["vector"].to_numpy(zero_copy_only=False)).astype(np.float32)

    def _nearest(self, vector: NDArray[np.float32], n: int, *, use_index: bool = True) -> list[Hit]:
        search: Any = self._table.search(vector, vector_column_name="vector").distance_type("cosine")
        if not use_index:
            search = search.bypass_vector_index()
        elif self._partitions:
            search = search.nprobes(self._partitions).refine_factor(REFINE)
        found = search.select([*COLUMNS, "_distance"]).limit(n).to_arrow()
        return _hits(found, "_distance", lambda distance: 1.0 - distance)

    def _through_ties(self, fetch: Callable[[int], list[Hit]], k: int) -> list[Hit]:
        wanted = k + OVERFETCH
        while True:
            hits = sorted(fetch(wanted), key=lambda hit: (-hit.score, hit.chunk_id))
            if len(hits) < wanted or hits[k - 1].score > hits[-1].score:
                return hits[:k]
            wanted *= 2


def _hits(rows: "pa.Table", column: str, score: Callable[[float], float]) -> list[Hit]:
    return [
        Hit(
            row["chunk_id"],
            row["document_id"],
            row["title"],
            tuple(row["heading_path"]),
            row["text"],
            row["char_start"],
            row["char_end"],
            score(row[column]),
        )
        for row in rows.to_pylist()
    ]


def _partitions(table: "LanceTable") -> int:
    """The partitions of the ANN index; 0 if there is none."""
    for index in table.list_indices():
        if "vector" in index.columns:
            statistics = table.to_lance().stats.index_stats(index.name)
            return int(statistics["indices"][0]["num_partitions"])
    return 0
