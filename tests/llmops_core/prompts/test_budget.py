"""The token budget: what gives way, in which order, and what is said about it."""

from dataclasses import replace

import pytest

from llmops_core.engines.chat import Message
from llmops_core.errors import ContextOverflowError
from llmops_core.prompts.budget import TOKENS_PER_MESSAGE, Material, Rendered, render_within
from llmops_core.prompts.template import PromptTemplate
from llmops_core.vectors.hit import Hit

TEMPLATE = PromptTemplate(
    "answer",
    "{% block system %}s{% endblock %}{% block user %}"
    "{% for c in chunks %}{{ c.text }} {% endfor %}{% for f in features %}{{ f }} {% endfor %}{{ question }}{% endblock %}",
)


class Words:
    """Counts words."""

    def count(self, text: str) -> int:
        return len(text.split())


class Calls(Words):
    """Counts words, and how often it was asked."""

    def __init__(self) -> None:
        self.number = 0

    def count(self, text: str) -> int:
        self.number += 1
        return super().count(text)


def hit(number: int) -> Hit:
    return Hit(f"c{number}", "d", "t", (), "five words in each chunk", 0, 24, 1.0)


MATERIAL = Material(
    "helper",
    "why though",
    history=(Message("user", "one two three"), Message("assistant", "four five six")),
    chunks=(hit(1), hit(2), hit(3)),
    features={"plan": "pro"},
)
# 3 chunks of 5 words, 6 words of history, 1 feature, 2 of question, 1 of system, and 4 messages.
FULL = 15 + 6 + 1 + 2 + 1 + 4 * TOKENS_PER_MESSAGE


def within(room: int, *budget: str) -> Rendered:
    return render_within(TEMPLATE, MATERIAL, budget=budget, room=room, counter=Words())


def test_what_fits_is_left_whole() -> None:
    rendered = within(FULL, "chunks", "history", "features")
    assert (rendered.tokens, rendered.cut, len(rendered.chunks)) == (FULL, {}, 3)
    assert [m.role for m in rendered.messages] == ["system", "user", "assistant", "user"]


def test_the_worst_chunks_go_first_if_chunks_are_named_first() -> None:
    rendered = within(FULL - 6, "chunks", "history", "features")
    assert rendered.cut == {"chunks": 2}
    assert [c.chunk_id for c in rendered.chunks] == ["c1"]


def test_the_oldest_turns_go_first_if_history_is_named_first() -> None:
    turns = tuple(Message("user", f"turn {n}") for n in range(3))
    rendered = render_within(
        TEMPLATE, replace(MATERIAL, history=turns), budget=["history", "chunks"], room=FULL, counter=Words()
    )
    assert rendered.cut == {"history": 1}
    assert rendered.messages[1:-1] == turns[1:]


def test_a_history_that_was_cut_begins_with_a_turn_of_the_user() -> None:
    turns = (*MATERIAL.history, Message("assistant", "and more"), Message("user", "one"), Message("assistant", "two"))
    material = replace(MATERIAL, history=turns)
    room = FULL + 4 + 3 * TOKENS_PER_MESSAGE
    whole = render_within(TEMPLATE, material, budget=["history"], room=room, counter=Words())
    assert (whole.cut, whole.messages[1:-1]) == ({}, turns)
    rendered = render_within(TEMPLATE, material, budget=["history"], room=room - 1, counter=Words())
    assert (rendered.cut, rendered.messages[1:-1]) == ({"history": 3}, turns[3:])
    none = render_within(TEMPLATE, MATERIAL, budget=["history"], room=FULL - 4 - TOKENS_PER_MESSAGE, counter=Words())
    assert (none.cut, none.messages[1:-1]) == ({"history": 2}, ())


def test_instructions_of_the_client_stay_where_they_are_while_turns_are_cut() -> None:
    first, second = Message("system", "answer in rhymes"), Message("system", "be brief")
    material = replace(MATERIAL, history=(first, *MATERIAL.history, second), chunks=(), features={})
    room = 1 + 2 + 3 + 2 + 4 * TOKENS_PER_MESSAGE
    rendered = render_within(TEMPLATE, material, budget=["history"], room=room, counter=Words())
    assert (rendered.cut, rendered.messages[1:-1]) == ({"history": 2}, (first, second))
    assert rendered.tokens == room
    with pytest.raises(ContextOverflowError):
        render_within(TEMPLATE, material, budget=["history"], room=room - 1, counter=Words())


def test_an_overflow_says_what_there_is_room_for() -> None:
    with pytest.raises(ContextOverflowError, match="leaves room for 0"):
        within(-808, "chunks", "history", "features")


def test_the_next_part_gives_way_when_the_first_is_used_up() -> None:
    assert within(1 + 2 + 2 * TOKENS_PER_MESSAGE, "chunks", "history", "features").cut == {
        "chunks": 3,
        "history": 2,
        "features": 1,
    }


def test_a_part_that_is_not_named_is_never_cut() -> None:
    with pytest.raises(ContextOverflowError, match="Shorten the question"):
        within(FULL - 16, "chunks")


def test_each_of_many_turns_is_counted_once() -> None:
    turns = tuple(Message("user", f"turn {n}") for n in range(5_000))
    counter = Calls()
    rendered = render_within(
        TEMPLATE, replace(MATERIAL, history=turns), budget=["history", "chunks"], room=FULL, counter=counter
    )
    assert rendered.messages[1:-1] == turns[rendered.cut["history"] :]
    assert 0 < len(rendered.messages[1:-1]) < 10
    assert counter.number < len(turns) + 10
