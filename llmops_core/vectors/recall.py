"""How much of what exact search finds an index finds."""

import numpy as np
from numpy.typing import NDArray

from llmops_core.vectors.reader import IndexReader

# Queries by kind of index. A flat one compares with every vector itself: a few show that all can be read.
SAMPLE = {"flat": 8, "ivf_sq": 64}


def recall_against_exact(reader: IndexReader, vectors: NDArray[np.float32], k: int = 10) -> float:
    """Mean share of the `k` exactly nearest chunks that `dense` returns, over query vectors (n, dimension), n ≥ 1."""
    shares = []
    for vector in vectors:
        exact = {hit.chunk_id for hit in reader.exact(vector, k)}
        found = {hit.chunk_id for hit in reader.dense(vector, k)}
        shares.append(len(exact & found) / len(exact))
    return float(np.mean(shares))


def recall_of_version(reader: IndexReader, k: int = 10) -> float:
    """Recall with some vectors of the index itself as queries."""
    return recall_against_exact(reader, reader.vectors(SAMPLE[reader.kind]), k)
