"""A text as the smallest units that it may be cut into: its tokens, each with what follows it up to the next.

Tokenised once for all cuts, so that cutting takes time in proportion to the text whatever the text is. Units cover the
text without a gap, also where a tokenizer drops characters.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

_LONGEST_UNIT = 64
"""Characters. Longer ones are tokenised again in slices: BERT's tokenizers take a word of over 100 characters, and be it a
megabyte, for one unknown token."""
_BLANK_LINE = re.compile(r"(?:\r\n?+|\n)[^\S\r\n]*+[\r\n]")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’“»)\]]*\Z")
_WIDE_SENTENCE_END = "。！？"


class Tokens(Protocol):
    """A tokenizer, as far as cutting needs one."""

    def count(self, text: str) -> int:
        """Count the tokens of a text."""
        ...

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Find the (start, end) characters of each token, in order."""
        ...


class Boundary(IntEnum):
    """What lies between two units; a higher one is the better place to cut."""

    TOKEN = 0
    WORD = 1
    SENTENCE = 2
    LINE = 3
    PARAGRAPH = 4


@dataclass
class Units:
    """Units of a text: where each starts, what lies before it, and how many tokens come before it.

    `tokens_before` has one item more than the others, the total.
    """

    text: str
    starts: list[int] = field(default_factory=list)
    boundaries: list[Boundary] = field(default_factory=list)
    tokens_before: list[int] = field(default_factory=lambda: [0])

    def at(self, character: int) -> int:
        """Number of the first unit that starts at or after a character."""
        return bisect_left(self.starts, character)

    def start(self, unit: int) -> int:
        """First character of a unit; the end of the text for the one after the last."""
        return self.starts[unit] if unit < len(self.starts) else len(self.text)

    def reach(self, unit: int, tokens: int) -> int:
        """Number of the unit after the last of those that, from `unit` on, have at most so many tokens together."""
        return bisect_left(self.tokens_before, self.tokens_before[unit] + tokens + 1) - 1

    def best_boundary(self, units: range) -> int:
        """The unit with the best boundary before it, and of equals the first in the range."""
        return max(units, key=self._boundary)

    def _boundary(self, unit: int) -> Boundary:
        return self.boundaries[unit] if unit < len(self.boundaries) else Boundary.PARAGRAPH


def units_of(text: str, cuts: Iterable[int], tokens: Tokens) -> Units:
    """Tokenise a text part by part; `cuts` are the characters at which parts begin, ascending, the first of them 0."""
    units = Units(text)
    begins = list(cuts)
    for begin, end in zip(begins, [*begins[1:], len(text)], strict=bool(begins)):
        for start, count in _units(text, begin, end, tokens):
            units.boundaries.append(_kind(text, units.starts[-1] if units.starts else 0, start))
            units.starts.append(start)
            units.tokens_before.append(units.tokens_before[-1] + count)
    return units


def _units(text: str, begin: int, end: int, tokens: Tokens) -> Iterator[tuple[int, int]]:
    """Units of a part as (start, number of tokens)."""
    found = _token_starts(text, begin, end, tokens)
    for index, (start, count) in enumerate(found):
        stop = found[index + 1][0] if index + 1 < len(found) else end
        if stop - start <= _LONGEST_UNIT:
            yield start, count
            continue
        for piece in range(start, stop, _LONGEST_UNIT):
            yield from _token_starts(text, piece, min(piece + _LONGEST_UNIT, stop), tokens)


def _token_starts(text: str, begin: int, end: int, tokens: Tokens) -> list[tuple[int, int]]:
    """Where tokens start, ascending, and how many do there: those of one character (bytes of an emoji) stay together.

    The first unit starts where the part does, and no other starts with whitespace.
    """
    found: list[tuple[int, int]] = []
    for first, last in tokens.offsets(text[begin:end]):
        start, stop = begin + first, begin + last
        while start < stop and text[start].isspace():
            start += 1
        if not found:
            found.append((begin, 1))
        elif start == stop or start <= found[-1][0]:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((start, 1))
    return found or [(begin, 1)]


def _kind(text: str, before: int, start: int) -> Boundary:
    """What lies between the unit that starts at `before` and the next one."""
    unit = text[before:start]
    content = unit.rstrip()
    gap = unit[len(content) :]
    if not gap:
        return Boundary.SENTENCE if content.endswith(tuple(_WIDE_SENTENCE_END)) else Boundary.TOKEN
    if _BLANK_LINE.search(gap):
        return Boundary.PARAGRAPH
    if "\n" in gap or "\r" in gap:
        return Boundary.LINE
    # A closing quote is a token of its own in most tokenizers, so the end of a sentence may lie a few characters back.
    return (
        Boundary.SENTENCE
        if _SENTENCE_END.search(text[max(0, start - len(gap) - 4) : start - len(gap)])
        else Boundary.WORD
    )
