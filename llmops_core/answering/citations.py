"""Ties an answer to the chunks it rests on.

A generator that follows its prompt writes `[2]` behind what it took from the second passage. One that is too small to do
so still gets citations: each sentence is matched to the chunk that shares most of its content words.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llmops_core.vectors.hit import Hit

# A sentence is taken from a chunk if at least this share of its content words stands there. Below half, common words
# of the field alone make a match.
MIN_OVERLAP = 0.6
MIN_WORDS = 3

_MARKER = re.compile(r"\[(\d{1,3})\]")
_WORD = re.compile(r"\w{3,}")
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?]+|\n|$)")


@dataclass(frozen=True)
class Citation:
    """A chunk that the answer rests on, and how that is known."""

    chunk_id: str
    number: int
    """Position of the chunk in the prompt, from 1: what `[n]` in the answer means."""
    by: Literal["marker", "overlap"]


def cite(answer: str, chunks: Sequence[Hit]) -> list[Citation]:
    """Find the chunks that an answer cites, in the order of the prompt; markers win over overlap."""
    marked = sorted({int(n) for n in _MARKER.findall(answer) if 1 <= int(n) <= len(chunks)})
    if marked:
        return [Citation(chunks[n - 1].chunk_id, n, "marker") for n in marked]
    vocabularies = [_words(chunk.text) for chunk in chunks]
    found: set[int] = set()
    for sentence in _SENTENCE.findall(answer):
        words = _words(sentence)
        if len(words) < MIN_WORDS:
            continue
        shares = [len(words & vocabulary) / len(words) for vocabulary in vocabularies]
        best = max(range(len(shares)), key=shares.__getitem__, default=None)
        if best is not None and shares[best] >= MIN_OVERLAP:
            found.add(best)
    return [Citation(chunks[n].chunk_id, n + 1, "overlap") for n in sorted(found)]


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(unicodedata.normalize("NFC", text))}
