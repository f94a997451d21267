"""The end of a canary is killed just before a write, again and again: prod is on one release or the other, and never twice."""

from pathlib import Path

import pytest

from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.canary import conclude
from llmops_core.release.channels import Channels
from llmops_core.settings import load_settings
from tests.kills import Killing, needs_seccomp
from tests.llmops_core.release.test_canary import RUN, ask, begun, on, with_releases
from tests.llmops_core.release.test_manifest import manifest

pytestmark = needs_seccomp

OLD, NEW = manifest().release_id, manifest(prompt=2).release_id
RUNS = {"prod": OLD, "canary": NEW}


def opened(home: Path) -> Lakehouse:
    return Lakehouse.open(load_settings(home=home))


def end(home: Path) -> None:
    """What the job `canary_end` does."""
    conclude(opened(home), "helper", author="run 1", provenance=RUN)


@pytest.mark.parametrize(
    ("broken", "ended", "last"),
    [
        (False, {"prod": NEW}, {("prod", "promote"), ("canary", "passed")}),
        (True, {"prod": OLD}, {("canary", "rolled_back")}),
    ],
    ids=["passed", "rolled back"],
)
def test_a_killed_end_is_carried_out_once_by_the_next_run(
    tmp_path: Path, broken: bool, ended: dict[str, str], last: set[tuple[str, str]]
) -> None:
    home = tmp_path / "home"
    lakehouse = opened(home)
    lakehouse.prepare("helper")
    ask(lakehouse, begun(with_releases(lakehouse)), broken=broken)
    begun_with = Channels(lakehouse, "helper").events().height

    killing = Killing(home, end, home)
    killing.undisturbed()
    for _ in killing.rounds(lambda: _is_one_of(home, RUNS, ended)):
        assert on(opened(home)) == ended
        events = Channels(opened(home), "helper").events()
        assert set(events.sort("at").tail(len(last)).select("channel", "action").iter_rows()) == last
        assert events.height == begun_with + len(last)


def _is_one_of(home: Path, *states: dict[str, str]) -> None:
    assert on(opened(home)) in states
