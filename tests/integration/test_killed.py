"""Builds whose process is killed: nothing waits for them, and the next one gets through by itself."""

import re
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.running_dev import FRESH_S, Dev, new_project, of_home, running_dev

NAME = "notes"
DOCUMENTS = {
    "coffee.md": "# Coffee machine\n\nThe coffee machine stands in the kitchen and is cleaned on Fridays.\n",
    "bikes.md": "# Bikes\n\nA bike chain is oiled every three hundred kilometres.\n",
}


@pytest.fixture
def project(models: Path, tmp_path: Path) -> Path:
    """A project with one assistant and nothing built; its sensor looks every three seconds."""
    return new_project(tmp_path, models, {NAME: DOCUMENTS}, "triggers: {documents: {every_minutes: 0.05}}\n")


def under_way(dev: Dev) -> tuple[str, int] | None:
    """Run and process of a build that is in the middle of a step."""
    query = """query ($run: ID!) { runOrError(runId: $run) { ... on Run { eventConnection { events {
      __typename ... on MessageEvent { message }
    } } } } }"""
    for build in dev.builds(NAME, 0):
        if build["status"] == "STARTED":
            run: dict[str, Any] = dev.graphql(query, run=build["runId"])["runOrError"]
            events = run["eventConnection"]["events"]
            pid = re.search(r"Started process for run \(pid: (\d+)\)", "\n".join(event["message"] for event in events))
            if pid and any(event["__typename"] == "ExecutionStepStartEvent" for event in events):
                return build["runId"], int(pid[1])
    return None


def statuses(dev: Dev) -> dict[str, str]:
    """Build → how it stands."""
    return {run["runId"]: run["status"] for run in dev.builds(NAME, 0)}


def failed(dev: Dev, run: str) -> bool | None:
    return True if statuses(dev)[run] == "FAILURE" else None


def test_killed_builds_hold_up_no_later_one(project: Path) -> None:
    with running_dev(project) as dev:
        run, worker = dev.until("a build is under way", lambda: under_way(dev), FRESH_S)
        psutil.Process(worker).kill()
        dev.until("the killed build has failed", lambda: failed(dev, run), FRESH_S)

        run, _ = dev.until("the next build is under way", lambda: under_way(dev), FRESH_S)
        for process in of_home(dev.home):  # as a power cut does
            process.kill()
    with running_dev(project) as dev:
        dev.until("the second killed build has failed", lambda: failed(dev, run), FRESH_S)
        dev.until("a later build succeeds", lambda: "SUCCESS" in statuses(dev).values() or None, FRESH_S)
        dev.until("the gateway serves it", lambda: NAME in dev.serving() or None, FRESH_S)
