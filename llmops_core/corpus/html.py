"""HTML to Markdown-like text: what a reader sees, with its headings, lists, tables and code as lines.

Own code on BeautifulSoup's tree, since its `get_text` loses the structure that chunks follow. The tree is walked with a
stack of its own: pages nest deeper than Python recurses.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from bs4 import BeautifulSoup
from bs4.builder import HTMLTreeBuilder
from bs4.element import CData, NavigableString, PageElement, Tag
from bs4.exceptions import ParserRejectedMarkup

_HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_DROPPED = {"script", "style", "nav", "template", "noscript", "svg", "head", "title", "iframe", "object"}
_BLOCKS = HTMLTreeBuilder.DEFAULT_BLOCK_ELEMENTS | {
    *("body", "caption", "center", "details", "dialog", "legend", "menu", "summary", "tr")
}
_MARKUP = re.compile(r"#{1,6}(\s|$)|```|~~~|(=+|-+|\*+|_+)$|>")
"""What Markdown would read as structure at the beginning of a line, though here it is a page's plain words."""
_OWN_LINES = [*_HEADINGS, "table", "tr", "td", "th", "pre"]
"""A table's cell without any of these is one line, whatever paragraphs it has; with some it is there for layout."""
_MAX_INDENT = 24


@dataclass
class _Frame:
    """The block that text falls into: what its first line begins with, and its further lines."""

    first: str = ""
    rest: str = ""
    kind: str = "text"
    indent: str = ""


def html_to_markdown(markup: str) -> tuple[str, str]:
    """Turn a page into (title, text); the title is `<title>`, else the first `<h1>`, else empty.

    Raises `ValueError` if the parser refuses the page.
    """
    try:
        soup = BeautifulSoup(markup, "html.parser")
    except (ParserRejectedMarkup, RecursionError) as error:
        raise ValueError(f"not readable as HTML: {str(error).splitlines()[-1].strip()}") from error
    return _title(soup), _Writer().write(soup)


def _title(soup: BeautifulSoup) -> str:
    titles = (tag for tag in soup.find_all("title") if not tag.find_parent("svg"))
    for tag in (next(titles, None), soup.find("h1")):
        if tag and (name := " ".join(tag.get_text().split())):
            return name
    return ""


class _Writer:
    """Collects blocks while the tree goes by."""

    def __init__(self) -> None:
        self.blocks: list[tuple[str, str]] = []
        self.inline: list[str] = []
        self.frames = [_Frame()]
        self.cell: Tag | None = None  # The cell, if all that it holds goes into one line.

    def write(self, root: Tag) -> str:
        for node, entering in _walk(root):
            if isinstance(node, str):
                self.inline.append(re.sub(r"\s+", " ", node))
            elif node.name == "pre":
                self.code(node.get_text())
            elif node.name == "br":
                self.inline.append(" " if self.cell else "\n")
            elif node.name in ("td", "th"):
                self.inline.append(" | " if entering and any(map(str.strip, self.inline)) else "")
                if self.cell is None and entering and not node.find(_OWN_LINES):
                    self.cell = node
                elif self.cell is node:
                    self.cell = None
            elif self.cell and node.name in _BLOCKS:
                self.inline.append(" ")
            elif node.name in _BLOCKS:
                self.end_block()
                self.frames.append(self.frame(node)) if entering else self.frames.pop()
        self.end_block()
        return self.text()

    def frame(self, tag: Tag) -> _Frame:
        """The frame of a block: headings, list items and rows have their own, other blocks that of their parent."""
        outer = self.frames[-1]
        if tag.name in _HEADINGS:
            return _Frame(first=_HEADINGS[tag.name], kind="heading")
        if tag.name == "li":
            ordered = tag.parent is not None and tag.parent.name == "ol"
            # An item directly in an item is a sibling whose predecessor was not closed, which HTML allows.
            unclosed = tag.parent is not None and tag.parent.name == "li"
            indent = (outer.indent if unclosed else outer.rest)[:_MAX_INDENT] if outer.kind == "item" else ""
            return _Frame(f"{indent}1. " if ordered else f"{indent}- ", f"{indent}   ", "item", indent)
        if tag.name == "tr":
            return _Frame(kind="row")
        return outer

    def end_block(self) -> None:
        """Close the paragraph, heading, item or row that is open."""
        lines = [" ".join(line.split()) for line in "".join(self.inline).split("\n")]
        lines = [line for line in lines if line]
        self.inline.clear()
        if not lines:
            return
        frame = self.frames[-1]
        if frame.kind == "heading":
            self.blocks.append((frame.kind, frame.first + " ".join(lines)))
            return
        lines = [f"\\{line}" if _MARKUP.match(line) else line for line in lines]
        self.blocks.append((frame.kind, "\n".join([frame.first + lines[0], *(frame.rest + x for x in lines[1:])])))
        frame.first = frame.rest

    def code(self, text: str) -> None:
        """Keep preformatted text as it is, in a fence that it does not contain."""
        self.end_block()
        if text.strip():
            longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
            fence = "`" * (longest + 1)
            self.blocks.append(("code", f"{fence}\n{text.strip(chr(10) + chr(13))}\n{fence}"))

    def text(self) -> str:
        """Join the blocks: items and rows follow each other line by line, all else after a blank line."""
        parts: list[str] = []
        before = ""
        for kind, block in self.blocks:
            if parts:
                parts.append("\n" if kind == before and kind in ("item", "row") else "\n\n")
            parts.append(block)
            before = kind
        return "".join(parts) + ("\n" if parts else "")


def _walk(root: Tag) -> Iterator[tuple[Tag | str, bool]]:
    """Yield strings, and tags twice: (tag, True) before what they hold and (tag, False) after it; `pre` and `br` once."""
    stack: list[tuple[PageElement, bool]] = [(child, True) for child in reversed(root.contents)]
    while stack:
        node, entering = stack.pop()
        if type(node) in (NavigableString, CData):  # Not its subclasses: comments, declarations, scripts.
            yield str(node), True
        elif isinstance(node, Tag) and node.name not in _DROPPED:
            yield node, entering
            if entering and node.name not in ("pre", "br"):
                stack.append((node, False))
                stack.extend((child, True) for child in reversed(node.contents))
