"""`llmops dev` as a person meets it: real processes, an edited file that reaches the answers, the asset graph, the end.

The project has two assistants in one home, so that a change of one can be seen to leave the other alone.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
GROUPS = ("corpus", "index", "prompts", "release", "traffic")
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
POLL_S = 0.5
START_S = 180.0
FRESH_S = 180.0
STOP_S = 60.0

T = TypeVar("T")


@dataclass(frozen=True)
class Dev:
    """A running `llmops dev`."""

    process: "subprocess.Popen[bytes]"
    docs: Path
    home: Path
    log: Path
    ui: str
    gateway: str

    def until(self, what: str, look: Callable[[], T | None], within_s: float) -> T:
        """What `look` finds, once it finds something; fails with the end of the log."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            found = look()
            if found is not None:
                return found
            if self.process.poll() is not None:
                break
            time.sleep(POLL_S)
        raise AssertionError(f"not within {within_s} s: {what}\n{self.log.read_text(errors='replace')[-6000:]}")

    def graphql(self, query: str, **variables: Any) -> Any:
        """The `data` of Dagster's answer."""
        answer = httpx.post(f"{self.ui}/graphql", json={"query": query, "variables": variables}, timeout=60).json()
        assert "errors" not in answer, answer
        return answer["data"]

    def ticks(self, assistant: str, since: float) -> list[dict[str, Any]]:
        """Finished ticks of `documents_changed` that began after `since` (Unix seconds)."""
        query = """query ($assistant: String!, $since: Float!) {
          sensorOrError(sensorSelector: {repositoryName: "__repository__", repositoryLocationName: $assistant,
                                         sensorName: "documents_changed"}) {
            ... on Sensor { sensorState { ticks(afterTimestamp: $since) { status skipReason error { message } } } }
          }
        }"""
        ticks = self.graphql(query, assistant=assistant, since=since)["sensorOrError"]["sensorState"]["ticks"]
        return [tick for tick in ticks if tick["status"] != "STARTED"]

    def builds(self, assistant: str, since: float) -> list[dict[str, Any]]:
        """Runs that build the assistant's corpus, by whatever started them, made after `since` (Unix seconds)."""
        query = """query ($since: Float!) {
          runsOrError(filter: {createdAfter: $since}) {
            ... on Runs {
              results { runId status pipelineName repositoryOrigin { repositoryLocationName } }
            }
          }
        }"""
        runs: list[dict[str, Any]] = self.graphql(query, since=since)["runsOrError"]["results"]
        return [
            run
            for run in runs
            if run["repositoryOrigin"]["repositoryLocationName"] == assistant
            and run["pipelineName"] in ("index_build", "__ASSET_JOB")
        ]

    def skips_twice(self, assistant: str) -> float:
        """Wait until the sensor looked twice from now on and found nothing to do; returns when the wait began."""
        since = time.time()

        def skipped() -> bool | None:
            ticks = self.ticks(assistant, since)
            return True if [tick["status"] for tick in ticks].count("SKIPPED") >= 2 else None

        self.until(f"two skipped ticks of {assistant}", skipped, FRESH_S)
        return since

    def chunks(self, assistant: str, question: str) -> list[str]:
        """The texts that the gateway's answer rests on."""
        body = {"model": assistant, "max_tokens": 4, "messages": [{"role": "user", "content": question}]}
        answer = httpx.post(f"{self.gateway}/v1/chat/completions", json=body, timeout=120)
        assert answer.status_code == 200, answer.text
        return [chunk["text"] for chunk in answer.json()["llmops"]["chunks"]]


def _environment(home: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("LLMOPS_", "DAGSTER_"))}
    return own | {"LLMOPS_HOME": str(home), "OMP_NUM_THREADS": "2"}


def _llmops(root: Path, home: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "llmops_cli.main", *arguments]
    done = subprocess.run(command, cwd=root, env=_environment(home), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(url: str) -> bool | None:
    try:
        return True if httpx.get(url, timeout=10).status_code == 200 else None
    except httpx.HTTPError:
        return None


def _of_home(home: Path) -> list[psutil.Process]:
    """Living processes that work on this home, whoever their parent is by now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("LLMOPS_HOME") == str(home):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def project(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two assistants, both built; their sensors look every three seconds."""
    root = tmp_path_factory.mktemp("dev") / "project"
    home = root.parent / "home"
    home.mkdir()
    root.mkdir()
    (home / "models").symlink_to(models, target_is_directory=True)
    (root / "workspace.yaml").write_text("load_from:\n")
    for name, documents in LOCATIONS.items():
        docs = root / "docs" / name
        docs.mkdir(parents=True)
        for file, text in documents.items():
            (docs / file).write_text(text)
        _llmops(root, home, "init", name, "--docs", f"docs/{name}")
        with (root / "assistants" / name / "assistant.yaml").open("a") as file_of_assistant:
            file_of_assistant.write("triggers: {documents: {every_minutes: 0.05}}\n")
        _llmops(root, home, "build", "--assistant", f"assistants/{name}")
    return root


@pytest.fixture(scope="module")
def dev(project: Path) -> Iterator[Dev]:
    """`llmops dev` on the project, from the moment on that its UI answers and all assistants are served."""
    home, log = project.parent / "home", project.parent / "dev.log"
    ui_port, port = _free_port(), _free_port()
    arguments = ["dev", "--ui-port", str(ui_port), "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "llmops_cli.main", *arguments],
            cwd=project,
            env=_environment(home),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = Dev(process, project / "docs", home, log, f"http://127.0.0.1:{ui_port}", f"http://127.0.0.1:{port}")

    def all_served() -> bool | None:
        if not _answers(f"{running.gateway}/readyz"):
            return None
        return True if set(httpx.get(f"{running.gateway}/readyz").json()["serving"]) == set(LOCATIONS) else None

    try:
        running.until("the UI answers", lambda: _answers(f"{running.ui}/server_info"), START_S)
        running.until("the gateway is ready", all_served, START_S)
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for left in _of_home(home):
            left.kill()


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
    sync_api = pytest.importorskip("playwright.sync_api")
    if not Path(CHROMIUM).exists():
        pytest.skip("Chromium is not installed")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        try:
            page = browser.new_page(viewport={"width": 1600, "height": 1000})
            page.goto(f"{dev.ui}/asset-groups")
            for group in GROUPS:
                # Nodes of the graph are HTML inside its SVG: the list of assets beside it does not count.
                node = page.locator("svg foreignObject").get_by_text(group, exact=True).first
                node.wait_for(state="visible", timeout=60_000)
        finally:
            browser.close()


def test_sigterm_ends_every_process(dev: Dev) -> None:
    """Ends what the fixture started, and so stands last in this file."""
    main = psutil.Process(dev.process.pid)
    tree = [main, *main.children(recursive=True)]
    assert len(tree) > 3
    dev.process.send_signal(signal.SIGTERM)
    assert dev.process.wait(STOP_S) == 0
    _, alive = psutil.wait_procs(tree[1:], timeout=5)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    assert _of_home(dev.home) == []
