"""Moments as people and programs write them."""

from datetime import UTC, datetime

from llmops_core.errors import InvalidRequestError


def parse_time(text: str) -> datetime:
    """Read ISO 8601 with a zone, as UTC; raises `InvalidRequestError`, also without a zone, since it would be a guess."""
    try:
        time = datetime.fromisoformat(text)
        moment = time.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequestError(f"{text!r} is no time: write it like 2026-11-24T20:15:00Z (ISO 8601).") from error
    if time.tzinfo is None:
        raise InvalidRequestError(
            f"{text!r} has no time zone: write {time.isoformat()}Z for UTC, or {time.isoformat()}+02:00."
        )
    return moment
