"""Searches one version of an index, the same way every time.

What makes a search repeatable, however the index came about: candidates are fetched until one is surely worse than the k-th;
the score of a vector is computed here, exactly, from the stored numbers; an ANN search probes all partitions and compares
full vectors; and ties are in the order of the chunk ids. A reader is safe for use by several threads (Lance's data sets
are immutable and let go of the GIL), but not across a fork.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from llmops_core.errors import IndexCorruptError, InvalidRequestError, NotFoundError
from llmops_core.vectors.hit import Hit
from llmops_core.vectors.indexes import kind_of
from llmops_core.vectors.rows import COLUMNS, SEARCH_TEXT, VECTOR, composed
from llmops_core.vectors.storage import readable

if TYPE_CHECKING:
    from lance import LanceDataset

# Fetched beyond k at first, so that most searches see a worse candidate at once.
OVERFETCH = 8
# How fast more are fetched when all tie.
GROWTH = 4
# Candidates of the quantised index that are compared by their full vectors, for each one fetched.
REFINE = 10
ALL_PARTITIONS = 1_000_000
# Lance sums a distance in float32, in an order that depends on the processor: differences below this mean nothing.
DISTANCE_ERROR = 1e-5
# What a search holds while it compares with all vectors: by default Lance reads 2 GB ahead, which is all of most tables.
READ_AHEAD: dict[str, int] = {"io_buffer_size": 8 << 20, "batch_size": 1_024}
# Longer questions are cut for the full-text search only: each word costs time, and nobody types so many.
MOST_QUERY_CHARACTERS = 8_192


class IndexReader:
    """A version of an index, open for reading."""

    def __init__(self, find: Callable[[], "LanceDataset"], version: str, where: str) -> None:
        """`find` opens the version; a search that cannot read calls it again, since a build may have made it anew."""
        self._find = find
        self._dataset = dataset = find()
        self._where = where
        self.version = version
        self.rows: int = dataset.count_rows()
        self.dimension: int = dataset.schema.field(VECTOR).type.list_size
        self.kind = kind_of(dataset)

    def dense(self, vector: NDArray[np.float32], k: int) -> list[Hit]:
        """The `k` nearest chunks; score: cosine similarity, correctly rounded to float64.

        `vector` has shape (dimension,). Raises `InvalidRequestError` for one of another shape, not finite, or zero.
        """
        return self._nearest(vector, k, use_index=True)

    def exact(self, vector: NDArray[np.float32], k: int) -> list[Hit]:
        """Like `dense`, by comparing with every vector and without any index."""
        return self._nearest(vector, k, use_index=False)

    def full_text(self, query: str, k: int) -> list[Hit]:
        """The `k` best chunks that have one of the words of `query`; score: BM25 (k1 1.2, b 0.75).

        `query` is plain words, whatever characters it has; with no word beyond stop words, nothing is found.
        """
        from lance.query import MatchQuery

        words = composed(query[:MOST_QUERY_CHARACTERS]).encode("utf-8", "replace").decode()
        match = MatchQuery(words, SEARCH_TEXT)
        wanted = _checked(k) + OVERFETCH
        while True:
            found = self._search(full_text_query=match, columns=[*COLUMNS, "_score"], limit=wanted)
            scores = np.sort(found["_score"].to_numpy())[::-1]
            if len(scores) < wanted or scores[k - 1] > scores[-1]:
                return _best(found, found["_score"].to_pylist(), k)
            wanted *= GROWTH

    def vectors(self, limit: int) -> NDArray[np.float32]:
        """Some stored vectors, evenly spread over the table: (at most `limit`, dimension)."""
        places = np.linspace(0, self.rows - 1, min(limit, self.rows), dtype=np.int64)
        with readable(self._where):
            return _matrix(self._dataset.take(places.tolist(), columns=[VECTOR]))

    def size_bytes(self) -> int:
        """Size of the files that this version uses, many of them together with other versions."""
        with readable(self._where):
            number = self._dataset.version
            used = pl.DataFrame(self._dataset.tracked_files(min_version=number).read_all())
            sizes = pl.DataFrame(self._dataset.all_files().read_all())
        paths = used.filter(pl.col("version") == number).select(pl.col("path").cast(pl.String)).unique()
        return int(sizes.join(paths, on="path", how="semi")["size_bytes"].sum())

    def probe(self) -> None:
        """Read a row of every data file and search for the first; raises `IndexCorruptError` if one cannot be read.

        Also warms the caches, so that the first question is not slower than the others.
        """
        with readable(self._where):
            lengths = [fragment.count_rows() for fragment in self._dataset.get_fragments()]
            rows = self._dataset.take((np.cumsum(lengths) - lengths).tolist())
        self.dense(_matrix(rows)[0], 1)
        self.full_text(rows[SEARCH_TEXT][0].as_py(), 1)

    def _nearest(self, vector: NDArray[np.float32], k: int, *, use_index: bool) -> list[Hit]:
        query = self._comparable(vector)
        wanted = _checked(k) + OVERFETCH
        while True:
            nearest: dict[str, Any] = {"column": VECTOR, "q": query, "k": wanted, "metric": "cosine"}
            nearest |= {"use_index": use_index, "nprobes": ALL_PARTITIONS, "refine_factor": REFINE}
            found = self._search(nearest=nearest, columns=[*COLUMNS, VECTOR, "_distance"], **READ_AHEAD)
            distances = np.sort(found["_distance"].to_numpy())
            if len(distances) < wanted or distances[-1] > distances[k - 1] + DISTANCE_ERROR:
                return _best(found, cosine_similarities(query, _matrix(found)), k)
            wanted *= GROWTH

    def _search(self, **query: Any) -> pa.Table:
        try:
            with readable(self._where):
                return self._dataset.to_table(**query)
        except IndexCorruptError:
            with suppress(NotFoundError), readable(self._where):
                dataset = self._find()
                found = dataset.to_table(**query)
                self._dataset = dataset
                return found
            raise

    def _comparable(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        query = np.asarray(vector, dtype=np.float32)
        if query.shape != (self.dimension,):
            raise InvalidRequestError(
                f"The query vector has shape {query.shape}, and the vectors of {self._where} have {self.dimension} numbers:"
                " it is of another embedder"
            )
        if not np.isfinite(query).all() or not query.any():
            raise InvalidRequestError("The query vector is zero or has numbers that are not finite: nothing is near it")
        return query


def cosine_similarities(query: NDArray[np.float32], vectors: NDArray[np.float32]) -> list[float]:
    """Cosine similarity of `query` (d,) with each of `vectors` (n, d), the same on every machine.

    Products of two float32 are exact in float64 and `math.fsum` rounds once, so no order of summation shows in a score.
    """
    wide, rows = query.astype(np.float64), vectors.astype(np.float64)
    length = math.fsum((wide * wide).tolist())
    dots = [math.fsum(products) for products in (rows * wide).tolist()]
    lengths = [math.fsum(squares) for squares in (rows * rows).tolist()]
    return [dot / math.sqrt(length * other) for dot, other in zip(dots, lengths, strict=True)]


def _best(found: pa.Table, scores: Sequence[float], k: int) -> list[Hit]:
    ids = found["chunk_id"].to_pylist()
    order = sorted(range(len(ids)), key=lambda place: (-scores[place], ids[place]))[:k]
    rows = found.select(COLUMNS).take(pa.array(order, pa.int64())).to_pylist()
    return [
        Hit(**{**row, "heading_path": tuple(row["heading_path"])}, score=scores[place])
        for row, place in zip(rows, order, strict=True)
    ]


def _matrix(rows: pa.Table) -> NDArray[np.float32]:
    """The vectors of rows, (n, dimension)."""
    column = rows[VECTOR].combine_chunks()
    flat: NDArray[np.float32] = column.flatten().to_numpy()
    return flat.reshape(len(column), column.type.list_size)


def _checked(k: int) -> int:
    if k < 1:
        raise InvalidRequestError(f"{k} hits were asked for; ask for at least one")
    return k
