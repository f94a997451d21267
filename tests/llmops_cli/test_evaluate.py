"""What `llmops evaluate` says of the cases that a release failed."""

import json
from typing import Any

import pytest
from click.testing import CliRunner

from llmops_cli.build import build
from llmops_cli.evaluate import WORST_SHOWN
from llmops_cli.main import main
from llmops_core.assistant import Assistant
from llmops_core.settings import Settings
from tests.fake_engine import PIECES, FakeEngine
from tests.running_gateway import QUESTION, write_assistant

ANSWER = "".join(PIECES)
TEA = {"question": QUESTION, "gold_document_ids": ["docs/tea.md"], "split": "tune"}
GOOD = {**TEA, "case_id": "good", "answers": [ANSWER]}
POOR = {**TEA, "case_id": "poor", "answers": ["a cold winter's night"]}
MISSED = [
    {"case_id": f"missed-{n}", "question": f"xyzzy{n}", "gold_document_ids": ["docs/bikes.md"], "split": "tune"}
    for n in range(WORST_SHOWN + 2)
]


@pytest.fixture(scope="module")
def assistant(shared_home: Settings, fake_engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Assistant:
    """A built assistant that finds words alone, whose every answer is `ANSWER`."""
    made = write_assistant(
        tmp_path_factory.mktemp("notes"),
        retrieval={"mode": "full_text"},
        generator={"engine": "openai", "model": "fake", "base_url": fake_engine.base_url},
        evaluation={"cases": "cases.jsonl", "answers": 2},
    )
    build(shared_home, made)
    return made


def evaluated(assistant: Assistant, cases: list[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """The poor cases of `--json`, and the lines that people read."""
    (assistant.folder / "cases.jsonl").write_text("\n".join(map(json.dumps, cases)), encoding="utf-8")
    command = ["evaluate", "--assistant", str(assistant.folder)]
    as_json, text = (CliRunner().invoke(main, [*command, *more]) for more in (["--json"], []))
    assert (as_json.exit_code, text.exit_code) == (0, 0), as_json.output + text.output
    poor: dict[str, Any] = json.loads(as_json.stdout)["poor"]
    return poor, text.stdout.splitlines()


def test_missed_documents_and_poor_answers_are_shown_worst_first_and_at_most_so_many(assistant: Assistant) -> None:
    poor, lines = evaluated(assistant, [GOOD, POOR, *MISSED])
    assert poor["cases"] == len(MISSED) + 1
    assert len(poor["worst"]) == WORST_SHOWN
    assert {case["case_id"] for case in poor["worst"]} < {case["case_id"] for case in MISSED}
    head = next(n for n, line in enumerate(lines) if line.startswith("question"))
    assert f"Worst cases of split tune: {WORST_SHOWN} of {len(MISSED) + 1} " in lines[head - 2]
    assert "notes.evaluation_results" in lines[head - 2]
    assert len(lines[head + 1 :]) == WORST_SHOWN
    assert all(line.split() == [line.split()[0], "docs/bikes.md", "nothing"] for line in lines[head + 1 :])


def test_a_poor_answer_stands_beside_what_was_wanted_and_found(assistant: Assistant) -> None:
    poor, lines = evaluated(assistant, [GOOD, POOR])
    (case,) = poor["worst"]
    assert (case["case_id"], case["question"], case["answer"]) == ("poor", QUESTION, ANSWER)
    assert case["retrieved_document_ids"][0] == "docs/tea.md"
    assert ANSWER in lines[-1]


def test_what_is_held_out_stays_unseen(assistant: Assistant) -> None:
    hidden = [{**case, "case_id": f"hidden-{n}", "split": "held_out"} for n, case in enumerate([POOR, *MISSED])]
    poor, _ = evaluated(assistant, [GOOD, *hidden, MISSED[0]])
    assert [case["case_id"] for case in poor["worst"]] == [MISSED[0]["case_id"]]


def test_where_nothing_is_poor_that_is_said(assistant: Assistant) -> None:
    poor, lines = evaluated(assistant, [GOOD])
    assert poor == {"cases": 0, "worst": []}
    assert lines[-1] == "Every case of split tune found its documents, and no answer to one is poor."
