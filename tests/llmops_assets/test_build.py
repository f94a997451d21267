"""The build on a small folder: what changes is done again, what does not is not; bad input says what to do."""

import json
import os
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from llmops_assets.corpus.rejected import nothing_rejected
from llmops_assets.definitions import build_definitions
from llmops_assets.house import asset_key
from llmops_assets.partitions import embedder_models
from llmops_cli.build import build
from llmops_cli.runs import run_job
from llmops_core.answering.loaded import ModelPool, load_release
from llmops_core.assistant import Assistant, load_assistant
from llmops_core.corpus.sync import sync_corpus
from llmops_core.errors import PermanentError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings
from resources.platform import LakehouseResource

PROMPT = "{% block system %}Be brief.{% endblock %}{% block user %}{{ question }}{% endblock %}"
TEXTS = {
    "coffee.md": "# Coffee\n\nThe coffee machine stands on the second floor.\n",
    "laptops.md": "# Laptops\n\nNew laptops are handed out on Mondays by the help desk.\n",
    "holidays.md": "# Holidays\n\nEverybody has thirty days of holiday a year.\n",
}


def make(folder: Path, name: str = "notes", more: str = "") -> Assistant:
    (folder / "docs").mkdir(parents=True, exist_ok=True)
    (folder / "prompts").mkdir(exist_ok=True)
    for file, text in TEXTS.items():
        (folder / "docs" / file).write_text(text, encoding="utf-8")
    (folder / "prompts" / "answer.jinja").write_text(PROMPT, encoding="utf-8")
    (folder / "assistant.yaml").write_text(
        f"name: {name}\nsources: [{{type: folder, path: docs}}]\n{more}", encoding="utf-8"
    )
    return load_assistant(folder)


def found(settings: Settings, assistant: Assistant, question: str) -> str:
    """The best chunk that prod finds."""
    releases = Releases(Lakehouse.open(settings), assistant.name)
    release = releases.get("prod")
    loaded = load_release(settings, ModelPool(settings), release.manifest, releases.prompt_text(release))
    return loaded.retrieve(question).hits[0].text


def test_only_what_changed_is_done_again_and_prod_follows(tmp_path: Path, home_with_models: Settings) -> None:
    assistant = make(tmp_path / "notes")
    first = build(home_with_models, assistant)
    assert (first["documents"], first["rejected"], first["embedded"]) == (3, 0, first["chunks"])

    again = build(home_with_models, assistant)
    assert again["embedded"] == 0
    assert (again["index_version"], again["release_id"]) == (first["index_version"], first["release_id"])

    (assistant.folder / "docs" / "coffee.md").write_text("# Coffee\n\nThe coffee machine moved to the roof.\n")
    (assistant.folder / "docs" / "holidays.md").unlink()
    changed = build(home_with_models, assistant)
    assert (changed["documents"], changed["embedded"]) == (2, 1)
    assert changed["release_id"] != first["release_id"]
    assert "roof" in found(home_with_models, assistant, "Where is the coffee machine?")
    chunks = Lakehouse.open(home_with_models).table("notes", "corpus_chunks").read()
    assert not chunks["document_id"].str.contains("holidays").any()


def test_an_embedder_beside_leaves_the_live_vectors_untouched(tmp_path: Path, home_with_models: Settings) -> None:
    assistant = make(tmp_path / "notes")
    build(home_with_models, assistant)
    table = Lakehouse.open(home_with_models).table("notes", "index_embeddings")
    before = table.read().sort("chunk_id")
    release = Releases(Lakehouse.open(home_with_models), "notes").get("prod").release_id

    build(home_with_models, make(tmp_path / "notes", more="embedder: {model: minilm, beside: [bge-small]}"))
    after = table.read().sort("chunk_id")
    live = before["embedder_revision"][0]
    assert after.filter(after["embedder_revision"] == live).equals(before)
    assert after.height == 2 * before.height
    assert Releases(Lakehouse.open(home_with_models), "notes").get("prod").release_id == release


def test_a_changed_prompt_waits_on_dev(tmp_path: Path, home_with_models: Settings) -> None:
    assistant = make(tmp_path / "notes")
    first = build(home_with_models, assistant)
    (assistant.folder / "prompts" / "answer.jinja").write_text(PROMPT.replace("brief", "kind"), encoding="utf-8")
    run_job(home_with_models, assistant, "release_create")
    releases = Releases(Lakehouse.open(home_with_models), "notes")
    assert releases.get("prod").release_id == first["release_id"]
    assert releases.get("dev").manifest.prompt.version == 2
    written = Lakehouse.open(home_with_models).table("notes", "release_manifests").load().current_snapshot()
    assert written is not None
    assert written.summary is not None
    (revision,) = embedder_models(assistant)
    assert written.summary["llmops.read.prompts_versions"] == releases.get("dev").manifest.prompt.hash
    assert written.summary[f"llmops.read.index_vector_index.{revision}"] == first["index_version"]


def test_two_assistants_in_one_home_do_not_touch_each_other(tmp_path: Path, home_with_models: Settings) -> None:
    one, two = make(tmp_path / "one", "one"), make(tmp_path / "two", "two")
    build(home_with_models, one)
    build(home_with_models, two)
    lakehouse = Lakehouse.open(home_with_models)
    tables = [lakehouse.table("two", name) for name in ("corpus_documents", "index_embeddings", "release_events")]
    before = [table.snapshot_id() for table in tables]
    (one.folder / "docs" / "coffee.md").write_text("# Coffee\n\nThere is tea now.\n")
    build(home_with_models, one)
    assert [table.snapshot_id() for table in tables] == before


def test_what_cannot_be_read_is_listed_and_the_rest_goes_on(tmp_path: Path, home_with_models: Settings) -> None:
    assistant = make(tmp_path / "notes")
    (assistant.folder / "docs" / "broken.md").write_bytes(b"caf\xe9")
    done = build(home_with_models, assistant)
    assert (done["documents"], done["rejected"]) == (3, 1)
    rejected = Lakehouse.open(home_with_models).table("notes", "corpus_rejected").read()
    assert "UTF-8" in rejected["reason"][0]


def test_what_was_rejected_is_counted_as_it_was_recorded(tmp_path: Path, home_with_models: Settings) -> None:
    assistant = make(tmp_path / "notes")
    lakehouse = Lakehouse.open(home_with_models)
    check = nothing_rejected(assistant)
    build(home_with_models, assistant)
    with dg.DagsterInstance.get() as instance:

        def rejected() -> Any:
            result = check(dg.build_asset_check_context(instance=instance), lakehouse=LakehouseResource())
            assert isinstance(result, dg.AssetCheckResult)
            return result.passed, result.metadata["rejected"].value

        (assistant.folder / "docs" / "broken.md").write_bytes(b"caf\xe9")
        sync_corpus(lakehouse, assistant, Provenance("another sync"), log=lambda line: None)
        assert rejected() == (True, 0)
        build(home_with_models, assistant)
        (assistant.folder / "docs" / "worse.md").write_bytes(b"caf\xe9")
        sync_corpus(lakehouse, assistant, Provenance("another sync"), log=lambda line: None)
        assert rejected() == (False, 1)


@pytest.mark.parametrize(
    ("more", "spoil", "said"),
    [
        ("", "no documents", "No readable document in folder:docs"),
        ("", "no folder", "docs"),
        ("", "bad prompt", "answer.jinja"),
        ("embedder: {model: nonsense}", "", "Unknown embedder 'nonsense'"),
    ],
)
def test_bad_input_fails_with_the_way_out(
    tmp_path: Path, home_with_models: Settings, more: str, spoil: str, said: str
) -> None:
    assistant = make(tmp_path / "notes", more=more)
    for file in (assistant.folder / "docs").iterdir():
        if spoil in {"no documents", "no folder"}:
            file.unlink()
    if spoil == "no folder":
        (assistant.folder / "docs").rmdir()
    if spoil == "bad prompt":
        (assistant.folder / "prompts" / "answer.jinja").write_text("{% block system %}{% if %}", encoding="utf-8")
    with pytest.raises(PermanentError) as caught:
        build(home_with_models, assistant)
    assert said in str(caught.value)


def test_a_case_with_an_unknown_document_is_named(tmp_path: Path, home_with_models: Settings) -> None:
    assistant = make(tmp_path / "notes", more="evaluation: {cases: cases.jsonl}")
    case = {"case_id": "q1", "question": "Where is coffee?", "gold_document_ids": ["docs/tea.md"]}
    (assistant.folder / "cases.jsonl").write_text(json.dumps(case) + os.linesep, encoding="utf-8")
    build(home_with_models, assistant)
    with pytest.raises(PermanentError, match=r"docs/tea\.md"):
        run_job(home_with_models, assistant, "evaluation_score")


def test_an_index_that_did_not_pass_its_check_is_in_no_release(
    tmp_path: Path, home_with_models: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assistant = make(tmp_path / "notes")
    first = build(home_with_models, assistant)
    with monkeypatch.context() as patch:
        patch.setattr("llmops_assets.index.vector_index.MIN_RECALL", 1.1)
        (assistant.folder / "docs" / "coffee.md").write_text("# Coffee\n\nThe coffee machine moved to the roof.\n")
        with pytest.raises(PermanentError):
            build(home_with_models, assistant)
    with pytest.raises(PermanentError, match=r"did not pass its check finds_what_exact_search_finds.*llmops build"):
        run_job(home_with_models, assistant, "release_create")
    assert [r.release_id for r in Releases(Lakehouse.open(home_with_models), "notes").all()] == [first["release_id"]]

    again = build(home_with_models, assistant)
    assert again["release_id"] != first["release_id"]
    assert "roof" in found(home_with_models, assistant, "Where is the coffee machine?")


def test_an_index_beside_that_did_not_pass_its_check_holds_nothing_else_back(
    tmp_path: Path, home_with_models: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assistant = make(tmp_path / "notes", more="embedder: {model: minilm, beside: [bge-small]}")
    own, beside = embedder_models(assistant)
    run_job(home_with_models, assistant, "index_build", partition_key=own)
    with monkeypatch.context() as patch:
        patch.setattr("llmops_assets.index.vector_index.MIN_RECALL", 1.1)
        with pytest.raises(PermanentError):
            run_job(home_with_models, assistant, "index_build", partition_key=beside)
    (assistant.folder / "prompts" / "answer.jinja").write_text(PROMPT.replace("brief", "kind"), encoding="utf-8")
    run_job(home_with_models, assistant, "release_create")
    releases = Releases(Lakehouse.open(home_with_models), "notes")
    assert releases.get("dev").manifest.prompt.version == 2
    swapped = make(tmp_path / "notes", more="embedder: {model: bge-small, beside: [minilm]}")
    with pytest.raises(PermanentError, match="did not pass its check"):
        run_job(home_with_models, swapped, "release_create")


def test_an_index_names_the_documents_that_its_chunks_were_cut_from(tmp_path: Path, home_with_models: Settings) -> None:
    assistant = make(tmp_path / "notes")
    build(home_with_models, assistant)
    documents, chunks, embeddings, index = (
        asset_key(assistant, *parts)
        for parts in (("corpus", "documents"), ("corpus", "chunks"), ("index", "embeddings"), ("index", "vector_index"))
    )
    job = build_definitions(assistant.folder).resolve_job_def("index_build")
    (partition,) = embedder_models(assistant)
    with dg.DagsterInstance.get() as instance:

        def materialize(*keys: dg.AssetKey) -> dg.ExecuteInProcessResult:
            return job.execute_in_process(instance=instance, asset_selection=keys, partition_key=partition)

        def edit(text: str) -> int | None:
            (assistant.folder / "docs" / "coffee.md").write_text(f"# Coffee\n\n{text}\n", encoding="utf-8")
            materialize(documents, asset_key(assistant, "corpus", "rejected"))
            return Lakehouse.open(home_with_models).table("notes", "corpus_documents").snapshot_id()

        cut_from = edit("The coffee machine moved to the roof.")
        materialize(chunks, embeddings)
        assert edit("The coffee machine is gone.") != cut_from
        (event,) = materialize(index).get_asset_materialization_events()
    assert event.materialization.metadata["corpus_documents_snapshot"].value == cut_from
