"""Maintenance is killed just before a write, again and again: what is needed stays whole, and what is not goes in the end."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from llmops_core.assistant import load_assistant
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.schemas import TABLES
from llmops_core.lakehouse.table import Provenance
from llmops_core.maintenance import compaction
from llmops_core.maintenance.maintain import maintain
from llmops_core.models.adapters import CONFIG, WEIGHTS, store_adapter
from llmops_core.models.revisions import embedder_revision
from llmops_core.release.manifest import IndexPin, Manifest
from llmops_core.release.registry import Releases
from llmops_core.settings import load_settings
from llmops_core.traffic.ingest import mark_name
from llmops_core.traffic.line import segment_name
from llmops_core.vectors.index import IndexSettings, VectorIndex
from llmops_core.vectors.sync import sync_index
from tests.kills import Killing, needs_seccomp, run
from tests.llmops_core.maintenance.test_home import files_on_disk, files_that_tables_name
from tests.llmops_core.release.test_manifest import manifest
from tests.llmops_core.vectors.conftest import make_row, query_vector  # noqa: F401 (fixtures)
from tests.moving import move
from tests.running_gateway import NAME

pytestmark = needs_seccomp

RUN = Provenance("run")
BEGIN = datetime.now(UTC)
SOURCES = ("corpus_chunks", "index_embeddings")


def opened(home: Path) -> Lakehouse:
    return Lakehouse.open(load_settings(home=home))


def maintain_daily(home: Path, folder: Path, begin: datetime, days: range, recorded: dict[str, str]) -> None:
    """What `lakehouse_maintain` does, day after day; a day on which it was killed is tried again."""
    compaction.MANY = 2
    settings, lakehouse, last = load_settings(home=home), opened(home), home / "last_day"
    for day in days:
        if not last.exists() or int(last.read_text()) < day:
            now = begin + timedelta(days=day)
            maintain(lakehouse, settings, load_assistant(folder), recorded, RUN, now=now)
            last.with_suffix(".new").write_text(str(day))
            last.with_suffix(".new").replace(last)


class Lived:
    """A home with three releases: nothing needs the first, the log names the second, and the third is on prod."""

    def __init__(self, home: Path, folder: Path, make_row: Any) -> None:  # noqa: F811
        self.home, self.folder = home, folder
        folder.mkdir()
        description = {
            "name": NAME,
            "sources": [{"type": "folder", "path": "."}],
            "retention": {"log_days": 10, "index_days": 1},
        }
        (folder / "assistant.yaml").write_text(yaml.safe_dump(description))
        self.settings = load_settings(home=home)
        self.revision = embedder_revision(self.settings, load_assistant(folder).embedder.model)
        opened(home).prepare(NAME)
        self.releases = [self._released(number, make_row) for number in (1, 2, 3)]
        self.recorded = {str(value): "index/vector_index" for value in self.releases[-1].index.snapshots.values()}
        self._log(("old", self.releases[0], 0), ("fresh", self.releases[1], 41.5))
        self._feedback()
        self._ship_segments()
        for release in self.releases:
            copy = self.settings.gateway / NAME / "releases" / f"{release.release_id}.json"
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text("{}")

    def index(self) -> VectorIndex:
        return VectorIndex(f"{self.settings.lancedb}/{NAME}", self.revision)

    def _released(self, number: int, make_row: Any) -> Manifest:  # noqa: F811
        lakehouse = opened(self.home)
        made = pl.DataFrame(
            [make_row(n) | {"document_hash": "h", "cutting": "c"} for n in range(10 * number, 10 * number + 30)]
        )
        chunks, vectors = (lakehouse.table(NAME, name) for name in SOURCES)
        chunks.overwrite(made.select(chunks.spec.frame_schema.names()), RUN)
        vectors.append(made.select("chunk_id", "vector", embedder_revision=pl.lit(self.revision)), RUN)
        snapshots = {name: lakehouse.table(NAME, name).snapshot_id() or 0 for name in SOURCES}
        built = sync_index(lakehouse, NAME, self.index(), self.revision, IndexSettings(), snapshots, RUN, print)
        source = self.folder / f"adapter{number}"
        source.mkdir()
        (source / CONFIG).write_text("{}")
        (source / WEIGHTS).write_bytes(bytes([number]) * 1000)
        whole = manifest()
        changes = {
            "assistant": NAME,
            "embedder": whole.embedder.model_copy(update={"revision": self.revision}),
            "generator": whole.generator.model_copy(update={"adapter": store_adapter(self.settings, source)}),
            "index": IndexPin(version=built.version, snapshots=snapshots),
        }
        registry = Releases(lakehouse, NAME)
        release, _ = registry.create(whole.model_copy(update=changes), author="me", message="", provenance=RUN)
        move(registry.channels, "prod", release.release_id)
        return release.manifest

    def _log(self, *rows: tuple[str, Manifest, float]) -> None:
        table = opened(self.home).table(NAME, "traffic_requests")
        for request_id, release, day in rows:
            at = BEGIN + timedelta(days=day)
            row = {"request_id": request_id, "release_id": release.release_id, "started_at": at}
            whole = {**dict.fromkeys(table.spec.frame_schema.names()), **row}
            table.append(pl.DataFrame([whole], schema=table.spec.frame_schema), RUN)

    def _feedback(self) -> None:
        table = opened(self.home).table(NAME, "traffic_feedback")
        for day in (0, 0, 41, 41):
            row = {"feedback_id": str(day), "at": BEGIN + timedelta(days=day)}
            whole = {**dict.fromkeys(table.spec.frame_schema.names()), **row}
            table.append(pl.DataFrame([whole], schema=table.spec.frame_schema), RUN)

    def _ship_segments(self) -> None:
        """Segments of a gateway that is gone, of which both tables have taken two of three."""
        lakehouse = opened(self.home)
        filesystem, root = lakehouse.spool()
        filesystem.create_dir(f"{root}/{NAME}/gone", recursive=True)
        for number in (1, 2, 3):
            filesystem.open_output_stream(f"{root}/{NAME}/gone/{segment_name(number)}").close()
        for name in ("traffic_requests", "traffic_feedback"):
            table = lakehouse.table(NAME, name)
            nothing = pl.DataFrame(schema=table.spec.frame_schema)
            table.append_after(nothing, RUN, table.snapshot_id(), {mark_name("gone"): "2"})

    def needed(self, query_vector: Any) -> list[Any]:  # noqa: F811
        """What the releases that stay find, and the rows of all that is recorded for them."""
        lakehouse = opened(self.home)
        found: list[Any] = []
        for release in self.releases[1:]:
            reader = self.index().open(release.index.version)
            found.append([reader.rows, reader.dense(query_vector(1), 100), reader.full_text("running word1", 100)])
            for name, snapshot in release.index.snapshots.items():
                found.append(lakehouse.table(NAME, name).read(snapshot).sort("chunk_id").rows())
        prod = Releases(lakehouse, NAME).get("prod").manifest
        assert prod == self.releases[-1]
        return found

    def left(self) -> dict[str, Any]:
        """Everything that a maintenance may take away or merge."""
        lakehouse = opened(self.home)
        rows = {name: sorted(lakehouse.table(NAME, name).read().rows(), key=str) for name in TABLES}
        files = {str(file.relative_to(self.home)) for file in self.home.glob("models/adapters/*/*")}
        copies = {file.name for file in self.home.glob("gateway/*/releases/*")}
        segments = {file.name for file in self.home.glob("lakehouse/warehouse/_spool/*/*/*")}
        return {**rows, "files": files | copies | segments, "versions": set(self.index().versions())}


def test_killed_maintenance_harms_nothing_and_the_next_completes(
    tmp_path: Path,
    make_row: Callable[..., Any],  # noqa: F811
    query_vector: Any,  # noqa: F811
) -> None:
    home, folder = tmp_path / "home", tmp_path / "assistant"
    lived = Lived(home, folder, make_row)
    before = lived.needed(query_vector)

    def still_there() -> None:
        assert lived.needed(query_vector) == before

    killing = Killing(home, maintain_daily, home, folder, BEGIN, range(40, 44), lived.recorded)
    killing.undisturbed()
    whole = lived.left()
    assert whole["versions"] == {release.index.version for release in lived.releases[1:]}
    assert (len(whole["traffic_requests"]), len(whole["traffic_feedback"])) == (1, 2)
    assert segment_name(2) not in whole["files"]
    still_there()
    for _ in killing.rounds(still_there):
        assert lived.left() == whole
        # What killed runs wrote in vain goes a day after it was found.
        assert run(maintain_daily, home, folder, BEGIN, range(44, 46), lived.recorded)[0]
        assert lived.left() == whole
        still_there()
        assert files_on_disk(home / "lakehouse" / "warehouse" / NAME) == files_that_tables_name(opened(home))
