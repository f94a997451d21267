"""Case files: what is read of a good one, and what the writer of a bad one is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmops_core.errors import ConfigError
from llmops_core.evaluation.cases import (
    CASE_SCHEMA,
    Case,
    Split,
    cases_frame,
    cases_from,
    load_cases,
    make_case,
    split_of,
)

GOOD = {"case_id": "q1", "question": "What is a string?", "gold_document_ids": ["strings"]}


def written(folder: Path, *lines: Any) -> Path:
    """Write a case file of JSON values; text and bytes are written as they are."""
    file = folder / "cases.jsonl"
    raw = [x if isinstance(x, bytes) else (x if isinstance(x, str) else json.dumps(x)).encode() for x in lines]
    file.write_bytes(b"\n".join(raw))
    return file


def complaint(file: Path, known_documents: set[str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_cases(file, known_documents)
    return str(caught.value)


def test_a_case_file_is_read_in_its_order(tmp_path: Path) -> None:
    second = {**GOOD, "case_id": "a0", "answers": ["text", "a text"], "split": "tune"}
    cases = load_cases(written(tmp_path, GOOD, second), {"strings"})
    assert [case.case_id for case in cases] == ["q1", "a0"]
    assert cases[0].gold_document_ids == ("strings",)
    assert cases[0].answers == ()
    assert cases[1].answers == ("text", "a text")
    assert cases[1].split == "tune"


def test_blank_lines_a_byte_order_mark_and_windows_line_ends_are_no_problem(tmp_path: Path) -> None:
    line = json.dumps(GOOD).encode()
    assert len(load_cases(written(tmp_path, b"\xef\xbb\xbf" + line + b"\r", b"  ", b""))) == 1


def test_a_line_separator_inside_a_question_does_not_cut_the_line(tmp_path: Path) -> None:
    line = json.dumps({**GOOD, "question": "one\u2028two\x85three"}, ensure_ascii=False)
    assert load_cases(written(tmp_path, line))[0].question == "one\u2028two\x85three"


def test_null_means_absent_for_the_optional_keys(tmp_path: Path) -> None:
    case = load_cases(written(tmp_path, {**GOOD, "answers": None, "split": None}))[0]
    assert case == make_case("q1", "What is a string?", ["strings"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({**GOOD, "golden": 1}, "golden: unknown key. Allowed: case_id, question, gold_document_ids, answers, split"),
        ("{bad", "is not valid JSON: Expecting property name enclosed in double quotes at column 2"),
        ("[" * 100_000, "is not valid JSON"),
        ("[1]", "must be a JSON object with case_id, question and gold_document_ids (it is [1])"),
        (b'{"case_id": "\xff"}', "is not UTF-8"),
        ({**GOOD, "case_id": 1}, "case_id: Input should be a valid string (it is 1)"),
        ({**GOOD, "case_id": " "}, "case_id: must not be blank"),
        ({**GOOD, "question": " \t"}, "question: must not be blank"),
        ({**GOOD, "question": "\ud800"}, "question: holds half of a surrogate pair"),
        ({**GOOD, "gold_document_ids": "strings"}, "gold_document_ids: Input should be a valid list"),
        ({**GOOD, "gold_document_ids": []}, "gold_document_ids: List should have at least 1 item"),
        ({**GOOD, "gold_document_ids": ["a", 2]}, "gold_document_ids[1]: Input should be a valid string (it is 2)"),
        ({**GOOD, "gold_document_ids": ["a", "a"]}, 'gold_document_ids: names "a" more than once'),
        ({**GOOD, "answers": "text"}, "answers: Input should be a valid list"),
        ({**GOOD, "answers": [""]}, "answers[0]: must not be blank"),
        ({**GOOD, "split": "test"}, "split: Input should be 'held_out' or 'tune' (it is \"test\")"),
        ({"case_id": "x", "gold_document_ids": ["a"]}, "question: is required"),
        ('{"case_id": "x", "case_id": "y"}', 'it has "case_id" twice'),
    ],
)
def test_a_bad_line_is_named_with_what_is_wrong(tmp_path: Path, line: Any, message: str) -> None:
    file = written(tmp_path, {**GOOD, "case_id": "fine"}, line)
    text = complaint(file)
    assert text.startswith(f"{file} has 1 problem(s):\n  {file}:2: ")
    assert message in text


def test_an_id_that_is_taken_names_the_line_that_took_it(tmp_path: Path) -> None:
    text = complaint(written(tmp_path, GOOD, "", GOOD))
    assert 'cases.jsonl:3: case_id: "q1" is taken by line 1; ids must be unique' in text


def test_all_problems_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, {**GOOD, "gold_document_ids": ["strngs"]}, "{", {**GOOD, "case_id": 2, "question": ""})
    numbers = [line.split(":")[1] for line in complaint(file, {"strings"}).splitlines()[1:5]]
    assert numbers == ["1", "2", "3", "3"]


def test_after_twenty_problems_the_rest_is_counted(tmp_path: Path) -> None:
    lines = complaint(written(tmp_path, *["{"] * 27)).splitlines()
    assert len(lines) == 22
    assert lines[0].endswith("has 27 problem(s):")
    assert lines[-1] == "  and 7 more"


def test_an_unknown_document_is_named_with_its_case_and_what_was_perhaps_meant(tmp_path: Path) -> None:
    file = written(tmp_path, {**GOOD, "gold_document_ids": ["strngs", "strings", "zzz"]})
    text = complaint(file, {"strings", "lambda"})
    assert (
        f'{file}:1: case "q1": gold_document_ids: not in the corpus: "strngs", "zzz"; did you mean "strings"?' in text
    )
    assert "llmops build" in text


def test_an_unknown_document_of_a_huge_corpus_is_named_without_searching_for_its_like(tmp_path: Path) -> None:
    text = complaint(
        written(tmp_path, {**GOOD, "gold_document_ids": ["strngs"]}), {f"strngs{i}" for i in range(60_000)}
    )
    assert 'not in the corpus: "strngs"' in text
    assert "did you mean" not in text


def test_documents_are_not_looked_at_when_the_corpus_is_not_given(tmp_path: Path) -> None:
    assert len(load_cases(written(tmp_path, GOOD))) == 1
    assert "not in the corpus" in complaint(written(tmp_path, GOOD), set())


def test_a_missing_unreadable_or_empty_file_says_the_way_out(tmp_path: Path) -> None:
    assert "does not exist. Write it" in complaint(tmp_path / "none.jsonl")
    assert "cannot be read" in complaint(tmp_path)
    assert "holds no case" in complaint(written(tmp_path, "", ""))


def test_the_split_of_an_id_never_changes() -> None:
    """Golden: if this fails, cases that were tuned on have become evidence. Do not update it."""
    golden = {"q1": "tune", "q2": "held_out", "case-17": "tune", "ночь": "tune", "": "held_out"}
    assert {case_id: split_of(case_id) for case_id in golden} == golden


def test_about_half_of_all_cases_are_held_out() -> None:
    held_out = sum(split_of(f"case-{number}") == "held_out" for number in range(2_000))
    assert 930 < held_out < 1_070


def test_an_explicit_split_wins() -> None:
    other: Split = "tune" if split_of("q1") == "held_out" else "held_out"
    assert make_case("q1", "?", ["a"], split=other).split == other


def test_the_hash_follows_what_is_scored_and_nothing_else() -> None:
    case = make_case("q1", "why?", ["a", "b"], ["x", "y"])
    assert make_case("q2", "why?", ["b", "a"], ["y", "x"], split="tune").case_hash == case.case_hash
    changed = [
        make_case("q1", "how?", ["a", "b"], ["x", "y"]),
        make_case("q1", "why?", ["a"], ["x", "y"]),
        make_case("q1", "why?", ["a", "b"], ["x"]),
        make_case("q1", "why?", ["a", "b", "x"], ["y"]),
    ]
    assert len({case.case_hash, *(c.case_hash for c in changed)}) == 5


def test_cases_survive_a_frame() -> None:
    cases: list[Case] = [make_case("q1", "?", ["a", "b"], ["x"]), make_case("q2", "?", ["a"])]
    frame = cases_frame(cases)
    assert frame.schema == CASE_SCHEMA
    assert cases_from(frame) == cases
    assert cases_frame([]).schema == CASE_SCHEMA
    assert cases_from(cases_frame([])) == []
