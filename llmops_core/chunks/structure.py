"""A document as the sections that its headings make."""

from dataclasses import dataclass

from llmops_core.corpus.document import Document
from llmops_core.corpus.headings import Heading, headings


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it, up to the next heading of any level.

    Offsets are characters of the document's text. `body_start` is where the heading ends; `heading_path` holds the heading
    itself last, outermost first, and is empty for what stands before the first heading.
    """

    heading_path: tuple[str, ...]
    char_start: int
    body_start: int
    char_end: int


def sections(document: Document) -> list[Section]:
    """Cut a document at its headings; the sections follow each other without a gap and cover the whole text."""
    found = headings(document.text, document.media_type)
    first = found[0].char_start if found else len(document.text)
    result = [Section((), 0, 0, first)] if first > 0 else []
    ends = [*(heading.char_start for heading in found[1:]), len(document.text)][: len(found)]
    open_headings: list[Heading] = []
    for heading, end in zip(found, ends, strict=True):
        while open_headings and open_headings[-1].level >= heading.level:
            open_headings.pop()
        open_headings.append(heading)
        path = tuple(above.name for above in open_headings if above.name)
        result.append(Section(path, heading.char_start, heading.char_end, end))
    return result
