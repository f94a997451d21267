"""`llmops dev` as a person starts it: a project, real processes, Dagster's UI in a real browser."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
POLL_S = 0.5
START_S = 180.0
FRESH_S = 180.0
STOP_S = 60.0
PAGE_S = 60.0

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

    def ticks(self, assistant: str, since: float, sensor: str = "documents_changed") -> list[dict[str, Any]]:
        """Finished ticks of a sensor that began after `since` (Unix seconds)."""
        query = """query ($assistant: String!, $sensor: String!, $since: Float!) {
          sensorOrError(sensorSelector: {repositoryName: "__repository__", repositoryLocationName: $assistant,
                                         sensorName: $sensor}) {
            ... on Sensor { sensorState { ticks(afterTimestamp: $since) { status skipReason error { message } } } }
          }
        }"""
        answer = self.graphql(query, assistant=assistant, sensor=sensor, since=since)
        ticks: list[dict[str, Any]] = answer["sensorOrError"]["sensorState"]["ticks"]
        return [tick for tick in ticks if tick["status"] != "STARTED"]

    def runs(self, assistant: str, since: float) -> list[dict[str, Any]]:
        """The assistant's runs, by whatever started them, made after `since` (Unix seconds)."""
        query = """query ($since: Float!) {
          runsOrError(filter: {createdAfter: $since}) {
            ... on Runs {
              results {
                runId status pipelineName startTime endTime tags { key value } assetSelection { path }
                repositoryOrigin { repositoryLocationName }
              }
            }
          }
        }"""
        runs: list[dict[str, Any]] = self.graphql(query, since=since)["runsOrError"]["results"]
        return [run for run in runs if run["repositoryOrigin"]["repositoryLocationName"] == assistant]

    def builds(self, assistant: str, since: float) -> list[dict[str, Any]]:
        """Those of `runs` that build the assistant's corpus or index, by their job or by what was chosen in the UI."""

        def builds(run: dict[str, Any]) -> bool:
            chosen = {key["path"][1] for key in run["assetSelection"] or []}
            return run["pipelineName"] == "index_build" or not chosen.isdisjoint(("corpus", "index"))

        return [run for run in self.runs(assistant, since) if builds(run)]

    def skips_twice(self, assistant: str) -> float:
        """Wait until the sensor looked twice from now on and found nothing to do; returns when the wait began."""
        since = time.time()

        def skipped() -> bool | None:
            ticks = self.ticks(assistant, since)
            return True if [tick["status"] for tick in ticks].count("SKIPPED") >= 2 else None

        self.until(f"two skipped ticks of {assistant}", skipped, FRESH_S)
        return since

    def serving(self) -> set[str]:
        """The assistants that the gateway answers for."""
        try:
            return set(httpx.get(f"{self.gateway}/readyz", timeout=10).json()["serving"])
        except (httpx.HTTPError, ValueError, KeyError):
            return set()

    def chunks(self, assistant: str, question: str) -> list[str]:
        """The texts that the gateway's answer rests on."""
        body = {"model": assistant, "max_tokens": 4, "messages": [{"role": "user", "content": question}]}
        answer = httpx.post(f"{self.gateway}/v1/chat/completions", json=body, timeout=120)
        assert answer.status_code == 200, answer.text
        return [chunk["text"] for chunk in answer.json()["llmops"]["chunks"]]


def _environment(home: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("LLMOPS_", "DAGSTER_"))}
    return own | {"LLMOPS_HOME": str(home), "OMP_NUM_THREADS": "2"}


def _home(project: Path) -> Path:
    return project.parent / "home"


def llmops(root: Path, *arguments: str) -> None:
    """Run a command in the project to its end; it has to succeed."""
    command = [sys.executable, "-m", "llmops_cli.main", *arguments]
    done = subprocess.run(command, cwd=root, env=_environment(_home(root)), capture_output=True, text=True, check=False)
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


def of_home(home: Path) -> list[psutil.Process]:
    """Living processes that work on this home, whoever their parent is by now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("LLMOPS_HOME") == str(home):
                found.append(process)
        except psutil.Error:
            continue
    return found


def new_project(parent: Path, models: Path, documents: Mapping[str, Mapping[str, str]], more: str) -> Path:
    """A project with an assistant for each folder of documents, beside an empty home that has the models.

    `more` is added to each `assistant.yaml`.
    """
    root, home = parent / "project", parent / "home"
    home.mkdir()
    root.mkdir()
    (home / "models").symlink_to(models, target_is_directory=True)
    (root / "workspace.yaml").write_text("load_from:\n")
    for name, texts in documents.items():
        docs = root / "docs" / name
        docs.mkdir(parents=True)
        for file, text in texts.items():
            (docs / file).write_text(text)
        llmops(root, "init", name, "--docs", f"docs/{name}")
        with (root / "assistants" / name / "assistant.yaml").open("a") as description:
            description.write(more)
    return root


@contextmanager
def running_dev(project: Path) -> Iterator[Dev]:
    """`llmops dev` on the project, from the moment on that its UI answers."""
    home, log = _home(project), project.parent / "dev.log"
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
    dev = Dev(process, project / "docs", home, log, f"http://127.0.0.1:{ui_port}", f"http://127.0.0.1:{port}")
    try:
        dev.until("the UI answers", lambda: _answers(f"{dev.ui}/server_info"), START_S)
        yield dev
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for left in of_home(home):
            left.kill()


@contextmanager
def browser_page() -> Iterator[Any]:
    """A page of a real browser; skips the test where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if not Path(CHROMIUM).exists():
        pytest.skip("Chromium is not installed")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        try:
            page = browser.new_page(viewport={"width": 1600, "height": 1000})
            page.set_default_timeout(PAGE_S * 1000)
            yield page
        finally:
            browser.close()
