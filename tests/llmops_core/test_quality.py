"""Quality suites: what they let through, what they catch, and that a crash is no verdict."""

from typing import Any

import polars as pl
import pytest

from llmops_core.errors import LlmopsError
from llmops_core.lakehouse.schemas import TABLES
from llmops_core.quality import QualityReport, Rule, Suite, chunks_suite, documents_suite, validate


def documents(*rows: dict[str, Any]) -> pl.DataFrame:
    good = {"document_hash": "h", "title": "t", "text": "x", "uri": "u", "media_type": "text/plain", "source": "s"}
    return pl.DataFrame([{**good, **row} for row in rows], schema=TABLES["corpus_documents"].frame_schema)


def chunks(*rows: dict[str, Any]) -> pl.DataFrame:
    good = {"document_id": "d", "heading_path": ["a", "b"], "text": "x", "char_start": 0, "char_end": 1, "tokens": 3}
    return pl.DataFrame([{**good, **row} for row in rows], schema=TABLES["corpus_chunks"].frame_schema)


def failed(report: QualityReport) -> list[str]:
    return [result.rule.meaning for result in report.results if not result.passed]


def test_sound_documents_pass() -> None:
    report = validate(documents({"document_id": "a"}, {"document_id": "b", "title": None}), documents_suite())
    assert (report.passed, failed(report), report.rows) == (True, [], 2)


@pytest.mark.parametrize(
    ("rows", "broken"),
    [
        ([], ["there is at least one document"]),
        ([{"document_id": None}], ["document_id is never null"]),
        ([{"document_id": "a"}, {"document_id": "a"}], ["document_id is unique"]),
        ([{"document_id": "a", "document_hash": None}], ["document_hash is never null"]),
        ([{"document_id": "a", "text": ""}], ["text is not empty"]),
        ([{"document_id": "a", "text": None}], ["text is never null"]),
    ],
)
def test_unsound_documents_fail_the_rule_that_they_break(rows: list[dict[str, Any]], broken: list[str]) -> None:
    report = validate(documents(*rows), documents_suite())
    assert (report.passed, failed(report)) == (False, broken)


def test_sound_chunks_pass_also_when_there_are_none() -> None:
    assert validate(chunks({"chunk_id": "a"}, {"chunk_id": "b", "tokens": 8}), chunks_suite(8)).passed
    assert validate(chunks(), chunks_suite(8)).passed


@pytest.mark.parametrize(
    ("row", "broken"),
    [
        ({"chunk_id": None}, ["chunk_id is never null"]),
        ({"chunk_id": "a"}, ["chunk_id is unique"]),
        ({"document_id": None}, ["document_id is never null"]),
        ({"char_end": 0}, ["char_end lies after char_start"]),
        ({"char_start": 5}, ["char_end lies after char_start"]),
        ({"char_start": None}, ["char_start is never null"]),
        ({"char_end": None}, ["char_end is never null"]),
        ({"tokens": 0}, ["tokens lie between 1 and 8"]),
        ({"tokens": 9}, ["tokens lie between 1 and 8"]),
        ({"tokens": None}, ["tokens is never null"]),
    ],
)
def test_unsound_chunks_fail_the_rule_that_they_break(row: dict[str, Any], broken: list[str]) -> None:
    report = validate(chunks({"chunk_id": "a"}, {"chunk_id": "b", **row}), chunks_suite(8))
    assert (report.passed, failed(report)) == (False, broken)


def test_a_missing_column_raises_and_is_named() -> None:
    with pytest.raises(LlmopsError, match="no column tokens, only chunk_id"):
        validate(chunks({"chunk_id": "a"}).drop("tokens"), chunks_suite(8))


def test_a_crash_inside_great_expectations_raises() -> None:
    texts = chunks({"chunk_id": "a"}).with_columns(tokens=pl.lit("many"))
    with pytest.raises(
        LlmopsError, match=r"could not judge whether tokens lie between 1 and 8.*nothing about the data"
    ):
        validate(texts, chunks_suite(8))


@pytest.mark.parametrize(
    "rule",
    [
        Rule("it is wonderful", "expect_column_to_be_wonderful", {"column": "tokens"}),
        Rule(
            "it lies nowhere",
            "expect_column_values_to_be_between",
            {"column": "tokens", "min_value": 2, "max_value": 1},
        ),
    ],
)
def test_a_rule_that_great_expectations_refuses_raises(rule: Rule) -> None:
    with pytest.raises(LlmopsError, match="nothing about the data"):
        validate(chunks({"chunk_id": "a"}), Suite("odd", (rule,)))


def test_the_report_shows_what_failed_first_and_with_examples() -> None:
    frame = chunks({"chunk_id": "b|c\nd"}, {"chunk_id": "b|c\nd"}, {"chunk_id": "e"})
    lines = validate(frame, chunks_suite(8)).markdown().splitlines()
    assert lines[0] == "chunks, 3 rows"
    assert lines[4] == r"| ✗ | chunk_id is unique | 2 of 3 rows, such as b\|c d, b\|c d |"
    assert all(line.startswith("| ✓ |") for line in lines[5:])
    assert len(lines) == 4 + len(chunks_suite(8).rules)


def test_long_values_are_cut_in_the_report() -> None:
    report = validate(documents({"document_id": "x" * 500}, {"document_id": "x" * 500}), documents_suite())
    assert max(map(len, report.markdown().splitlines())) < 200


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    validate(chunks({"chunk_id": "a"}), chunks_suite(8))
    assert capfd.readouterr() == ("", "")
