"""`llmops dev` as a person meets it: real processes, an edited file that reaches the answers, the asset graph, the end.

The project has two assistants in one home, so that a change of one can be seen to leave the other alone.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.running_dev import FRESH_S, START_S, STOP_S, Dev, browser_page, llmops, new_project, of_home, running_dev

GROUPS = ("corpus", "evaluation", "index", "prompts", "release", "traffic")
QUESTION = "What is the launch code of the coffee machine?"
CODE = "7319"
LOCATIONS: dict[str, dict[str, str]] = {
    "notes": {
        "coffee.md": "# Coffee machine\n\nThe coffee machine stands in the kitchen and is cleaned on Fridays.\n",
        "printer.md": "# Printer\n\nThe printer on the second floor prints on both sides of the paper.\n",
        "bikes.md": "# Bikes\n\nA bike chain is oiled every three hundred kilometres.\n",
    },
    "recipes": {
        "tea.md": "# Tea\n\nGreen tea is brewed at eighty degrees for two minutes.\n",
        "bread.md": "# Bread\n\nBread dough rests for one hour before it is baked.\n",
    },
}


@pytest.fixture(scope="module")
def project(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two assistants, both built; their sensors look every three seconds."""
    triggers = "triggers: {documents: {every_minutes: 0.05}}\n"
    root = new_project(
        tmp_path_factory.mktemp("dev"), models, LOCATIONS, triggers + "evaluation: {cases: cases.jsonl}\n"
    )
    for name, (document, *_) in LOCATIONS.items():
        case = {"case_id": "first", "question": QUESTION, "gold_document_ids": [f"{name}/{document}"]}
        (root / "assistants" / name / "cases.jsonl").write_text(json.dumps(case) + "\n")
    for name in LOCATIONS:
        llmops(root, "build", "--assistant", f"assistants/{name}")
    return root


@pytest.fixture(scope="module")
def dev(project: Path) -> Iterator[Dev]:
    """`llmops dev` on the project, from the moment on that all assistants are served."""
    with running_dev(project) as running:
        running.until("all are served", lambda: running.serving() == set(LOCATIONS) or None, START_S)
        yield running


def test_nothing_is_built_while_no_document_is_edited(dev: Dev) -> None:
    for assistant in LOCATIONS:
        since = dev.skips_twice(assistant)
        assert dev.builds(assistant, since) == []
        assert {tick["status"] for tick in dev.ticks(assistant, since)} == {"SKIPPED"}


def test_an_edited_document_reaches_the_answers_by_itself_and_leaves_other_assistants_alone(dev: Dev) -> None:
    assert not any(CODE in text for text in dev.chunks("notes", QUESTION))
    since = time.time()
    with (dev.docs / "notes" / "coffee.md").open("a") as document:
        document.write(f"\nThe launch code of the coffee machine is {CODE}.\n")

    dev.until(
        "an answer from the new text",
        lambda: any(CODE in text for text in dev.chunks("notes", QUESTION)) or None,
        FRESH_S,
    )

    dev.skips_twice("notes")
    dev.skips_twice("recipes")
    builds = dev.builds("notes", since)
    assert [(run["pipelineName"], run["status"]) for run in builds] == [("index_build", "SUCCESS")]
    assert dev.builds("recipes", since) == []


def test_the_asset_graph_shows_every_group(dev: Dev) -> None:
    with browser_page() as page:
        page.goto(f"{dev.ui}/asset-groups")
        for group in GROUPS:
            # Nodes of the graph are HTML inside its SVG: the list of assets beside it does not count.
            node = page.locator("svg foreignObject").get_by_text(group, exact=True).first
            node.wait_for(state="visible")


def test_sigterm_ends_every_process(dev: Dev) -> None:
    """Ends what the fixture started, and so stands last but one in this file."""
    main = psutil.Process(dev.process.pid)
    tree = [main, *main.children(recursive=True)]
    assert len(tree) > 3
    dev.process.send_signal(signal.SIGTERM)
    assert dev.process.wait(STOP_S) == 0
    _, alive = psutil.wait_procs(tree[1:], timeout=5)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    assert of_home(dev.home) == []


def test_ctrl_c_ends_every_process(project: Path) -> None:
    with running_dev(project) as dev:
        assert of_home(dev.home)
        # A terminal sends it to the whole group.
        os.killpg(dev.process.pid, signal.SIGINT)
        assert dev.process.wait(STOP_S) == 0
        assert of_home(dev.home) == []
