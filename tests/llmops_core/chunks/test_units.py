import re

import pytest

from llmops_core.chunks.units import Boundary, units_of


class Words:
    """Every word is a token, and every other visible character."""

    def count(self, text: str) -> int:
        return len(self.offsets(text))

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


class Deaf:
    """Knows no token at all."""

    def count(self, text: str) -> int:
        return 0

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return []


def pieces(text: str, cuts: list[int] | None = None) -> list[str]:
    units = units_of(text, cuts or [0], Words())
    return [text[start:end] for start, end in zip(units.starts, [*units.starts[1:], len(text)], strict=True)]


def test_units_are_tokens_with_what_follows_them() -> None:
    assert pieces("  One, two\n\nthree ") == ["  One", ", ", "two\n\n", "three "]


def test_a_part_begins_a_unit() -> None:
    assert pieces("one two three", [0, 4]) == ["one ", "two ", "three"]


def test_a_text_is_covered_also_where_the_tokenizer_sees_nothing() -> None:
    units = units_of("\u200b" * 200, [0], Deaf())
    assert units.starts[0] == 0
    assert max(b - a for a, b in zip(units.starts, units.starts[1:], strict=False)) <= 64


def test_a_giant_token_is_taken_apart() -> None:
    assert max(len(piece) for piece in pieces("x" * 1000)) <= 64


@pytest.mark.parametrize(
    ("text", "boundary"),
    [
        ("one\n\ntwo", Boundary.PARAGRAPH),
        ("one\r\n \t\r\ntwo", Boundary.PARAGRAPH),
        ("one\ntwo", Boundary.LINE),
        ("one\rtwo", Boundary.LINE),
        ("one. two", Boundary.SENTENCE),
        ("one”) two", Boundary.WORD),
        ("one?”) two", Boundary.SENTENCE),
        ("一。二", Boundary.SENTENCE),
        ("one two", Boundary.WORD),
        ("one-two", Boundary.TOKEN),
    ],
)
def test_a_boundary_is_known_by_what_lies_there(text: str, boundary: Boundary) -> None:
    assert units_of(text, [0], Words()).boundaries[-1] == boundary


def test_tokens_before_a_unit_add_up() -> None:
    units = units_of("one two three", [0], Words())
    assert units.tokens_before == [0, 1, 2, 3]
    assert (units.reach(0, 2), units.reach(1, 99), units.at(5), units.start(3)) == (2, 3, 2, 13)
