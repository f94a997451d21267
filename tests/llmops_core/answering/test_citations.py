"""Citations."""

from llmops_core.answering.citations import cite
from llmops_core.vectors.hit import Hit


def hit(number: int, text: str) -> Hit:
    return Hit(f"c{number}", "d", "t", (), text, 0, len(text), 1.0)


CHUNKS = [
    hit(1, "The pass statement does nothing when it is executed."),
    hit(2, "The assert statement inserts debugging assertions into a program."),
]


def test_markers_in_the_answer_win() -> None:
    citations = cite("It inserts assertions [2], see also [7] and [2].", CHUNKS)
    assert [(c.chunk_id, c.number, c.by) for c in citations] == [("c2", 2, "marker")]


def test_without_markers_the_chunk_that_shares_the_words_is_cited() -> None:
    assert [(c.chunk_id, c.by) for c in cite("The pass statement does nothing.", CHUNKS)] == [("c1", "overlap")]


def test_an_answer_from_nowhere_cites_nothing() -> None:
    assert cite("Bananas are yellow fruits that grow in tropical countries.", CHUNKS) == []
    assert cite("", CHUNKS) == []
    assert cite("Anything at all, really.", []) == []


def test_russian_is_cited_by_its_words_however_its_letters_are_composed() -> None:
    chunks = [
        hit(1, "Зелёный чаи\u0306 заваривают при восьмидесяти градусах."),
        hit(2, "Тесто отдыхает час перед выпечкой."),
    ]
    assert [(c.chunk_id, c.by) for c in cite("«Чай заваривают при восьмидесяти градусах».", chunks)] == [
        ("c1", "overlap")
    ]
    assert cite("Цепь велосипеда смазывают каждые триста километров.", chunks) == []
