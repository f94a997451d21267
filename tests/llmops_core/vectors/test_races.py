"""Builds that are killed or meet: what was tagged stays as it was, and the next build gives exactly its rows."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lance
import polars as pl
import pytest

from llmops_core.errors import ConflictError
from llmops_core.vectors.index import BuildResult, IndexSettings, VectorIndex

SETTINGS = IndexSettings(ann_from_rows=50)

# Builds what the file of rows holds, and dies at the named step as kill -9 would have it.
KILLED_BUILD = """
import os, signal, sys
from unittest import mock
import lance, polars as pl
from lance.dataset import DatasetOptimizer, Tags
from llmops_core.vectors.index import IndexSettings, VectorIndex

uri, rows, step = sys.argv[1:]

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def batches():
    frame = pl.read_parquet(rows)
    yield frame.head(30)
    if step == "rows":
        die()
    yield frame.tail(-30)

targets = {
    "commit": (lance.LanceDataset, "commit"),
    "delete": (lance.LanceDataset, "delete"),
    "merge": (DatasetOptimizer, "compact_files"),
    "full text": (lance.LanceDataset, "create_scalar_index"),
    "vectors": (DatasetOptimizer, "optimize_indices"),
    "tag": (Tags, "create"),
}
if step in targets:
    mock.patch.object(*targets[step], die).start()
VectorIndex(uri, "t").build(batches(), "v2", IndexSettings(ann_from_rows=50))
"""


def contents(index: VectorIndex, version: str, query_vector: Any) -> list[Any]:
    reader = index.open(version)
    searches = [(reader.dense(query_vector(n), 200), reader.full_text(f"running word{n}", 200)) for n in range(5)]
    return [reader.rows, *searches]


@pytest.mark.parametrize("step", ["rows", "commit", "delete", "merge", "full text", "vectors", "tag"])
def test_a_killed_build_harms_no_version_and_the_next_one_completes(
    tmp_path: Path, make_row: Any, batches: Any, query_vector: Any, step: str
) -> None:
    index, anew = VectorIndex(str(tmp_path / "killed"), "t"), VectorIndex(str(tmp_path / "anew"), "t")
    index.build(batches([make_row(n) for n in range(80)]), "v1", SETTINGS)
    before = contents(index, "v1", query_vector)
    rows = [make_row(n, char_start=n % 2) for n in range(25, 110)]
    pl.concat(batches(rows)).write_parquet(tmp_path / "rows.parquet")
    command = [sys.executable, "-c", KILLED_BUILD, str(tmp_path / "killed"), str(tmp_path / "rows.parquet"), step]
    assert subprocess.run(command, check=False, timeout=120).returncode == -signal.SIGKILL

    assert index.versions() == ["v1"]
    assert contents(index, "v1", query_vector) == before
    index.build(batches(rows), "v2", SETTINGS)
    anew.build(batches(rows), "v2", SETTINGS)
    assert contents(index, "v2", query_vector) == contents(anew, "v2", query_vector)
    assert contents(index, "v1", query_vector) == before


def test_a_first_build_that_is_killed_can_be_done_again(
    tmp_path: Path, make_row: Any, batches: Any, query_vector: Any
) -> None:
    pl.concat(batches([make_row(n) for n in range(60)])).write_parquet(tmp_path / "rows.parquet")
    command = [sys.executable, "-c", KILLED_BUILD, str(tmp_path), str(tmp_path / "rows.parquet"), "rows"]
    assert subprocess.run(command, check=False, timeout=120).returncode == -signal.SIGKILL
    index = VectorIndex(str(tmp_path), "t")
    assert index.versions() == []
    assert index.build(batches([make_row(n) for n in range(60)]), "v2", SETTINGS).rows == 60
    assert len(index.open("v2").dense(query_vector(0), 100)) == 60


def test_builds_of_one_folder_wait_for_each_other(
    tmp_path: Path, make_row: Any, batches: Any, query_vector: Any
) -> None:
    def build(number: int) -> BuildResult:
        rows = [make_row(n) for n in range(number * 10, number * 10 + 70)]
        return VectorIndex(str(tmp_path), "t").build(batches(rows), f"v{number}", SETTINGS)

    with ThreadPoolExecutor(4) as pool:
        assert [result.rows for result in pool.map(build, range(4))] == [70] * 4
    index = VectorIndex(str(tmp_path), "t")
    for number in range(4):
        expected = {f"{n:032x}" for n in range(number * 10, number * 10 + 70)}
        assert {hit.chunk_id for hit in index.open(f"v{number}").dense(query_vector(1), 100)} == expected


def test_equal_builds_that_meet_make_one_version(tmp_path: Path, make_row: Any, batches: Any) -> None:
    rows = [make_row(n) for n in range(60)]
    with ThreadPoolExecutor(3) as pool:
        results = list(
            pool.map(lambda _: VectorIndex(str(tmp_path), "t").build(batches(rows), "v", SETTINGS), range(3))
        )
    assert sorted(result.added for result in results) == [0, 0, 60]


def _foreign_commit(table: Path) -> None:
    """What a build on another machine does that our lock does not reach, as on an object store."""
    dataset = lance.dataset(str(table))
    lance.write_dataset(dataset.take([0, 1, 2]), dataset, mode="append")


def test_a_build_that_meets_another_makes_no_version_of_mixed_rows(
    tmp_path: Path, make_row: Any, batches: Any, query_vector: Any
) -> None:
    index, anew = VectorIndex(str(tmp_path), "t"), VectorIndex(str(tmp_path), "anew")
    index.build(batches([make_row(n) for n in range(80)]), "v1", SETTINGS)
    before = contents(index, "v1", query_vector)
    rows = [make_row(n) for n in range(60, 130)]

    def met() -> Iterator[pl.DataFrame]:
        for frame in batches(rows, size=20):
            yield frame
            _foreign_commit(tmp_path / "t.lance")

    with pytest.raises(ConflictError, match=r"Another build wrote .*Build again"):
        index.build(met(), "v2", SETTINGS)
    assert index.versions() == ["v1"]
    assert contents(index, "v1", query_vector) == before
    assert index.build(batches(rows), "v2", SETTINGS).rows == 70
    anew.build(batches(rows), "v2", SETTINGS)
    assert contents(index, "v2", query_vector) == contents(anew, "v2", query_vector)


@pytest.mark.parametrize("step", ["delete", "create_scalar_index", "count_rows"])
def test_another_build_is_noticed_at_every_step(
    tmp_path: Path, make_row: Any, batches: Any, query_vector: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    index = VectorIndex(str(tmp_path), "t")
    index.build(batches([make_row(n) for n in range(80)]), "v1", SETTINGS)
    original, once = getattr(lance.LanceDataset, step), threading.Lock()

    def met(self: Any, *args: Any, **options: Any) -> Any:
        if once.acquire(blocking=False):
            _foreign_commit(tmp_path / "t.lance")
        return original(self, *args, **options)

    rows = [make_row(n) for n in range(60, 130)]
    with monkeypatch.context() as patched:
        patched.setattr(lance.LanceDataset, step, met)
        with pytest.raises(ConflictError):
            index.build(batches(rows), "v2", SETTINGS)
    assert index.versions() == ["v1"]
    assert index.build(batches(rows), "v2", SETTINGS).rows == 70
    assert len({hit.chunk_id for hit in index.open("v2").dense(query_vector(0), 100)}) == 70


def test_an_abandoned_lock_file_stops_nobody(tmp_path: Path, make_row: Any, batches: Any) -> None:
    (tmp_path / "t.lance.lock").write_text(str(os.getpid()))
    assert VectorIndex(str(tmp_path), "t").build(batches([make_row(1)]), "v", SETTINGS).rows == 1
