"""Adapters and local copies: what only releases that went had need of."""

import json
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from llmops_core.assistant import Assistant
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.maintenance import maintain
from llmops_core.maintenance.report import Maintained
from llmops_core.maintenance.spool import plan_segments
from llmops_core.models.adapters import CONFIG, WEIGHTS, adapter_folder, store_adapter
from llmops_core.release.manifest import (
    EmbedderPin,
    GeneratorParams,
    GeneratorPin,
    IndexPin,
    Manifest,
    PromptPin,
    RetrievalPin,
)
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings
from llmops_core.traffic.line import encode_line, encode_payload, segment_name
from tests.moving import move

RUN = Provenance("test")
Maintain = Callable[[datetime], Maintained]
Later = Callable[[float], datetime]
Release = Callable[[str, str], str]


def manifest(assistant: str, adapter: str) -> Manifest:
    return Manifest(
        assistant=assistant,
        prompt=PromptPin(name="answer", version=1, hash="h", budget=[]),
        generator=GeneratorPin(
            engine="local",
            model="m",
            revision="r",
            adapter=adapter,
            context_window=100,
            params=GeneratorParams(max_tokens=1, temperature=0, top_p=1),
        ),
        embedder=EmbedderPin(model="e", revision="r"),
        retrieval=RetrievalPin(mode="dense", top_k=1, query="last_turn"),
        index=IndexPin(version="v", snapshots={}),
    )


@pytest.fixture
def release(lakehouse: Lakehouse, settings: Settings, tmp_path: Path) -> Release:
    """Makes a release of an assistant with an adapter of this text; returns the release's id."""

    def make(assistant: str, text: str) -> str:
        source = tmp_path / text
        source.mkdir()
        (source / CONFIG).write_text(json.dumps({"text": text}))
        (source / WEIGHTS).write_bytes(text.encode())
        lakehouse.prepare(assistant)
        made = manifest(assistant, store_adapter(settings, source))
        Releases(lakehouse, assistant).create(made, author="a", message="m", provenance=RUN)
        return made.release_id

    return make


def adapters(settings: Settings) -> set[str]:
    """The texts of the adapters that are there."""
    return {(folder / WEIGHTS).read_text() for folder in (settings.models / "adapters").iterdir()}


def test_an_adapter_goes_that_only_unneeded_releases_of_this_assistant_pinned(
    lakehouse: Lakehouse, settings: Settings, assistant: Assistant, release: Release, maintained: Maintain, later: Later
) -> None:
    release("helper", "old")
    serving = release("helper", "serving")
    release("other", "of another")
    unpinned = settings.models / "adapters" / ("0" * 32)
    unpinned.mkdir(parents=True)
    (unpinned / WEIGHTS).write_text("stored by a build that goes on")
    move(Releases(lakehouse, "helper").channels, "prod", serving)
    assert len(maintained(later(40)).waiting) == 1
    assert len(adapters(settings)) == 4
    assert len(maintained(later(41)).adapters) == 1
    assert adapters(settings) == {"serving", "of another", "stored by a build that goes on"}


def test_an_adapter_whose_deletion_was_cut_short_is_stored_anew(
    settings: Settings,
    release: Release,
    maintained: Maintain,
    later: Later,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cut_short(folder: Path, **_: object) -> None:
        (folder / CONFIG).unlink()
        raise KeyboardInterrupt

    release("helper", "old")
    maintained(later(40))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", cut_short)
        with pytest.raises(KeyboardInterrupt):
            maintained(later(41))
    folder = adapter_folder(settings, store_adapter(settings, tmp_path / "old"))
    assert {file.name for file in folder.iterdir()} == {CONFIG, WEIGHTS}


def test_a_release_that_has_just_left_a_channel_stays_since_rows_may_be_under_way(
    lakehouse: Lakehouse, settings: Settings, release: Release, maintained: Maintain, later: Later
) -> None:
    channels = Releases(lakehouse, "helper").channels
    for release_id in (release("helper", "before"), release("helper", "now")):
        move(channels, "prod", release_id)
    table = lakehouse.table("helper", "release_events")
    moved = table.read().with_columns(at=pl.lit(later(39)))
    table.overwrite(moved, RUN)
    for day in (40, 40.9):
        maintained(later(day))
    assert adapters(settings) == {"before", "now"}
    for day in (41.5, 42.5):
        maintained(later(day))
    assert adapters(settings) == {"now"}


def test_local_copies_of_needed_releases_stay(
    settings: Settings, release: Release, maintained: Maintain, later: Later
) -> None:
    folder = settings.gateway / "helper" / "releases"
    folder.mkdir(parents=True)
    kept = release("helper", "young")
    for name in (kept, "f" * 32):
        (folder / f"{name}.json").write_text("{}")
    assert maintained(later(0)).local_copies == 0
    assert maintained(later(0) + timedelta(days=1)).local_copies == 1
    assert [file.stem for file in folder.iterdir()] == [kept]


def test_a_release_that_is_promoted_while_the_plan_is_made_loses_nothing(
    lakehouse: Lakehouse,
    settings: Settings,
    release: Release,
    maintained: Maintain,
    later: Later,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    promoted = release("helper", "promoted")
    release("helper", "old")
    maintained(later(40))
    planned = plan_segments

    def while_somebody_promotes(*arguments: Any) -> Any:
        channels = Releases(lakehouse, "helper").channels
        move(channels, "prod", promoted)
        return planned(*arguments)

    monkeypatch.setattr(maintain, "plan_segments", while_somebody_promotes)
    maintained(later(41))
    assert adapters(settings) == {"promoted"}


def test_a_release_that_a_request_in_a_waiting_segment_names_stays(
    lakehouse: Lakehouse, settings: Settings, release: Release, maintained: Maintain, later: Later
) -> None:
    asked = release("helper", "asked for by its id")
    release("helper", "old")
    filesystem, root = lakehouse.spool()
    filesystem.create_dir(f"{root}/helper/gateway", recursive=True)
    line = encode_line("request", "gateway", 2, 0, encode_payload({"request_id": "r", "release_id": asked}))
    # Its predecessor is missing, so that no ingest takes it.
    with filesystem.open_output_stream(f"{root}/helper/gateway/{segment_name(2)}") as stream:
        stream.write(line)
    for day in (40, 41):
        maintained(later(day))
    assert adapters(settings) == {"asked for by its id"}
