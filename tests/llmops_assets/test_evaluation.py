"""Evaluation as assets: what is scored, what is not scored again, and of which release the report is."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from llmops_cli.evaluate import evaluate
from llmops_cli.runs import run_job
from llmops_core.assistant import Assistant, load_assistant
from llmops_core.engines.client import EngineClient
from llmops_core.errors import PermanentError
from llmops_core.evaluation.run import ANSWERS_KEPT_TOGETHER
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings
from tests.fake_engine import FakeEngine
from tests.running_gateway import QUESTION

CASES = (
    {"case_id": "tea", "question": QUESTION, "gold_document_ids": ["docs/tea.md"], "answers": ["eighty degrees [1]"]},
    {"case_id": "bread", "question": "How long does dough rest?", "gold_document_ids": ["docs/bread.md"]},
)


@pytest.fixture(scope="module")
def labelled(notes: Assistant) -> Assistant:
    """The built assistant, with cases of which one is answered."""
    lines = [json.dumps({**case, "split": "held_out"}) for case in CASES]
    (notes.folder / "cases.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with (notes.folder / "assistant.yaml").open("a", encoding="utf-8") as description:
        description.write("evaluation: {cases: cases.jsonl, answers: 1}\n")
    return load_assistant(notes.folder)


def scored(settings: Settings, assistant: Assistant, release: str) -> Mapping[str, Mapping[str, Any]]:
    """Run the job on a release, as a person would from the UI."""
    results = {f"{assistant.name}__evaluation__results": {"config": {"release": release}}}
    return run_job(settings, assistant, "evaluation_score", config={"ops": results}).assets


def test_every_case_is_retrieved_for_and_some_are_answered(shared_home: Settings, labelled: Assistant) -> None:
    report = evaluate(shared_home, labelled)
    assert (report.cases, report.answered, report.failed) == (2, 1, 0)
    assert report.metrics["recall_at_5"].value == 1
    assert report.metrics["exact_match"].value == 1


def test_what_was_scored_is_not_scored_again(shared_home: Settings, labelled: Assistant) -> None:
    first = evaluate(shared_home, labelled)
    again = scored(shared_home, labelled, "dev")
    assert (again["evaluation/results"]["retrieved"], again["evaluation/results"]["answered"]) == (0, 0)
    assert again["evaluation/reports"]["recall_at_1"] == first.metrics["recall_at_1"].value


def test_the_report_is_of_the_release_that_was_scored(shared_home: Settings, labelled: Assistant) -> None:
    releases = Releases(Lakehouse.open(shared_home), labelled.name)
    older = releases.get("dev")
    pin = older.manifest.retrieval.model_copy(update={"top_k": 1})
    newer, _ = releases.create(
        older.manifest.model_copy(update={"retrieval": pin}), author="me", message="", provenance=Provenance("test")
    )
    releases.channels.move(
        "dev", newer.release_id, action="promote", author="me", reason="", provenance=Provenance("test")
    )
    assert scored(shared_home, labelled, older.release_id)["evaluation/reports"]["release_id"] == older.release_id


def test_answers_of_an_evaluation_that_ended_halfway_are_not_asked_for_again(
    shared_home: Settings, labelled: Assistant, fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [
        {**CASES[0], "case_id": f"more-{number}", "question": f"{QUESTION} ({number})", "split": "held_out"}
        for number in range(ANSWERS_KEPT_TOGETHER + 2)
    ]
    (labelled.folder / "cases.jsonl").write_text("\n".join(map(json.dumps, many)), encoding="utf-8")
    file = labelled.folder / "assistant.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("answers: 1", f"answers: {len(many)}"), encoding="utf-8")
    assistant = load_assistant(labelled.folder)
    asked = len(fake_engine.received)

    async def cut_off(self: EngineClient, *arguments: Any) -> Any:
        if len(fake_engine.received) - asked > ANSWERS_KEPT_TOGETHER:
            raise KeyboardInterrupt
        return await complete(self, *arguments)

    complete = EngineClient.complete
    with monkeypatch.context() as patch:
        patch.setattr(EngineClient, "complete", cut_off)
        with pytest.raises((KeyboardInterrupt, PermanentError)):
            evaluate(shared_home, assistant)
    again = scored(shared_home, assistant, "dev")["evaluation/results"]
    assert again["answered"] == len(many) - ANSWERS_KEPT_TOGETHER
