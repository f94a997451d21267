"""Searching tells nothing of how an index came about: ids and scores are equal to those of one built at once."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmops_core.vectors.index import IndexSettings, VectorIndex
from llmops_core.vectors.reader import IndexReader
from llmops_core.vectors.search import search

QUERIES = 30
FLAT = IndexSettings()
ANN = IndexSettings(ann_from_rows=200)


def found(
    reader: IndexReader, query_vector: Callable[[int], Any], words: list[str], k: int, queries: int = QUERIES
) -> list[Any]:
    every = []
    for number in range(queries):
        asked = " ".join(random.Random(number).sample(words, 1 + number % 6))
        for mode in ("dense", "full_text", "hybrid"):
            hits = search(reader, mode, asked, query_vector(number), k)
            every.append((mode, number, [(hit.chunk_id, hit.score, hit.char_start) for hit in hits]))
    return every


def rounds(make_row: Callable[..., Any], seed: int) -> list[list[Any]]:
    """A corpus and four edits of it; a third of the rows are copies, so that ties are cut at nearly every k."""
    chance = random.Random(seed)
    corpus = {n: make_row(n, n % 20 if n % 3 == 0 else None) for n in range(300)}
    states = [list(corpus.values())]
    for edit in range(4):
        for number in chance.sample(sorted(corpus), 25):
            del corpus[number]
        for number in range(1000 * (edit + 1), 1000 * (edit + 1) + 30):
            corpus[number] = make_row(number, number % 20 if number % 3 == 0 else None)
        for number in chance.sample(sorted(corpus), 20):
            corpus[number] = {**corpus[number], "char_start": edit + 1}
        states.append(list(corpus.values()))
    return states


@pytest.mark.parametrize("settings", [FLAT, ANN], ids=["flat", "ivf_sq"])
def test_an_index_that_was_edited_gives_what_one_built_at_once_gives(
    tmp_path: Path, make_row: Callable[..., Any], batches: Any, query_vector: Any, settings: IndexSettings
) -> None:
    states = rounds(make_row, seed=1)
    edited, anew = VectorIndex(str(tmp_path / "edited"), "t"), VectorIndex(str(tmp_path / "anew"), "t")
    words = ["running", "city", "cafe", "the", *(f"word{n}" for n in range(60))]
    for number, rows in enumerate(states):
        edited.build(batches(rows), f"v{number}", settings)
    for number in (1, 2, 4):
        rows = states[number]
        result = anew.build(batches(random.Random(2).sample(rows, len(rows)), size=77), "v", settings, fresh=True)
        assert result.kind == ("flat" if settings is FLAT else "ivf_sq")
        one, other = edited.open(f"v{number}"), anew.open("v")
        for k in (1, 10):
            assert found(one, query_vector, words, k) == found(other, query_vector, words, k)


def test_flat_and_quantised_indexes_give_the_same(
    tmp_path: Path, make_row: Callable[..., Any], batches: Any, query_vector: Any
) -> None:
    rows = rounds(make_row, seed=3)[0]
    flat, quantised = VectorIndex(str(tmp_path), "flat"), VectorIndex(str(tmp_path), "quantised")
    flat.build(batches(rows), "v", FLAT)
    quantised.build(batches(rows), "v", ANN)
    through_index, through_all = quantised.open("v"), flat.open("v")
    for number in range(QUERIES):
        vector = query_vector(number)
        assert through_index.dense(vector, 7) == through_all.dense(vector, 7) == through_index.exact(vector, 7)


def test_an_old_version_still_gives_what_it_gave(
    tmp_path: Path, make_row: Callable[..., Any], batches: Any, query_vector: Any
) -> None:
    states = rounds(make_row, seed=4)
    index = VectorIndex(str(tmp_path), "t")
    words = [f"word{n}" for n in range(60)]
    gave = {}
    for number, rows in enumerate(states):
        index.build(batches(rows), f"v{number}", FLAT)
        gave[f"v{number}"] = found(index.open(f"v{number}"), query_vector, words, 5, queries=8)
    assert {
        version: found(index.open(version), query_vector, words, 5, queries=8) for version in index.versions()
    } == gave


def test_ties_are_cut_in_the_order_of_chunk_ids(
    tmp_path: Path, make_row: Callable[..., Any], batches: Any, query_vector: Any
) -> None:
    rows = [make_row(n, content=0) for n in range(200)]
    index = VectorIndex(str(tmp_path), "t")
    index.build(batches(random.Random(5).sample(rows, 200)), "v", FLAT)
    reader = index.open("v")
    expected = [f"{n:032x}" for n in range(12)]
    word = rows[0]["text"].split()[0] + " " + rows[0]["text"].split()[-1]
    assert [hit.chunk_id for hit in reader.dense(query_vector(0), 12)] == expected
    assert [hit.chunk_id for hit in reader.full_text(word, 12)] == expected
    assert [hit.chunk_id for hit in search(reader, "hybrid", word, query_vector(0), 12)] == expected
