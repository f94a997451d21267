"""The gateway as its clients meet it: a process of its own, asked through OpenAI's client."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import openai
import polars as pl
import yaml

from llmops_core.assistant import Assistant, load_assistant
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.prompts.versions import PromptVersions
from llmops_core.release.manifest import IndexPin
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings
from llmops_core.traffic.segments import gateways, segments_after
from llmops_core.vectors.index import IndexSettings, VectorIndex
from tests.llmops_core.release.test_manifest import manifest
from tests.moving import move

NAME = "notes"
TEMPLATE = Path(__file__).parents[1] / "llmops_cli" / "new_assistant" / "prompts" / "answer.jinja"
DOCUMENTS = {
    "tea.md": "# Tea\n\nGreen tea is brewed at eighty degrees for two minutes.\n",
    "bread.md": "# Bread\n\nBread dough rests for one hour before it is baked.\n",
    "bikes.md": "# Bikes\n\nA bike chain is oiled every three hundred kilometres.\n",
}
QUESTION = "How hot should the water for green tea be?"
WAIT_S = 120.0

T = TypeVar("T")


def until(look: Callable[[], T | None]) -> T:
    """What `look` finds, once it finds something."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.1)
    raise AssertionError(f"nothing after {WAIT_S} s")


def write_assistant(folder: Path, **description: Any) -> Assistant:
    """An assistant over three small documents, with whatever else its assistant.yaml says."""
    (folder / "docs").mkdir(parents=True, exist_ok=True)
    for name, text in DOCUMENTS.items():
        (folder / "docs" / name).write_text(text, encoding="utf-8")
    (folder / "prompts").mkdir(exist_ok=True)
    (folder / "prompts" / TEMPLATE.name).write_bytes(TEMPLATE.read_bytes())
    whole = {"name": NAME, "sources": [{"type": "folder", "path": "docs"}], **description}
    (folder / "assistant.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    return load_assistant(folder)


def release_by_words(settings: Settings, engine_url: str) -> str:
    """Make a release in an empty home, on dev and prod, that is searched by words: no model has to be loaded; its id."""
    lakehouse = Lakehouse.open(settings)
    lakehouse.prepare(NAME)
    text = TEMPLATE.read_text(encoding="utf-8")
    run = Provenance("test")
    prompt, _ = PromptVersions(lakehouse, NAME).register("answer", text, author="test", message="", provenance=run)
    whole = manifest()
    chunks = [
        {"chunk_id": name, "document_id": name, "title": "", "heading_path": [], "text": text, "char_start": 0}
        | {"char_end": len(text), "vector": [1.0, float(len(text))]}
        for name, text in DOCUMENTS.items()
    ]
    frame = pl.DataFrame(chunks, schema_overrides={"vector": pl.List(pl.Float32), "heading_path": pl.List(pl.String)})
    VectorIndex(f"{settings.lancedb}/{NAME}", whole.embedder.revision).build([frame], "i1", IndexSettings())
    engine = {"engine": "openai", "base_url": engine_url, "model": "fake"}
    changes = {
        "assistant": NAME,
        "prompt": whole.prompt.model_copy(update={"name": prompt.name, "hash": prompt.hash}),
        "generator": whole.generator.model_copy(update=engine),
        "retrieval": whole.retrieval.model_copy(update={"mode": "full_text"}),
        "index": IndexPin(version="i1", snapshots={}),
    }
    releases = Releases(lakehouse, NAME)
    made, _ = releases.create(whole.model_copy(update=changes), author="test", message="", provenance=run)
    for channel in ("dev", "prod"):
        move(releases.channels, channel, made.release_id)
    return made.release_id


def create(settings: Settings, **changes: Any) -> str:
    """Make a release that differs from the one on dev in these sections; its id."""
    releases = Releases(Lakehouse.open(settings), NAME)
    manifest = releases.get("dev").manifest.model_copy(update=changes)
    return releases.create(manifest, author="test", message="", provenance=Provenance("test"))[0].release_id


def promote(settings: Settings, **changes: Any) -> str:
    """Make such a release and put it on prod; its id."""
    release_id = create(settings, **changes)
    move(Releases(Lakehouse.open(settings), NAME).channels, "prod", release_id)
    return release_id


def shipped(settings: Settings) -> list[dict[str, Any]]:
    """All lines of the log that gateways have brought into the lakehouse's storage."""
    filesystem, root = Lakehouse.open(settings).spool()
    return [
        line
        for gateway_id in gateways(filesystem, root, NAME)
        for segment in segments_after(filesystem, root, NAME, gateway_id, 0)
        for line in segment.rows
    ]


@dataclass
class Running:
    """A gateway that runs, and what was asked of it."""

    url: str
    settings: Settings
    client: openai.OpenAI
    pid: int
    answered: list[str] = field(default_factory=list)

    def raw(self, content: str = QUESTION, model: str = NAME, **more: Any) -> tuple[Any, Mapping[str, str]]:
        """Ask for a whole answer; the answer and the headers that it came with."""
        messages = more.pop("messages", [{"role": "user", "content": content}])
        reply = self.client.chat.completions.with_raw_response.create(model=model, messages=messages, **more)
        completion = reply.parse()
        self.answered.append(completion.id)
        return completion, reply.headers

    def ask(self, content: str = QUESTION, model: str = NAME, **more: Any) -> Any:
        """Ask for a whole answer."""
        return self.raw(content, model, **more)[0]

    def stream(self, **more: Any) -> Any:
        """Ask for a streamed answer."""
        messages: Any = [{"role": "user", "content": QUESTION}]
        return self.client.chat.completions.create(model=NAME, messages=messages, stream=True, **more)

    def logged(self, request_id: str) -> dict[str, Any]:
        """The row of a request, once it is there."""

        def look() -> dict[str, Any] | None:
            reply = httpx.get(f"{self.url}/v1/requests/{request_id}")
            return dict(reply.json()) if reply.status_code == 200 else None

        return until(look)

    def state(self) -> dict[str, Any]:
        """What the gateway says of itself."""
        return dict(httpx.get(f"{self.url}/readyz").json())

    def shipped(self) -> list[dict[str, Any]]:
        """All lines of the log that are in the lakehouse's storage."""
        return shipped(self.settings)

    def shipped_requests(self) -> list[dict[str, Any]]:
        """The requests among them."""
        return [line["payload"] for line in self.shipped() if line["kind"] == "request"]

    def feedback(self, **body: Any) -> httpx.Response:
        """Post feedback."""
        return httpx.post(f"{self.url}/v1/feedback", json=body)


@contextmanager
def running_gateway(settings: Settings, status: int = 200) -> Iterator[Running]:
    """`llmops serve` on the home that the environment names, from the moment on that /readyz has this status."""
    command = [sys.executable, "-m", "llmops_cli.main", "serve", "--port", "0", "--json"]
    with (settings.home / "gateway.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    try:
        assert process.stdout
        url = str(json.loads(process.stdout.readline())["url"])
        until(lambda: _has_status(url, status))
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=WAIT_S) as client:
            yield Running(url, settings, client, process.pid)
    finally:
        process.terminate()
        process.wait(60)
        assert process.stdout
        process.stdout.close()


def _has_status(url: str, status: int) -> bool | None:
    try:
        return True if httpx.get(f"{url}/readyz").status_code == status else None
    except httpx.TransportError:
        return None
