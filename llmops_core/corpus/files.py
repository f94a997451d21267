"""Files as documents: which kinds are read, how large they may be, and how their bytes become text.

Every source that holds files (a folder, a repository, a site) reads them here, so that the same file gives the same
document wherever it comes from.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from llmops_core.corpus.decoding import decode_as, decode_utf8, text_problem
from llmops_core.corpus.document import Document, MediaType
from llmops_core.corpus.docx import docx_to_markdown
from llmops_core.corpus.headings import title_of
from llmops_core.corpus.html import html_to_markdown
from llmops_core.corpus.pdf import pdf_to_text

FileType = (
    MediaType | Literal["application/pdf", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"]
)

FILE_TYPES: dict[str, FileType] = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".txt": "text/plain",
    ".text": "text/plain",
    ".rst": "text/x-rst",
    ".html": "text/html",
    ".htm": "text/html",
    ".pdf": "application/pdf",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
}
"""What is read, by lower-case suffix."""

MAX_BYTES = 256 * 1024 * 1024
MAX_HTML_BYTES = 32 * 1024 * 1024
"""HTML becomes a tree in memory, many times its size."""
PART_CHARACTERS = 2_000_000
"""A longer text is several documents, since cutting one into chunks takes memory in proportion to it (about 0.5 GB)."""
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class FileText:
    """What a file says: its title (never empty but for a row of JSONL), its text, and what that looks like."""

    title: str
    text: str
    media_type: MediaType


def file_type_of(name: str) -> FileType:
    """The kind of a file by its suffix; raises `ValueError` with the kinds that there are."""
    suffix = PurePosixPath(name).suffix
    if kind := FILE_TYPES.get(suffix.lower()):
        return kind
    raise ValueError(f"suffix not supported: {suffix or '(none)'}; supported: {' '.join(FILE_TYPES)}")


def size_problem(kind: FileType, size: int) -> str | None:
    """Say that a file of so many bytes is too large to be read, or None if it is not."""
    limit = MAX_HTML_BYTES if kind == "text/html" else MAX_BYTES
    return f"{size:,} bytes, the limit is {limit:,}; split it" if size > limit else None


def read_file(data: bytes, kind: FileType, fallback_title: str, encoding: str | None = None) -> FileText:
    """Turn a file's bytes into text; `encoding` is what a server declared.

    Raises `ValueError` whose text says why this is no document, and what to do.
    """
    if not data:
        raise ValueError("empty: no byte in the file")
    if problem := size_problem(kind, len(data)):
        raise ValueError(problem)
    if data.startswith(_LFS_POINTER):
        raise ValueError("a pointer of Git LFS, not the file itself; fetch it with git lfs pull, or leave it out")
    title, text, media_type = _converted(data, kind, encoding)
    if problem := text_problem(text):
        raise ValueError(problem)
    return FileText(title or title_of(text[:PART_CHARACTERS], media_type, fallback_title), text, media_type)


def documents_of(file: FileText, document_id: str, uri: str, source: str) -> Iterator[Document]:
    """Make a file's document, or several of a long one: the first has the given id, the next `<id>#part2` and so on."""
    for number, text in enumerate(_parts(file.text), start=1):
        part = f"#part{number}" if number > 1 else ""
        if not text_problem(text):
            yield Document(document_id + part, file.title, text, uri + part, file.media_type, source)


def _converted(data: bytes, kind: FileType, encoding: str | None) -> tuple[str, str, MediaType]:
    """Title (empty if the file names none), text and what it looks like."""
    match kind:
        case "application/pdf":
            return *pdf_to_text(data), "text/plain"
        case "application/vnd.openxmlformats-officedocument.wordprocessingml.document":
            title, text = docx_to_markdown(data)
        case "text/html":
            title, text = html_to_markdown(_markup(data, encoding))
        case _:
            if data.startswith(b"%PDF-"):
                raise ValueError("a PDF by its first bytes: give it the suffix .pdf")
            return "", decode_as(data, encoding) if encoding else decode_utf8(data), kind
    if problem := text_problem(text):
        raise ValueError(f"nothing to read in the page: {problem}")
    return title, text, "text/markdown"


def _markup(data: bytes, encoding: str | None) -> str:
    from bs4.dammit import EncodingDetector

    # A page that says UTF-16 in letters that ASCII can read is not in UTF-16.
    declared = encoding or EncodingDetector.find_declared_encoding(data[:4096], is_html=True) or "utf-8"
    markup = decode_as(data, "utf-8" if not encoding and declared.lower().startswith("utf-16") else declared)
    if problem := text_problem(markup):
        raise ValueError(problem)
    return markup


def _parts(text: str) -> Iterator[str]:
    """Cut a text where a section, else a paragraph, a line or a word ends; what is short enough stays whole."""
    start = 0
    while len(text) - start > PART_CHARACTERS:
        earliest, end = start + PART_CHARACTERS // 2, start + PART_CHARACTERS
        cut = end
        for separator, kept in (("\n#", 1), ("\n\n", 2), ("\n", 1), (" ", 1)):
            if (found := text.rfind(separator, earliest, end)) >= 0:
                cut = found + kept
                break
        yield text[start:cut]
        start = cut
    yield text[start:]
