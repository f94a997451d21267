"""Reads the turns of a chat: what is asked now, what was said before, and the question to search with."""

from collections.abc import Sequence
from dataclasses import dataclass

from llmops_core.engines.chat import GenerationParams, Message
from llmops_core.engines.client import EngineClient
from llmops_core.errors import InvalidRequestError

CONDENSE_INSTRUCTION = (
    "Rewrite the last question of this conversation so that it can be understood without the conversation."
    " Reply with the rewritten question alone."
)
# Enough for a question; a longer rewrite is the model rambling.
CONDENSE_MAX_TOKENS = 64


@dataclass(frozen=True)
class Conversation:
    """The question of the last user turn and the turns before it."""

    question: str
    history: tuple[Message, ...]


def read_conversation(messages: Sequence[Message]) -> Conversation:
    """Split messages into question and history; raises `InvalidRequestError` if no user asks anything at the end."""
    if not messages:
        raise InvalidRequestError("messages is empty: send at least one message of the role user.")
    last = messages[-1]
    if last.role != "user":
        raise InvalidRequestError(f"The last message has the role {last.role!r}; it must be the user's question.")
    if not last.content.strip():
        raise InvalidRequestError("The last message is blank: it must hold the user's question.")
    return Conversation(last.content.strip(), tuple(messages[:-1]))


async def condense(client: EngineClient, conversation: Conversation) -> str:
    """Have the generator rewrite the question to stand alone; without history it stands already.

    A blank rewrite falls back to the question as it was asked.
    """
    if not conversation.history:
        return conversation.question
    turns = "\n".join(f"{m.role}: {m.content}" for m in conversation.history)
    messages = [
        Message("system", CONDENSE_INSTRUCTION),
        Message("user", f"{turns}\nuser: {conversation.question}"),
    ]
    params = GenerationParams(max_tokens=CONDENSE_MAX_TOKENS, temperature=0.0, top_p=1.0)
    completion = await client.complete(messages, params)
    return " ".join(completion.text.split()) or conversation.question
