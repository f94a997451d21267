"""The turns of a chat."""

import pytest

from llmops_core.answering.conversation import read_conversation
from llmops_core.engines.chat import Message
from llmops_core.errors import InvalidRequestError


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
