import zlib
from contextlib import suppress

import pytest

from llmops_core.corpus.pdf import PAGE_BREAK, pdf_to_text
from tests.office_files import locked_pdf, pdf


def reason(data: bytes) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        pdf_to_text(data)
    return str(caught.value)


def test_pages_follow_each_other_with_a_form_feed_between_them() -> None:
    title, text = pdf_to_text(pdf("First line\nsecond line", "", "Third page", title="A  guide"))
    assert title == "A guide"
    assert text == "First line\nsecond line\n\f\n\n\f\nThird page\n"
    assert text[: text.index("Third")].count(PAGE_BREAK) + 1 == 3


def test_without_a_title_the_first_line_names_the_file_unless_it_is_long() -> None:
    assert pdf_to_text(pdf("", "  Travel policy\nmore"))[0] == "Travel policy"
    assert pdf_to_text(pdf("word " * 60))[0] == ""


def test_a_file_without_text_says_to_recognise_it() -> None:
    assert reason(pdf("", "")) == (
        "no text in its 2 page(s): probably scanned; run text recognition on it (for example ocrmypdf)"
    )


def test_a_password_is_needed_only_where_reading_is_forbidden() -> None:
    assert reason(locked_pdf("user")) == "encrypted: it needs a password; save it without one"
    assert pdf_to_text(locked_pdf(""))[1] == "secret words\n"


def test_every_cut_of_a_file_is_refused_and_never_read_in_part() -> None:
    whole = pdf("First", "Second")
    for length in range(9, len(whole) - 6, 7):
        assert reason(whole[:length]).startswith("cut short: ")


@pytest.mark.parametrize("data", [b"PK\x03\x04....", b"plain words", b"\x89PNG\r\n"])
def test_another_kind_of_file_is_named_by_its_first_bytes(data: bytes) -> None:
    assert reason(data).startswith(f"not a PDF: it begins with {data[:8]!r}")


def test_damage_is_a_reason_and_never_another_error() -> None:
    whole = pdf("First", "Second", title="T")
    for start in range(9, len(whole) - 10, 5):
        with suppress(ValueError):
            pdf_to_text(whole[:start] + b"\xff<<" + whole[start + 3 :])


def test_a_page_that_unpacks_to_far_more_than_the_file_is_refused() -> None:
    bomb = zlib.compress(b"(x) Tj " * 30_000_000)
    small = pdf("words")
    start, end = small.index(b"<</Length"), small.index(b"endstream")
    data = small[:start] + b"<</Filter/FlateDecode/Length %d>>stream\n%s\n" % (len(bomb), bomb) + small[end:]
    assert reason(data).startswith("not readable as PDF: page 1: ")


def test_nul_characters_of_a_faulty_font_do_not_spoil_the_text() -> None:
    assert pdf_to_text(pdf("caf\xe9 a\\000b"))[1] == "café ab\n"
