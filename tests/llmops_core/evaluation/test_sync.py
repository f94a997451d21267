"""The case table follows the case file."""

import json
from pathlib import Path

import polars as pl
import pytest

from llmops_core.assistant import Assistant, load_assistant
from llmops_core.corpus.sync import sync_corpus
from llmops_core.evaluation.sync import CasesSync, sync_cases
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import LakeTable, Provenance


@pytest.fixture
def assistant(tmp_path: Path) -> Assistant:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "tea.md").write_text("# Tea\n\nGreen tea.\n", encoding="utf-8")
    (tmp_path / "assistant.yaml").write_text(
        "name: helper\nsources: [{type: folder, path: docs}]\nevaluation: {cases: cases.jsonl}\n", encoding="utf-8"
    )
    return load_assistant(tmp_path)


def sync(lakehouse: Lakehouse, assistant: Assistant, *questions: str) -> CasesSync:
    """Write the case file, and store its cases."""
    cases = [{"case_id": text, "question": text, "gold_document_ids": ["docs/tea.md"]} for text in questions]
    (assistant.folder / "cases.jsonl").write_text("\n".join(map(json.dumps, cases)), encoding="utf-8")
    documents = sync_corpus(lakehouse, assistant, Provenance("read"), log=lambda line: None).documents_snapshot
    assert documents is not None
    return sync_cases(lakehouse, assistant, documents, Provenance("sync"))


def test_only_changed_cases_are_stored_anew(lakehouse: Lakehouse, assistant: Assistant) -> None:
    first, again = sync(lakehouse, assistant, "Which tea?"), sync(lakehouse, assistant, "Which tea?")
    assert again.snapshot == first.snapshot
    more = sync(lakehouse, assistant, "Which tea?", "How hot?")
    assert (more.cases, more.snapshot == first.snapshot) == (2, False)
    stored = lakehouse.table("helper", "evaluation_cases").read(more.snapshot)
    assert set(stored["question"]) == {"Which tea?", "How hot?"}


def test_unchanged_cases_keep_their_snapshot_also_when_another_sync_writes_right_after(
    lakehouse: Lakehouse, assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sync(lakehouse, assistant, "Which tea?")
    read = LakeTable.read

    def followed(self: LakeTable, snapshot_id: int | None = None) -> pl.DataFrame:
        rows = read(self, snapshot_id)
        if self.identifier == "helper.evaluation_cases":
            monkeypatch.undo()
            assert sync(lakehouse, assistant, "How hot?").snapshot != first.snapshot
        return rows

    monkeypatch.setattr(LakeTable, "read", followed)
    assert sync(lakehouse, assistant, "Which tea?").snapshot == first.snapshot
