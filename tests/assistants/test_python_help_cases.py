"""The labelled cases of the sample assistant, against the language reference of the running Python."""

import json
import platform
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest

from llmops_core.evaluation.cases import load_cases
from llmops_core.evaluation.metrics import normalise_answer

CASES = Path(__file__).resolve().parents[2] / "assistants" / "python_help" / "cases.jsonl"


@pytest.fixture(scope="module")
def cases() -> list[dict[str, Any]]:
    return [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]


def test_there_are_enough_cases_and_most_have_a_short_answer(cases: list[dict[str, Any]]) -> None:
    assert len(cases) >= 120
    assert sum("answers" in case for case in cases) >= 60


def test_a_case_has_its_three_keys_and_at_most_answers_beside_them(cases: list[dict[str, Any]]) -> None:
    required = {"case_id", "question", "gold_document_ids"}
    for case in cases:
        assert set(case) in (required, required | {"answers"}), case["case_id"]
        assert all(isinstance(case[key], str) and case[key].strip() for key in ("case_id", "question"))
        assert case["gold_document_ids"], case["case_id"]
        assert len(set(case["gold_document_ids"])) == len(case["gold_document_ids"]), case["case_id"]
        assert 1 <= len(case.get("answers", ["-"])) <= 4, case["case_id"]


def test_ids_and_questions_are_unique(cases: list[dict[str, Any]]) -> None:
    ids = Counter(case["case_id"] for case in cases)
    questions = Counter(" ".join(case["question"].casefold().split()) for case in cases)
    assert [key for key, count in (ids + questions).items() if count > 1] == []


def test_every_gold_document_is_a_topic_of_the_running_python(cases: list[dict[str, Any]]) -> None:
    named = {topic: case["case_id"] for case in cases for topic in case["gold_document_ids"]}
    missing = {topic: case_id for topic, case_id in named.items() if topic not in topics}
    assert not missing, f"Python {platform.python_version()} has no topic {missing} (topic: a case that names it)"
    assert len(named) >= 70


def test_every_answer_is_said_by_one_of_its_gold_documents(cases: list[dict[str, Any]]) -> None:
    missing = [
        (case["case_id"], answer)
        for case in cases
        for answer in case.get("answers", [])
        if not any(_plain(answer) in _plain(topics.get(topic, "")) for topic in case["gold_document_ids"])
    ]
    assert not missing, f"Python {platform.python_version()} says this otherwise: {missing}"


def test_no_answer_vanishes_in_the_form_in_which_answers_are_compared(cases: list[dict[str, Any]]) -> None:
    assert [case["case_id"] for case in cases for a in case.get("answers", []) if not normalise_answer(a)] == []


def test_no_topic_alone_answers_more_than_an_eighth_of_the_cases(cases: list[dict[str, Any]]) -> None:
    alone = Counter(case["gold_document_ids"][0] for case in cases if len(case["gold_document_ids"]) == 1)
    topic, count = alone.most_common(1)[0]
    assert count <= len(cases) / 8, topic


def test_the_platform_reads_the_file_and_splits_it_about_evenly() -> None:
    cases = load_cases(CASES, known_documents=set(topics))
    held_out = sum(case.split == "held_out" for case in cases)
    assert 0.35 < held_out / len(cases) < 0.65


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
