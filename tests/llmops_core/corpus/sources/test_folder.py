import os
import shutil
from pathlib import Path

import pytest

from llmops_core.assistant import FolderSource as FolderSection
from llmops_core.corpus import files
from llmops_core.corpus.document import Document, Rejected
from llmops_core.corpus.sources.folder import FolderSource
from llmops_core.errors import SourceError
from tests.office_files import docx, paragraph, pdf


def write(folder: Path, **files: str | bytes) -> None:
    """Write files; in a name, `__` is a slash and `_` before the suffix a dot."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def source(assistant: Path, path: str = "docs", glob: str = "**/*") -> FolderSource:
    return FolderSource(FolderSection(type="folder", path=path, glob=glob), assistant)


def documents(folder: FolderSource) -> dict[str, Document]:
    return {item.document_id: item for item in folder.read() if isinstance(item, Document)}


def reasons(folder: FolderSource) -> dict[str, str]:
    return {item.uri: item.reason for item in folder.read() if isinstance(item, Rejected)}


def test_every_supported_kind_is_read_and_named(tmp_path: Path) -> None:
    write(
        tmp_path / "docs",
        a_md="# Alpha\ntext",
        b_markdown="no heading",
        sub__c_txt="# words",
        sub__d_text="words",
        e_rst="Echo\n====\n\ntext",
        f_html="<title>Foxtrot</title><h1>H</h1><p>text",
        g_HTM="<h2>Golf</h2>",
        h_pdf=pdf("Hotel", "text"),
        i_docx=docx(paragraph("India", "heading 1"), paragraph("text")),
    )
    found = documents(source(tmp_path))
    assert {d.document_id: (d.title, d.media_type) for d in found.values()} == {
        "docs/a.md": ("Alpha", "text/markdown"),
        "docs/b.markdown": ("b", "text/markdown"),
        "docs/e.rst": ("Echo", "text/x-rst"),
        "docs/f.html": ("Foxtrot", "text/markdown"),
        "docs/g.HTM": ("Golf", "text/markdown"),
        "docs/h.pdf": ("Hotel", "text/plain"),
        "docs/i.docx": ("India", "text/markdown"),
        "docs/sub/c.txt": ("c", "text/plain"),
        "docs/sub/d.text": ("d", "text/plain"),
    }
    assert found["docs/a.md"].text == "# Alpha\ntext"
    assert found["docs/f.html"].text == "# H\n\ntext\n"
    assert {d.source for d in found.values()} == {"folder:docs"}


def test_documents_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    write(tmp_path / "docs", b_md="x", a__z_md="x", a_md="x", c__a_md="x", B_md="x")
    assert list(documents(source(tmp_path))) == ["docs/B.md", "docs/a/z.md", "docs/a.md", "docs/b.md", "docs/c/a.md"]


def test_the_uri_is_relative_to_the_assistant_where_the_file_lies_below_it(tmp_path: Path) -> None:
    write(tmp_path / "me" / "docs", sub__a_md="x")
    write(tmp_path / "shared", b_md="x")
    assert documents(source(tmp_path / "me"))["docs/sub/a.md"].uri == "docs/sub/a.md"
    assert documents(source(tmp_path / "me", "../shared"))["shared/b.md"].uri == (tmp_path / "shared/b.md").as_posix()
    assert documents(source(tmp_path / "me", str(tmp_path / "shared"))).keys() == {"shared/b.md"}


def test_the_assistants_own_folder_gives_its_name_to_the_ids(tmp_path: Path) -> None:
    write(tmp_path / "me", a_md="x")
    assert documents(source(tmp_path / "me", ".")).keys() == {"me/a.md"}


def test_a_linked_root_keeps_its_own_name(tmp_path: Path) -> None:
    write(tmp_path / "real", a_md="x")
    (tmp_path / "docs").symlink_to(tmp_path / "real")
    assert documents(source(tmp_path)).keys() == {"docs/a.md"}


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("**/*.md", {"docs/a.md", "docs/s/b.md", "docs/s/t/c.md"}),
        ("*.md", {"docs/a.md"}),
        ("./*.md", {"docs/a.md"}),
        ("s/**", {"docs/s/b.md", "docs/s/t/c.md", "docs/s/t/d.txt"}),
        ("s/*/*.[mt]*", {"docs/s/t/c.md", "docs/s/t/d.txt"}),
        ("**/t/**/*.md", {"docs/s/t/c.md"}),
        ("nothing/*", set()),
    ],
)
def test_the_glob_picks_files(tmp_path: Path, glob: str, expected: set[str]) -> None:
    write(tmp_path / "docs", a_md="x", s__b_md="x", s__t__c_md="x", s__t__d_txt="x")
    assert documents(source(tmp_path, glob=glob)).keys() == expected


def test_the_name_tells_sources_over_one_folder_apart(tmp_path: Path) -> None:
    assert source(tmp_path, "docs/").name == "folder:docs"
    assert source(tmp_path, "docs", "**/*.md").name == "folder:docs/**/*.md"


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "docs", a_md="x")
    for path in (".git/b.md", ".hidden.md", "s/.c.md"):
        (tmp_path / "docs" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / path).write_text("x")
    assert list(source(tmp_path).read()) == list(documents(source(tmp_path)).values())
    assert documents(source(tmp_path)).keys() == {"docs/a.md"}


def test_one_bad_file_is_rejected_with_the_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    write(
        tmp_path / "docs",
        blank_md=" \n\t",
        empty_html="<script>x</script>",
        latin_txt=b"caf\xe9",
        binary_txt=b"a\0b",
        picture_png=b"\x89PNG",
        README="x",
        good_md="x",
        nothing_pdf=b"",
        scanned_pdf=pdf(""),
        words_docx="words",
        renamed_txt=pdf("words"),
        utf16_txt="ascii".encode("utf-16-le"),
        pointer_md="version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n",
    )
    (tmp_path / "docs" / "broken.md").symlink_to(tmp_path / "nowhere")
    (tmp_path / "docs" / "loop.md").symlink_to(tmp_path / "docs" / "loop.md")
    os.mkfifo(tmp_path / "docs" / "pipe.md")
    found = reasons(source(tmp_path))
    assert documents(source(tmp_path)).keys() == {"docs/good.md"}
    assert found["docs/blank.md"] == "empty: no visible character"
    assert found["docs/empty.html"] == "nothing to read in the page: empty: no visible character"
    assert "byte 0xe9 at offset 3" in found["docs/latin.txt"]
    assert "NUL character at offset 1" in found["docs/binary.txt"]
    assert found["docs/picture.png"].startswith("suffix not supported: .png; supported: .md .markdown .txt")
    assert found["docs/nothing.pdf"] == "empty: no byte in the file"
    assert "probably scanned" in found["docs/scanned.pdf"]
    assert found["docs/words.docx"].startswith("not readable as DOCX: ")
    assert found["docs/renamed.txt"] == "a PDF by its first bytes: give it the suffix .pdf"
    assert "probably UTF-16" in found["docs/utf16.txt"]
    assert found["docs/pointer.md"].startswith("a pointer of Git LFS")
    assert found["docs/README"].startswith("suffix not supported: (none)")
    assert found["docs/broken.md"] == "cannot be read: No such file or directory"
    assert found["docs/loop.md"].startswith("cannot be read: ")
    assert found["docs/pipe.md"] == "not a regular file"


def test_a_file_name_that_is_not_utf8_is_rejected_in_words_that_a_table_can_hold(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    try:
        Path(os.fsdecode(bytes(tmp_path / "docs") + b"/caf\xe9.md")).write_text("x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert reasons(source(tmp_path)) == {"docs/caf\\xe9.md": "file name is not UTF-8: rename it"}
    assert source(tmp_path).stat_fingerprint()
    assert source(tmp_path).content_fingerprint()


def test_linked_folders_are_not_followed_but_reported(tmp_path: Path) -> None:
    write(tmp_path / "docs", a_md="x", s__b_md="x")
    (tmp_path / "docs" / "s" / "up").symlink_to(tmp_path / "docs")
    (tmp_path / "docs" / "out").symlink_to(tmp_path)
    assert documents(source(tmp_path)).keys() == {"docs/a.md", "docs/s/b.md"}
    assert reasons(source(tmp_path)).keys() == {"docs/s/up", "docs/out"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_permissions_forbid_is_rejected(tmp_path: Path) -> None:
    write(tmp_path / "docs", a_md="x", closed_md="x", locked__b_md="x")
    (tmp_path / "docs" / "closed.md").chmod(0)
    (tmp_path / "docs" / "locked").chmod(0)
    found = reasons(source(tmp_path))
    (tmp_path / "docs" / "locked").chmod(0o700)
    assert found["docs/closed.md"] == "cannot be read: Permission denied"
    assert found["docs/locked"] == "folder cannot be listed: Permission denied"


def test_a_folder_that_is_missing_or_none_fails_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"folder .*/docs does not exist\. Make it, or correct sources\.path"):
        list(source(tmp_path).read())
    with pytest.raises(SourceError, match="does not exist"):
        source(tmp_path).stat_fingerprint()
    write(tmp_path, docs="a file")
    with pytest.raises(SourceError, match="is not a folder"):
        list(source(tmp_path).read())


def test_an_empty_folder_has_no_documents(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    assert list(source(tmp_path).read()) == []


def test_a_deleted_file_leaves_the_corpus(tmp_path: Path) -> None:
    write(tmp_path / "docs", a_md="x", b_md="y")
    before = source(tmp_path).stat_fingerprint()
    (tmp_path / "docs" / "b.md").unlink()
    assert documents(source(tmp_path)).keys() == {"docs/a.md"}
    assert source(tmp_path).stat_fingerprint() != before


def test_fingerprints_change_with_the_files_and_with_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "docs", a_md="x", b_png="x")
    cheap, exact = source(tmp_path).stat_fingerprint(), source(tmp_path).content_fingerprint()
    assert (source(tmp_path).stat_fingerprint(), source(tmp_path).content_fingerprint()) == (cheap, exact)

    os.utime(tmp_path / "docs" / "a.md", ns=(1, 1))
    assert source(tmp_path).stat_fingerprint() != cheap
    assert source(tmp_path).content_fingerprint() == exact

    write(tmp_path / "docs", a_md="y")
    assert source(tmp_path).content_fingerprint() != exact


def test_a_copied_assistant_has_the_same_content_fingerprint(tmp_path: Path) -> None:
    write(tmp_path / "one" / "docs", a_md="x", s__b_txt="y")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert source(tmp_path / "one").content_fingerprint() == source(tmp_path / "two").content_fingerprint()


def test_a_renamed_file_and_another_glob_change_the_fingerprint(tmp_path: Path) -> None:
    write(tmp_path / "docs", a_md="x")
    before = source(tmp_path).content_fingerprint()
    assert source(tmp_path, glob="*.md").content_fingerprint() != before
    (tmp_path / "docs" / "a.md").rename(tmp_path / "docs" / "b.md")
    assert source(tmp_path).content_fingerprint() != before


@pytest.mark.parametrize(
    "name", ["Ünï cöde", "日本語", "עברית", "नमस्ते", "e\u0301", "a\nb", "👩‍👩‍👧", "-rf *", "'\"|\\"]
)
def test_names_are_read_in_any_script(tmp_path: Path, name: str) -> None:
    (tmp_path / "docs" / name).mkdir(parents=True)
    (tmp_path / "docs" / name / f"{name}.md").write_text("x")
    (document,) = source(tmp_path).read()
    assert isinstance(document, Document)
    assert document.document_id == document.uri == f"docs/{name}/{name}.md"
    assert document.title == name


def test_a_page_is_decoded_as_it_declares(tmp_path: Path) -> None:
    page = "<meta charset=windows-1251><title>Привет</title><p>мир"
    write(tmp_path / "docs", a_html=page.encode("cp1251"), b_html=page.replace("windows-1251", "utf-16").encode())
    assert [(d.title, d.text) for d in documents(source(tmp_path)).values()] == [("Привет", "мир\n")] * 2


def test_a_file_over_the_limit_is_rejected_without_reading_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "docs", a_md="x", huge_txt="")
    os.truncate(tmp_path / "docs" / "huge.txt", 300 * 1024**2)
    assert reasons(source(tmp_path)) == {"docs/huge.txt": "314,572,800 bytes, the limit is 268,435,456; split it"}
    monkeypatch.setattr(files, "MAX_HTML_BYTES", 5)
    write(tmp_path / "docs", b_html="<p>abc")
    assert reasons(source(tmp_path))["docs/b.html"] == "6 bytes, the limit is 5; split it"


def test_a_long_text_is_read_in_parts_that_cover_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PART_CHARACTERS", 100)
    text = "# Title\n\n" + "".join(f"## Section {n}\n\n" + "word " * 12 + "\n\n" for n in range(20))
    write(tmp_path / "docs", long_md=text, line_txt="x" * 250)
    found = documents(source(tmp_path))
    parts = [found.pop(f"docs/long.md{part}") for part in ("", *(f"#part{n}" for n in range(2, 21)))]
    assert "".join(part.text for part in parts) == text
    assert all(part.text.startswith("#") and len(part.text) <= 100 for part in parts)
    assert {part.title for part in parts} == {"Title"}
    assert parts[1].uri == "docs/long.md#part2"
    assert [len(d.text) for d in found.values()] == [100, 100, 50]


def test_a_file_that_vanishes_while_the_folder_is_read_is_no_document(tmp_path: Path) -> None:
    write(tmp_path / "docs", a_md="x", b_md="x", s__c_md="x", t__d_md="x")
    stream = source(tmp_path).read()
    first = next(stream)
    (tmp_path / "docs" / "b.md").unlink()
    shutil.rmtree(tmp_path / "docs" / "s")
    assert [item.uri for item in (first, *stream)] == ["docs/a.md", "docs/t/d.md"]


def test_a_folder_is_walked_as_it_is_read(tmp_path: Path) -> None:
    write(tmp_path / "docs", a__a_md="x", z__z_md="x")
    stream = source(tmp_path).read()
    next(stream)
    (tmp_path / "docs" / "z" / "new.md").write_text("x")
    assert [item.uri for item in stream] == ["docs/z/new.md", "docs/z/z.md"]


def test_folders_may_nest_deeper_than_python_recurses(tmp_path: Path) -> None:
    folders = [tmp_path / "docs"]
    while len(folders) < 1200:
        folders.append(folders[-1] / "d")
    for folder in folders:
        folder.mkdir()
    (folders[-1] / "a.md").write_text("x")
    (document,) = source(tmp_path).read()
    assert document.uri.count("/") == len(folders)
    (folders[-1] / "a.md").unlink()
    for folder in reversed(folders):  # shutil.rmtree recurses.
        folder.rmdir()


def test_a_change_of_size_alone_changes_both_fingerprints(tmp_path: Path) -> None:
    write(tmp_path / "docs", huge_txt="")
    os.truncate(tmp_path / "docs" / "huge.txt", 300 * 1024**2)
    cheap, exact = source(tmp_path).stat_fingerprint(), source(tmp_path).content_fingerprint()
    os.truncate(tmp_path / "docs" / "huge.txt", 301 * 1024**2)
    assert source(tmp_path).stat_fingerprint() != cheap
    assert source(tmp_path).content_fingerprint() != exact
