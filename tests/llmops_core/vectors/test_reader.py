"""Searching one version: scores, odd questions, threads."""

import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmops_core.errors import InvalidRequestError
from llmops_core.vectors.index import IndexSettings, VectorIndex
from llmops_core.vectors.reader import IndexReader, cosine_similarities
from llmops_core.vectors.recall import recall_against_exact, recall_of_version

ODD_QUERIES = [
    "",
    "   ",
    "\n\t",
    "the of and",
    '"',
    '"hello',
    "hello AND",
    "+hello -world",
    "(hello",
    "hello)",
    "text:hello",
    "hello*",
    "hello~2",
    "^3",
    "[1 TO 2]",
    "\\",
    "//",
    '{"match": 1}',
    "'; DROP TABLE",
    "😀",
    "\x00",
    "\ud800",
    "a" * 100_000,
    "hello " * 50_000,
    "NOT",
    "ﬀ 𝔘nicode",
]


@pytest.fixture
def index(tmp_path: Path, make_row: Any, batches: Any) -> VectorIndex:
    index = VectorIndex(str(tmp_path), "t")
    rows = [make_row(n, n % 40) for n in range(120)]
    rows[7] = {**rows[7], "title": "Fuchsia manual", "heading_path": ["Watering", "In winter"], "text": "seldom"}
    index.build(batches(rows), "v1", IndexSettings(ann_from_rows=100))
    return index


@pytest.fixture
def reader(index: VectorIndex) -> IndexReader:
    return index.open("v1")


@pytest.mark.parametrize("query", ODD_QUERIES, ids=range(len(ODD_QUERIES)))
def test_a_question_is_plain_words_whatever_it_holds(reader: IndexReader, query: str) -> None:
    assert reader.full_text(query, 5) == []


@pytest.mark.parametrize(
    "query", ["café", "CAFE!", '"cafe', "cafe AND OR", "+cafe", "cafe*", "(cafe", "😀 cafe", "\ud800 cafe"]
)
def test_words_are_found_between_odd_characters(reader: IndexReader, query: str) -> None:
    assert reader.full_text(query, 3) == reader.full_text("cafe", 3)
    assert len(reader.full_text(query, 3)) == 3


def test_titles_and_headings_are_searched_too(reader: IndexReader) -> None:
    for query in ("fuchsia", "watering", "winter", "seldom"):
        assert [hit.chunk_id for hit in reader.full_text(query, 5)] == [f"{7:032x}"]
    hit = reader.full_text("fuchsia", 1)[0]
    assert (hit.title, hit.heading_path, hit.text) == ("Fuchsia manual", ("Watering", "In winter"), "seldom")


def test_the_dense_score_is_the_cosine(reader: IndexReader, query_vector: Any) -> None:
    stored = reader.vectors(1)[0]
    assert reader.dense(stored, 1)[0].score == pytest.approx(1.0, abs=1e-7)
    assert [hit.score for hit in reader.dense(3 * stored, 5)] == pytest.approx(
        [hit.score for hit in reader.dense(stored, 5)], abs=1e-7
    )
    query = query_vector(1)
    vectors = reader.vectors(50)
    plain = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    assert cosine_similarities(query, vectors) == pytest.approx(plain.tolist(), abs=1e-6)


def test_a_score_does_not_depend_on_the_order_of_the_numbers() -> None:
    chance = np.random.default_rng(0)
    query, vectors = chance.normal(size=384).astype(np.float32), chance.normal(size=(20, 384)).astype(np.float32)
    order = chance.permutation(384)
    assert cosine_similarities(query, vectors) == cosine_similarities(query[order], vectors[:, order])


def test_more_hits_than_rows_give_all_rows(reader: IndexReader, query_vector: Any) -> None:
    hits = reader.dense(query_vector(0), 1_000)
    assert len(hits) == len({hit.chunk_id for hit in hits}) == reader.rows == 120
    assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.chunk_id))
    assert reader.exact(query_vector(0), 1_000) == hits


def test_fewer_hits_are_the_first_of_more(reader: IndexReader, query_vector: Any) -> None:
    for number in range(30):
        words = " ".join(random.Random(number).sample([f"word{n}" for n in range(60)], 4))
        dense, full_text = reader.dense(query_vector(number), 60), reader.full_text(words, 60)
        for k in (1, 2, 5, 13):
            assert reader.dense(query_vector(number), k) == dense[:k]
            assert reader.full_text(words, k) == full_text[:k]


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (np.ones(3), r"shape \(3,\).*16 numbers.*another embedder"),
        (np.ones((1, 16)), r"shape \(1, 16\)"),
        (np.zeros(16), "zero"),
        (np.full(16, np.nan), "not finite"),
    ],
)
def test_a_vector_that_cannot_be_compared_is_refused(reader: IndexReader, vector: Any, message: str) -> None:
    for search in (reader.dense, reader.exact):
        with pytest.raises(InvalidRequestError, match=message):
            search(vector.astype(np.float32), 5)


def test_no_hits_cannot_be_asked_for(reader: IndexReader, query_vector: Any) -> None:
    with pytest.raises(InvalidRequestError, match="at least one"):
        reader.dense(query_vector(0), 0)
    with pytest.raises(InvalidRequestError, match="at least one"):
        reader.full_text("cafe", 0)


def test_several_threads_may_search_at_once(reader: IndexReader, query_vector: Any) -> None:
    def ask(number: int) -> Any:
        return reader.dense(query_vector(number), 5), reader.full_text(f"word{number % 60} city", 5)

    alone = [ask(number) for number in range(60)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(60))) == alone


def test_a_reader_stays_at_its_version_while_builds_go_on(
    index: VectorIndex, make_row: Any, batches: Any, query_vector: Any
) -> None:
    reader = index.open("v1")
    before = reader.dense(query_vector(0), 10), reader.full_text("cafe city", 10)
    for number in range(2, 6):
        index.build(batches([make_row(n) for n in range(number * 20, 200)]), f"v{number}", IndexSettings())
        assert (reader.dense(query_vector(0), 10), reader.full_text("cafe city", 10)) == before


def test_searching_writes_nothing_to_the_terminal(
    reader: IndexReader, query_vector: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reader.dense(query_vector(0), 5)
        reader.exact(query_vector(0), 5)
        reader.full_text("cafe", 5)
    assert capfd.readouterr() == ("", "")


def test_recall_is_one_where_all_partitions_are_probed(reader: IndexReader, query_vector: Any) -> None:
    assert recall_against_exact(reader, np.stack([query_vector(n) for n in range(20)])) == 1.0
    assert recall_of_version(reader) == 1.0
    assert reader.vectors(7).shape == (7, 16)
    assert reader.vectors(1_000).shape == (120, 16)


def test_recall_tells_what_an_index_misses(reader: IndexReader, query_vector: Any) -> None:
    class Forgetful(IndexReader):
        def __init__(self) -> None:
            pass

        def exact(self, vector: Any, k: int) -> Any:
            return reader.exact(vector, k)

        def dense(self, vector: Any, k: int) -> Any:
            return reader.dense(vector, k)[: k // 2]

    assert recall_against_exact(Forgetful(), query_vector(0)[None]) == 0.5


def test_a_russian_word_is_found_in_its_other_forms_and_however_its_letters_are_composed(
    tmp_path: Path, make_row: Any, batches: Any
) -> None:
    texts = ["Зелёныи\u0306 чаи\u0306 заваривают при восьмидесяти градусах", "Тесто отдыхает час перед выпечкой"]
    rows = [{**make_row(n), "title": "", "heading_path": [], "text": text} for n, text in enumerate(texts)]
    index = VectorIndex(str(tmp_path), "t")
    index.build(batches(rows), "v1", IndexSettings("Russian"))
    reader = index.open("v1")
    for query in ("чай", "чаи\u0306", "Зеленый", "ЗАВАРИВАЕТ", "восемьдесят градусов"):
        assert [hit.text for hit in reader.full_text(query, 2)] == texts[:1], query
    assert [hit.text for hit in reader.full_text("выпечка", 2)] == texts[1:]
