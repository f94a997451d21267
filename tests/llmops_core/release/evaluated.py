"""Cases and results as an evaluation stores them, made by hand."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl

from llmops_core.evaluation.cases import CASE_SCHEMA
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.schemas import TABLES
from llmops_core.lakehouse.table import Provenance

RESULTS = TABLES["evaluation_results"].frame_schema
RUN = Provenance("test")


def case_rows(n: int, answers: Sequence[str] = ("right",), split: str = "held_out") -> pl.DataFrame:
    """`n` cases `c000` and so on."""
    rows = [
        {
            "case_id": f"c{number:03}",
            "case_hash": f"h{number:03}",
            "question": f"question {number}",
            "gold_document_ids": ["d"],
            "answers": list(answers),
            "split": split,
        }
        for number in range(n)
    ]
    return pl.DataFrame(rows, schema=CASE_SCHEMA)


def result_rows(
    release_id: str, scores: Sequence[float | None], metric: str = "recall_at_5", **more: Mapping[int, Any]
) -> pl.DataFrame:
    """A row a score, of cases `c000` and so on; `more`: column → number of the case → its value there."""
    rows = [
        {
            "release_id": release_id,
            "case_id": f"c{number:03}",
            "case_hash": f"h{number:03}",
            "split": "held_out",
            "retrieved_document_ids": ["d"],
            "evaluated_at": datetime.now(UTC),
            metric: score,
        }
        | {column: values[number] for column, values in more.items() if number in values}
        for number, score in enumerate(scores)
    ]
    return pl.DataFrame(rows, schema=RESULTS)


def store(lakehouse: Lakehouse, cases: pl.DataFrame, *results: pl.DataFrame, assistant: str = "helper") -> None:
    """Keep them as an evaluation does."""
    lakehouse.table(assistant, "evaluation_cases").overwrite(cases, RUN)
    for rows in results:
        lakehouse.table(assistant, "evaluation_results").append(rows, RUN)
