"""Metrics of a case against values that are known or worked out by hand."""

import math
from dataclasses import dataclass

import pytest

from llmops_core.evaluation.metrics import (
    exact_match,
    f1,
    is_empty,
    ndcg_at_k,
    normalise_answer,
    ranked_documents,
    recall_at_k,
)


@dataclass(frozen=True)
class Hit:
    document_id: str


def test_documents_are_ranked_by_their_best_chunk() -> None:
    assert ranked_documents([Hit("b"), Hit("a"), Hit("b"), Hit("c"), Hit("a")]) == ["b", "a", "c"]
    assert ranked_documents([]) == []


def test_recall_is_the_share_of_gold_documents_found() -> None:
    ranked = ["x", "a", "y", "b"]
    assert recall_at_k(ranked, ["a", "b"], 1) == 0
    assert recall_at_k(ranked, ["a", "b"], 2) == 0.5
    assert recall_at_k(ranked, ["a", "b"], 5) == 1
    assert recall_at_k([], ["a"], 5) == 0


def test_ndcg_agrees_with_a_calculation_by_hand() -> None:
    # Gold at ranks 2 and 4 of two: (1/log2 3 + 1/log2 5) / (1/log2 2 + 1/log2 3) = (0.63093 + 0.43068) / 1.63093
    assert ndcg_at_k(["x", "a", "y", "b"], ["a", "b"], 10) == pytest.approx(0.650921, abs=1e-6)
    assert ndcg_at_k(["x", "a", "y", "b"], ["a", "b"], 3) == pytest.approx(0.63093 / 1.63093, abs=1e-5)
    assert ndcg_at_k(["x", "y", "a"], ["a"], 10) == pytest.approx(0.5)


def test_ndcg_is_one_for_a_perfect_ranking_also_of_more_gold_documents_than_it_looks_at() -> None:
    gold = [f"d{number}" for number in range(15)]
    assert ndcg_at_k(gold, gold, 10) == pytest.approx(1)
    assert ndcg_at_k(["a", "b", "x"], ["a", "b"], 10) == pytest.approx(1)
    assert ndcg_at_k(["x", "y"], ["a"], 10) == 0


def test_what_has_no_right_answer_is_not_scored() -> None:
    for score in (recall_at_k, ndcg_at_k):
        with pytest.raises(ValueError, match="gold documents"):
            score(["a"], [], 5)
    for judge in (exact_match, f1):
        with pytest.raises(ValueError, match="right answers"):
            judge("a", [])


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Denver Broncos!", "denver broncos"),
        ("a.b, c", "ab c"),
        ("An apple a day; then the rest", "apple day then rest"),
        ("$1,000", "1000"),
        ("theatre", "theatre"),
        ("«Ночь»\u00a0— ТЁМНАЯ…", "ночь тёмная"),
        ("STRASSE straße", "strasse strasse"),
        ("cafe\u0301 café", "café café"),
        ("ＡＢＣ１", "abc1"),
        ("", ""),
    ],
)
def test_answers_are_compared_in_squads_normal_form(text: str, normal: str) -> None:
    assert normalise_answer(text) == normal
    assert normalise_answer(normal) == normal


@pytest.mark.parametrize(
    ("answer", "answers", "match", "score"),
    [
        # The values of SQuAD's own evaluate-v1.1.py.
        ("Denver Broncos", ["Denver Broncos", "Broncos"], 1, 1),
        ("the Denver Broncos.", ["Denver Broncos"], 1, 1),
        ("Broncos", ["Denver Broncos"], 0, 2 / 3),
        ("in the city of Denver", ["Denver"], 0, 0.4),
        ("Santa Clara, California", ["Levi's Stadium", "Santa Clara"], 0, 0.8),
        ("to be to be", ["to be"], 0, 2 / 3),
        ("gold", ["silver"], 0, 0),
        ("", ["silver"], 0, 0),
        ("the", ["silver"], 0, 0),
        ("в 2016 году", ["2016 году"], 0, 0.8),
        ("«Денвер Бронкос» —", ["денвер  бронкос"], 1, 1),
        ("Андреи\u0306 Ёлкин", ["Андрей Ёлкин"], 1, 1),
        # Beyond SQuAD's script: scripts without spaces count by character.
        ("北京", ["北京市"], 0, 0.8),
        ("東京タワー", ["東京タワー"], 1, 1),
    ],
)
def test_exact_match_and_f1_have_the_known_values(answer: str, answers: list[str], match: float, score: float) -> None:
    assert exact_match(answer, answers) == match
    assert f1(answer, answers) == pytest.approx(score)


def test_an_answer_that_is_all_punctuation_or_article_is_compared_as_written() -> None:
    assert exact_match("**", ["**"]) == f1(" ** ", ["**"]) == 1
    assert exact_match("", ["**"]) == exact_match("*", ["**"]) == f1("", ["**"]) == 0
    assert exact_match("A", ["a"]) == 1
    assert exact_match("the", ["a"]) == 0
    assert f1("the ** operator", ["**"]) == pytest.approx(0.5)


def test_f1_of_two_articles_only_is_a_number() -> None:
    assert not math.isnan(f1("the", ["a"]))


def test_only_a_blank_answer_is_empty() -> None:
    assert is_empty("")
    assert is_empty(" \n\u00a0")
    assert not is_empty("I do not know.")
