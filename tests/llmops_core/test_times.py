from datetime import UTC, datetime

import pytest

from llmops_core.errors import InvalidRequestError
from llmops_core.times import parse_time


@pytest.mark.parametrize("text", ["2026-11-24T20:15:00Z", "2026-11-24T22:15:00+02:00"])
def test_a_time_with_a_zone_is_read_as_utc(text: str) -> None:
    assert parse_time(text) == datetime(2026, 11, 24, 20, 15, tzinfo=UTC)
    assert parse_time(text).tzinfo is UTC


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("last Tuesday", "ISO 8601"),
        ("2026-11-24T20:15:00", "has no time zone"),
        ("0001-01-01T00:00:00+02:00", "is no time"),
    ],
)
def test_what_is_no_moment_is_refused_with_how_to_write_one(text: str, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        parse_time(text)
