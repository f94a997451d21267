"""The chunk table follows the documents, with work in proportion to change."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from llmops_core.assistant import Assistant, load_assistant
from llmops_core.chunks import sync as sync_module
from llmops_core.chunks.sync import ChunksSync, sync_chunks
from llmops_core.errors import ConflictError
from llmops_core.ids import content_hash
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import LakeTable, Provenance
from llmops_core.models.tokens import TokenCounter, load_tokens
from llmops_core.quality import chunks_suite, validate
from llmops_core.settings import Settings

pytestmark = pytest.mark.models


@pytest.fixture
def settings(models: Path, settings: Settings) -> Settings:
    """A home of its own, with the models of all tests."""
    settings.home.mkdir(parents=True)
    settings.models.symlink_to(models, target_is_directory=True)
    return settings


def assistant(folder: Path, size: int = 64) -> Assistant:
    text = f"name: helper\nsources: [{{type: python_topics}}]\nchunking: {{size: {size}, overlap: 8}}\n"
    (folder / "assistant.yaml").write_text(text, encoding="utf-8")
    return load_assistant(folder)


def write(lakehouse: Lakehouse, **texts: str | None) -> None:
    """Set the texts of documents; None deletes one."""
    rows = [
        {
            "document_id": name,
            "document_hash": content_hash({"title": f"Title {name}", "text": text}),
            "title": f"Title {name}",
            "text": text,
            "uri": name,
            "media_type": "text/markdown",
            "source": "s",
            "changed_at": datetime.now(UTC),
        }
        for name, text in texts.items()
        if text is not None
    ]
    table = lakehouse.table("helper", "corpus_documents")
    frame = pl.DataFrame(rows, schema=table.spec.frame_schema)
    table.replace("document_id", set(texts), [frame], Provenance("write"), table.snapshot_id())


def sync(lakehouse: Lakehouse, settings: Settings, folder: Path, size: int = 64) -> ChunksSync:
    snapshot = lakehouse.table("helper", "corpus_documents").snapshot_id()
    assert snapshot is not None
    return sync_chunks(lakehouse, assistant(folder, size), settings, snapshot, Provenance("cut"))


def chunks(lakehouse: Lakehouse) -> dict[str, set[str]]:
    """Chunk ids by document."""
    ids: dict[str, set[str]] = {}
    for document_id, chunk_id in lakehouse.table("helper", "corpus_chunks").read()["document_id", "chunk_id"].rows():
        ids.setdefault(document_id, set()).add(chunk_id)
    return ids


def test_chunks_follow_edits_and_deletions(lakehouse: Lakehouse, settings: Settings, tmp_path: Path) -> None:
    write(lakehouse, a="# A\n\n" + "one " * 200, b="# B\n\ntwo", c="# C\n\nthree")
    first = sync(lakehouse, settings, tmp_path)
    before = chunks(lakehouse)
    assert first.documents_cut == 3
    assert first.chunks == sum(map(len, before.values()))
    assert len(before["a"]) > 3
    write(lakehouse, b="# B\n\nother words", c=None)
    second = sync(lakehouse, settings, tmp_path)
    after = chunks(lakehouse)
    assert second.documents_cut == 1
    assert after.keys() == {"a", "b"}
    assert after["a"] == before["a"]
    assert after["b"] != before["b"]
    assert validate(lakehouse.table("helper", "corpus_chunks").read(), chunks_suite(64)).passed


def test_nothing_changed_cuts_and_writes_nothing(lakehouse: Lakehouse, settings: Settings, tmp_path: Path) -> None:
    write(lakehouse, a="one", b="two")
    first, second = sync(lakehouse, settings, tmp_path), sync(lakehouse, settings, tmp_path)
    assert (second.documents_cut, second.snapshot, second.chunks) == (0, first.snapshot, 2)


def test_another_size_cuts_everything_anew(lakehouse: Lakehouse, settings: Settings, tmp_path: Path) -> None:
    write(lakehouse, a="one " * 200, b="two")
    small = sync(lakehouse, settings, tmp_path, size=32)
    large = sync(lakehouse, settings, tmp_path, size=128)
    assert large.documents_cut == 2
    assert large.chunks < small.chunks
    assert large.tokens_median <= 128


def test_chunks_are_written_some_at_a_time_in_one_commit_without_loss(
    lakehouse: Lakehouse, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {f"d{n}": f"# Part {n}\n\n" + "one " * 150 for n in range(7)}
    write(lakehouse, **texts)
    sync(lakehouse, settings, tmp_path, size=64)
    monkeypatch.setattr(sync_module, "CHUNKS_PER_FILE", 4)
    monkeypatch.setattr(sync_module, "DOCUMENTS_AT_ONCE", 2)
    table = lakehouse.table("helper", "corpus_chunks")
    before = len(table.load().metadata.snapshots)
    done = sync(lakehouse, settings, tmp_path, size=32)
    ids = chunks(lakehouse)
    assert done.documents_cut == len(ids) == 7
    assert done.chunks == sum(map(len, ids.values())) > 28
    files = table.load().inspect.files()
    assert files.num_rows == -(-done.chunks // 4)
    # One deletes the old chunks, one brings all of the new ones.
    assert len(table.load().metadata.snapshots) == before + 2


def test_cutting_that_another_overtakes_writes_nothing_twice(
    lakehouse: Lakehouse, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(lakehouse, a="one", b="two")

    def overtaken(folder: Path) -> TokenCounter:
        monkeypatch.undo()
        sync(lakehouse, settings, tmp_path)
        return load_tokens(folder)

    monkeypatch.setattr(sync_module, "load_tokens", overtaken)
    with pytest.raises(ConflictError):
        sync(lakehouse, settings, tmp_path)
    assert lakehouse.table("helper", "corpus_chunks").read().height == 2


def test_a_sync_reports_what_it_made_itself_also_when_another_commits_right_after(
    lakehouse: Lakehouse, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the index would tie the chunks of other documents to those that this sync read."""
    write(lakehouse, a="one")
    others: list[ChunksSync] = []
    replace = LakeTable.replace

    def followed(self: LakeTable, *arguments: Any) -> int | None:
        made = replace(self, *arguments)
        monkeypatch.undo()
        write(lakehouse, a="one", b="two")
        others.append(sync(lakehouse, settings, tmp_path))
        return made

    monkeypatch.setattr(LakeTable, "replace", followed)
    done = sync(lakehouse, settings, tmp_path)
    assert (done.chunks, others[0].chunks) == (1, 2)
    assert done.snapshot != others[0].snapshot
    table = lakehouse.table("helper", "corpus_chunks")
    assert table.read(done.snapshot)["document_id"].to_list() == ["a"]
