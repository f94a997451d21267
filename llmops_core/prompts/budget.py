"""Fits a prompt into the generator's context window.

What gives way, and in which order, is the assistant's to say (`prompt.budget`): chunks from the worst up, history from
the oldest turn on, features as a whole. What was cut is logged with the request; what still overflows is refused.

What is left of a history that was cut begins with a user's turn, since chat templates of many models refuse an assistant's
there. System messages in it are instructions of the client: they are never cut, as the assistant's own are not.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from llmops_core.engines.chat import Message
from llmops_core.errors import ContextOverflowError
from llmops_core.prompts.template import PromptTemplate
from llmops_core.vectors.hit import Hit

# Chat templates put markers round each message and open the answer: ChatML takes 5 and 3 tokens, others up to 8.
TOKENS_PER_MESSAGE = 8


class CountsTokens(Protocol):
    """Anything that can count the generator's tokens of a text."""

    def count(self, text: str) -> int:
        """Number of tokens."""
        ...


@dataclass(frozen=True)
class Material:
    """What a prompt is made of."""

    assistant: str
    question: str
    history: tuple[Message, ...] = ()
    chunks: tuple[Hit, ...] = ()
    features: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rendered:
    """The final messages, their tokens, the chunks that are in them, and what was cut."""

    messages: tuple[Message, ...]
    tokens: int
    chunks: tuple[Hit, ...]
    cut: dict[str, int]


def render_within(
    template: PromptTemplate, material: Material, *, budget: Sequence[str], room: int, counter: CountsTokens
) -> Rendered:
    """Render, cutting in the order of `budget` until at most `room` tokens are used.

    Raises `ContextOverflowError` when all that may be cut is cut and it is still too long.
    """
    chunks, features = list(material.chunks), dict(material.features)
    # Positions in the history, oldest first, of what may be cut.
    turns = deque(n for n, message in enumerate(material.history) if message.role != "system")
    remaining = {"chunks": chunks, "history": turns, "features": features}
    cut = {"chunks": 0, "history": 0, "features": 0}

    def size(message: Message) -> int:
        return counter.count(message.content) + TOKENS_PER_MESSAGE

    def next_part() -> str | None:
        return next((name for name in budget if remaining[name]), None)

    # A body may hold a hundred thousand turns: each is counted once, and cutting one renders nothing anew.
    sizes = [size(message) for message in material.history]
    past = sum(sizes)

    def cut_turn() -> None:
        nonlocal past
        past -= sizes[turns.popleft()]
        cut["history"] += 1

    while True:
        system, user = template.render(
            assistant=material.assistant, question=material.question, chunks=chunks, features=features
        )
        first, last = Message("system", system), Message("user", user)
        asked = size(first) + size(last)
        while past + asked > room and next_part() == "history":
            cut_turn()
            while turns and material.history[turns[0]].role != "user":
                cut_turn()
        if past + asked <= room:
            history = (m for n, m in enumerate(material.history) if m.role == "system" or (turns and n >= turns[0]))
            return Rendered((first, *history, last), past + asked, tuple(chunks), {k: v for k, v in cut.items() if v})
        part = next_part()
        if part is None:
            raise ContextOverflowError(
                f"The prompt takes {past + asked} tokens and max_tokens leaves room for {max(room, 0)}. Shorten the question"
                " or the conversation, ask for fewer max_tokens, or raise generator.context_window."
            )
        if part == "chunks":
            chunks.pop()
        else:
            features.popitem()
        cut[part] += 1
