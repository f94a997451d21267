"""What a commit to a local warehouse names is on the disk before the catalog names it."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.settings import Settings


def test_every_file_of_a_commit_is_synced_with_its_folder_before_the_catalog_changes(
    lakehouse: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recording(really: Callable[[int], None]) -> Callable[[int], None]:
        def sync(descriptor: int) -> None:
            really(descriptor)
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            synced[path] = (path.stat().st_size, named())

        return sync

    def named() -> str:
        """The metadata that the catalog names."""
        query = "select metadata_location from iceberg_tables where table_name = 'prompts_versions'"
        connection = sqlite3.connect(settings.lakehouse / "catalog.db")
        (location,) = connection.execute(query).fetchone()
        connection.close()
        return str(location)

    synced: dict[Path, tuple[int, str]] = {}
    table = lakehouse.table("helper", "prompts_versions")
    folder = settings.lakehouse / "warehouse" / "helper" / "prompts_versions"
    before, named_before = set(folder.rglob("*.*")), named()
    monkeypatch.setattr(os, "fdatasync", recording(os.fdatasync))
    monkeypatch.setattr(os, "fsync", recording(os.fsync))
    table.append(
        pl.DataFrame([dict.fromkeys(table.spec.frame_schema.names())], schema=table.spec.frame_schema),
        Provenance("test"),
    )
    written = set(folder.rglob("*.*")) - before
    assert {file.suffix for file in written} == {".parquet", ".avro", ".json"}
    assert named() != named_before
    for file in written:
        assert synced[file] == (file.stat().st_size, named_before)
        assert file.parent in synced
    assert table.read().height == 1
