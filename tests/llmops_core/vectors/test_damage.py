"""Damaged files are told from missing versions, with the way out, and a fresh build repairs."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmops_core.errors import IndexCorruptError, NotFoundError
from llmops_core.vectors.index import IndexSettings, VectorIndex

FLAT = IndexSettings()


def _files(table: Path, pattern: str) -> list[Path]:
    files = [file for file in table.glob(pattern) if file.is_file()]
    assert files
    return files


Damage = Callable[[Path], object]
DAMAGES: dict[str, tuple[str, Damage]] = {
    "data files deleted": ("data/*", Path.unlink),
    "data files garbled": ("data/*", lambda file: file.write_bytes(os.urandom(file.stat().st_size))),
    "data files torn": ("data/*", lambda file: os.truncate(file, file.stat().st_size // 2)),
    "manifests deleted": ("_versions/*", Path.unlink),
    "manifests garbled": ("_versions/*", lambda file: file.write_bytes(os.urandom(file.stat().st_size))),
    "manifests torn": ("_versions/*", lambda file: os.truncate(file, file.stat().st_size // 2)),
    "manifests emptied": ("_versions/*", lambda file: file.write_bytes(b"")),
    "indexes deleted": ("_indices/*/*", Path.unlink),
    "indexes garbled": ("_indices/*/*", lambda file: file.write_bytes(os.urandom(file.stat().st_size))),
    "tags garbled": ("_refs/tags/*", lambda file: file.write_bytes(os.urandom(file.stat().st_size))),
    "deletions garbled": ("_deletions/*", lambda file: file.write_bytes(os.urandom(file.stat().st_size))),
    "deletions deleted": ("_deletions/*", Path.unlink),
}


def _damage(table: Path, name: str) -> None:
    pattern, damage = DAMAGES[name]
    for file in _files(table, pattern):
        damage(file)


@pytest.fixture
def built(tmp_path: Path, make_row: Any, batches: Any) -> VectorIndex:
    index = VectorIndex(str(tmp_path), "t")
    index.build(batches([make_row(n) for n in range(60)]), "v1", FLAT)
    index.build(batches([make_row(n) for n in range(3, 62)]), "v2", FLAT)
    return index


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_on_opening_and_repaired_by_a_fresh_build(
    built: VectorIndex, tmp_path: Path, make_row: Any, batches: Any, damage: str
) -> None:
    _damage(tmp_path / "t.lance", damage)
    with pytest.raises(IndexCorruptError, match="llmops build"):
        built.open("v2")
    rows = [make_row(n) for n in range(3, 62)]
    built.build(batches(rows), "v2", FLAT, fresh=True)
    reader = built.open("v2")
    assert reader.rows == 59
    assert reader.dense(reader.vectors(1)[0], 59) == reader.exact(reader.vectors(1)[0], 59)
    assert built.build(batches(rows[1:]), "v3", FLAT).deleted == 1


def test_a_folder_that_is_gone_has_no_version(built: VectorIndex, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "t.lance")
    with pytest.raises(NotFoundError, match="no version v1"):
        built.open("v1")


def test_tags_that_outlived_the_manifests_name_nothing(
    built: VectorIndex, tmp_path: Path, make_row: Any, batches: Any
) -> None:
    _damage(tmp_path / "t.lance", "manifests deleted")
    for version in ("v3", "v4"):
        built.build(batches([make_row(n) for n in range(5)]), version, FLAT)
    assert built.versions()[0] == "v3"
    with pytest.raises(NotFoundError, match="no version v1"):
        built.open("v1")


def test_a_reader_finds_a_version_that_was_made_anew(
    built: VectorIndex, tmp_path: Path, make_row: Any, batches: Any, query_vector: Any
) -> None:
    reader = built.open("v2")
    dense, words = reader.dense(query_vector(0), 5), reader.full_text("running", 5)
    shutil.rmtree(tmp_path / "t.lance")
    with pytest.raises(IndexCorruptError, match="llmops build"):
        reader.dense(query_vector(1), 5)
    built.build(batches([make_row(n) for n in range(3, 62)]), "v2", FLAT)
    assert (reader.dense(query_vector(0), 5), reader.full_text("running", 5)) == (dense, words)


def test_repairing_one_version_leaves_the_others(built: VectorIndex, make_row: Any, batches: Any) -> None:
    reader = built.open("v1")
    before = reader.dense(reader.vectors(1)[0], 60)
    built.build(batches([make_row(n) for n in range(3, 62)]), "v2", FLAT, fresh=True)
    assert built.open("v1").dense(reader.vectors(1)[0], 60) == reader.dense(reader.vectors(1)[0], 60) == before


def test_damage_after_opening_is_told_by_the_search(built: VectorIndex, tmp_path: Path, query_vector: Any) -> None:
    reader = built.open("v2")
    for file in _files(tmp_path / "t.lance", "data/*"):
        file.unlink()
    with pytest.raises(IndexCorruptError, match=r"version v2 of the vector index.*llmops build"):
        reader.dense(query_vector(0), 59)


def test_a_build_on_a_damaged_table_says_so_and_does_not_delete(
    built: VectorIndex, tmp_path: Path, make_row: Any, batches: Any
) -> None:
    _damage(tmp_path / "t.lance", "manifests garbled")
    with pytest.raises(IndexCorruptError, match="llmops build"):
        built.build(batches([make_row(1)]), "v3", FLAT)
    assert _files(tmp_path / "t.lance", "data/*")
