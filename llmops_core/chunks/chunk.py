"""A chunk, and the text of it that an embedder reads."""

import re
from dataclasses import dataclass

_RULE = r"[!-/:-@\[-`{-~]"
_HEADING = re.compile(
    rf"""
    \s*+ (?:
        \#{{1,6}} [ \t]++ (?P<atx> [^\r\n]{{1,400}}+ )
      | (?: (?P<over> {_RULE} ) (?P=over){{1,400}}+ [ \t]*+ (?:\r\n|\r|\n) )?
        (?P<underlined> [^\r\n]{{1,400}}+ ) (?:\r\n|\r|\n)
        (?P<under> {_RULE} ) (?P=under){{1,400}}+ [ \t]*+
    ) (?: \r\n | \r | \n | \Z )
    """,
    re.VERBOSE,
)
"""A heading of Markdown or reStructuredText. Bounded and without backtracking: one endless line must not be scanned for
each chunk that is cut out of it."""


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
    """Find where the text from `start` on begins once headings that are among `parts` are passed, each of them once."""
    names = {_letters(part) for part in parts} - {""}
    while names and (match := _HEADING.match(text, start)):
        name = _letters(match["atx"] or match["underlined"])
        if name not in names:
            break
        names.remove(name)
        start = match.end()
    return start


def _letters(heading: str) -> str:
    """Letters and digits alone: markup and spacing do not make another heading."""
    return "".join(character for character in heading if character.isalnum())
