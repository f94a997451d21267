import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from llmops_core.errors import LakehouseError, PermanentError
from llmops_core.traffic.open_segment import SealRule
from llmops_core.traffic.shipping import Shipper
from llmops_core.traffic.spool import SpoolWriter
from tests.running_gateway import until

ASSISTANT = "helper"
MAX_ROWS = 2


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[SpoolWriter]:
    with SpoolWriter(tmp_path / "spool", ASSISTANT, SealRule(max_rows=MAX_ROWS, max_age_seconds=3600)) as writer:
        yield writer


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "warehouse" / "_spool"


def append(writer: SpoolWriter, rows: int) -> None:
    """Append, and wait until what is full is sealed: a row is acknowledged before."""

    async def story() -> None:
        await asyncio.gather(*(writer.append("request", {"request_id": f"r{n}"}) for n in range(rows)))

    asyncio.run(story())
    until(lambda: None if any(map(_is_full, writer.folder.path.glob("*.open"))) else True)


def _is_full(segment: Path) -> bool:
    try:
        return segment.read_bytes().count(b"\n") == MAX_ROWS
    except FileNotFoundError:  # it was sealed just now
        return False


def shipper(writer: SpoolWriter, root: Path) -> Shipper:
    return Shipper(writer.folder, LocalFileSystem(), str(root), ASSISTANT)


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_sealed_segments_arrive_byte_by_byte_and_the_open_one_stays(writer: SpoolWriter, root: Path) -> None:
    append(writer, 5)
    assert shipper(writer, root).ship() == 2
    there = files(root / ASSISTANT / writer.gateway_id)
    assert list(there) == ["000000000001.jsonl", "000000000002.jsonl"]
    assert there.items() <= files(writer.folder.path).items()
    assert (writer.folder.path / "000000000003.open").exists()


def test_a_filesystem_below_a_folder_will_do(writer: SpoolWriter, tmp_path: Path) -> None:
    append(writer, 3)
    below = SubTreeFileSystem(str(tmp_path), LocalFileSystem())
    assert Shipper(writer.folder, below, "warehouse/_spool/", ASSISTANT).ship() == 1
    assert (tmp_path / "warehouse/_spool" / ASSISTANT / writer.gateway_id / "000000000001.jsonl").exists()


def test_shipping_again_or_by_another_shipper_changes_nothing(writer: SpoolWriter, root: Path) -> None:
    append(writer, 5)
    first = shipper(writer, root)
    assert first.ship() == first.ship() == shipper(writer, root).ship() == 2
    target = root / ASSISTANT / writer.gateway_id
    before = {file: file.stat().st_mtime_ns for file in target.iterdir()}
    append(writer, 2)
    assert first.ship() == shipper(writer, root).ship() == 3
    after = {file: file.stat().st_mtime_ns for file in target.iterdir()}
    assert before.items() <= after.items()
    assert len(after) == 3


def test_what_the_lakehouse_took_and_the_gateway_forgot_is_not_shipped_again(writer: SpoolWriter, root: Path) -> None:
    append(writer, 5)
    shipper(writer, root).ship()
    target = root / ASSISTANT / writer.gateway_id
    for file in target.iterdir():
        file.unlink()
    assert shipper(writer, root).forget(2) == 2
    append(writer, 1)
    assert shipper(writer, root).ship() == 3
    assert list(files(target)) == ["000000000003.jsonl"]


def test_a_storage_that_fails_is_tried_again_later(writer: SpoolWriter, root: Path) -> None:
    append(writer, 5)
    root.parent.mkdir()
    root.write_text("a file where the folder should be")
    ship = shipper(writer, root)
    with pytest.raises(LakehouseError, match="stay on the gateway's disk"):
        ship.ship()
    root.unlink()
    assert ship.ship() == 2


def test_a_copy_that_was_cut_off_is_made_again(writer: SpoolWriter, root: Path) -> None:
    append(writer, 3)
    target = root / ASSISTANT / writer.gateway_id
    target.mkdir(parents=True)
    (target / "000000000001.jsonl.new").write_text("half")
    assert shipper(writer, root).ship() == 1
    assert list(files(target)) == ["000000000001.jsonl"]


def test_a_segment_that_vanished_here_stops_the_later_ones(writer: SpoolWriter, root: Path) -> None:
    append(writer, 7)
    writer.folder.file(2).unlink()
    ship = shipper(writer, root)
    with pytest.raises(PermanentError, match="segment 2 is missing"):
        ship.ship()
    assert list(files(root / ASSISTANT / writer.gateway_id)) == ["000000000001.jsonl"]


def test_another_segment_of_the_same_number_is_not_overwritten(writer: SpoolWriter, root: Path) -> None:
    append(writer, 3)
    target = root / ASSISTANT / writer.gateway_id
    target.mkdir(parents=True)
    (target / "000000000001.jsonl").write_text("of somebody else")
    with pytest.raises(PermanentError, match="copies of one folder"):
        shipper(writer, root).ship()
    assert (target / "000000000001.jsonl").read_text() == "of somebody else"


def test_a_storage_that_is_ahead_of_the_spool_is_noticed(writer: SpoolWriter, root: Path) -> None:
    target = root / ASSISTANT / writer.gateway_id
    target.mkdir(parents=True)
    (target / "000000000009.jsonl").write_text("")
    with pytest.raises(PermanentError, match="segment 9"):
        shipper(writer, root).ship()


def test_a_shipped_segment_is_on_the_disk_before_it_has_its_name(
    writer: SpoolWriter, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recording(really: Callable[[int], None]) -> Callable[[int], None]:
        def sync(descriptor: int) -> None:
            really(descriptor)
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            synced[path] = path.stat().st_size

        return sync

    append(writer, 2)
    synced: dict[Path, int] = {}
    monkeypatch.setattr(os, "fdatasync", recording(os.fdatasync))
    monkeypatch.setattr(os, "fsync", recording(os.fsync))
    shipper(writer, root).ship()
    (segment,) = (root / ASSISTANT / writer.gateway_id).iterdir()
    assert synced[segment.with_name(segment.name + ".new")] == segment.stat().st_size
    assert segment.parent in synced
