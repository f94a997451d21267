"""Index versions go when nothing needs them, with grace for who has one open."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from llmops_core.assistant import Assistant
from llmops_core.errors import NotFoundError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.maintenance import maintain as module
from llmops_core.maintenance.maintain import maintain
from llmops_core.maintenance.report import Maintained
from llmops_core.maintenance.spool import plan_segments
from llmops_core.models.revisions import embedder_revision
from llmops_core.settings import Settings
from llmops_core.vectors.index import IndexSettings, VectorIndex

RUN = Provenance("test")
Maintain = Callable[[datetime], Maintained]
Later = Callable[[float], datetime]
Build = Callable[..., None]
SETTINGS = IndexSettings(ann_from_rows=1_000_000)
QUERY = np.ones(4, dtype=np.float32)


def rows(*texts: str) -> pl.DataFrame:
    generator = np.random.default_rng(len(texts))
    chunks = [
        {
            "chunk_id": f"{text:0>32}",
            "document_id": "d",
            "title": "t",
            "heading_path": ["h"],
            "text": text,
            "char_start": 0,
            "char_end": len(text),
            "vector": generator.normal(size=4).tolist(),
        }
        for text in texts
    ]
    return pl.DataFrame(chunks, schema_overrides={"vector": pl.List(pl.Float32)})


@pytest.fixture
def revision(settings: Settings, assistant: Assistant) -> str:
    """The revision of the assistant's embedder."""
    return embedder_revision(settings, assistant.embedder.model)


@pytest.fixture
def index(settings: Settings, revision: str) -> VectorIndex:
    return VectorIndex(f"{settings.lancedb}/helper", revision)


@pytest.fixture
def build(lakehouse: Lakehouse, index: VectorIndex, revision: str) -> Build:
    """Builds a version and records it."""

    def make(version: str, *texts: str, at: datetime, snapshots: Mapping[str, int] | None = None) -> None:
        index.build([rows(*texts)], version, SETTINGS)
        table = lakehouse.table("helper", "index_vector_index")
        row = {
            "index_version": version,
            "embedder_revision": revision,
            "rows": len(texts),
            "kind": "flat",
            "settings": "{}",
            "snapshots": json.dumps(snapshots or {}),
            "built_at": at,
        }
        table.append(pl.DataFrame([row], schema=table.spec.frame_schema), RUN)

    return make


def recorded_rows(lakehouse: Lakehouse) -> list[str]:
    return sorted(lakehouse.table("helper", "index_vector_index").read()["index_version"])


def test_old_versions_go_with_their_rows_and_files_and_a_recorded_one_stays(
    lakehouse: Lakehouse, settings: Settings, assistant: Assistant, index: VectorIndex, build: Build, later: Later
) -> None:
    build("one", "a", "b", at=later(0))
    build("two", "c", "d", at=later(0))
    build("three", "e", "f", at=later(39.5))
    seen = {"two": "index/vector_index"}
    first = maintain(lakehouse, settings, assistant, seen, RUN, now=later(40))
    assert (first.index_versions, len(first.waiting)) == ((), 1)
    assert index.versions() == ["one", "two", "three"]
    hits = index.open("two").exact(QUERY, 2)
    second = maintain(lakehouse, settings, assistant, seen, RUN, now=later(41))
    assert second.index_versions == ("one",)
    assert second.kept["index version two"] == "recorded by index/vector_index"
    assert index.versions() == ["two", "three"]
    assert recorded_rows(lakehouse) == ["three", "two"]
    assert index.open("two").exact(QUERY, 2) == hits
    with pytest.raises(NotFoundError):
        index.open("one")


def test_files_of_versions_that_went_are_gone_from_the_disk(
    lakehouse: Lakehouse, settings: Settings, assistant: Assistant, index: VectorIndex, build: Build, later: Later
) -> None:
    build("one", *"abcdefgh", at=later(0))
    build("two", "x", at=later(0))
    data = Path(settings.lancedb) / "helper" / f"{index._location.name}.lance" / "data"
    before = set(data.iterdir())
    for day in (40, 41):
        maintain(lakehouse, settings, assistant, {"two": "index/vector_index"}, RUN, now=later(day))
    # Lance counts the age of files by its own clock; here they are seconds old, and stay until its grace is over.
    assert set(data.iterdir()) <= before
    index.clean(timedelta(0))
    assert set(data.iterdir()) < before
    assert index.open("two").rows == 1


def test_an_open_reader_outlasts_the_first_maintenance_and_one_of_a_needed_version_all(
    lakehouse: Lakehouse, settings: Settings, assistant: Assistant, index: VectorIndex, build: Build, later: Later
) -> None:
    build("one", "a", "b", at=later(0))
    build("two", "c", "d", at=later(0))
    old, needed = index.open("one"), index.open("two")
    before = old.exact(QUERY, 2), needed.exact(QUERY, 2), needed.full_text("c", 2)
    seen = {"two": "index/vector_index"}
    maintain(lakehouse, settings, assistant, seen, RUN, now=later(40))
    index.clean(timedelta(0))
    assert old.exact(QUERY, 2) == before[0]
    maintain(lakehouse, settings, assistant, seen, RUN, now=later(41))
    index.clean(timedelta(0))
    assert (needed.exact(QUERY, 2), needed.full_text("c", 2)) == before[1:]


def test_a_version_that_is_needed_again_in_the_grace_stays(
    lakehouse: Lakehouse, settings: Settings, assistant: Assistant, index: VectorIndex, build: Build, later: Later
) -> None:
    build("one", "a", at=later(0))
    maintain(lakehouse, settings, assistant, {}, RUN, now=later(40))
    maintain(lakehouse, settings, assistant, {"one": "index/vector_index"}, RUN, now=later(41))
    maintain(lakehouse, settings, assistant, {}, RUN, now=later(41.5))
    assert index.versions() == ["one"]


def test_snapshots_of_a_version_stay_as_long_as_a_build_may_come_back_to_it(
    lakehouse: Lakehouse, build: Build, maintained: Maintain, later: Later
) -> None:
    documents = lakehouse.table("helper", "corpus_documents")
    row = dict.fromkeys(documents.spec.frame_schema.names())
    first, _ = (
        documents.overwrite(pl.DataFrame([{**row, "text": text}], schema=documents.spec.frame_schema), RUN)
        for text in ("one", "two")
    )
    assert first
    build("one", "a", at=later(0), snapshots={"corpus_documents": first})
    assert maintained(later(40)).waiting
    assert documents.read(first)["text"].to_list() == ["one"]
    for day in (41, 42):
        maintained(later(day))
    assert recorded_rows(lakehouse) == []
    with pytest.raises(NotFoundError):
        documents.read(first)


def test_a_tag_that_a_killed_build_left_without_a_row_goes_too(
    index: VectorIndex, maintained: Maintain, later: Later
) -> None:
    index.build([rows("a")], "left", SETTINGS)
    assert maintained(later(40)).waiting
    assert maintained(later(41)).index_versions == ("left",)
    assert index.versions() == []


def test_the_table_of_a_former_embedder_goes_whole_and_the_present_one_stays(
    settings: Settings, index: VectorIndex, maintained: Maintain, later: Later
) -> None:
    former = VectorIndex(f"{settings.lancedb}/helper", "former-1")
    former.build([rows("a")], "old", SETTINGS)
    index.build([rows("a")], "left", SETTINGS)
    maintained(later(40))
    assert maintained(later(41)).index_tables == ("former-1",)
    folder = Path(settings.lancedb) / "helper"
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".lance") == [
        f"{index._location.name}.lance"
    ]
    assert not (folder / "former-1.lance.lock").exists()


def test_an_index_that_cannot_be_read_is_named_and_the_rest_is_maintained(
    lakehouse: Lakehouse, settings: Settings, maintained: Maintain, later: Later
) -> None:
    broken = VectorIndex(f"{settings.lancedb}/helper", "broken-1")
    broken.build([rows("a")], "v", SETTINGS)
    for manifest in (Path(settings.lancedb) / "helper" / "broken-1.lance" / "_versions").iterdir():
        manifest.write_bytes(b"garbage")
    done = maintained(later(40))
    assert "damaged" in done.kept["index table broken-1"]
    assert lakehouse.table("helper", "index_vector_index").read().is_empty()


def test_a_version_that_is_recorded_while_the_plan_is_made_stays(
    lakehouse: Lakehouse,
    settings: Settings,
    assistant: Assistant,
    index: VectorIndex,
    build: Build,
    later: Later,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build("one", "a", at=later(0))
    build("two", "b", at=later(0))
    seen: dict[str, str] = {}
    maintain(lakehouse, settings, assistant, seen, RUN, now=later(40))
    planned = plan_segments

    def while_it_is_recorded(*arguments: Any) -> Any:
        seen["one"] = "index/vector_index"
        return planned(*arguments)

    monkeypatch.setattr(module, "plan_segments", while_it_is_recorded)
    maintain(lakehouse, settings, assistant, seen, RUN, now=later(41))
    assert index.versions() == ["one"]
    assert recorded_rows(lakehouse) == ["one"]
