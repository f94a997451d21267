"""Running cases through a retriever and an answerer that may fail."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import pytest

from llmops_core.errors import EngineError, IndexCorruptError, InvalidRequestError
from llmops_core.evaluation.cases import Case, make_case
from llmops_core.evaluation.run import (
    ANSWER_SCHEMA,
    ANSWERS_KEPT_TOGETHER,
    RESULT_SCHEMA,
    RETRIEVAL_SCHEMA,
    AnsweredCase,
    answer_sample,
    combine,
    deep_enough,
    evaluate_answers,
    evaluate_retrieval,
)


@dataclass(frozen=True)
class Hit:
    document_id: str


def hits(*documents: str) -> list[Hit]:
    return [Hit(document_id) for document_id in documents]


CASES = [
    make_case("one", "found first", ["a"], ["forty two"]),
    make_case("two", "found third", ["a", "b"]),
    make_case("three", "away", ["a"], ["x"]),
]


def retrieve(question: str) -> list[Hit]:
    if question == "away":
        raise EngineError("the engine is away")
    if question == "found first":
        return hits("a", "a", "c")
    return hits("x", "x", "y", "b", "y")


async def answer(question: str) -> AnsweredCase:
    if question == "away":
        raise EngineError("the engine is away")
    return AnsweredCase("The forty-two" if question == "found first" else " ", answer_ms=1234.0)


def answered(cases: Sequence[Case]) -> pl.DataFrame:
    return asyncio.run(evaluate_answers(cases, answer))


def test_retrieval_is_scored_on_distinct_documents() -> None:
    rows = evaluate_retrieval(CASES, retrieve)
    assert rows.schema == RETRIEVAL_SCHEMA
    assert rows["case_id"].to_list() == ["one", "two", "three"]
    assert rows["case_hash"].to_list() == [case.case_hash for case in CASES]
    assert rows["retrieved_document_ids"].to_list() == [["a", "c"], ["x", "y", "b"], None]
    assert rows["recall_at_1"].to_list() == [1.0, 0.0, None]
    assert rows["recall_at_5"].to_list() == [1.0, 0.5, None]
    assert rows["ndcg_at_10"][1] == pytest.approx(0.5 / 1.63093, abs=1e-5)
    assert rows["retrieval_ms"].null_count() == 1


def test_only_the_top_documents_are_kept() -> None:
    rows = evaluate_retrieval(CASES[:1], lambda _: hits(*(f"d{number // 2}" for number in range(60))))
    assert rows["retrieved_document_ids"].to_list() == [[f"d{number}" for number in range(10)]]
    with pytest.raises(ValueError, match="at least 10"):
        evaluate_retrieval(CASES, retrieve, top=5)


def test_answers_are_scored_where_right_answers_are_known() -> None:
    rows = answered([CASES[0], CASES[1]])
    assert rows.schema == ANSWER_SCHEMA
    assert rows["answer"].to_list() == ["The forty-two", " "]
    assert rows["exact_match"].to_list() == [0.0, None]
    assert rows["f1"].to_list() == [0.0, None]
    assert rows["empty"].to_list() == [False, True]
    assert rows["answer_ms"].to_list() == [1234.0, 1234.0]


def test_an_answers_time_is_measured_where_the_answerer_does_not_say_it() -> None:
    async def timeless(_: str) -> AnsweredCase:
        return AnsweredCase("forty two")

    rows = asyncio.run(evaluate_answers(CASES[:1], timeless))
    assert rows["answer_ms"][0] > 0
    assert rows["exact_match"][0] == 1


def test_a_case_that_fails_is_recorded_and_the_others_go_on() -> None:
    assert evaluate_retrieval(CASES, retrieve)["error"].to_list() == [None, None, "EngineError: the engine is away"]
    rows = answered(CASES[::-1])
    assert rows["error"].to_list() == ["EngineError: the engine is away", None, None]
    assert rows["answer"].to_list() == [None, " ", "The forty-two"]
    assert rows["empty"].to_list() == [None, True, False]


def test_when_all_cases_fail_there_is_nothing_to_report() -> None:
    with pytest.raises(EngineError, match=r"None of 1 cases could be retrieved for.*the engine is away"):
        evaluate_retrieval(CASES[2:], retrieve)
    with pytest.raises(EngineError, match=r"None of 1 cases could be answered.*the engine is away"):
        answered(CASES[2:])


def test_when_all_cases_fail_for_good_nobody_is_told_to_try_again() -> None:
    async def refuse(_: str) -> AnsweredCase:
        raise InvalidRequestError("no such model")

    with pytest.raises(InvalidRequestError, match="no such model"):
        asyncio.run(evaluate_answers(CASES, refuse))


def test_one_engine_error_among_refusals_makes_the_failure_one_that_may_pass() -> None:
    def fail(question: str) -> list[Hit]:
        raise EngineError("away") if question == "away" else InvalidRequestError("too long")

    with pytest.raises(EngineError, match="away"):
        evaluate_retrieval(CASES, fail)


def test_an_error_that_is_no_cases_fault_ends_the_run() -> None:
    def broken(_: str) -> list[Hit]:
        raise IndexCorruptError("unreadable")

    with pytest.raises(IndexCorruptError):
        evaluate_retrieval(CASES, broken)


def test_progress_is_told_after_each_case_also_of_those_that_fail() -> None:
    told: list[tuple[int, int]] = []
    evaluate_retrieval(CASES, retrieve, progress=lambda done, of: told.append((done, of)))
    asyncio.run(evaluate_answers(CASES, answer, progress=lambda done, of: told.append((done, of))))
    assert told == [(1, 3), (2, 3), (3, 3)] * 2


def test_answers_are_kept_a_few_at_a_time_while_the_others_are_still_to_come() -> None:
    cases = [make_case(f"case-{number}", f"{number}", ["a"]) for number in range(2 * ANSWERS_KEPT_TOGETHER + 1)]
    kept: list[str] = []
    seen: list[int] = []

    async def note(_: str) -> AnsweredCase:
        seen.append(len(kept))
        return AnsweredCase("yes")

    asyncio.run(evaluate_answers(cases, note, keep=lambda rows: kept.extend(rows["case_id"])))
    assert kept == [case.case_id for case in cases]
    assert set(seen) == {0, ANSWERS_KEPT_TOGETHER, 2 * ANSWERS_KEPT_TOGETHER}


def test_nothing_is_kept_while_no_case_has_come_through() -> None:
    cases = [make_case(f"case-{number}", "?", ["a"]) for number in range(2 * ANSWERS_KEPT_TOGETHER)]
    kept: list[str] = []

    async def refuse(_: str) -> AnsweredCase:
        raise InvalidRequestError("no such model")

    with pytest.raises(InvalidRequestError):
        asyncio.run(evaluate_answers(cases, refuse, keep=lambda rows: kept.extend(rows["case_id"])))
    assert kept == []


def test_no_cases_give_no_rows() -> None:
    assert evaluate_retrieval([], retrieve).schema == RETRIEVAL_SCHEMA
    assert answered([]).schema == ANSWER_SCHEMA


def test_the_sample_takes_held_out_cases_with_answers_first() -> None:
    cases = [
        *(make_case(f"t{number}", "?", ["a"], ["x"], split="tune") for number in range(4)),
        *(make_case(f"h{number}", "?", ["a"], split="held_out") for number in range(4)),
        *(make_case(f"ha{number}", "?", ["a"], ["x"], split="held_out") for number in range(4)),
    ]
    sample = answer_sample(cases, 9)
    assert [case.case_id.rstrip("0123456789") for case in sample] == ["ha"] * 4 + ["h"] * 4 + ["t"]
    assert answer_sample(cases[::-1], 9) == sample
    assert answer_sample(cases, 0) == []
    assert len(answer_sample(cases, 100)) == 12


def test_one_more_case_changes_at_most_one_of_the_sample() -> None:
    cases = [make_case(f"case-{number}", "?", ["a"], ["x"]) for number in range(80)]
    before = answer_sample(cases, 12)
    for number in range(80, 120):
        after = answer_sample([*cases, make_case(f"case-{number}", "?", ["a"], ["x"])], 12)
        assert len(set(before) - set(after)) <= 1


def test_a_search_is_asked_deeper_until_enough_documents_come() -> None:
    asked: list[int] = []

    def search(_: str, chunks: int) -> list[Hit]:
        asked.append(chunks)
        corpus = hits(*["long"] * 70, *(f"d{number}" for number in range(20)))
        return corpus[:chunks]

    assert len(deep_enough(search)("?")) == 90
    assert asked == [50, 100]


def test_a_search_that_has_no_more_is_not_asked_again() -> None:
    asked: list[int] = []

    def search(_: str, chunks: int) -> list[Hit]:
        asked.append(chunks)
        return hits("a", "b")

    assert deep_enough(search)("?") == hits("a", "b")
    assert asked == [50]


def test_answers_are_put_beside_the_retrieval_of_their_cases() -> None:
    rows = combine(evaluate_retrieval(CASES, retrieve), answered([CASES[2], CASES[0]]))
    assert rows.schema == RESULT_SCHEMA
    assert rows["case_id"].to_list() == ["one", "two", "three"]
    assert rows["answer"].to_list() == ["The forty-two", None, None]
    away = "EngineError: the engine is away"
    assert rows["error"].to_list() == [None, None, f"retrieval: {away}; answer: {away}"]


def test_without_answers_their_columns_are_null() -> None:
    rows = combine(evaluate_retrieval(CASES, retrieve))
    assert rows.schema == RESULT_SCHEMA
    assert rows["answer"].null_count() == 3
    assert rows["error"].to_list() == [None, None, "retrieval: EngineError: the engine is away"]
