from pathlib import Path

import pytest
import yaml

from llmops_core.assistant import Assistant, load_assistant
from llmops_core.corpus.document import Document, Rejected
from llmops_core.corpus.read import empty_corpus, fingerprint, read_all, sources_of
from llmops_core.errors import EmptyCorpusError, SourceError


def assistant(folder: Path, *sources: dict[str, str]) -> Assistant:
    (folder / "assistant.yaml").write_text(yaml.safe_dump({"name": "me", "sources": list(sources)}))
    return load_assistant(folder)


def folder_of(path: str, glob: str = "**/*") -> dict[str, str]:
    return {"type": "folder", "path": path, "glob": glob}


def test_sources_come_in_the_order_of_the_file_each_with_its_name(tmp_path: Path) -> None:
    web = {"type": "web", "sitemap": "https://me:secret@example.org/sitemap.xml"}
    git = {"type": "git", "url": "https://me:secret@example.org/x.git", "branch": "main"}
    settings = assistant(
        tmp_path, {"type": "jsonl", "path": "x/c.jsonl"}, folder_of("docs"), {"type": "python_topics"}, web, git
    )
    assert [source.name for source in sources_of(settings)] == [
        *("jsonl:x/c.jsonl", "folder:docs", "python_topics"),
        *("web:https://example.org/sitemap.xml", "git:https://example.org/x.git@main"),
    ]


def test_of_two_documents_with_one_id_the_first_wins_and_the_other_names_both_places(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("from the folder")
    (tmp_path / "c.jsonl").write_text(
        '{"doc_id": "b", "text": "1"}\n{"doc_id": "docs/a.md", "text": "2"}\n{"doc_id": "b", "text": "3"}\n'
    )
    settings = assistant(tmp_path, folder_of("docs"), {"type": "jsonl", "path": "c.jsonl"})
    items = list(read_all(sources_of(settings)))
    assert [(d.document_id, d.text) for d in items if isinstance(d, Document)] == [
        ("docs/a.md", "from the folder"),
        ("b", "1"),
    ]
    across, within = (item for item in items if isinstance(item, Rejected))
    assert across.uri == "c.jsonl#2"
    assert across.reason == (
        "document_id 'docs/a.md' is taken: first docs/a.md (folder:docs), again c.jsonl#2 (jsonl:c.jsonl)"
    )
    assert within.uri == "c.jsonl#3"
    assert "c.jsonl#1" in within.reason


def test_a_source_named_twice_gives_its_documents_once(tmp_path: Path) -> None:
    settings = assistant(tmp_path, {"type": "python_topics"}, {"type": "python_topics"})
    items = list(read_all(sources_of(settings)))
    assert sum(isinstance(item, Rejected) for item in items) * 2 == len(items)


def test_reading_streams(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"doc_id": "b", "text": "1"}\n')
    settings = assistant(tmp_path, {"type": "jsonl", "path": "c.jsonl"}, folder_of("missing"))
    stream = read_all(sources_of(settings))
    assert isinstance(next(stream), Document)
    with pytest.raises(SourceError, match="missing"):
        next(stream)


@pytest.mark.parametrize("kind", ["stat", "content"])
def test_the_fingerprint_of_all_changes_when_one_source_does(tmp_path: Path, kind: str) -> None:
    (tmp_path / "c.jsonl").write_text("{}")
    (tmp_path / "docs").mkdir()
    sources = sources_of(assistant(tmp_path, {"type": "jsonl", "path": "c.jsonl"}, folder_of("docs")))
    before = fingerprint(sources, kind)  # type: ignore[arg-type]
    assert fingerprint(sources, kind) == before  # type: ignore[arg-type]
    (tmp_path / "docs" / "a.md").write_text("x")
    assert fingerprint(sources, kind) != before  # type: ignore[arg-type]


def test_the_order_of_sources_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = fingerprint(sources_of(assistant(tmp_path, folder_of("a"), folder_of("b"))), "content")
    other = fingerprint(sources_of(assistant(tmp_path, folder_of("b"), folder_of("a"))), "content")
    assert one != other


def test_an_empty_corpus_names_its_sources_and_the_first_reasons(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text(" ")
    sources = sources_of(assistant(tmp_path, folder_of("docs"), folder_of("docs", "*.rst")))
    rejected = [item for item in read_all(sources) if isinstance(item, Rejected)]
    error = empty_corpus(sources, rejected)
    assert isinstance(error, EmptyCorpusError)
    assert "No readable document in folder:docs, folder:docs/*.rst (1 rejected)" in str(error)
    assert "docs/a.md: empty" in str(error)
