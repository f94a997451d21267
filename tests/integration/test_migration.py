"""Embedder, documents, prompt and adapter are changed under steady load: no request fails, none meets parts of two releases."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from jobs.maintenance import maintain_all
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.models.adapters import CONFIG, WEIGHTS
from llmops_core.release.manifest import Manifest
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings
from llmops_core.vectors.storage import table_names
from tests.fake_engine import FakeEngine
from tests.running_gateway import NAME, TEMPLATE, Running, running_gateway, until, write_assistant
from tests.steady_load import SteadyLoad, logged, mixed


def llmops(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run a command on the assistant in a process of its own, as people and pipelines do."""
    command = [sys.executable, "-m", "llmops_cli.main", *arguments, "--assistant", str(folder), "--json"]
    # Beside a gateway and its clients, on a machine that may have two cores.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def manifest_on(settings: Settings, channel: str) -> Manifest:
    return Releases(Lakehouse.open(settings), NAME).get(channel).manifest


def serves(gateway: Running, release_id: str) -> None:
    until(lambda: True if gateway.state()["serving"] == {NAME: release_id} else None)


def promoted(folder: Path, gateway: Running, load: SteadyLoad) -> Manifest:
    """Build the change, put it on prod, and ask some more when it serves."""
    before = manifest_on(gateway.settings, "prod")
    llmops(folder, "build")
    assert manifest_on(gateway.settings, "prod") == before
    llmops(folder, "release", "promote", "dev", "prod", "--message", "a change")
    after = manifest_on(gateway.settings, "prod")
    serves(gateway, after.release_id)
    load.more()
    return after


def test_changes_under_load_fail_no_request_and_mix_none(
    home_with_models: Settings, fake_engine: FakeEngine, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    settings, folder = home_with_models, tmp_path / "notes"
    generator: dict[str, Any] = {"engine": "openai", "model": "fake", "base_url": fake_engine.base_url}
    write_assistant(folder, generator=generator, embedder={"model": "minilm"})
    llmops(folder, "build")
    first = manifest_on(settings, "prod")
    with running_gateway(settings) as gateway, SteadyLoad(gateway) as load:
        load.more()

        # Another embedder: its vectors and index are made beside those that serve.
        write_assistant(folder, generator=generator, embedder={"model": "bge-small"})
        migrated = promoted(folder, gateway, load)
        assert migrated.embedder.revision != first.embedder.revision
        assert migrated.index.version != first.index.version

        # Back over the change and forth again: the one before is still there, and whole.
        assert llmops(folder, "release", "rollback", "--message", "worse")["release_id"] == first.release_id
        serves(gateway, first.release_id)
        load.more()
        llmops(folder, "release", "promote", migrated.release_id, "prod", "--message", "better after all")
        serves(gateway, migrated.release_id)

        # Documents: they reach prod by themselves.
        (folder / "docs" / "coffee.md").write_text("# Coffee\n\nFilter coffee takes four minutes.\n")
        llmops(folder, "build")
        fresh = manifest_on(settings, "prod")
        assert fresh.differs_in_index_alone(migrated)
        serves(gateway, fresh.release_id)
        load.more()

        with (folder / "prompts" / TEMPLATE.name).open("a") as file:
            file.write("{# another prompt #}")
        assert promoted(folder, gateway, load).prompt.version == 2

        (folder / "adapter").mkdir()
        (folder / "adapter" / CONFIG).write_text("{}")
        (folder / "adapter" / WEIGHTS).write_bytes(b"weights")
        write_assistant_keeping_prompt(folder, {**generator, "adapter": "adapter"}, {"model": "bge-small"})
        last = promoted(folder, gateway, load)
        assert last.generator.adapter

    assert load.failed == []
    assert mixed(load) == []
    by_release = {row["release_id"] for row in logged(load)}
    assert {manifest.release_id for manifest in (first, migrated, fresh, last)} <= by_release
    # An answer says the release that its row says.
    rows = {row["request_id"]: row["release_id"] for row in logged(load)}
    assert rows == {answer.request_id: answer.release_id for answer in load.answered}

    # Maintenance keeps the former embedder's index as long as somebody may go back to it, and then lets it go.
    llmops(folder, "ingest")
    uri = f"{settings.lancedb}/{NAME}"
    assistant = write_assistant_keeping_prompt(folder, {**generator, "adapter": "adapter"}, {"model": "bge-small"})
    days = (0, 1.1, 29, 30.5, 32, 34)
    kept = []
    for day in days:
        now = datetime.now(UTC) + timedelta(days=day)
        maintain_all(instance, Lakehouse.open(settings), settings, assistant, Provenance("test"), now=now)
        kept.append(first.embedder.revision in table_names(uri))
    assert kept[:3] == [True, True, True]
    assert not kept[-1]
    assert last.embedder.revision in table_names(uri)


def write_assistant_keeping_prompt(folder: Path, generator: dict[str, Any], embedder: dict[str, Any]) -> Any:
    """Change assistant.yaml alone."""
    prompt = folder / "prompts" / TEMPLATE.name
    text = prompt.read_bytes()
    assistant = write_assistant(folder, generator=generator, embedder=embedder)
    prompt.write_bytes(text)
    return assistant
