"""Headings of a text, with character offsets: the one reading of structure, for titles (here) and for chunks.

Markdown is read by markdown-it-py. reStructuredText is read by a small parser of our own: docutils would run directives
(`include`, `raw`), gives no reliable offsets, and refuses what only looks like reST, such as Python's rendered topics.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import yaml

from llmops_core.corpus.document import MediaType

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

_NEWLINE = re.compile(r"\r\n|\r|\n")
_FRONT_MATTER = re.compile(
    r"---[ \t]*(?:\r\n|\r|\n)(?=[\w.-]+[ \t]*:)(.{0,20000}?)(?:\r\n|\r|\n)---[ \t]*(?:\r\n|\r|\n|\Z)", re.DOTALL
)
"""YAML between two lines `---`; without this, Markdown reads it as a rule and a heading."""
BEGINNING = 300
"""Characters in which a title is looked for first."""
_RST_MARKUP = re.compile(r":[\w:.+-]+:(?=`)|`+_{0,2}|\*\*")
_MIN_UNDERLINE = 4
"""A shorter underline must be as long as its title; docutils has the same rule."""


@dataclass(frozen=True)
class Heading:
    """A heading: its depth (1 is the outermost), plain words, and the characters that it and its underline occupy."""

    level: int
    name: str
    char_start: int
    char_end: int


def headings(text: str, media_type: MediaType) -> list[Heading]:
    """Find the headings of a text in order; plain text has none."""
    if media_type == "text/markdown":
        return _markdown(text)
    if media_type == "text/x-rst":
        return _rst(text)
    return []


def title_of(text: str, media_type: MediaType, fallback: str) -> str:
    """Name a text: the `title` of Markdown's front matter, else its first heading, else `fallback`."""
    front_matter = _FRONT_MATTER.match(text) if media_type == "text/markdown" else None
    if front_matter and (name := _front_matter_title(front_matter)):
        return name
    # Nearly always the beginning names it. Lines decide what is a heading in their order, so one that ends before the
    # beginning does is the same in the whole text.
    end = text.rfind("\n", 0, (front_matter.end() if front_matter else 0) + BEGINNING) + 1
    for part in (text[:end], text):
        named = next((heading for heading in headings(part, media_type) if heading.name), None)
        if named and (named.char_end < end or part is text):
            return named.name
    return fallback


def line_starts(text: str) -> list[int]:
    """Offsets at which lines begin, by LF, CRLF and CR, which is what Markdown counts (`str.splitlines` counts more)."""
    return [0, *(match.end() for match in _NEWLINE.finditer(text))]


@cache
def _block_parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    # Inline markup matters in headings alone, and it is where Markdown parsers can be slow on odd input.
    return MarkdownIt("commonmark").enable("table").disable("inline")


@cache
def _inline_parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark")


def _markdown(text: str) -> list[Heading]:
    """Headings at the top level of a Markdown text: none in code, quotes or lists, which are content of a section."""
    front_matter = _FRONT_MATTER.match(text)
    body_start = front_matter.end() if front_matter else 0
    starts = [body_start + start for start in line_starts(text[body_start:])]
    starts.append(len(text))
    found = []
    tokens = _block_parser().parse(text[body_start:])
    for token, content in pairwise(tokens):
        if token.type == "heading_open" and token.level == 0 and token.map:
            first, last = token.map
            name = _plain(content.content)
            found.append(Heading(int(token.tag[1]), name, starts[first], starts[min(last, len(starts) - 1)]))
    return found


def _plain(markup: str) -> str:
    """Drop inline Markdown: the words of links, code and emphasis stay."""
    (inline,) = _inline_parser().parseInline(markup)
    words = [" " if child.type.endswith("break") else child.content for child in inline.children or ()]
    return " ".join("".join(words).split())


def _front_matter_title(front_matter: re.Match[str]) -> str:
    try:
        data = yaml.safe_load(front_matter[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        return ""
    title = data.get("title") if isinstance(data, dict) else None
    return " ".join(title.split()) if isinstance(title, str) else ""


def _rst(text: str) -> list[Heading]:
    """Underlined (and overlined) titles; a style's level is the order in which the text first uses it."""
    starts = line_starts(text)
    ends = [*starts[1:], len(text)]
    lines = [text[start:end].rstrip() for start, end in zip(starts, ends, strict=True)]
    styles: list[tuple[str, bool]] = []
    found = []
    free = 0  # The first line that no heading before occupies.
    for number in range(1, len(lines)):
        first = _first_line_of_title(lines, number, free)
        if first is None:
            continue
        style = (lines[number][0], first == number - 2)
        if style not in styles:
            styles.append(style)
        name = " ".join(_RST_MARKUP.sub("", lines[number - 1]).split())
        found.append(Heading(styles.index(style) + 1, name, starts[first], ends[number]))
        free = number + 1
    return found


def _first_line_of_title(lines: list[str], number: int, free: int) -> int | None:
    """If line `number` underlines a title: the line with which that begins, which is its overline if it has one."""
    underline, title = lines[number], lines[number - 1]
    if number <= free or not _is_rule(underline) or not title or _is_rule(title):
        return None

    def begins_block(line: int) -> bool:
        return line == free or (line > free and not lines[line - 1])

    if number - 2 >= free and lines[number - 2] == underline and begins_block(number - 2):
        return number - 2
    long_enough = len(underline) >= min(_MIN_UNDERLINE, _width(title))
    return number - 1 if begins_block(number - 1) and long_enough and not title[0].isspace() else None


def _is_rule(line: str) -> bool:
    """A run of one ASCII punctuation character."""
    return len(line) >= 2 and line[0] in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~" and line == line[0] * len(line)


def _width(text: str) -> int:
    """Columns of a text, where East Asian wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
