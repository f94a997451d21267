"""Two runs have to agree before anything goes, and a clock that is wrong costs nothing that is needed."""

from collections.abc import Callable
from datetime import datetime, timedelta

from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.maintenance.notes import GRACE, LEAP, Notes

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


def at(lakehouse: Lakehouse, now: datetime) -> datetime:
    notes = Notes(lakehouse, "clock")
    trusted = notes.trusted(now)
    notes.ran(now)
    return trusted


def test_a_leap_of_the_clock_counts_only_when_a_second_run_agrees(lakehouse: Lakehouse, later: Later) -> None:
    assert at(lakehouse, later(0)) == later(0)
    assert at(lakehouse, later(5000)) == later(0)
    assert at(lakehouse, later(5001)) == later(5001)


def test_a_leap_that_was_put_right_leaves_no_trace(lakehouse: Lakehouse, later: Later) -> None:
    at(lakehouse, later(0))
    at(lakehouse, later(5000))
    assert at(lakehouse, later(1)) == later(1)


def test_after_a_clock_that_went_back_the_present_counts_from_the_second_run(
    lakehouse: Lakehouse, later: Later
) -> None:
    at(lakehouse, later(0))
    assert at(lakehouse, later(-5000)) == later(-5000)
    assert at(lakehouse, later(1)) == later(-5000)
    assert at(lakehouse, later(2)) == later(2)


def test_a_home_that_is_used_once_a_month_still_forgets(lakehouse: Lakehouse, later: Later) -> None:
    assert timedelta(days=30) > LEAP
    at(lakehouse, later(0))
    assert [at(lakehouse, later(30)), at(lakehouse, later(60))] == [later(0), later(30)]
