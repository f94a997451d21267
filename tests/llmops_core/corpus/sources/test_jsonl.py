import json
import os
from pathlib import Path
from typing import Any

import pytest

from llmops_core.assistant import JsonlSource as JsonlSection
from llmops_core.corpus import files
from llmops_core.corpus.document import Document, Rejected
from llmops_core.corpus.sources.jsonl import JsonlSource
from llmops_core.errors import SourceError


def source(folder: Path, content: bytes | list[Any] | None = None, **names: str) -> JsonlSource:
    if isinstance(content, list):
        content = "".join(json.dumps(row) + "\n" for row in content).encode()
    if content is not None:
        (folder / "corpus.jsonl").write_bytes(content)
    return JsonlSource(JsonlSection(type="jsonl", path="corpus.jsonl", **names), folder)


def documents(rows: JsonlSource) -> list[Document]:
    return [item for item in rows.read() if isinstance(item, Document)]


def only_reason(folder: Path, row: Any) -> str:
    """Why a row is rejected that stands between two good ones."""
    good = json.dumps({"doc_id": "g", "text": "x"}).encode()
    line = row if isinstance(row, bytes) else json.dumps(row).encode()
    before, rejected, after = source(folder, b"\n".join([good, line, good])).read()
    assert isinstance(before, Document)
    assert isinstance(after, Document)
    assert isinstance(rejected, Rejected)
    assert rejected.uri == "corpus.jsonl#2"
    return rejected.reason


def test_a_row_is_a_document_whose_id_is_what_its_field_says(tmp_path: Path) -> None:
    rows = [{"doc_id": " a/1 ", "title": " T ", "text": " x\r\n"}, {"doc_id": 7, "text": "y", "other": [1]}]
    assert documents(source(tmp_path, rows)) == [
        Document(" a/1 ", "T", " x\r\n", "corpus.jsonl#1", "text/plain", "jsonl:corpus.jsonl"),
        Document("7", "", "y", "corpus.jsonl#2", "text/plain", "jsonl:corpus.jsonl"),
    ]


def test_a_text_too_long_for_one_document_is_several_that_hold_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PART_CHARACTERS", 40)
    text = "twelve words " * 7
    found = documents(source(tmp_path, [{"doc_id": "a", "text": text}, {"doc_id": "b", "text": "short"}]))
    assert [item.document_id for item in found] == ["a", "a#part2", "a#part3", "b"]
    assert "".join(item.text for item in found[:3]) == text
    assert found[1].uri == "corpus.jsonl#1#part2"


def test_the_fields_have_the_names_that_the_settings_say(tmp_path: Path) -> None:
    rows = [{"key": "k", "section": "S", "body": "x"}]
    (document,) = documents(source(tmp_path, rows, id="key", title="section", text="body"))
    assert (document.document_id, document.title, document.text) == ("k", "S", "x")


@pytest.mark.parametrize("title", [None, "", "  "])
def test_a_missing_title_is_empty(tmp_path: Path, title: str | None) -> None:
    assert documents(source(tmp_path, [{"doc_id": "a", "title": title, "text": "x"}]))[0].title == ""


def test_byte_order_mark_blank_lines_crlf_and_a_missing_last_newline_are_fine(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"doc_id": "a", "text": "x"}\r\n\r\n \n{"doc_id": "b", "text": "y\xc2\x85z"}'
    assert [d.uri for d in documents(source(tmp_path, content))] == ["corpus.jsonl#1", "corpus.jsonl#4"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b'{"doc_id": "a", "text": ', "line 2: not JSON: "),
        (b"[" * 100_000, "line 2: not JSON: nested too deeply"),
        (b'{"doc_id": "\xff"}', "line 2: not UTF-8: byte 0xff at offset 12"),
        ([1], "line 2: expected a JSON object, found a list"),
        (None, "line 2: expected a JSON object, found null"),
        ({"id": "a", "text": "x"}, "line 2: no field 'doc_id'; fields of this row: id, text"),
        ({}, "line 2: no field 'doc_id'; fields of this row: none"),
        ({"doc_id": "a"}, "line 2: no field 'text'"),
        ({"doc_id": "", "text": "x"}, "line 2: doc_id: empty"),
        ({"doc_id": "a", "text": " \n"}, "line 2: text: empty"),
        ({"doc_id": None, "text": "x"}, "line 2: doc_id: expected a text, found null"),
        ({"doc_id": True, "text": "x"}, "line 2: doc_id: expected a text, found a boolean"),
        ({"doc_id": 1.5, "text": "x"}, "line 2: doc_id: expected a text, found a number"),
        ({"doc_id": "a", "text": ["x"]}, "line 2: text: expected a text, found a list"),
        ({"doc_id": "a", "title": {"t": 1}, "text": "x"}, "line 2: title: expected a text, found an object"),
        ({"doc_id": "a", "title": 0, "text": "x"}, "line 2: title: expected a text, found a number"),
        ({"doc_id": "a", "text": "x\0"}, "line 2: text: NUL character"),
        (b'{"doc_id": "a", "text": "\\ud83d"}', "line 2: text: half a surrogate pair"),
    ],
)
def test_a_bad_row_is_rejected_with_its_line_and_the_rest_goes_on(tmp_path: Path, row: Any, reason: str) -> None:
    assert only_reason(tmp_path, row).startswith(reason)


def test_a_file_that_is_missing_or_a_folder_fails_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"does not exist\. Put it there, or correct sources\.path"):
        list(source(tmp_path).read())
    (tmp_path / "corpus.jsonl").mkdir()
    for call in (lambda: list(source(tmp_path).read()), source(tmp_path).content_fingerprint):
        with pytest.raises(SourceError, match="is not a file"):
            call()


def test_fingerprints_change_with_the_file_and_with_the_fields(tmp_path: Path) -> None:
    rows = source(tmp_path, [{"doc_id": "a", "text": "x"}])
    cheap, exact = rows.stat_fingerprint(), rows.content_fingerprint()
    assert (rows.stat_fingerprint(), rows.content_fingerprint()) == (cheap, exact)
    assert source(tmp_path, text="body").content_fingerprint() != exact
    os.utime(tmp_path / "corpus.jsonl", ns=(1, 1))
    assert rows.stat_fingerprint() != cheap
    assert rows.content_fingerprint() == exact
    assert source(tmp_path, [{"doc_id": "a", "text": "y"}]).content_fingerprint() != exact
