"""Dagster's "Materialize all" on an empty home, clicked by a person while `documents_changed` starts its first build."""

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llmops_assets.definitions import build_definitions
from tests.running_dev import FRESH_S, Dev, browser_page, new_project, running_dev

NAME = "handbook"
DOCUMENTS = {
    "coffee.md": "# Coffee machine\n\nThe coffee machine stands in the kitchen and is cleaned on Fridays.\n",
    "printer.md": "# Printer\n\nThe printer on the second floor prints on both sides of the paper.\n",
    "bikes.md": "# Bikes\n\nA bike chain is oiled every three hundred kilometres.\n",
}
CASES = (
    {"question": "When is the coffee machine cleaned?", "gold": "coffee.md", "answer": "Fridays"},
    {"question": "On which floor is the printer?", "gold": "printer.md", "answer": "second"},
    {"question": "How often is a bike chain oiled?", "gold": "bikes.md", "answer": "every three hundred kilometres"},
)
FINISHED = ("SUCCESS", "FAILURE", "CANCELED")


@pytest.fixture
def project(models: Path, tmp_path: Path) -> Path:
    """A project with one assistant that has cases, and nothing built."""
    root = new_project(tmp_path, models, {NAME: DOCUMENTS}, "evaluation: {cases: cases.jsonl, answers: 1}\n")
    lines = [
        {
            "case_id": f"case{number}",
            "question": case["question"],
            "gold_document_ids": [f"{NAME}/{case['gold']}"],
            "answers": [case["answer"]],
        }
        for number, case in enumerate(CASES)
    ]
    (root / "assistants" / NAME / "cases.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def click_materialize_all(dev: Dev) -> None:
    """Until the run is asked for; of the dialog only the partition has to be chosen, as Dagster proposes none."""
    with browser_page() as page:
        page.goto(f"{dev.ui}/asset-groups")
        page.get_by_role("button", name="Materialize all").click()
        page.get_by_role("button", name="All", exact=True).click()
        dev.until("documents_changed starts its build", lambda: dev.builds(NAME, 0) or None, FRESH_S)
        page.get_by_role("button", name="Launch 1 run").click()
        dev.until("the run is launched", lambda: from_ui(dev.runs(NAME, 0)), FRESH_S)


def from_ui(runs: list[dict[str, Any]]) -> str | None:
    """The id of the run that the click started."""
    return next((run["runId"] for run in runs if any(tag["key"] == "dagster/from_ui" for tag in run["tags"])), None)


def assets(dev: Dev) -> dict[str, dict[str, Any]]:
    """Asset (`assistant/group/noun`) → who materialised it, and how the checks of the latest time ended."""
    query = """{ assetNodes {
      assetKey { path }
      assetMaterializations { runId }
      assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization { status } } } }
    } }"""
    return {"/".join(node["assetKey"]["path"]): node for node in dev.graphql(query)["assetNodes"]}


def test_materialize_all_fills_an_empty_home(project: Path) -> None:
    keys = build_definitions(project / "assistants" / NAME).resolve_asset_graph().get_all_asset_keys()
    with running_dev(project) as dev:
        click_materialize_all(dev)
        dev.until("all runs end", lambda: all(run["status"] in FINISHED for run in dev.runs(NAME, 0)) or None, FRESH_S)
        ended = time.time()
        dev.until("automation looks again", lambda: dev.ticks(NAME, ended, "upstream_changed") or None, FRESH_S)

        runs = sorted(dev.runs(NAME, 0), key=lambda run: float(run["startTime"]))
        assert {run["status"] for run in runs} == {"SUCCESS"}
        # The sensor's, then the click's; automation found nothing left to do.
        assert [run["pipelineName"] for run in runs] == ["index_build", "__ASSET_JOB"]
        assert all(earlier["endTime"] <= later["startTime"] for earlier, later in pairwise(runs))

        clicked, found = from_ui(runs), assets(dev)
        assert set(found) == {key.to_user_string() for key in keys}
        for name, asset in found.items():
            by = [materialization["runId"] for materialization in asset["assetMaterializations"]]
            assert by.count(clicked) == 1, name
            for check in asset["assetChecksOrError"]["checks"]:
                assert check["executionForLatestMaterialization"]["status"] == "SUCCEEDED", (name, check)
        dev.until("the gateway serves it", lambda: NAME in dev.serving() or None, FRESH_S)
