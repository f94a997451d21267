"""Rows of other gateways: in their folders on this disk, and among the segments that they shipped."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmops_core.errors import SpoolError
from llmops_core.ids import uuid7, uuid7_time_ms
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.traffic.elsewhere import CLOCK_SKEW_S, find_on_disk, find_shipped
from llmops_core.traffic.folder import spool_folders
from llmops_core.traffic.ingest import ingest
from llmops_core.traffic.line import OPEN, encode_line, encode_payload, segment_name
from llmops_core.traffic.open_segment import SealRule
from llmops_core.traffic.row import RequestRow
from llmops_core.traffic.shipping import put
from llmops_core.traffic.spool import SpoolWriter

ASSISTANT, GATEWAY = "helper", "0a1b2c3d4e5f"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / ASSISTANT / GATEWAY
    path.mkdir(parents=True)
    return path


def line(segment: int, row: int, payload: dict[str, Any], kind: str = "request") -> bytes:
    return encode_line(kind, GATEWAY, segment, row, encode_payload(payload))


def test_what_other_writers_hold_is_found_in_open_and_sealed_segments(tmp_path: Path) -> None:
    ids = [uuid7() for _ in range(6)]

    async def fill(writer: SpoolWriter) -> None:
        for n, request_id in enumerate(ids):
            await writer.append("request", {"request_id": request_id, "n": n})

    with SpoolWriter(tmp_path, ASSISTANT, SealRule(max_rows=4, max_age_seconds=3600)) as writer:
        asyncio.run(fill(writer))
        assert len(list(writer.folder.path.glob(f"*{OPEN}"))) == 1
        with SpoolWriter(tmp_path, "another"):
            folders = spool_folders(tmp_path)
            assert len(folders) == 2
            found = [find_on_disk(folders, request_id) for request_id in ids]
            assert found == [{"request_id": request_id, "n": n} for n, request_id in enumerate(ids)]
            assert find_on_disk(folders, uuid7()) is None


def test_a_line_that_is_being_written_is_no_row_yet(folder: Path) -> None:
    whole, half = uuid7(), uuid7()
    lines = line(1, 0, {"request_id": whole}) + line(1, 1, {"request_id": half, "answer": "…"})
    (folder / segment_name(1, OPEN)).write_bytes(lines[:-1])
    assert find_on_disk([folder], whole) == {"request_id": whole}
    assert find_on_disk([folder], half) is None


def test_a_segment_that_is_sealed_while_it_is_looked_for_is_read(folder: Path) -> None:
    request_id = uuid7()
    file = folder / segment_name(1, OPEN)
    file.write_bytes(line(1, 0, {"request_id": request_id}))

    def folders() -> Iterator[Path]:
        yield folder
        # It was seen as an open one, and is read when all folders were looked at.
        file.rename(folder / segment_name(1))

    assert find_on_disk(folders(), request_id) == {"request_id": request_id}


def test_segments_and_folders_that_go_meanwhile_hold_nothing(folder: Path) -> None:
    file = folder / segment_name(1)
    request_id = uuid7()
    file.write_bytes(line(1, 0, {"request_id": request_id}))

    def folders() -> Iterator[Path]:
        yield folder
        file.unlink()
        yield folder / "gone"

    assert find_on_disk(folders(), request_id) is None


def test_a_segment_that_was_done_before_the_request_came_is_not_read(folder: Path) -> None:
    request_id = uuid7()
    came_at = uuid7_time_ms(request_id) / 1000
    file = folder / segment_name(1)
    file.write_bytes(line(1, 0, {"request_id": request_id}))
    os.utime(file, (0, came_at - CLOCK_SKEW_S - 1))
    assert find_on_disk([folder], request_id) is None
    os.utime(file, (0, came_at - CLOCK_SKEW_S + 1))
    assert find_on_disk([folder], request_id) == {"request_id": request_id}


def test_texts_and_feedback_that_name_a_request_are_not_taken_for_it(folder: Path) -> None:
    wanted = uuid7()
    said = f'"payload":{{"request_id":"{wanted}"'
    lines = [
        line(1, 0, {"request_id": uuid7(), "answer": said}),
        line(1, 1, {"feedback_id": uuid7(), "request_id": wanted, "comment": said}, "feedback"),
    ]
    (folder / segment_name(1)).write_bytes(b"".join(lines))
    assert find_on_disk([folder], wanted) is None


@pytest.mark.parametrize("request_id", ["none", "\ud800", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"])
def test_what_is_no_request_id_is_not_looked_for(folder: Path, request_id: str) -> None:
    (folder / segment_name(1)).write_bytes(line(1, 0, {"request_id": request_id}))
    assert find_on_disk([folder], request_id) is None


def test_a_spool_that_cannot_be_read_is_told(folder: Path) -> None:
    (folder / segment_name(1)).mkdir()
    with pytest.raises(SpoolError, match="as one user"):
        find_on_disk([folder], uuid7())


def test_what_was_shipped_is_found_until_the_table_has_it(
    lakehouse: Lakehouse, request_row: Callable[..., RequestRow]
) -> None:
    table = lakehouse.table(ASSISTANT, "traffic_requests")
    filesystem, root = lakehouse.spool()
    rows = [request_row() for _ in range(3)]
    for number, row in enumerate(rows, start=1):
        path = f"{root}/{ASSISTANT}/{GATEWAY}/{segment_name(number)}"
        put(filesystem, path, line(number, 0, row.to_payload()))

    def found(row: RequestRow, but: frozenset[str] = frozenset()) -> bool:
        payload = find_shipped(table, filesystem, root, ASSISTANT, row.request_id, but)
        assert payload is None or payload == row.to_payload()
        return payload is not None

    assert [found(row) for row in rows] == [True, True, True]
    assert not found(rows[0], frozenset({GATEWAY}))
    assert not found(request_row())
    ingest(table, "request", filesystem, root, ASSISTANT, Provenance("test"))
    assert [found(row) for row in rows] == [False, False, False]
