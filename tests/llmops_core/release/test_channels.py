"""Channels: one winner, the history kept."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from llmops_core.errors import ConflictError, NotFoundError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release.channels import Channels
from llmops_core.release.registry import Releases
from tests.llmops_core.release.test_manifest import manifest
from tests.moving import move

RUN = Provenance("test")


def test_a_channel_points_to_where_it_was_moved_last(lakehouse: Lakehouse) -> None:
    channels = Channels(lakehouse, "helper")
    move(channels, "dev", "r1")
    move(channels, "prod", "r1")
    move(channels, "dev", "r2")
    assert {name: p.release_id for name, p in channels.state().items()} == {"dev": "r2", "prod": "r1"}
    assert channels.events()["previous_release_id"].to_list() == [None, "r1", None]


def test_moving_to_where_it_is_adds_no_event(lakehouse: Lakehouse) -> None:
    channels = Channels(lakehouse, "helper")
    assert move(channels, "dev", "r1") == move(channels, "dev", "r1")
    assert channels.events().height == 1


def test_a_decision_on_an_old_state_is_refused_and_says_what_happened(lakehouse: Lakehouse) -> None:
    channels = Channels(lakehouse, "helper")
    seen = channels.state()
    move(channels, "prod", "r1")
    with pytest.raises(ConflictError, match="to r1"):
        move(channels, "prod", "r2", expected=seen)


def test_moves_of_other_channels_do_not_disturb(lakehouse: Lakehouse) -> None:
    channels = Channels(lakehouse, "helper")
    seen = channels.state()
    move(channels, "dev", "r1")
    assert move(channels, "prod", "r2", expected=seen).release_id == "r2"


def test_of_operators_at_once_one_wins(lakehouse: Lakehouse) -> None:
    def attempt(number: int) -> bool:
        try:
            move(Channels(lakehouse, "helper"), "prod", f"r{number}", expected={})
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(attempt, range(6))) == 1
    assert Channels(lakehouse, "helper").events().height == 1


def test_releases_are_numbered_and_made_once(lakehouse: Lakehouse) -> None:
    releases = Releases(lakehouse, "helper")
    first, is_new = releases.create(manifest("i1"), author="me", message="a", provenance=RUN)
    again, is_new_again = releases.create(manifest("i1"), author="you", message="b", provenance=RUN)
    second, _ = releases.create(manifest("i2"), author="me", message="c", provenance=RUN)
    assert (is_new, is_new_again, again, second.number) == (True, False, first, 2)


def test_a_release_is_found_by_channel_number_id_and_beginning(lakehouse: Lakehouse) -> None:
    releases = Releases(lakehouse, "helper")
    first, _ = releases.create(manifest("i1"), author="me", message="", provenance=RUN)
    second, _ = releases.create(manifest("i2"), author="me", message="", provenance=RUN)
    move(releases.channels, "prod", second.release_id)
    for reference in ("prod", "2", second.release_id, second.release_id[:8]):
        assert releases.get(reference) == second
    assert releases.get("1") == first
    with pytest.raises(NotFoundError, match="llmops release list"):
        releases.get("staging")
