"""A chunk, and the text of it that an embedder reads."""

import re
from dataclasses import dataclass

_LONGEST_HEADING = 400
"""Characters of a line that may still be a heading; the bound keeps one endless line from being scanned for each chunk."""
_HEADING = re.compile(
    rf"""
    \s* (?:
        [ ]{{0,3}} \#{{1,6}} [ \t]+ (?P<atx> [^\r\n]{{1,{_LONGEST_HEADING}}} )
      | (?: (?P<over> [!-/:-@\[-`{{-~] ) (?P=over)+ [ \t]* (?:\r\n|\r|\n) )?
        (?P<underlined> [^\r\n]{{1,{_LONGEST_HEADING}}} ) (?:\r\n|\r|\n)
        (?P<under> [!-/:-@\[-`{{-~] ) (?P=under)+
    ) [ \t]* (?: \r\n | \r | \n | \Z )
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Chunk:
    """A retrievable span of a document: `document.text[char_start:char_end] == text`.

    `title` and `heading_path` (outermost first) are those of the document, shortened where they would leave too little
    room for the text. `tokens` counts what is embedded, by the embedder's tokenizer.
    """

    chunk_id: str
    document_id: str
    document_hash: str
    title: str
    heading_path: tuple[str, ...]
    text: str
    char_start: int
    char_end: int
    tokens: int

    @property
    def embedded_text(self) -> str:
        """What the embedder reads."""
        return embedded_text(self.title, self.heading_path, self.text)


def embedded_text(title: str, heading_path: tuple[str, ...], text: str) -> str:
    """Put the place of a text before it: `title > heading > heading`, a blank line, the text.

    What would be there twice is dropped: a heading like the one before it, and headings at the beginning of the text that
    the first line names already (with their underlines, which cost an embedder a token a character).
    """
    parts = header_parts(title, heading_path)
    body = text[leading_headings(text, parts) :].strip()
    return "\n\n".join(part for part in (" > ".join(parts), body) if part)


def header_parts(title: str, heading_path: tuple[str, ...]) -> tuple[str, ...]:
    """Title and headings without empty ones and without those that repeat the one before."""
    parts: list[str] = []
    for part in (title, *heading_path):
        if part and (not parts or part != parts[-1]):
            parts.append(part)
    return tuple(parts)


def leading_headings(text: str, parts: tuple[str, ...], start: int = 0) -> int:
    """Find where the text from `start` on begins once headings that are among `parts` are passed; `start` if none is."""
    names = {_letters(part) for part in parts} - {""}
    while match := _HEADING.match(text, start):
        if _letters(match["atx"] or match["underlined"]) not in names:
            break
        start = match.end()
    return start


def _letters(heading: str) -> str:
    """Letters and digits alone: markup and spacing do not make another heading."""
    return "".join(character for character in heading if character.isalnum())
