"""Text out of tokens: whole characters, nothing past a stop string."""

from pathlib import Path
from typing import Any

import pytest

from llmops_engine.text import TextStream

STORY = "naïve café 日本語 👩‍👩‍👧 <b>x</b>\n\n\tdone 🙂"


@pytest.fixture(scope="module")
def tokenizer(generator: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(generator)


def _pieces(tokenizer: Any, text: str, *stop: str, cut: int = 0) -> tuple[list[str], TextStream]:
    """Push the tokens of `text`, but for the last `cut`, as the decoder does."""
    stream = TextStream(tokenizer, stop)
    pieces = []
    tokens = tokenizer(text)["input_ids"]
    for token in tokens[: len(tokens) - cut]:
        pieces.append(stream.push(token))
        if stream.stopped:
            break
    return [*pieces, stream.rest()], stream


def test_pieces_make_the_text_and_hold_whole_characters(tokenizer: Any) -> None:
    pieces, stream = _pieces(tokenizer, STORY)
    assert "".join(pieces) == STORY
    assert not any("\ufffd" in piece for piece in pieces)
    assert stream.count == len(tokenizer(STORY)["input_ids"])


def test_half_a_character_at_the_end_is_dropped(tokenizer: Any) -> None:
    assert len(tokenizer("\U0001fabf")["input_ids"]) > 1
    pieces, _ = _pieces(tokenizer, "A goose:\U0001fabf", cut=1)
    assert "".join(pieces) == "A goose:"


@pytest.mark.parametrize("stop", ["café", "本語 👩", "\n\n\t", "</b>", "é", "🙂", "n"])
def test_a_stop_string_ends_the_text_wherever_the_tokens_are_cut(tokenizer: Any, stop: str) -> None:
    pieces, stream = _pieces(tokenizer, STORY, "never", stop)
    assert "".join(pieces) == STORY[: STORY.index(stop)]
    assert stream.stopped


def test_the_first_of_several_stop_strings_counts(tokenizer: Any) -> None:
    pieces, _ = _pieces(tokenizer, STORY, "done", "<b>", "x")
    assert "".join(pieces) == STORY[: STORY.index("<b>")]


def test_the_beginning_of_a_stop_string_that_does_not_come_is_given_at_the_end(tokenizer: Any) -> None:
    pieces, stream = _pieces(tokenizer, STORY, "🙂 and more")
    assert "".join(pieces) == STORY
    assert not stream.stopped


def test_an_empty_stop_string_stops_nothing(tokenizer: Any) -> None:
    pieces, _ = _pieces(tokenizer, STORY, "")
    assert "".join(pieces) == STORY


class Sizes(str):
    """A stop string that adds up how much of it was looked at."""

    seen = 0

    def __getitem__(self, part: Any) -> str:
        found = super().__getitem__(part)
        self.seen += len(found)
        return found


def test_a_very_long_stop_string_costs_no_more_than_the_text(tokenizer: Any) -> None:
    stop = Sizes("never" * 1_000)
    pieces, _ = _pieces(tokenizer, STORY, stop)
    assert "".join(pieces) == STORY
    assert stop.seen < len(STORY) ** 2
