"""What a search finds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Hit:
    """One chunk with its score.

    The score is what the last step of the search gave: cosine similarity (dense), BM25 (full text), the sum of reciprocal
    ranks (hybrid) or the reranker's logit. Scores of different kinds do not compare.
    """

    chunk_id: str
    document_id: str
    title: str
    heading_path: tuple[str, ...]
    text: str
    char_start: int
    char_end: int
    score: float
