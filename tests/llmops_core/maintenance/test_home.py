"""A real home, built four times, loses all that nothing needs: and what is left answers as before."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner
from pyiceberg.io.pyarrow import PyArrowFileIO

from llmops_assets.house import recorded_versions
from llmops_cli.build import build
from llmops_cli.main import main
from llmops_core.answering.loaded import LoadedRelease, ModelPool, load_release
from llmops_core.assistant import Assistant
from llmops_core.errors import NotFoundError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.schemas import TABLES
from llmops_core.lakehouse.table import Provenance
from llmops_core.maintenance import compaction
from llmops_core.maintenance.maintain import maintain
from llmops_core.maintenance.report import Maintained
from llmops_core.release.manifest import Manifest
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings
from llmops_core.traffic.ingest import mark_name
from llmops_core.traffic.line import segment_name
from llmops_core.traffic.segments import numbers_after
from llmops_core.vectors.hit import Hit
from llmops_core.vectors.index import VectorIndex
from tests.running_gateway import DOCUMENTS, NAME, QUESTION, write_assistant

RUN = Provenance("test")
MAINTENANCES = 6
BEGIN = datetime.now(UTC)


@dataclass
class Home:
    """The home, its releases oldest first, and what each found before maintenance."""

    settings: Settings
    assistant: Assistant
    manifests: list[Manifest] = field(default_factory=list)
    hits: list[tuple[Hit, ...]] = field(default_factory=list)
    readers: list[LoadedRelease] = field(default_factory=list)
    files_before: set[str] = field(default_factory=set)
    plans: list[Maintained] = field(default_factory=list)
    changed_by_dry_runs: set[str] = field(default_factory=set)
    reports: list[Maintained] = field(default_factory=list)
    answers: list[list[tuple[Hit, ...]]] = field(default_factory=list)
    answers_in_grace: list[tuple[Hit, ...]] = field(default_factory=list)

    @property
    def lakehouse(self) -> Lakehouse:
        return Lakehouse.open(self.settings)

    def recorded(self) -> dict[str, str]:
        with dg.DagsterInstance.get() as instance:
            return recorded_versions(instance, self.assistant)

    def maintain(self, days: float, *, dry_run: bool = False) -> Maintained:
        now = BEGIN + timedelta(days=days)
        return maintain(self.lakehouse, self.settings, self.assistant, self.recorded(), RUN, dry_run=dry_run, now=now)

    def load(self, manifest: Manifest) -> LoadedRelease:
        releases = Releases(self.lakehouse, NAME)
        prompt = releases.prompt_text(releases.get(manifest.release_id))
        return load_release(self.settings, ModelPool(self.settings), manifest, prompt)

    def write_edition(self, number: int) -> None:
        """Change one of the documents."""
        text = DOCUMENTS["tea.md"] + f"\nEdition {number} of the tea book.\n"
        (self.assistant.folder / "docs" / "tea.md").write_text(text, encoding="utf-8")

    def files(self) -> set[str]:
        """The files below the assistant's tables."""
        return files_on_disk(self.settings.lakehouse / "warehouse" / NAME)

    def recorded_snapshots(self) -> dict[str, str]:
        """Snapshot → asset whose latest materialisation names it."""
        return {value: asset for value, asset in self.recorded().items() if value.isdecimal()}

    def ship_segments(self, number: int, *, taken: int) -> None:
        """Put empty segments of a gateway that is gone there, of which both tables have taken some."""
        filesystem, root = self.lakehouse.spool()
        filesystem.create_dir(f"{root}/{NAME}/gone", recursive=True)
        for n in range(1, number + 1):
            with filesystem.open_output_stream(f"{root}/{NAME}/gone/{segment_name(n)}"):
                pass
        for name in ("traffic_requests", "traffic_feedback"):
            table = self.lakehouse.table(NAME, name)
            nothing = pl.DataFrame(schema=table.spec.frame_schema)
            table.append_after(nothing, RUN, table.snapshot_id(), {mark_name("gone"): str(taken)})

    def log(self, manifest: Manifest, request_id: str, days: float) -> None:
        """Put a request on this release into the log, so many days after the beginning."""
        table = self.lakehouse.table(NAME, "traffic_requests")
        row: Mapping[str, Any] = {
            **dict.fromkeys(table.spec.frame_schema.names()),
            "request_id": request_id,
            "release_id": manifest.release_id,
            "started_at": BEGIN + timedelta(days=days),
        }
        table.append(pl.DataFrame([row], schema=table.spec.frame_schema), RUN)


def files_on_disk(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if path.is_file()}


def files_that_tables_name(lakehouse: Lakehouse) -> set[str]:
    """By PyIceberg's own inspection, table by table and snapshot by snapshot."""
    named: set[str] = set()
    for name in TABLES:
        table = lakehouse.table(NAME, name).load()
        named.add(table.metadata_location)
        named.update(entry.metadata_file for entry in table.metadata.metadata_log)
        for snapshot in table.snapshots():
            named.add(snapshot.manifest_list)
            named.update(manifest.manifest_path for manifest in snapshot.manifests(table.io))
            named.update(task.file.file_path for task in table.scan(snapshot_id=snapshot.snapshot_id).plan_files())
    return {PyArrowFileIO.parse_location(uri)[2] for uri in named}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, shared_home: Settings) -> Home:
    """Four releases: the first named by a fresh log row, the second and third by nothing fresh, the fourth on prod.

    Then six maintenances, a day apart, each after a dry run, that merge as few as two files.
    """
    folder = tmp_path_factory.mktemp("notes")
    home = Home(shared_home, write_assistant(folder, retention={"log_days": 3, "index_days": 1}))
    releases = Releases(home.lakehouse, NAME)
    for number in range(4):
        home.write_edition(number)
        build(shared_home, home.assistant)
        home.manifests.append(releases.get("prod").manifest)
        home.readers.append(home.load(home.manifests[-1]))
        home.hits.append(home.readers[-1].retrieve(QUESTION).hits)
    home.log(home.manifests[1], "old", days=0)
    home.log(home.manifests[0], "fresh", days=42.5)
    home.ship_segments(3, taken=2)
    home.files_before = home.files()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "MANY", 2)
        for days in range(40, 40 + MAINTENANCES):
            everything = files_on_disk(shared_home.home)
            home.plans.append(home.maintain(days, dry_run=True))
            # Opening an SQLite file may leave a journal beside it.
            home.changed_by_dry_runs |= {f for f in files_on_disk(shared_home.home) ^ everything if ".db-" not in f}
            home.reports.append(home.maintain(days))
            home.answers.append([home.readers[number].retrieve(QUESTION).hits for number in (0, 3)])
            if days == 40:
                home.answers_in_grace = [reader.retrieve(QUESTION).hits for reader in home.readers]
    return home


def test_a_dry_run_changes_nothing_and_says_what_the_real_run_does(home: Home) -> None:
    assert home.changed_by_dry_runs == set()
    assert [dataclasses.replace(plan, dry_run=False) for plan in home.plans] == home.reports


def test_small_files_were_merged(home: Home) -> None:
    assert home.reports[0].tables["index_embeddings"].merged_files >= 2
    table = home.lakehouse.table(NAME, "index_embeddings").load()
    assert len(list(table.scan().plan_files())) == 1


def test_what_nothing_needs_is_gone_from_the_disk(home: Home) -> None:
    first, second, third, last = home.manifests
    assert set(home.reports[1].index_versions) == {second.index.version, third.index.version}
    index = VectorIndex(f"{home.settings.lancedb}/{NAME}", last.embedder.revision)
    assert set(index.versions()) == {first.index.version, last.index.version}
    assert set(home.lakehouse.table(NAME, "index_vector_index").read()["index_version"]) == set(index.versions())
    assert home.files() == files_that_tables_name(home.lakehouse)
    assert len(home.files_before - home.files()) > 20
    assert sum(report.vectors for report in home.reports) == 2, "of the editions of the second and third release"
    assert home.lakehouse.table(NAME, "index_embeddings").read().height == len(DOCUMENTS) + 1
    needed = {*first.index.snapshots.values(), *last.index.snapshots.values(), *map(int, home.recorded_snapshots())}
    gone = {*second.index.snapshots.values(), *third.index.snapshots.values()} - needed
    assert gone
    for name in last.index.snapshots:
        table = home.lakehouse.table(NAME, name).load()
        there = {snapshot.snapshot_id for snapshot in table.snapshots()}
        assert not there & gone
        assert there <= needed | {table.metadata.current_snapshot_id}
    with pytest.raises(NotFoundError, match="retention let it go"):
        home.load(second)


def test_the_release_on_prod_and_the_one_in_the_log_answer_as_before(home: Home) -> None:
    for number in (0, 3):
        manifest, hits = home.manifests[number], home.hits[number]
        assert home.load(manifest).retrieve(QUESTION).hits == hits
        for name, snapshot in manifest.index.snapshots.items():
            assert home.lakehouse.table(NAME, name).read(snapshot).height >= len(DOCUMENTS)
        documents = home.lakehouse.table(NAME, "corpus_documents").read(manifest.index.snapshots["corpus_documents"])
        texts = dict(documents.select("document_id", "text").iter_rows())
        assert all(texts[hit.document_id][hit.char_start : hit.char_end].strip() for hit in hits)
    assert home.lakehouse.table(NAME, "traffic_requests").read()["request_id"].to_list() == ["fresh"]
    assert any("release 1 (in the log)" in reason for reason in home.reports[-1].kept.values())


def test_readers_that_were_open_before_are_not_broken(home: Home) -> None:
    assert home.answers_in_grace == home.hits
    assert home.answers == [[home.hits[0], home.hits[3]]] * MAINTENANCES


def test_shipped_segments_went_that_both_tables_have(home: Home) -> None:
    assert [report.segments for report in home.reports] == [2] + [0] * (MAINTENANCES - 1)
    filesystem, root = home.lakehouse.spool()
    assert numbers_after(filesystem, root, NAME, "gone", 2) == [3]
    assert numbers_after(filesystem, root, NAME, "gone", 0) == []


def test_every_recorded_snapshot_can_be_read_and_a_build_finds_nothing_to_do(home: Home) -> None:
    for snapshot, asset in home.recorded_snapshots().items():
        tables = [t for n in TABLES if (t := home.lakehouse.table(NAME, n)).load().snapshot_by_id(int(snapshot))]
        assert tables, f"{snapshot}, which {asset} recorded, is gone"
        assert tables[0].read(int(snapshot)) is not None
    recorded = home.recorded()
    again = build(home.settings, home.assistant)
    assert (again["embedded"], again["release_id"]) == (0, home.manifests[3].release_id)
    assert home.recorded() == recorded


def test_a_content_that_comes_back_after_its_index_went_is_built_on_snapshots_that_exist(home: Home) -> None:
    home.write_edition(1)
    back = build(home.settings, home.assistant)
    assert back["index_version"] == home.manifests[1].index.version
    prod = Releases(home.lakehouse, NAME).get("prod").manifest
    assert home.load(prod).retrieve(QUESTION).hits == home.hits[1]
    for name, snapshot in prod.index.snapshots.items():
        assert home.lakehouse.table(NAME, name).read(snapshot).height >= len(DOCUMENTS)


def test_the_command_says_the_same_in_a_dry_run_and_in_the_run_that_the_ui_shows(home: Home) -> None:
    def said(*options: str) -> dict[str, Any]:
        result = CliRunner().invoke(main, ["maintain", "--assistant", str(home.assistant.folder), *options])
        assert result.exit_code == 0, result.output
        value: dict[str, Any] = json.loads(result.stdout)
        return value

    # The days before were ahead of the clock that the command goes by.
    (home.settings.lakehouse / "warehouse" / "_maintenance" / f"{NAME}.json").unlink()
    plan, done = said("--dry-run", "--json"), said("--json")
    assert done["doubt"] is None
    assert (plan.pop("dry_run"), done.pop("dry_run")) == (True, False)
    assert plan.pop("counted_from") < done.pop("counted_from")
    assert plan == done
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs(dg.RunsFilter(job_name="lakehouse_maintain"))
    assert run.is_success
    text = CliRunner().invoke(main, ["maintain", "--assistant", str(home.assistant.folder), "--dry-run"]).stdout
    assert "Retention counted from" in text
