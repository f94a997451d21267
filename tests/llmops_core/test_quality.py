from typing import Any

import polars as pl
import pytest

from llmops_core.errors import PermanentError
from llmops_core.quality import QualityReport, Rule, Suite, chunks_suite, documents_suite, validate

DOCUMENTS: dict[str, list[Any]] = {"document_id": ["a", "b"], "document_hash": ["1", "2"], "text": ["x", "😀"]}
CHUNKS: dict[str, list[Any]] = {
    "chunk_id": ["a", "b"],
    "document_id": ["d", "d"],
    "char_start": [0, 3],
    "char_end": [4, 9],
    "tokens": [1, 128],
    "heading_path": [["A"], []],
}
PAIR = "expect_column_pair_values_a_to_be_greater_than_b"


def broken(report: QualityReport) -> dict[str, str]:
    """What failed, and what was found."""
    return {result.rule.meaning: result.found for result in report.results if not result.passed}


def test_sound_documents_and_chunks_pass(capfd: pytest.CaptureFixture[str]) -> None:
    assert validate(pl.DataFrame(DOCUMENTS), documents_suite()).passed
    assert validate(pl.DataFrame(CHUNKS), chunks_suite(128)).passed
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("change", "meaning", "found"),
    [
        ({"document_id": ["a", None]}, "document_id is never null", "1 of 2 rows"),
        ({"document_id": ["a", "a"]}, "document_id is unique", "2 of 2 rows, such as a, a"),
        ({"document_hash": [None, None]}, "document_hash is never null", "2 of 2 rows"),
        ({"text": ["x", ""]}, "text is not blank", "1 of 2 rows"),
        ({"text": ["x", " \n\t\u00a0\u2003"]}, "text is not blank", "1 of 2 rows"),
        ({"text": ["x", None]}, "text is never null", "1 of 2 rows"),
    ],
)
def test_bad_documents_fail_the_rule_that_they_break(change: dict[str, list[Any]], meaning: str, found: str) -> None:
    report = validate(
        pl.DataFrame({**DOCUMENTS, **change}, schema_overrides={"document_hash": pl.String}), documents_suite()
    )
    assert not report.passed
    assert broken(report).keys() == {meaning}
    assert broken(report)[meaning].startswith(found)


def test_a_text_that_begins_with_blank_lines_is_not_blank() -> None:
    assert validate(pl.DataFrame({**DOCUMENTS, "text": ["\n\n x", "\u200b"]}), documents_suite()).passed


def test_an_empty_corpus_is_not_sound() -> None:
    report = validate(pl.DataFrame(DOCUMENTS).clear(), documents_suite())
    assert broken(report) == {"there is at least one document": "0"}


@pytest.mark.parametrize(
    ("change", "meaning", "found"),
    [
        ({"chunk_id": ["a", "a"]}, "chunk_id is unique", "2 of 2 rows"),
        ({"char_end": [4, 3]}, "char_end lies after char_start", "1 of 2 rows, such as (3, 3)"),
        ({"char_start": [0, None]}, "char_start is never null", "1 of 2 rows"),
        ({"char_end": [None, 9]}, "char_end is never null", "1 of 2 rows"),
        ({"tokens": [0, 129]}, "tokens lie between 1 and 128", "2 of 2 rows, such as 0, 129"),
        ({"tokens": [1, None]}, "tokens is never null", "1 of 2 rows"),
    ],
)
def test_bad_chunks_fail_the_rule_that_they_break(change: dict[str, list[Any]], meaning: str, found: str) -> None:
    report = validate(pl.DataFrame({**CHUNKS, **change}), chunks_suite(128))
    assert broken(report).keys() == {meaning}
    assert broken(report)[meaning].startswith(found)


def test_the_report_is_a_table_with_what_failed_first() -> None:
    report = validate(pl.DataFrame({**DOCUMENTS, "document_id": ["a|b\nc", "a|b\nc"]}), documents_suite())
    lines = report.markdown().splitlines()
    assert lines[:4] == ["documents, 2 rows", "", "| | rule | found |", "|---|---|---|"]
    assert lines[4] == "| ✗ | document_id is unique | 2 of 2 rows, such as a\\|b c, a\\|b c |"
    assert len(lines) == 4 + len(report.results)


def test_a_long_value_is_shortened_in_the_report() -> None:
    report = validate(pl.DataFrame({**DOCUMENTS, "document_id": ["x" * 500] * 2}), documents_suite())
    assert len(broken(report)["document_id is unique"]) < 200


def test_a_missing_column_is_an_error_and_not_bad_data() -> None:
    with pytest.raises(PermanentError, match="has no column text, only document_id, document_hash"):
        validate(pl.DataFrame(DOCUMENTS).drop("text"), documents_suite())


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        # Crashes while the rule is judged, which Great Expectations reports as a failed rule.
        (Rule("it is odd", PAIR, {"column_A": "tokens", "column_B": "chunk_id"}), "could not judge whether it is odd"),
        (Rule("it is magic", "expect_magic", {"column": "tokens"}), "failed with"),
    ],
)
def test_a_crash_inside_great_expectations_is_an_error_and_not_bad_data(rule: Rule, reason: str) -> None:
    with pytest.raises(PermanentError, match="This says nothing about the data") as caught:
        validate(pl.DataFrame(CHUNKS), Suite("odd", (rule,)))
    assert reason in str(caught.value)
