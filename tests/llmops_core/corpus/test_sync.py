"""The document tables follow the sources, with work in proportion to change."""

from pathlib import Path

import polars as pl
import pytest

from llmops_core.assistant import Assistant, load_assistant
from llmops_core.corpus import sync as sync_module
from llmops_core.corpus.sync import CorpusSync, sync_corpus
from llmops_core.errors import ConflictError, EmptyCorpusError, SourceError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import LakeTable, Provenance
from tests.office_files import docx, paragraph, pdf


@pytest.fixture
def assistant(tmp_path: Path) -> Assistant:
    (tmp_path / "docs").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "docs" / f"{name}.md").write_text(f"# Title {name}\n\nText of {name}.\n", encoding="utf-8")
    (tmp_path / "assistant.yaml").write_text("name: helper\nsources: [{type: folder, path: docs}]\n", encoding="utf-8")
    return load_assistant(tmp_path)


def sync(lakehouse: Lakehouse, assistant: Assistant, run: str = "run") -> CorpusSync:
    return sync_corpus(lakehouse, assistant, Provenance(run), log=lambda line: None)


def ids(lakehouse: Lakehouse) -> list[str]:
    return sorted(lakehouse.table("helper", "corpus_documents").read()["document_id"])


def test_the_first_sync_writes_every_document(lakehouse: Lakehouse, assistant: Assistant) -> None:
    found = sync(lakehouse, assistant)
    assert (found.documents, found.new, found.changed, found.deleted, found.rejected) == (3, 3, 0, 0, ())
    assert ids(lakehouse) == ["docs/a.md", "docs/b.md", "docs/c.md"]


def test_nothing_changed_writes_nothing(lakehouse: Lakehouse, assistant: Assistant) -> None:
    first, second = sync(lakehouse, assistant), sync(lakehouse, assistant)
    assert (second.new, second.changed, second.deleted) == (0, 0, 0)
    assert (second.documents_snapshot, second.rejected_snapshot) == (first.documents_snapshot, first.rejected_snapshot)
    assert second.fingerprint == first.fingerprint


def test_an_edit_an_addition_and_a_deletion_reach_the_table(lakehouse: Lakehouse, assistant: Assistant) -> None:
    first = sync(lakehouse, assistant, "first")
    docs = assistant.folder / "docs"
    (docs / "a.md").write_text("# Title a\n\nOther words.\n", encoding="utf-8")
    (docs / "b.md").unlink()
    (docs / "d.md").write_text("# New\n\nHello.\n", encoding="utf-8")
    second = sync(lakehouse, assistant, "second")
    assert (second.documents, second.new, second.changed, second.deleted) == (3, 1, 1, 1)
    assert second.fingerprint != first.fingerprint
    rows = {
        row["document_id"]: row for row in lakehouse.table("helper", "corpus_documents").scan().collect().to_dicts()
    }
    assert rows.keys() == {"docs/a.md", "docs/c.md", "docs/d.md"}
    assert rows["docs/a.md"]["text"] == "# Title a\n\nOther words.\n"
    assert {name: row["run_id"] for name, row in rows.items()} == {
        "docs/a.md": "second",
        "docs/c.md": "first",
        "docs/d.md": "second",
    }


def test_a_renamed_file_is_a_new_document_and_the_old_one_is_gone(lakehouse: Lakehouse, assistant: Assistant) -> None:
    sync(lakehouse, assistant)
    (assistant.folder / "docs/a.md").rename(assistant.folder / "docs/z.md")
    found = sync(lakehouse, assistant)
    assert (found.new, found.changed, found.deleted) == (1, 0, 1)
    assert ids(lakehouse) == ["docs/b.md", "docs/c.md", "docs/z.md"]


def test_what_cannot_be_read_is_recorded_until_it_can(lakehouse: Lakehouse, assistant: Assistant) -> None:
    bad = assistant.folder / "docs/bad.md"
    bad.write_bytes("Grüße".encode("latin-1"))
    found = sync(lakehouse, assistant)
    assert found.documents == 3
    (rejected,) = lakehouse.table("helper", "corpus_rejected").read().to_dicts()
    assert (rejected["source"], rejected["uri"]) == ("folder:docs", "docs/bad.md")
    assert "not UTF-8" in rejected["reason"]
    assert "| folder:docs | docs/bad.md | not UTF-8" in found.rejected_markdown()
    bad.write_text("Grüße", encoding="utf-8")
    assert sync(lakehouse, assistant).documents == 4
    assert lakehouse.table("helper", "corpus_rejected").read().is_empty()


def test_names_of_rejected_files_do_not_break_the_table_that_is_shown(
    lakehouse: Lakehouse, assistant: Assistant
) -> None:
    (assistant.folder / "docs" / "a | b\n.md").write_bytes(b"\xff")
    row = sync(lakehouse, assistant).rejected_markdown().splitlines()[-1]
    assert row.startswith("| folder:docs | docs/a \\| b .md | not UTF-8")


@pytest.mark.parametrize("limit", ["ROWS_PER_FILE", "CHARACTERS_PER_FILE"])
def test_documents_are_written_some_at_a_time_in_one_commit_without_loss(
    lakehouse: Lakehouse, assistant: Assistant, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(sync_module, limit, 2)
    assert sync(lakehouse, assistant).new == 3
    table = lakehouse.table("helper", "corpus_documents").load()
    assert len(table.metadata.snapshots) == 1
    assert table.inspect.files().num_rows == (2 if limit == "ROWS_PER_FILE" else 3)
    for name in "abcde":
        (assistant.folder / "docs" / f"{name}.md").write_text("other", encoding="utf-8")
    done = sync(lakehouse, assistant)
    assert (done.documents, done.new, done.changed, done.deleted) == (5, 2, 3, 0)
    assert ids(lakehouse) == [f"docs/{name}.md" for name in "abcde"]


def test_every_strange_file_is_rejected_once_until_it_is_mended(lakehouse: Lakehouse, assistant: Assistant) -> None:
    docs = assistant.folder / "docs"
    bad = {
        "zero.pdf": b"",
        "scan.pdf": pdf(""),
        "cut.pdf": pdf("x")[:-20],
        "old.docx": b"\xd0\xcf\x11\xe0",
        "nul.txt": b"a\0",
    }
    for name, content in bad.items():
        (docs / name).write_bytes(content)
    for _ in range(2):
        sync(lakehouse, assistant)
        rejected = lakehouse.table("helper", "corpus_rejected").read()
        assert sorted(rejected["uri"]) == sorted(f"docs/{name}" for name in bad)
        assert all(rejected["reason"])
    for name in bad:
        (docs / name).write_bytes(
            docx(paragraph("x")) if name.endswith(".docx") else pdf("x") if "pdf" in name else b"x"
        )
    assert sync(lakehouse, assistant).documents == 8
    assert lakehouse.table("helper", "corpus_rejected").read().is_empty()


def test_a_document_that_becomes_unreadable_leaves_the_corpus(lakehouse: Lakehouse, assistant: Assistant) -> None:
    sync(lakehouse, assistant)
    (assistant.folder / "docs/a.md").write_bytes(b"\xff\xfe\x00")
    found = sync(lakehouse, assistant)
    assert (found.deleted, len(found.rejected)) == (1, 1)
    assert ids(lakehouse) == ["docs/b.md", "docs/c.md"]


def test_a_source_that_is_away_deletes_nothing(lakehouse: Lakehouse, assistant: Assistant) -> None:
    sync(lakehouse, assistant)
    (assistant.folder / "docs").rename(assistant.folder / "elsewhere")
    with pytest.raises(SourceError, match="does not exist"):
        sync(lakehouse, assistant)
    assert len(ids(lakehouse)) == 3


def test_an_emptied_source_is_an_error_and_deletes_nothing(lakehouse: Lakehouse, assistant: Assistant) -> None:
    sync(lakehouse, assistant)
    for file in (assistant.folder / "docs").iterdir():
        file.unlink()
    with pytest.raises(EmptyCorpusError, match="No readable document in folder:docs"):
        sync(lakehouse, assistant)
    assert len(ids(lakehouse)) == 3


def test_a_sync_that_another_overtakes_writes_nothing_twice(lakehouse: Lakehouse, assistant: Assistant) -> None:
    # What was found is logged just before it is written.
    with pytest.raises(ConflictError):
        sync_corpus(lakehouse, assistant, Provenance("slow"), log=lambda line: sync(lakehouse, assistant, "fast"))
    assert ids(lakehouse) == ["docs/a.md", "docs/b.md", "docs/c.md"]
    assert sync(lakehouse, assistant, "slow").new == 0


def test_an_unchanged_list_of_rejected_things_keeps_its_snapshot_also_when_another_sync_writes_right_after(
    lakehouse: Lakehouse, assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    (assistant.folder / "docs/bad.md").write_bytes(b"\xff")
    first = sync(lakehouse, assistant)
    read = LakeTable.read

    def followed(self: LakeTable, snapshot_id: int | None = None) -> pl.DataFrame:
        rows = read(self, snapshot_id)
        monkeypatch.undo()
        (assistant.folder / "docs/worse.md").write_bytes(b"\xff")
        assert sync(lakehouse, assistant).rejected_snapshot != first.rejected_snapshot
        return rows

    monkeypatch.setattr(LakeTable, "read", followed)
    assert sync(lakehouse, assistant).rejected_snapshot == first.rejected_snapshot
