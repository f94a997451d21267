"""Runs cases through a retriever and an answerer, both given as callables: knows neither releases nor engines.

Every case gives one row. A case that fails is a row with an `error`, and the others go on; only when all fail is there nothing
to report, and the error is raised.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from llmops_core.errors import ContextOverflowError, EngineError, InvalidRequestError, LlmopsError
from llmops_core.evaluation.cases import Case
from llmops_core.evaluation.metrics import (
    HasDocument,
    exact_match,
    f1,
    is_empty,
    ndcg_at_k,
    ranked_documents,
    recall_at_k,
)
from llmops_core.ids import content_hash

TOP = 10
"""Distinct documents that are kept of a ranking: as deep as the deepest metric looks."""

_CASE = {"case_id": pl.String(), "case_hash": pl.String(), "split": pl.String()}
_RETRIEVED = {
    "retrieved_document_ids": pl.List(pl.String()),
    "recall_at_1": pl.Float64(),
    "recall_at_5": pl.Float64(),
    "ndcg_at_10": pl.Float64(),
    "retrieval_ms": pl.Float64(),
}
_ANSWERED = {
    "answer": pl.String(),
    "exact_match": pl.Float64(),
    "f1": pl.Float64(),
    "empty": pl.Boolean(),
    "answer_ms": pl.Float64(),
}
_ERROR = {"error": pl.String()}

RETRIEVAL_SCHEMA = pl.Schema({**_CASE, **_RETRIEVED, **_ERROR})
"""A case that was retrieved for; where `error` is set, the five columns before it are null."""
ANSWER_SCHEMA = pl.Schema({**_CASE, **_ANSWERED, **_ERROR})
"""A case that was answered; where `error` is set, the five columns before it are null. `exact_match` and `f1` are also null
for a case without right answers."""
RESULT_SCHEMA = pl.Schema({**_CASE, **_RETRIEVED, **_ANSWERED, **_ERROR})
"""Both together. The answer's columns are null for a case that was not answered."""

# What one question can bring about by itself. Anything else, such as a broken index, is no case's fault and ends the run.
_CASE_ERRORS = (EngineError, InvalidRequestError, ContextOverflowError)

Progress = Callable[[int, int], object]
"""Told after each case: how many are done, of how many."""

ANSWERS_KEPT_TOGETHER = 4
"""An answer takes seconds: whoever keeps them loses no more than these to a kill."""


@dataclass(frozen=True)
class AnsweredCase:
    """An answer, and how long it took where the answerer knows better than the clock around it."""

    text: str
    answer_ms: float | None = None


def evaluate_retrieval(
    cases: Sequence[Case],
    retrieve: Callable[[str], Sequence[HasDocument]],
    top: int = TOP,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Retrieve for every case and score the ranking of documents; gives `RETRIEVAL_SCHEMA`, a row a case, in order.

    `retrieve` takes a question and gives chunks, best first: enough of them to hold `top` distinct documents where the corpus
    has as many (`deep_enough` sees to that). Raises what the first case raised if all fail.
    """
    if top < TOP:
        raise ValueError(f"top must be at least {TOP}, since ndcg_at_10 looks that deep")
    rows: list[dict[str, Any]] = []
    failures: list[LlmopsError] = []
    for case in cases:
        started = time.perf_counter()
        try:
            hits = retrieve(case.question)
        except _CASE_ERRORS as error:
            failures.append(error)
            rows.append(_row(case, error=_line(error)))
        else:
            rows.append(_retrieved_row(case, ranked_documents(hits)[:top], _ms_since(started)))
        if progress:
            progress(len(rows), len(cases))
    _raise_if_all_failed("retrieved for", len(cases), failures)
    return pl.DataFrame(rows, schema=RETRIEVAL_SCHEMA, orient="row")


async def evaluate_answers(
    cases: Sequence[Case],
    answer: Callable[[str], Awaitable[AnsweredCase]],
    progress: Progress | None = None,
    keep: Callable[[pl.DataFrame], object] | None = None,
) -> pl.DataFrame:
    """Answer every case and score the answers; gives `ANSWER_SCHEMA`, a row a case, in order.

    One case after another, so that `answer_ms` is the time of an answer and not that of a queue. `keep` gets each row once, a
    few at a time as they come, but none before a case has come through. Raises what the first case raised if all fail.
    """
    rows: list[dict[str, Any]] = []
    kept = 0
    failures: list[LlmopsError] = []
    for case in cases:
        started = time.perf_counter()
        try:
            answered = await answer(case.question)
        except _CASE_ERRORS as error:
            failures.append(error)
            rows.append(_row(case, error=_line(error)))
        else:
            rows.append(_answered_row(case, answered, _ms_since(started)))
        if progress:
            progress(len(rows), len(cases))
        enough = len(rows) - kept >= ANSWERS_KEPT_TOGETHER or len(rows) == len(cases)
        if keep and enough and len(failures) < len(rows):
            keep(pl.DataFrame(rows[kept:], schema=ANSWER_SCHEMA, orient="row"))
            kept = len(rows)
    _raise_if_all_failed("answered", len(cases), failures)
    return pl.DataFrame(rows, schema=ANSWER_SCHEMA, orient="row")


def answer_sample(cases: Sequence[Case], n: int) -> list[Case]:
    """Pick the `n` cases that are answered in full, since answering costs a thousand times what retrieving does.

    Held-out cases come first, and among them those with right `answers`; then the order is that of the content hash of the
    id. So the sample is the same on every machine, and one more case in the file changes at most one case of it.
    """
    order = sorted(cases, key=lambda c: (c.split != "held_out", not c.answers, content_hash(c.case_id), c.case_id))
    return order[:n]


def deep_enough(
    search: Callable[[str, int], Sequence[HasDocument]], documents: int = TOP
) -> Callable[[str], Sequence[HasDocument]]:
    """Make a `retrieve` of a `search` that takes a question and a number of chunks.

    It asks for five chunks a document, and for twice as many while they lie in fewer than `documents` documents and there
    are more to have.
    """

    def retrieve(question: str) -> Sequence[HasDocument]:
        chunks = 5 * documents
        while True:
            hits = search(question, chunks)
            if len(hits) < chunks or len(ranked_documents(hits)) >= documents:
                return hits
            chunks *= 2

    return retrieve


def combine(retrieval: pl.DataFrame, answers: pl.DataFrame | None = None) -> pl.DataFrame:
    """Put the answers beside the retrieval of their cases: `RESULT_SCHEMA`, a row for each row of `retrieval`, in its order."""
    answered = pl.DataFrame(schema=ANSWER_SCHEMA) if answers is None else answers
    both = retrieval.join(
        answered.select("case_id", *_ANSWERED, answer_error=pl.col("error")),
        on="case_id",
        how="left",
        validate="1:1",
        maintain_order="left",
    )
    errors = [
        pl.format("retrieval: {}", pl.col("error")),
        pl.format("answer: {}", pl.col("answer_error")),
    ]
    joined = pl.concat_str(errors, separator="; ", ignore_nulls=True)
    return both.with_columns(error=pl.when(joined != "").then(joined)).select(RESULT_SCHEMA.names())


def _row(case: Case, **values: Any) -> dict[str, Any]:
    return {"case_id": case.case_id, "case_hash": case.case_hash, "split": case.split, **values}


def _retrieved_row(case: Case, ranked: list[str], retrieval_ms: float) -> dict[str, Any]:
    return _row(
        case,
        retrieved_document_ids=ranked,
        recall_at_1=recall_at_k(ranked, case.gold_document_ids, 1),
        recall_at_5=recall_at_k(ranked, case.gold_document_ids, 5),
        ndcg_at_10=ndcg_at_k(ranked, case.gold_document_ids, 10),
        retrieval_ms=retrieval_ms,
    )


def _answered_row(case: Case, answered: AnsweredCase, measured_ms: float) -> dict[str, Any]:
    return _row(
        case,
        answer=answered.text,
        exact_match=exact_match(answered.text, case.answers) if case.answers else None,
        f1=f1(answered.text, case.answers) if case.answers else None,
        empty=is_empty(answered.text),
        answer_ms=measured_ms if answered.answer_ms is None else answered.answer_ms,
    )


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000


def _line(error: LlmopsError) -> str:
    return f"{type(error).__name__}: {error}"


def _raise_if_all_failed(verb: str, cases: int, failures: Sequence[LlmopsError]) -> None:
    """End the run if no case came through, with an error that may be retried only if one of the failures may be."""
    if not failures or len(failures) < cases:
        return
    first = next((error for error in failures if isinstance(error, EngineError)), failures[0])
    raise type(first)(f"None of {cases} cases could be {verb}. The first reason: {first}") from first
