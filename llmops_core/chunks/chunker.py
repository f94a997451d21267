"""Cuts a document: by its headings first, then by tokens, with exact offsets.

Small neighbouring sections share a chunk, a long section makes several that overlap. Deterministic: equal documents,
tokenizers and settings give equal chunks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from llmops_core.chunks.chunk import Chunk, embedded_text, header_parts, leading_headings
from llmops_core.chunks.structure import Section, sections
from llmops_core.chunks.units import Tokens, Units, units_of
from llmops_core.corpus.document import Document
from llmops_core.ids import content_hash


@dataclass(frozen=True)
class _Header:
    """Title and heading path as they go before a text, and how many tokens they take."""

    title: str
    path: tuple[str, ...]
    tokens: int

    @property
    def parts(self) -> tuple[str, ...]:
        return header_parts(self.title, self.path)


@dataclass(frozen=True)
class _Piece:
    """A chunk to be: a span without whitespace at its ends, under a header."""

    header: _Header
    char_start: int
    char_end: int
    tokens: int


def chunk_document(document: Document, tokens: Tokens, size: int, overlap: int) -> list[Chunk]:
    """Cut a document into chunks whose embedded text has at most `size` tokens, in order of the text.

    Neighbours out of one long section share about `overlap` tokens (at most half of `size`). Every character that is not
    whitespace is in some chunk; a blank text has none.
    """
    document_hash = document.content_hash
    seen: dict[str, int] = {}
    chunks = []
    for piece in _Cutter(document, tokens, size, overlap).pieces():
        text = document.text[piece.char_start : piece.char_end]
        embedded = embedded_text(piece.header.title, piece.header.path, text)
        number = seen[embedded] = seen.get(embedded, -1) + 1
        chunks.append(
            Chunk(
                chunk_id=content_hash([document.document_id, embedded, number]),
                document_id=document.document_id,
                document_hash=document_hash,
                title=piece.header.title,
                heading_path=piece.header.path,
                text=text,
                char_start=piece.char_start,
                char_end=piece.char_end,
                tokens=piece.tokens,
            )
        )
    return chunks


class _Cutter:
    """One document while it is cut."""

    def __init__(self, document: Document, tokens: Tokens, size: int, overlap: int) -> None:
        self.text = document.text
        self.title = document.title
        self.tokens = tokens
        self.size = size
        self.overlap = overlap
        self.sections = sections(document)
        self.units: Units = units_of(self.text, [section.char_start for section in self.sections], tokens)
        self.headers: dict[tuple[str, ...], _Header] = {}

    def pieces(self) -> Iterator[_Piece]:
        """Pack small sections, cut long ones."""
        packed: Section | None = None
        for section in _with_bodies(self.sections, self.text):
            both = _together(packed, section) if packed else section
            if packed and not self.fits(both):
                yield from self.cut(packed)
                both = section
            packed = both
        if packed:
            yield from self.cut(packed)

    def fits(self, section: Section) -> bool:
        """Whether a section is one chunk, by the tokens that its parts have."""
        header = self.header(section.heading_path)
        first = self.units.at(leading_headings(self.text, header.parts, section.char_start))
        tokens = self.units.tokens_before
        return header.tokens + tokens[self.units.at(section.char_end)] - tokens[first] <= self.size

    def cut(self, section: Section) -> Iterator[_Piece]:
        """Cut a section into as few pieces as its boundaries allow: one, if it fits."""
        header = self.header(section.heading_path)
        end = self.units.at(_stripped(self.text, section.char_start, section.char_end)[1])
        start = done = self.visible(self.units.at(section.char_start), end)
        covered = 0
        while done < end:
            piece, cut = self.piece(header, start, done, end)
            if piece is None and start < done:
                start = done  # What the overlap leaves is too little to get on: do without it.
                continue
            if piece and piece.char_end > covered:  # Else it is overlap and whitespace.
                covered = piece.char_end
                yield piece
            done = self.visible(cut, end)
            start = self.visible(self.overlapping(header, start, cut), done) if done < end else done

    def piece(self, header: _Header, start: int, done: int, end: int) -> tuple[_Piece | None, int]:
        """Make the piece that begins with unit `start` and goes beyond unit `done`; also the unit at which it ends.

        None if there is no such piece within `size`, or nothing but whitespace in it.
        """
        begin = self.units.starts[start]
        body = max(start, self.units.at(leading_headings(self.text, header.parts, begin)))
        last = min(end, self.units.reach(body, self.size - header.tokens))
        while True:
            last = max(last, done + 1)
            cut = last
            if last < end:
                cut = self.units.best_boundary(range(last, max(done + 1, (body + last + 1) // 2) - 1, -1))
            char_start, char_end = _stripped(self.text, begin, self.units.start(cut))
            text = self.text[char_start:char_end]
            count = self.tokens.count(embedded_text(header.title, header.path, text)) if text else 0
            if count <= self.size or (cut == done + 1 and start == done):
                # At least 1: a tokenizer may drop every character of a text, and the text is still there.
                return (_Piece(header, char_start, char_end, max(count, 1)) if text else None), cut
            if cut == done + 1:
                return None, cut
            last = cut - min(count - self.size, cut - done - 1)

    def overlapping(self, header: _Header, start: int, cut: int) -> int:
        """The unit with which the piece after a cut begins: about `overlap` tokens before it, where that reads well."""
        room = min(self.overlap, (self.size - header.tokens) // 2 - 1)
        if room <= 0:
            return cut
        before = self.units.tokens_before
        earliest = max(start + 1, self.units.reach(0, before[cut] - room))
        latest = max(earliest, self.units.reach(0, before[cut] - room // 2))
        return self.units.best_boundary(range(min(earliest, cut), min(latest, cut) + 1))

    def visible(self, unit: int, end: int) -> int:
        """The first unit from `unit` on, up to `end`, that is not mere whitespace."""
        while unit < end and self.text[self.units.start(unit) : self.units.start(unit + 1)].isspace():
            unit += 1
        return unit

    def header(self, path: tuple[str, ...]) -> _Header:
        """Title and path, shortened until at least half of `size` is left: first the outermost headings go."""
        if path not in self.headers:
            self.headers[path] = self.shortened(self.title, path)
        return self.headers[path]

    def shortened(self, title: str, path: tuple[str, ...]) -> _Header:
        """Drop headings, then cut the title, as far as needed."""
        room = self.size // 2
        for first in range(len(path) + 1):
            header = self.measured(title, path[first:])
            if header.tokens <= room:
                return header
        offsets = self.tokens.offsets(title)
        for kept in range(min(room, len(offsets)) - 1, 0, -1):
            header = self.measured(title[: offsets[kept - 1][1]].rstrip() + "…", ())
            if header.tokens <= room:
                return header
        return _Header("", (), 0)

    def measured(self, title: str, path: tuple[str, ...]) -> _Header:
        """Count a header's tokens, with the blank line after it."""
        line = " > ".join(header_parts(title, path))
        return _Header(title, path, self.tokens.count(line + "\n\n") if line else 0)


def _with_bodies(found: list[Section], text: str) -> Iterator[Section]:
    """Join a heading that has nothing of its own with the section below it, so that no chunk is a bare heading."""
    bare: Section | None = None
    for section in found:
        below = bare and section.heading_path[: len(bare.heading_path)] == bare.heading_path
        if bare and not below:
            yield bare
        start = bare.char_start if bare and below else section.char_start
        joined = Section(section.heading_path, start, section.body_start, section.char_end)
        bare = None
        if text[section.body_start : section.char_end].strip():
            yield joined
        else:
            bare = joined
    if bare:
        yield bare


def _together(first: Section, second: Section) -> Section:
    """Two neighbours as one, under the headings that both stand below."""
    pairs = zip(first.heading_path, second.heading_path, strict=False)
    path = tuple(name for name, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return Section(path, first.char_start, first.body_start, second.char_end)


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """A span without the whitespace at its ends; empty if it is nothing else."""
    content = text[start:end]
    left = len(content) - len(content.lstrip())
    return start + left, start + max(left, len(content.rstrip()))
