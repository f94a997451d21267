"""The turns of a chat."""

import pytest

from llmops_core.answering.conversation import CONDENSE_MAX_TOKENS, Conversation, condensing, read_conversation
from llmops_core.engines.chat import Message
from llmops_core.errors import InvalidRequestError
from llmops_core.models.tokens import EstimatedTokens
from llmops_core.prompts.budget import TOKENS_PER_MESSAGE

TURNS = tuple(Message("user", f"This is turn {n} of a conversation without an end.") for n in range(1_000))


def test_the_last_user_turn_is_the_question_and_the_rest_is_history() -> None:
    turns = [Message("user", "a"), Message("assistant", "b"), Message("user", " c ")]
    conversation = read_conversation(turns)
    assert (conversation.question, conversation.history) == ("c", tuple(turns[:2]))


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ([], "messages is empty"),
        ([Message("assistant", "x")], "role 'assistant'"),
        ([Message("user", "  ")], "blank"),
    ],
)
def test_a_chat_without_a_question_is_refused(turns: list[Message], said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        read_conversation(turns)


def test_a_question_is_condensed_with_the_latest_turns_that_fit_the_window() -> None:
    counter = EstimatedTokens()
    instruction, asks = condensing(Conversation("And then?", TURNS), 2048, counter)
    lines = asks.content.split("\n")
    assert lines.pop() == "user: And then?"
    assert lines == [f"user: {turn.content}" for turn in TURNS[-len(lines) :]]
    taken = sum(counter.count(m.content) + TOKENS_PER_MESSAGE for m in (instruction, asks)) + CONDENSE_MAX_TOKENS
    assert 1900 < taken <= 2048


@pytest.mark.parametrize("conversation", [Conversation("And then?", ()), Conversation("And then? " * 1_000, TURNS)])
def test_a_question_that_has_no_turn_beside_it_is_taken_as_asked(conversation: Conversation) -> None:
    assert condensing(conversation, 2048, EstimatedTokens()) == []
