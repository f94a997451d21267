"""Evaluation as assets: what is scored, what is not scored again, and of which release the report is."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl
import pytest

from llmops_assets.house import recorded_versions
from llmops_cli.evaluate import evaluate
from llmops_cli.runs import run_job
from llmops_core.assistant import Assistant, load_assistant
from llmops_core.engines.client import EngineClient
from llmops_core.errors import PermanentError
from llmops_core.evaluation import score
from llmops_core.evaluation.run import ANSWERS_KEPT_TOGETHER
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import LakeTable, Provenance
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings
from tests.fake_engine import FakeEngine
from tests.moving import move
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


def test_a_report_holds_its_scores_as_a_table_and_as_a_picture(shared_home: Settings, labelled: Assistant) -> None:
    made = scored(shared_home, labelled, "dev")["evaluation/reports"]
    head, _, *rows = made["report"].split("\n\n")[1].splitlines()
    assert head == "| metric | all (2) | held_out (2) |"
    assert {row.split(" | ")[0].lstrip("| ") for row in rows} >= {"recall_at_1", "recall_at_5", "ndcg_at_10", "f1"}
    assert all("[" in row for row in rows)
    picture = made["plot"].removeprefix("![scores](data:image/png;base64,").removesuffix(")")
    assert base64.b64decode(picture, validate=True).startswith(b"\x89PNG")


def test_what_was_read_is_in_metadata_and_snapshots_and_maintenance_keeps_it(
    shared_home: Settings, labelled: Assistant
) -> None:
    # Other cases, so that all of it is written.
    renamed = [{**case, "case_id": f"again-{case['case_id']}", "split": "held_out"} for case in CASES]
    (labelled.folder / "cases.jsonl").write_text("\n".join(map(json.dumps, renamed)), encoding="utf-8")
    made = scored(shared_home, labelled, "dev")
    lake = Lakehouse.open(shared_home)

    def snapshot(name: str) -> int:
        found = lake.table(labelled.name, name).snapshot_id()
        assert found is not None
        return found

    def read(name: str) -> dict[str, str]:
        """What the newest snapshot of a table says that it was made of."""
        written = lake.table(labelled.name, name).load().snapshot_by_id(snapshot(name))
        assert written is not None
        assert written.summary is not None
        properties = written.summary.additional_properties
        return {key: value for key, value in properties.items() if key.startswith("llmops.read.")}

    documents, cases, results = map(snapshot, ("corpus_documents", "evaluation_cases", "evaluation_results"))
    assert made["evaluation/cases"]["corpus_documents_snapshot"] == documents
    assert made["evaluation/results"]["evaluation_cases_snapshot"] == cases
    assert made["evaluation/reports"]["evaluation_cases_snapshot"] == cases
    assert made["evaluation/reports"]["evaluation_results_snapshot"] == results
    release_id = made["evaluation/results"]["release_id"]
    assert read("evaluation_cases") == {"llmops.read.corpus_documents": str(documents)}
    assert read("evaluation_results") == {
        "llmops.read.evaluation_cases": str(cases),
        "llmops.read.release_manifests": release_id,
    }
    with dg.DagsterInstance.get() as instance:
        kept = recorded_versions(instance, labelled)
    assert {str(documents), str(cases), str(results)} <= kept.keys()


def test_results_are_those_that_the_run_made_also_when_another_evaluation_writes_right_after(
    shared_home: Settings, labelled: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = score.store_results

    def followed(table: LakeTable, release_id: str, results: pl.DataFrame, provenance: Provenance) -> int | None:
        made = store(table, release_id, results, provenance)
        store(table, "another release", results, provenance)
        return made

    monkeypatch.setattr(score, "store_results", followed)
    retold = [{**case, "question": f"{case['question']} Please.", "split": "held_out"} for case in CASES]
    (labelled.folder / "cases.jsonl").write_text("\n".join(map(json.dumps, retold)), encoding="utf-8")
    made = scored(shared_home, labelled, "dev")
    table = Lakehouse.open(shared_home).table(labelled.name, "evaluation_results")
    last = int(made["evaluation/results"]["data_version"])
    assert last != table.snapshot_id()
    assert made["evaluation/reports"]["evaluation_results_snapshot"] == last


def test_the_report_is_of_the_release_that_was_scored(shared_home: Settings, labelled: Assistant) -> None:
    releases = Releases(Lakehouse.open(shared_home), labelled.name)
    older = releases.get("dev")
    pin = older.manifest.retrieval.model_copy(update={"top_k": 1})
    newer, _ = releases.create(
        older.manifest.model_copy(update={"retrieval": pin}), author="me", message="", provenance=Provenance("test")
    )
    move(releases.channels, "dev", newer.release_id)
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
