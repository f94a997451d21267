"""Which files go: those that nothing leads to and nobody is about to commit."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from pyarrow.fs import FileSystem

from llmops_core.assistant import Assistant
from llmops_core.errors import LakehouseError
from llmops_core.home import FILE_NAME
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import LakeTable, Provenance
from llmops_core.maintenance.maintain import maintain
from llmops_core.maintenance.report import Maintained
from llmops_core.maintenance.unreferenced import unreferenced
from llmops_core.settings import Settings, load_settings

RUN = Provenance("test")
Maintain = Callable[[datetime], Maintained]
Later = Callable[[float], datetime]
Files = Callable[[Settings], dict[str, int]]


@pytest.fixture
def table(lakehouse: Lakehouse, feedback: Callable[..., pl.DataFrame]) -> LakeTable:
    table = lakehouse.table("helper", "traffic_feedback")
    for number in range(3):
        table.append(feedback(lakehouse, str(number), at=datetime.now(UTC)), RUN)
    return table


def test_a_table_in_use_has_no_unreferenced_file(lakehouse: Lakehouse, table: LakeTable) -> None:
    assert unreferenced(lakehouse, table.load()) == {}


def test_files_of_an_append_that_is_not_committed_yet_outlast_a_maintenance(
    lakehouse: Lakehouse, table: LakeTable, maintained: Maintain, later: Later, feedback: Callable[..., pl.DataFrame]
) -> None:
    frame = feedback(lakehouse, "slow", at=later(0))
    written = table._arrow(table.load(), frame, RUN)
    with table.load().transaction() as transaction:
        transaction.append(written)
        done = maintained(later(0))
        assert done.tables["traffic_feedback"].waiting_files >= 1
        assert done.tables["traffic_feedback"].files == 0
    assert "slow" in set(table.read()["feedback_id"])


def test_what_a_killed_writer_left_goes_with_the_second_maintenance(
    table: LakeTable, settings: Settings, maintained: Maintain, later: Later
) -> None:
    folder = settings.lakehouse / "warehouse" / "helper" / "traffic_feedback"
    left = [folder / "data" / "killed.parquet", folder / "metadata" / "killed-m0.avro"]
    for path in left:
        path.write_bytes(b"12345")
    first = maintained(later(0)).tables["traffic_feedback"]
    assert (first.files, first.waiting_files) == (0, 2)
    assert all(path.exists() for path in left)
    second = maintained(later(1)).tables["traffic_feedback"]
    assert (second.files, second.bytes) == (2, 10)
    assert not any(path.exists() for path in left)
    assert table.read().height == 3


def test_the_catalog_the_spool_and_folders_of_no_table_are_never_touched(
    settings: Settings, table: LakeTable, maintained: Maintain, later: Later
) -> None:
    warehouse = settings.lakehouse / "warehouse"
    others = [
        settings.lakehouse / "catalog.db",
        warehouse / "_spool" / "helper" / "g1" / "9.jsonl",
        warehouse / "dropped" / "corpus_documents" / "data" / "x.parquet",
        warehouse / "helper" / "own_table" / "data" / "x.parquet",
    ]
    for path in others[1:]:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"1")
    for day in range(4):
        maintained(later(day))
    assert all(path.exists() for path in others)


def test_a_folder_whose_listing_lacks_the_tables_own_metadata_is_left_alone(
    lakehouse: Lakehouse, table: LakeTable, tmp_path: Path
) -> None:
    class Elsewhere(Lakehouse):
        def filesystem(self, uri: str) -> tuple[FileSystem, str]:
            return super().filesystem(uri)[0], str(other)

    other = tmp_path / "other"
    other.mkdir()
    (other / "precious.parquet").write_bytes(b"1")
    with pytest.raises(LakehouseError, match="no file was deleted"):
        unreferenced(Elsewhere(lakehouse.catalog), table.load())
    assert (other / "precious.parquet").exists()


def test_maintenance_of_a_copied_home_deletes_nothing_of_the_original(
    settings: Settings,
    assistant: Assistant,
    table: LakeTable,
    later: Later,
    files: Files,
    feedback: Callable[..., pl.DataFrame],
    lakehouse: Lakehouse,
    tmp_path: Path,
) -> None:
    # The catalog of a copy names the places of the original.
    shutil.copytree(settings.home, tmp_path / "copy")
    copy = load_settings(home=tmp_path / "copy")
    # One that was marked with its path is not even opened.
    (copy.home / FILE_NAME).unlink()
    table.append(feedback(lakehouse, "newer than the copy", at=datetime.now(UTC)), RUN)
    before = files(settings)
    for day in (0, 1):
        with pytest.raises(LakehouseError, match="copied or moved"):
            maintain(Lakehouse.open(copy), copy, assistant, {}, RUN, now=later(day))
    assert files(settings) == before


def test_a_home_that_is_reached_by_a_link_is_swept_like_any_other(settings: Settings, table: LakeTable) -> None:
    moved = settings.home.with_name("moved")
    settings.home.rename(moved)
    settings.home.symlink_to(moved)
    for home in (settings.home, moved):
        lakehouse = Lakehouse.open(load_settings(home=home))
        assert unreferenced(lakehouse, lakehouse.table("helper", "traffic_feedback").load()) == {}


def test_a_home_whose_path_has_blanks_and_signs_is_swept_like_any_other(tmp_path: Path) -> None:
    lakehouse = Lakehouse.open(load_settings(home=tmp_path / "my home (ü) 100%"))
    lakehouse.prepare("helper")
    table = lakehouse.table("helper", "prompts_versions")
    schema = table.spec.frame_schema
    table.append(pl.DataFrame([dict.fromkeys(schema.names())], schema=schema), RUN)
    assert unreferenced(lakehouse, table.load()) == {}
