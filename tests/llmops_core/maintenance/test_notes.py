"""Two runs have to agree before anything goes, and a clock that is wrong costs nothing that is needed."""

from collections.abc import Callable
from datetime import datetime

import pytest

from llmops_core.errors import LakehouseError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.maintenance.notes import GRACE, Notes
from llmops_core.settings import Settings

Later = Callable[[float], datetime]


def seen(lakehouse: Lakehouse, things: set[str], now: datetime) -> list[str]:
    notes = Notes(lakehouse, "test")
    due = notes.due(things, now)
    notes.save(due)
    return due


def test_a_thing_is_due_when_it_was_unneeded_for_the_grace(lakehouse: Lakehouse, later: Later) -> None:
    assert seen(lakehouse, {"a"}, later(0)) == []
    assert seen(lakehouse, {"a", "b"}, later(0.5)) == []
    assert seen(lakehouse, {"a", "b"}, later(1)) == ["a"]


def test_what_was_needed_in_between_begins_anew(lakehouse: Lakehouse, later: Later) -> None:
    seen(lakehouse, {"a"}, later(0))
    seen(lakehouse, set(), later(0.9))
    assert seen(lakehouse, {"a"}, later(1)) == []


def test_notes_that_are_damaged_make_the_grace_begin_anew(lakehouse: Lakehouse, later: Later) -> None:
    seen(lakehouse, {"a"}, later(0))
    filesystem, path = lakehouse.filesystem(f"{lakehouse.warehouse()}/_maintenance/test.json")
    with filesystem.open_output_stream(path) as stream:
        stream.write(b'{"a": "20')
    assert seen(lakehouse, {"a"}, later(1)) == []


def test_notes_of_a_clock_that_was_ahead_count_from_now(lakehouse: Lakehouse, later: Later) -> None:
    seen(lakehouse, {"a"}, later(5000))
    assert seen(lakehouse, {"a"}, later(0)) == []
    assert seen(lakehouse, {"a"}, later(0) + GRACE / 2) == []
    assert seen(lakehouse, {"a"}, later(0) + GRACE) == ["a"]


def believed(lakehouse: Lakehouse, now: datetime) -> bool:
    """What a maintenance at this moment does with its clock."""
    notes = Notes(lakehouse, "clock")
    if notes.doubt(now):
        notes.doubted(now)
        return False
    notes.ran(now)
    return True


def run(lakehouse: Lakehouse, later: Later, *days: float) -> list[float]:
    """The days, in this order, of the runs that believed their clock."""
    return [day for day in days if believed(lakehouse, later(day))]


def test_a_leap_of_the_clock_is_believed_when_a_run_of_the_next_day_agrees_and_not_before(
    lakehouse: Lakehouse, later: Later
) -> None:
    assert run(lakehouse, later, 0, 5000, 5000.01, 5000.8, 5001, 5002) == [0, 5001, 5002]


def test_a_leap_that_was_put_right_leaves_no_trace(lakehouse: Lakehouse, later: Later) -> None:
    assert run(lakehouse, later, 0, 5000, 1, 5001, 2) == [0, 1, 2]


def test_a_clock_that_went_back_is_not_believed_until_the_next_day_nor_when_it_is_put_right_within_one(
    lakehouse: Lakehouse, later: Later
) -> None:
    assert run(lakehouse, later, 0, -5000, 1, 0.9, 2) == [0, 1, 2]
    assert run(lakehouse, later, -5000, -4999, -4998) == [-4999, -4998]


def test_a_doubt_says_both_moments_and_what_follows(lakehouse: Lakehouse, later: Later) -> None:
    believed(lakehouse, later(0))
    doubt = Notes(lakehouse, "clock").doubt(later(-1))
    assert doubt
    for part in (later(0).isoformat(), later(-1).isoformat(), "20 hours later", "set it"):
        assert part in doubt


def test_a_home_that_is_used_once_a_month_still_forgets(lakehouse: Lakehouse, later: Later) -> None:
    assert run(lakehouse, later, 0, 30, 60, 90, 120) == [0, 60, 120]


def test_notes_in_a_storage_that_fails_are_told(lakehouse: Lakehouse, settings: Settings) -> None:
    (settings.lakehouse / "warehouse" / "_maintenance").write_text("a file where the folder should be")
    with pytest.raises(LakehouseError, match=r"_maintenance/test\.json cannot be used"):
        Notes(lakehouse, "test")
