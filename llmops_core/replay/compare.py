"""Compares what a request came to with what it comes to now: what differs, and where that entered.

An answer is made in steps, each from what the one before gave: chunks, their scores, the prompt, the answer. So the first part
that differs is where a difference entered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmops_core.engines.chat import Message
from llmops_core.traffic.row import RequestRow

PARTS = ("chunks", "scores", "prompt", "answer")
AROUND = 30
"""Characters that are shown round the place where two texts part."""


@dataclass(frozen=True)
class Outcome:
    """What a request came to; None for what it did not come to."""

    chunks: tuple[tuple[str, float], ...] | None = None
    """Id and score of those in the prompt, best first."""
    prompt: tuple[Message, ...] | None = None
    answer: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    asked: bool = True
    """Whether the engine was to answer at all: a replay may end with the prompt."""

    @property
    def error(self) -> str:
        """What went wrong, in words."""
        return f"{self.error_type}: {self.error_message}" if self.error_type else ""


@dataclass(frozen=True)
class Difference:
    """A part that differs, and how."""

    part: str
    difference: str


@dataclass(frozen=True)
class Comparison:
    """The parts as they are told; `identical` has None for one that was not compared."""

    identical: Mapping[str, bool | None]
    differences: tuple[Difference, ...]


def logged_outcome(row: RequestRow) -> Outcome:
    """What the log says that a request came to; chunks are logged with the prompt that they went into."""
    return Outcome(
        chunks=None if row.prompt is None else tuple((chunk.chunk_id, chunk.score) for chunk in row.chunks),
        prompt=None if row.prompt is None else tuple(Message(**message) for message in row.prompt),
        answer=row.answer,
        error_type=row.error_type,
        error_message=row.error_message,
    )


def compare(then: Outcome, now: Outcome, *, client_left: bool = False) -> Comparison:
    """Compare part by part. Of a request whose client left, what the log has, and the answer as far as it came."""
    pairs: dict[str, tuple[Any, Any]] = {
        "chunks": (_ids(then), _ids(now)),
        "scores": (_scores(then), _scores(now)),
        "prompt": (then.prompt, now.prompt),
        "answer": (then.answer, now.answer),
    }
    identical: dict[str, bool | None] = dict.fromkeys(PARTS)
    differences: list[Difference] = []
    for part, (before, after) in pairs.items():
        if (part == "answer" and not now.asked) or (client_left and before is None):
            continue
        if client_left and part == "answer" and after is not None:
            after = after[: len(before)]
        # Two failures of one kind are the same outcome, whatever numbers their messages hold.
        same = before == after and (before is not None or then.error_type == now.error_type)
        identical[part] = same
        if not same:
            differences.append(Difference(part, _described(part, before, after, then, now)))
    return Comparison(identical, tuple(differences))


def _ids(outcome: Outcome) -> tuple[str, ...] | None:
    return None if outcome.chunks is None else tuple(chunk_id for chunk_id, _ in outcome.chunks)


def _scores(outcome: Outcome) -> dict[str, float] | None:
    return None if outcome.chunks is None else dict(outcome.chunks)


def _described(part: str, before: Any, after: Any, then: Outcome, now: Outcome) -> str:
    if before is None or after is None:
        return f"then {_state(before, then)}; now {_state(after, now)}"
    if part == "chunks":
        rank = next((n for n, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), None)
        gone, come = [c for c in before if c not in after], [c for c in after if c not in before]
        place = f"from rank {rank + 1} on" if rank is not None else f"{len(before)} then, {len(after)} now"
        return f"{place}; gone: {', '.join(gone) or 'none'}; new: {', '.join(come) or 'none'}"
    if part == "scores":
        changed = [f"{c} then {before[c]!r}, now {after[c]!r}" for c in before if c in after and before[c] != after[c]]
        return "; ".join(changed) or "those of the chunks that differ"
    if part == "prompt":
        return _prompts(before, after)
    return f"{_texts(before, after)}{f' (then {then.error})' if then.error else ''}"


def _state(value: object, outcome: Outcome) -> str:
    return "there was some" if value is not None else outcome.error or "there was none"


def _prompts(before: Sequence[Message], after: Sequence[Message]) -> str:
    if len(before) != len(after):
        return f"then {len(before)} messages, now {len(after)}"
    number, (one, other) = next(
        (n, pair) for n, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]
    )
    if one.role != other.role:
        return f"message {number + 1}: then of {one.role}, now of {other.role}"
    return f"message {number + 1} ({one.role}), {_texts(one.content, other.content)}"


def _texts(before: str, after: str) -> str:
    place = next((n for n, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), None)
    place = min(len(before), len(after)) if place is None else place
    begin = max(0, place - AROUND)
    one, other = (repr(text[begin : place + AROUND]) for text in (before, after))
    return f"character {place + 1}: then {one}, now {other}"
