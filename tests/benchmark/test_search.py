"""Search in 100,000 vectors of 384 numbers beside LanceDB's own, with the same settings, in turns.

`make bench` prints both medians, and the recall of ours against exact search. The vectors are drawn around random centres,
as those of texts on some topics are; the questions are drawn in the same way and are not among them.
"""

import statistics
import time
from pathlib import Path

import numpy as np
import polars as pl

from llmops_core.vectors.index import IndexSettings, VectorIndex
from llmops_core.vectors.reader import ALL_PARTITIONS, REFINE
from llmops_core.vectors.recall import recall_against_exact
from llmops_core.vectors.rows import COLUMNS
from llmops_core.vectors.search import search
from tests.benchmark.conftest import Report

ROWS, DIMENSION, CENTRES = 100_000, 384, 500
QUESTIONS, TOP_K = 200, 10


def test_search_beside_bare_lancedb(tmp_path: Path, report: Report) -> None:
    import lancedb

    numbers = np.random.default_rng(0)
    centres = numbers.standard_normal((CENTRES, DIMENSION))

    def drawn(count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        near = centres[numbers.integers(CENTRES, size=count)] + numbers.standard_normal((count, DIMENSION))
        vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]] = near.astype(np.float32)
        return vectors

    rows = pl.DataFrame(
        {
            "chunk_id": [f"{row:032x}" for row in range(ROWS)],
            "document_id": [f"{row // 20}" for row in range(ROWS)],
            "title": "Document",
            "heading_path": [["Document", "Section"]] * ROWS,
            "text": [
                f"Text of chunk {row}, as long as a chunk of some words is in a corpus of real texts."
                for row in range(ROWS)
            ],
            "char_start": 0,
            "char_end": 80,
            "vector": pl.Series(drawn(ROWS)).arr.to_list(),
        }
    )
    index = VectorIndex(str(tmp_path), "minilm")
    built = index.build(rows.iter_slices(8_192), "v1", IndexSettings())
    reader = index.open("v1")
    bare = lancedb.connect(str(tmp_path)).open_table("minilm")
    questions = drawn(QUESTIONS)

    ours_s, bare_s = [], []
    for question in questions:
        started = time.perf_counter()
        search(reader, "dense", "", question, TOP_K)
        middle = time.perf_counter()
        query = bare.search(question).distance_type("cosine").nprobes(ALL_PARTITIONS).refine_factor(REFINE)
        query.select([*COLUMNS, "_distance"]).limit(TOP_K).to_list()
        ours_s.append(middle - started)
        bare_s.append(time.perf_counter() - middle)
    ours, beside = (1000 * statistics.median(seconds) for seconds in (ours_s, bare_s))
    report(
        f"search in 100,000 × 384 ({built.kind}), p50",
        f"{ours:.1f} ms",
        f"{beside:.1f} ms",
        ours / beside,
        "at most 1.2",
    )
    recall = recall_against_exact(reader, questions, TOP_K)
    report("recall@10 of search in 100,000 × 384", f"{recall:.4f}", "1 (exact)", recall, "at least 0.99")
    assert recall >= 0.99
