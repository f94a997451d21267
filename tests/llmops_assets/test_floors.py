"""What a build and an evaluation move by themselves where floors are set: with the real index, no person involved."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmops_assets.partitions import embedder_models
from llmops_cli.evaluate import evaluate
from llmops_cli.runs import run_job
from llmops_core.assistant import Assistant
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.history import Entry, history
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings
from tests.running_gateway import write_assistant

pytestmark = pytest.mark.models


@pytest.fixture
def notes(home_with_models: Settings, tmp_path: Path) -> Assistant:
    """Cases whose document is found by whoever looks for it, as long as it is there."""
    cases = [
        {"case_id": f"c{n}", "question": f"oil a bike chain {n}", "gold_document_ids": ["docs/bikes.md"]}
        | {"split": "held_out"}
        for n in range(4)
    ]
    floors = {"min_cases": 4, "floors": {"recall_at_5": 0.9}}
    made = write_assistant(
        tmp_path / "notes",
        retrieval={"mode": "full_text"},
        generator={"engine": "openai", "model": "fake", "base_url": "http://127.0.0.1:9/v1"},
        evaluation={"cases": "cases.jsonl", "answers": 0, "gate": floors},
    )
    (made.folder / "cases.jsonl").write_text("\n".join(map(json.dumps, cases)), encoding="utf-8")
    return made


def built(settings: Settings, assistant: Assistant) -> str:
    """Build; the moves that followed."""
    (partition,) = embedder_models(assistant)
    made: dict[str, Any] = dict(run_job(settings, assistant, "index_build", partition_key=partition).assets)
    return str(made["release/manifests"]["moves"])


def last_on_prod(settings: Settings, assistant: Assistant) -> Entry | None:
    events = Releases(Lakehouse.open(settings), assistant.name).channels.events()
    moves = [entry for entry in history(events) if entry.channel == "prod"]
    return moves[-1] if moves else None


def test_nothing_serves_below_the_floors_and_nobody_has_to_look(home_with_models: Settings, notes: Assistant) -> None:
    assert "prod waits: " in (said := built(home_with_models, notes))
    assert "llmops evaluate --release" in said
    assert last_on_prod(home_with_models, notes) is None

    evaluate(home_with_models, notes)
    first = last_on_prod(home_with_models, notes)
    assert first
    assert (first.outcome, first.gate and first.gate["kind"]) == ("passed", "first")

    more = notes.folder / "docs" / "cake.md"
    more.write_text("# Cake\n\nA cake is baked for forty minutes.\n", encoding="utf-8")
    assert "prod → release 2: fresh documents" in built(home_with_models, notes)
    second = last_on_prod(home_with_models, notes)
    assert second
    assert second.gate
    assert (second.gate["kind"], second.gate["rules"][0]["cases"]) == ("fresh documents", 4)
    assert second.report_id

    (notes.folder / "docs" / "bikes.md").unlink()
    assert "recall_at_5: 0.000 is not at least 0.9" in built(home_with_models, notes)
    assert last_on_prod(home_with_models, notes) == second
    assert Releases(Lakehouse.open(home_with_models), notes.name).get("dev").number == 3


@pytest.mark.parametrize(
    "change", [{"chunking": {"size": 32, "overlap": 8}}, {"retrieval": {"mode": "full_text", "language": "Other"}}]
)
def test_documents_that_are_cut_or_stemmed_otherwise_are_a_candidate_and_not_fresh(
    home_with_models: Settings, tmp_path: Path, change: dict[str, Any]
) -> None:
    engine = {"engine": "openai", "model": "fake", "base_url": "http://127.0.0.1:9/v1"}
    plain = {"retrieval": {"mode": "full_text"}, "generator": engine}
    first = write_assistant(tmp_path / "notes", **plain)
    long = "".join(f"Row {n} tells how a chain of size {n} is oiled. " for n in range(40))
    (first.folder / "docs" / "long.md").write_text(f"# Chains\n\n{long}\n", encoding="utf-8")
    built(home_with_models, first)
    said = built(home_with_models, write_assistant(tmp_path / "notes", **{**plain, **change}))
    assert "prod waits: " in said
    assert "A person decides" in said
    releases = Releases(Lakehouse.open(home_with_models), first.name)
    assert [releases.get(channel).number for channel in ("prod", "dev")] == [1, 2]
    # With the next document too: what serves has no index of its own making any more.
    (first.folder / "docs" / "more.md").write_text("# More\n\nMore of it.\n", encoding="utf-8")
    assert "prod waits: " in built(home_with_models, write_assistant(tmp_path / "notes", **{**plain, **change}))
    assert releases.get("prod").number == 1
