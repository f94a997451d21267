"""Rows with random vectors, many of them equal, as edits of a corpus would leave them."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest

DIMENSION = 16
WORDS = ("running", "cities", "café", "index", "vector", "snapshot", "the", "of", *(f"word{n}" for n in range(60)))

Row = dict[str, Any]
MakeRow = Callable[..., Row]
Batches = Callable[..., Iterator[pl.DataFrame]]


def row_of(number: int, content: int | None = None, *, char_start: int = 0) -> Row:
    """The row of chunk `number`; equal `content` means equal text and vector, so equal scores in every mode."""
    seed = random.Random(number if content is None else content)
    text = " ".join(seed.choices(WORDS, weights=[1 / (n + 1) for n in range(len(WORDS))], k=seed.randint(3, 30)))
    vector = [seed.gauss(0, 1) for _ in range(DIMENSION)]
    return {
        "chunk_id": f"{number:032x}",
        "document_id": f"document-{number % 7}",
        "title": "Guide",
        "heading_path": ["Part", seed.choice(("Setup", "Usage", "Limits"))],
        "text": text,
        "char_start": char_start,
        "char_end": char_start + len(text),
        "vector": [value / float(np.linalg.norm(vector)) for value in vector],
        "tokens": 7,
    }


def unit_vector(seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A random one."""
    vector = np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


@pytest.fixture
def make_row() -> MakeRow:
    """Makes rows, see `row_of`."""
    return row_of


@pytest.fixture
def batches() -> Batches:
    """Rows as the frames that a build reads."""

    def of(rows: Sequence[Row], size: int = 50) -> Iterator[pl.DataFrame]:
        for start in range(0, len(rows), size):
            yield pl.DataFrame(
                list(rows[start : start + size]),
                schema_overrides={"vector": pl.List(pl.Float32), "heading_path": pl.List(pl.String)},
            )

    return of


@pytest.fixture
def query_vector() -> Callable[[int], np.ndarray[Any, np.dtype[np.float32]]]:
    """Makes random unit vectors."""
    return unit_vector
