"""What goes to a generator and what comes back."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One turn of a chat; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class GenerationParams:
    """How to sample; temperature 0 means the most probable token each time."""

    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Usage:
    """Tokens as the engine counted them."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Delta:
    """A piece of a streamed answer; the last ones carry why it ended and what it took."""

    text: str
    finish_reason: str | None = None
    usage: Usage | None = None


@dataclass(frozen=True)
class Completion:
    """A whole answer."""

    text: str
    finish_reason: str
    usage: Usage | None
    """None if the engine counts no tokens."""
