"""Fits a prompt into the generator's context window.

What gives way, and in which order, is the assistant's to say (`prompt.budget`): chunks from the worst up, history from
the oldest turn on, features as a whole. What was cut is logged with the request; what still overflows is refused.
"""

from collections.abc import Callable, Mapping, Sequence
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
    chunks, history, features = list(material.chunks), list(material.history), dict(material.features)
    cut = {"chunks": 0, "history": 0, "features": 0}
    shorten: dict[str, Callable[[], object]] = {
        "chunks": lambda: chunks.pop(),
        "history": lambda: history.pop(0),
        "features": lambda: features.popitem(),
    }
    remaining = {"chunks": chunks, "history": history, "features": features}
    while True:
        system, user = template.render(
            assistant=material.assistant, question=material.question, chunks=chunks, features=features
        )
        messages = (Message("system", system), *history, Message("user", user))
        tokens = sum(counter.count(m.content) + TOKENS_PER_MESSAGE for m in messages)
        if tokens <= room:
            return Rendered(messages, tokens, tuple(chunks), {k: v for k, v in cut.items() if v})
        part = next((name for name in budget if remaining[name]), None)
        if part is None:
            raise ContextOverflowError(
                f"The prompt takes {tokens} tokens and the generator has room for {room}. Shorten the question"
                " or the conversation, or raise generator.context_window / lower generator.max_tokens."
            )
        shorten[part]()
        cut[part] += 1
