import io
import zipfile

import pytest

from llmops_core.corpus import docx as docx_module
from llmops_core.corpus.docx import docx_to_markdown
from llmops_core.corpus.headings import headings
from tests.office_files import docx, paragraph, table


def reason(data: bytes) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        docx_to_markdown(data)
    return str(caught.value)


def test_a_file_becomes_headings_paragraphs_lists_and_rows() -> None:
    title, text = docx_to_markdown(
        docx(
            paragraph("Handbook", "Title"),
            paragraph("Leave", "heading 1"),
            paragraph("# no heading & <no tag>"),
            paragraph("one", bullet=0),
            paragraph("deep", bullet=1),
            paragraph("two", bullet=0),
            paragraph("first", number=0),
            paragraph("Days", "heading 2"),
            table(["Country", "Days"], ["Österreich", "25"]),
            title="The\n handbook",
        )
    )
    assert title == "The handbook"
    assert text == (
        "# Handbook\n\n# Leave\n\n\\# no heading & <no tag>\n\n- one\n   - deep\n- two\n1. first\n\n## Days\n\n"
        "Country | Days\nÖsterreich | 25\n"
    )
    assert [(h.level, h.name) for h in headings(text, "text/markdown")] == [(1, "Handbook"), (1, "Leave"), (2, "Days")]


def test_deep_headings_stay_headings() -> None:
    assert docx_to_markdown(docx(paragraph("Deep", "heading 9")))[1] == "###### Deep\n"


def test_inserted_words_are_read_and_deleted_ones_are_not() -> None:
    tracked = (
        "<w:p><w:ins><w:r><w:t>in</w:t></w:r></w:ins><w:del><w:r><w:delText>out</w:delText></w:r></w:del></w:p>"
        f"<w:sdt><w:sdtContent>{paragraph('in a form')}</w:sdtContent></w:sdt>"
    )
    assert docx_to_markdown(docx(tracked)) == ("", "in\n\nin a form\n")


def test_an_old_or_locked_file_says_how_to_save_it() -> None:
    assert "save it as .docx without a password" in reason(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500))


@pytest.mark.parametrize("data", [b"plain words", docx(paragraph("x"))[:-30], docx(paragraph("x"))[:200]])
def test_what_is_no_docx_or_was_cut_short_is_refused(data: bytes) -> None:
    assert reason(data).startswith("not readable as DOCX: ")


def test_another_archive_is_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    assert reason(out.getvalue()).startswith("not readable as DOCX: ")


def test_a_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = docx(paragraph("x " * 20_000_000))
    assert len(bomb) < 200_000
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("unpacked"))
    assert "the limit is 33,554,432; split it" in reason(bomb)


def test_entities_do_not_multiply() -> None:
    entities = '<!DOCTYPE d [<!ENTITY a "xxxxxxxxxx">' + "".join(
        f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    whole = docx(paragraph("x"))
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name).decode()
            if name == "word/document.xml":
                content = entities + "]>" + content.replace("<w:t>x", "<w:t>&i;")
            new.writestr(name, content)
    assert reason(out.getvalue()).startswith("not readable as DOCX: ")


def test_nesting_beyond_what_can_be_followed_is_a_reason() -> None:
    assert reason(docx("<w:sdt><w:sdtContent>" * 3000 + paragraph("x") + "</w:sdtContent></w:sdt>" * 3000))


def test_the_limit_is_about_xml_and_not_about_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docx_module, "MAX_XML_BYTES", 10_000)
    out = io.BytesIO(docx(paragraph("words")))
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("word/media/image1.png", bytes(20_000))
    assert docx_to_markdown(out.getvalue())[1] == "words\n"
