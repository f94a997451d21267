"""Making a release is killed just before a write, again and again: numbers, channels and files are as if nothing had been."""

import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from llmops_core.assistant import load_assistant
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.models.adapters import CONFIG, WEIGHTS, adapter_folder
from llmops_core.models.revisions import embedder_revision
from llmops_core.prompts.files import register_prompt
from llmops_core.release.publish import Built, publish_built
from llmops_core.release.registry import Releases
from llmops_core.settings import load_settings
from tests.kills import Killing, needs_seccomp
from tests.moving import move
from tests.running_gateway import NAME, TEMPLATE, write_assistant

pytestmark = needs_seccomp

RUN = Provenance("run")


def opened(home: Path) -> Lakehouse:
    return Lakehouse.open(load_settings(home=home))


def write_edition(folder: Path, number: int) -> None:
    """Write an assistant with a prompt and an adapter that no other edition has."""
    generator = {"engine": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1", "adapter": "adapter"}
    write_assistant(folder, generator=generator)
    with (folder / "prompts" / TEMPLATE.name).open("a") as file:
        file.write(f"{{# edition {number} #}}")
    (folder / "adapter").mkdir(exist_ok=True)
    (folder / "adapter" / CONFIG).write_text(json.dumps({"edition": number}))
    (folder / "adapter" / WEIGHTS).write_bytes(bytes([number]) * 300_000)


def record_index(home: Path, folder: Path, version: str) -> None:
    """Have a build recorded."""
    table = opened(home).table(NAME, "index_vector_index")
    revision = embedder_revision(load_settings(home=home), load_assistant(folder).embedder.model)
    row = {"index_version": version, "embedder_revision": revision, "snapshots": json.dumps({"corpus_chunks": 1})}
    made = {**dict.fromkeys(table.spec.frame_schema.names()), **row, "built_at": datetime.now(UTC)}
    table.append(pl.DataFrame([made], schema=table.spec.frame_schema), RUN)


def release(home: Path, folder: Path, index: str) -> None:
    """What the job `release_create` does."""
    settings, assistant, lakehouse = load_settings(home=home), load_assistant(folder), opened(home)
    lakehouse.prepare(NAME)
    prompt, _ = register_prompt(lakehouse, assistant, RUN)
    revision = embedder_revision(settings, assistant.embedder.model)
    built = Built(prompt.hash, {revision: index})
    publish_built(lakehouse, settings, assistant, built, author="me", message="", provenance=RUN)


def recorded(home: Path) -> dict[str, list[Any]]:
    """What is told of prompts, releases and channels, but for ids of events and times."""
    lakehouse = opened(home)
    columns = {
        "prompts_versions": ("name", "version", "hash", "text"),
        "release_manifests": ("release_id", "number", "manifest", "message"),
        "release_events": ("channel", "action", "release_id", "previous_release_id"),
    }
    rows = {name: lakehouse.table(NAME, name).read().select(some).rows() for name, some in columns.items()}
    # Rows of one commit each: their order is that of files in a scan, and no promise.
    return {name: sorted(found, key=str) for name, found in rows.items()}


def assert_sound(home: Path) -> None:
    """Numbers have no gap, channels are a chain of events that points to releases with everything that they pin."""
    lakehouse = opened(home)
    registry = Releases(lakehouse, NAME)
    releases = registry.all()
    assert [made.number for made in releases] == list(range(1, len(releases) + 1))
    prompts = {(prompt.name, prompt.version): prompt.hash for prompt in registry.prompts.all()}
    assert list(prompts) == [("answer", n + 1) for n in range(len(prompts))]
    manifests = {made.release_id: made.manifest for made in releases}
    last: dict[str, tuple[str | None, str | None]] = defaultdict(lambda: (None, None))
    events = registry.channels.events()
    for event in events.iter_rows(named=True):
        assert (event["previous_event_id"], event["previous_release_id"]) == last[event["channel"]]
        last[event["channel"]] = (event["event_id"], event["release_id"])
        pinned = manifests[event["release_id"]]
        assert prompts[pinned.prompt.name, pinned.prompt.version] == pinned.prompt.hash
        folder = adapter_folder(load_settings(home=home), pinned.generator.adapter or "none")
        edition = json.loads((folder / CONFIG).read_text())["edition"]
        assert (folder / WEIGHTS).read_bytes() == bytes([edition]) * 300_000
    assert lakehouse.table(NAME, "release_events").read()["event_id"].sort().equals(events["event_id"].sort())


@pytest.mark.parametrize("first", [True, False], ids=["the first release", "a new prompt, adapter and index"])
def test_a_killed_release_is_made_once_by_the_next_run(tmp_path: Path, models: Path, first: bool) -> None:
    home, folder = tmp_path / "home", tmp_path / "assistant"
    opened(home).prepare(NAME)
    for name in models.iterdir():
        if name.name != "adapters":
            (home / "models").mkdir(exist_ok=True)
            (home / "models" / name.name).symlink_to(name)
    write_edition(folder, 1)
    record_index(home, folder, "i1")
    if not first:
        release(home, folder, "i1")
        registry = Releases(opened(home), NAME)
        move(registry.channels, "staging", registry.get("1").release_id)
        write_edition(folder, 2)
        record_index(home, folder, "i2")

    killing = Killing(home, release, home, folder, "i1" if first else "i2")
    killing.undisturbed()
    whole = recorded(home)
    assert len(whole["release_events"]) == (2 if first else 6)
    for _ in killing.rounds(lambda: assert_sound(home)):
        assert recorded(home) == whole
        assert_sound(home)
        assert {file.name for file in (home / "models" / "adapters").glob("*/*")} == {CONFIG, WEIGHTS}
