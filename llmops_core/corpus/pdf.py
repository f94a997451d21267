"""PDF to text: the words of each page in the order in which the file draws them, pages separated by form feeds.

pypdf is pure Python, so a malformed file is an exception and not a crash, and it bounds what one stream may unpack to.
"""

from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pypdf import PdfReader

PAGE_BREAK = "\f"
"""Stands between two pages, so counting it before an offset gives the page."""
MAX_CHARACTERS = 64_000_000
_LONGEST_TITLE = 120


def pdf_to_text(data: bytes) -> tuple[str, str]:
    """Turn a file into (title, text); the title is the one in its metadata, else the first line, else empty.

    Raises `ValueError` with the way out if the file is none, damaged, encrypted, or holds pictures of text alone.
    """
    if b"%PDF-" not in data[:1024]:
        raise ValueError(f"not a PDF: it begins with {data[:8]!r}; give it the suffix of what it is")
    if b"%%EOF" not in data[-2048:]:
        raise ValueError("cut short: the end of the PDF is missing; copy or export it again")
    import pypdf

    try:
        reader = pypdf.PdfReader(BytesIO(data))
        locked = reader.is_encrypted and not reader.decrypt("")
        pages = [] if locked else _pages(reader)
    except (MemoryError, Exception) as error:  # A malformed file makes pypdf raise nearly anything.
        raise ValueError(f"not readable as PDF: {error or type(error).__name__}; export it again") from error
    if locked:
        raise ValueError("encrypted: it needs a password; save it without one")
    if not any(map(str.strip, pages)):
        raise ValueError(
            f"no text in its {len(pages)} page(s): probably scanned; run text recognition on it (for example ocrmypdf)"
        )
    return _title(reader, pages), f"\n{PAGE_BREAK}\n".join(pages) + "\n"


def _pages(reader: "PdfReader") -> list[str]:
    pages = []
    room = MAX_CHARACTERS
    for number, page in enumerate(reader.pages, start=1):
        try:
            pages.append(_clean(page.extract_text()))
        except Exception as error:
            raise ValueError(f"page {number}: {error or type(error).__name__}") from error
        room -= len(pages[-1])
        if room < 0:
            raise ValueError(f"over {MAX_CHARACTERS:,} characters; split it")
    return pages


def _title(reader: "PdfReader", pages: list[str]) -> str:
    with suppress(Exception):  # Metadata may be malformed where the pages are not.
        if title := " ".join(_clean(str((reader.metadata and reader.metadata.title) or "")).split()):
            return title
    line = next(line for page in pages for line in page.splitlines() if line.strip())
    return " ".join(line.split()) if len(line) <= _LONGEST_TITLE else ""


def _clean(text: str) -> str:
    """Drop what a font's faulty table makes of glyphs: NUL and halves of surrogate pairs; form feeds are ours."""
    paired = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return paired.replace("\0", "").replace(PAGE_BREAK, "\n").strip("\n")
