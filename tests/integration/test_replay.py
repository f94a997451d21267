"""200 requests on seven releases, run again after maintenance, from Iceberg alone: what came out then comes out again."""

import json
import shutil
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner

from jobs.maintenance import maintain_all
from llmops_cli.build import build
from llmops_cli.main import main
from llmops_core.assistant import Assistant
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.maintenance import compaction
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings
from tests.adapters import make_adapter
from tests.fake_engine import FakeEngine
from tests.moving import move
from tests.running_gateway import DOCUMENTS, NAME, Running, running_gateway, until, write_assistant

RUN = Provenance("test")
LOCAL = "smollm2-135m-instruct"
QUESTIONS = (
    "How hot should the water for green tea be?",
    "How long does bread dough rest?",
    "How often is a bike chain oiled?",
    "What is baked after an hour?",
)
TURNS = [{"role": "user", "content": "How long does tea brew?"}, {"role": "assistant", "content": "Two minutes."}]
RETENTION = {"log_days": 30, "index_days": 1}


@dataclass
class Lived:
    """A home, its releases in the order in which they were on prod, and how many requests each answered."""

    settings: Settings
    folder: Path
    gateway: Running
    assistant: Assistant | None = None
    releases: list[str] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)

    def serve(self, **description: Any) -> None:
        """Build what the description says and have the gateway serve it."""
        self.assistant = write_assistant(self.folder, retention=RETENTION, **description)
        build(self.settings, self.assistant)
        releases = Releases(Lakehouse.open(self.settings), NAME)
        release_id = releases.get("dev").release_id
        move(releases.channels, "prod", release_id)
        self.releases.append(release_id)
        until(lambda: self.gateway.state()["serving"].get(NAME) == release_id or None)

    def ask(self, number: int, **more: Any) -> None:
        """So many questions, each of them another; every fifth in a conversation."""
        for _ in range(number):
            asked = self.requests.total()
            question = {"role": "user", "content": f"{QUESTIONS[asked % len(QUESTIONS)]} Say it in {asked + 2} words."}
            before = TURNS if asked % 5 == 0 else []
            completion = self.gateway.ask(messages=[*before, question], **more)
            self.requests[completion.model_extra["llmops"]["release_id"]] += 1

    def maintain(self, days: float) -> None:
        assert self.assistant
        now = datetime.now(UTC) + timedelta(days=days)
        with dg.DagsterInstance.get() as instance:
            maintain_all(instance, Lakehouse.open(self.settings), self.settings, self.assistant, RUN, now=now)


@pytest.fixture(scope="module")
def lived(shared_home: Settings, fake_engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Lived:
    folder = tmp_path_factory.mktemp(NAME)
    quick = {"generator": {"engine": "openai", "model": "fake", "base_url": fake_engine.base_url}}
    slow = {"engine": "local", "model": LOCAL, "max_tokens": 16, "temperature": 0}
    hybrid = {"retrieval": {"mode": "hybrid", "top_k": 2}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "MANY", 2)
        write_assistant(folder, retention=RETENTION, **quick, **hybrid)
        build(shared_home, write_assistant(folder, retention=RETENTION, **quick, **hybrid))
        with running_gateway(shared_home) as gateway:
            lived = Lived(shared_home, folder, gateway)
            lived.serve(**quick, **hybrid)
            lived.ask(32)
            template = folder / "prompts" / "answer.jinja"
            patch.setattr("tests.running_gateway.TEMPLATE", _changed(template))
            lived.serve(**quick, **hybrid)
            lived.ask(32)
            patch.setitem(DOCUMENTS, "tea.md", DOCUMENTS["tea.md"] + "\nBlack tea takes boiling water.\n")
            lived.serve(**quick, **hybrid)
            lived.ask(32)
            lived.maintain(days=0)
            lived.serve(**quick, retrieval={"mode": "dense", "top_k": 3}, embedder={"model": "bge-small"})
            lived.ask(32)
            lived.serve(**quick, retrieval={"mode": "full_text", "top_k": 1}, embedder={"model": "bge-small"})
            lived.ask(32)
            lived.serve(generator=slow, **hybrid)
            lived.ask(20)
            make_adapter(shared_home.models / LOCAL, folder / "adapter", 2, seed=1)
            lived.serve(generator={**slow, "adapter": "adapter"}, **hybrid)
            lived.ask(20)
    return lived


def _changed(template: Path) -> Path:
    other = template.parent.parent / "other" / template.name
    other.parent.mkdir()
    text = template.read_text(encoding="utf-8")
    other.write_text(text.replace("{% block user %}", "{% block user %}Please. "), encoding="utf-8")
    return other


def test_all_comes_out_again_after_maintenance_and_without_lancedb(lived: Lived) -> None:
    assert lived.requests == dict(zip(lived.releases, [32] * 5 + [20, 20], strict=True))
    assert said("ingest", lived) == {"requests": 200, "feedback": 0}
    for days in (2, 3, 4):
        lived.maintain(days)
    releases = {
        release.release_id: release.manifest for release in Releases(Lakehouse.open(lived.settings), NAME).all()
    }
    pins = [releases[release_id] for release_id in lived.releases]
    assert len({pin.prompt.hash for pin in pins}) == 2
    assert len({pin.embedder.revision for pin in pins}) == 2
    assert len({pin.index.version for pin in pins}) == 3
    assert len({(pin.generator.model, pin.generator.adapter) for pin in pins}) == 3
    shutil.rmtree(Path(lived.settings.lancedb))
    done = said("replay", lived, "--since", (datetime.now(UTC) - timedelta(days=1)).isoformat(), "--answers", "200")
    assert done["differing"] == []
    assert (done["requests"], done["failed"]) == (200, 0)
    assert done["identical"] == {"chunks": 200, "scores": 200, "prompt": 200, "answer": 200, "query_vector": 168}
    assert done["compared"] == done["identical"]
    rows = Lakehouse.open(lived.settings).table(NAME, "traffic_replays").read()
    real = rows.filter(pl.col("release_id").is_in(lived.releases[-2:]))
    assert real.height == 40
    assert real["answer"].all()
    assert real["promised"].all()
    assert real["answered"].n_unique() > 20


def said(command: str, lived: Lived, *arguments: str) -> Any:
    """The JSON value of a command."""
    result = CliRunner().invoke(main, [command, *arguments, "--assistant", str(lived.folder), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
