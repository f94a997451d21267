"""Metrics of one case, as pure functions of what came back and what was right; every value lies within 0 and 1.

Retrieval is scored on documents, since cases name documents, although chunks are what is retrieved. Answers are scored as
SQuAD v1.1 does (Rajpurkar et al. 2016, https://rajpurkar.github.io/SQuAD-explorer, evaluate-v1.1.py), and beyond English as
MLQA does (Lewis et al. 2020, mlqa_evaluation_v1.py): punctuation is that of Unicode, Chinese counts by character.
"""

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
# Chinese characters, and Japanese kana for the same reason: no space lies between words, so each is a token.
_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


class HasDocument(Protocol):
    """What evaluation needs to know of a retrieved chunk, such as a `vectors.hit.Hit`."""

    @property
    def document_id(self) -> str:
        """Document that the chunk is of."""


def ranked_documents(hits: Iterable[HasDocument]) -> list[str]:
    """Rank documents by their best chunk: the documents of `hits` (best first), each once."""
    return list(dict.fromkeys(hit.document_id for hit in hits))


def recall_at_k(ranked: Sequence[str], gold: Collection[str], k: int) -> float:
    """Share of the gold documents that are among the first `k` of `ranked` (distinct ids, best first)."""
    right = _gold(gold)
    return len(right.intersection(ranked[:k])) / len(right)


def ndcg_at_k(ranked: Sequence[str], gold: Collection[str], k: int) -> float:
    """Normalised discounted cumulative gain of the first `k` of `ranked` (distinct ids, best first), with binary relevance.

    A gold document at rank r gains 1 / log2(r + 1); the sum is divided by that of a perfect ranking, which has all
    gold documents, or `k` of them if they are more, on top. Järvelin & Kekäläinen 2002, "Cumulated gain-based evaluation of
    IR techniques", ACM TOIS 20(4), with the discount that is usual today.
    """
    right = _gold(gold)
    gained = sum(_gain(rank) for rank, document_id in enumerate(ranked[:k], start=1) if document_id in right)
    return gained / sum(_gain(rank) for rank in range(1, min(k, len(right)) + 1))


def normalise_answer(text: str) -> str:
    """Bring an answer to the form in which SQuAD compares: lower case, no punctuation, no English articles, single spaces.

    Punctuation is that of Unicode (categories P*) and of ASCII; compatible characters are made equal (NFKC), so that
    composed and decomposed letters do not differ.
    """
    kept = "".join(character for character in _folded(text) if not _is_punctuation(character))
    return " ".join(_ARTICLES.sub(" ", kept).split())


def exact_match(answer: str, answers: Collection[str]) -> float:
    """1 if `answer` equals one of the right `answers` in SQuAD's normal form, else 0."""
    return _best(answer, answers, lambda said, right: float(said == right))


def f1(answer: str, answers: Collection[str]) -> float:
    """Harmonic mean of token precision and recall in SQuAD's normal form, against the right answer that fits best."""
    return _best(answer, answers, _token_f1)


def is_empty(answer: str) -> bool:
    """Whether an answer says nothing at all: blank."""
    return not answer.strip()


def _gold(gold: Collection[str]) -> frozenset[str]:
    if not gold:
        raise ValueError("retrieval cannot be scored without gold documents")
    return frozenset(gold)


def _gain(rank: int) -> float:
    return 1 / math.log2(rank + 1)


def _folded(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def _best(answer: str, answers: Collection[str], score: Callable[[str, str], float]) -> float:
    """Highest score of `answer` against any right answer, both in normal form."""
    if not answers:
        raise ValueError("an answer cannot be scored without right answers")
    said = normalise_answer(answer)
    scores = []
    for right in answers:
        normal = normalise_answer(right)
        # Of '**' or 'a' nothing would be left, and every blank answer would be right: such answers are compared as written.
        scores.append(score(said, normal) if normal else score(_folded(answer), _folded(right)))
    return max(scores)


def _token_f1(said: str, right: str) -> float:
    said_tokens, right_tokens = _TOKEN.findall(said), _TOKEN.findall(right)
    shared = (Counter(said_tokens) & Counter(right_tokens)).total()
    return 2 * shared / (len(said_tokens) + len(right_tokens)) if shared else 0.0
