"""`llmops dev` from its first line to a kill: it says when it is ready and little else, and leaves no process behind."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.running_dev import FRESH_S, POLL_S, START_S, STOP_S, Dev, new_project, of_home, running_dev

GONE_S = 5 * STOP_S
NAME = "notes"
DOCUMENTS = {"coffee.md": "# Coffee machine\n\nThe coffee machine stands in the kitchen and is cleaned on Fridays.\n"}


@pytest.fixture(scope="module")
def dev(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """`llmops dev` on a project in which nothing is built, nor can be: the folder of the documents is away."""
    triggers = "triggers: {documents: {every_minutes: 0.05}}\n"
    project = new_project(tmp_path_factory.mktemp("dev"), models, {NAME: DOCUMENTS}, triggers)
    docs = project / "docs" / NAME
    docs.rename(docs.with_name("away"))
    with running_dev(project) as running:
        yield running


def printed(dev: Dev) -> str:
    return dev.log.read_text(encoding="utf-8", errors="replace")


def test_it_says_when_it_is_ready_and_what_comes_first(dev: Dev) -> None:
    dev.until("it says so", lambda: "Ready" in printed(dev) or None, START_S)
    for part in (dev.ui, f"{dev.gateway}/v1", "no assistant has a release yet", f"{dev.ui}/runs", "llmops build"):
        assert part in printed(dev).partition("Ready")[2]


def test_of_a_build_only_what_its_assets_say_is_printed(dev: Dev) -> None:
    (dev.docs / "away").rename(dev.docs / NAME)
    dev.until("the gateway serves the first build", lambda: NAME in dev.serving() or None, FRESH_S)
    assert f"{NAME} serves release" in printed(dev)
    assert "1 documents: 1 new" in printed(dev)
    assert re.findall(r".*(?:DEBUG|dagster[.-]\S+ - INFO|SupersessionWarning).*", printed(dev)) == []


def test_after_a_kill_every_process_ends(dev: Dev) -> None:
    """Ends what the fixture started, and so stands last in this file."""
    children = psutil.Process(dev.process.pid).children(recursive=True)
    assert len(children) > 3
    dev.process.kill()
    _, alive = psutil.wait_procs(children, timeout=GONE_S)
    assert alive == []
    # And what they started meanwhile; `Dev.until` would look no more, its process has ended.
    deadline = time.monotonic() + GONE_S
    while (left := of_home(dev.home)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    assert left == []
