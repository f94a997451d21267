"""What differs between an answer then and now, and where that entered."""

from dataclasses import replace
from typing import Any

import pytest

from llmops_core.engines.chat import Message
from llmops_core.replay.compare import PARTS, Outcome, compare

THEN = Outcome(
    chunks=(("a", 0.5), ("b", 0.25)),
    prompt=(Message("system", "Be brief."), Message("user", "Tea?")),
    answer="Eighty degrees.",
)


def differing(then: Outcome, now: Outcome, **more: Any) -> list[str]:
    return [found.part for found in compare(then, now, **more).differences]


def test_the_same_outcome_is_identical_in_every_part() -> None:
    done = compare(THEN, THEN)
    assert dict(done.identical) == dict.fromkeys(PARTS, True)
    assert done.differences == ()


@pytest.mark.parametrize(
    ("change", "parts", "said"),
    [
        ({"chunks": (("a", 0.5), ("c", 0.25))}, ["chunks", "scores"], "from rank 2 on; gone: b; new: c"),
        ({"chunks": (("b", 0.25), ("a", 0.5))}, ["chunks"], "from rank 1 on; gone: none; new: none"),
        ({"chunks": (("a", 0.5),)}, ["chunks", "scores"], "2 then, 1 now; gone: b; new: none"),
        ({"chunks": (("a", 0.5), ("b", 0.25000000000000006))}, ["scores"], "b then 0.25, now 0.25000000000000006"),
        ({"prompt": (THEN.prompt or ())[:1]}, ["prompt"], "then 2 messages, now 1"),
        (
            {"prompt": (Message("system", "Be brief."), Message("user", "Tea!"))},
            ["prompt"],
            "message 2 (user), character 4: then 'Tea?', now 'Tea!'",
        ),
        ({"answer": "Eighty degrees"}, ["answer"], "character 15: then 'Eighty degrees.', now 'Eighty degrees'"),
        ({"answer": None, "error_type": "EngineError", "error_message": "away"}, ["answer"], "now EngineError: away"),
    ],
)
def test_each_difference_is_told_with_its_place(change: dict[str, Any], parts: list[str], said: str) -> None:
    now = replace(THEN, **change)
    done = compare(THEN, now)
    assert [found.part for found in done.differences] == parts
    assert [part for part in PARTS if not done.identical[part]] == parts
    assert said in done.differences[0].difference


def test_the_same_kind_of_failure_again_is_identical_and_another_is_not() -> None:
    overflow = Outcome(error_type="ContextOverflowError", error_message="900 tokens")
    assert differing(overflow, replace(overflow, error_message="901 tokens")) == []
    assert differing(overflow, replace(overflow, error_type="ModelError")) == list(PARTS)
    assert differing(overflow, THEN) == list(PARTS)


def test_of_a_request_whose_client_left_what_was_logged_is_compared() -> None:
    left = replace(THEN, answer="Eighty ")
    assert differing(left, THEN, client_left=True) == []
    assert differing(left, THEN) == ["answer"]
    assert differing(replace(left, answer="Ninety "), THEN, client_left=True) == ["answer"]
    assert dict(compare(Outcome(), THEN, client_left=True).identical) == dict.fromkeys(PARTS)


def test_what_was_not_asked_is_not_compared() -> None:
    done = compare(THEN, replace(THEN, answer=None, asked=False))
    assert done.identical == {"chunks": True, "scores": True, "prompt": True, "answer": None}
    assert done.differences == ()
