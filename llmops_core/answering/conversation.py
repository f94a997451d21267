"""Reads the turns of a chat: what is asked now, what was said before, and the question to search with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmops_core.engines.chat import Completion, GenerationParams, Message
from llmops_core.engines.client import EngineClient
from llmops_core.errors import InvalidRequestError
from llmops_core.prompts.budget import TOKENS_PER_MESSAGE, CountsTokens

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


def read_message(value: Mapping[str, Any]) -> Message:
    """A turn of OpenAI's API, as requests have it and the log keeps it, as engines take it.

    Parts of text are joined; `developer` is the newer name of `system`.
    """
    content = value["content"]
    text = content if isinstance(content, str) else "".join(part["text"] for part in content)
    return Message("system" if value["role"] == "developer" else value["role"], text)


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


def condensing(conversation: Conversation, window: int, counter: CountsTokens) -> list[Message]:
    """The messages that ask the generator for a question that stands alone.

    Of the history they hold the latest turns that fit into the context window of `window` tokens. Empty if none does, or
    none is there: then the question is taken as it was asked.
    """
    instruction, question = Message("system", CONDENSE_INSTRUCTION), f"user: {conversation.question}"
    room = window - CONDENSE_MAX_TOKENS - 2 * TOKENS_PER_MESSAGE
    room -= counter.count(instruction.content) + counter.count(question)
    turns: list[str] = []
    for turn in reversed(conversation.history):
        line = f"{turn.role}: {turn.content}\n"
        room -= counter.count(line)
        if room < 0:
            break
        turns.append(line)
    if not turns:
        return []
    return [instruction, Message("user", "".join(reversed(turns)) + question)]


async def condense(client: EngineClient, messages: Sequence[Message]) -> Completion:
    """Have the generator rewrite the question, on one line; blank if it has nothing to say."""
    params = GenerationParams(max_tokens=CONDENSE_MAX_TOKENS, temperature=0.0, top_p=1.0)
    completion = await client.complete(messages, params)
    return replace(completion, text=" ".join(completion.text.split()))
