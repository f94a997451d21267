from pathlib import Path
from typing import Any

import pytest
from pyarrow.fs import LocalFileSystem

from llmops_core.errors import LakehouseError, PermanentError
from llmops_core.traffic.line import encode_line
from llmops_core.traffic.segments import gateways, numbers_after, remove_upto, segments_after

ASSISTANT, GATEWAY = "helper", "0a1b2c3d4e5f"
FS = LocalFileSystem()


def ship(root: Path, number: int, content: bytes | None = None, gateway_id: str = GATEWAY) -> Path:
    file = root / ASSISTANT / gateway_id / f"{number:012d}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        content = b"".join(encode_line("feedback", gateway_id, number, row, b"{}") for row in range(2))
    file.write_bytes(content)
    return file


def read(root: Path, last: int = 0) -> list[int]:
    return [segment.number for segment in segments_after(FS, str(root), ASSISTANT, GATEWAY, last)]


def test_nothing_shipped_is_no_gateway_and_no_segment(tmp_path: Path) -> None:
    assert gateways(FS, str(tmp_path), ASSISTANT) == []
    assert read(tmp_path) == []
    assert remove_upto(FS, str(tmp_path), ASSISTANT, GATEWAY, 5) == 0


def test_gateways_are_listed_by_assistant(tmp_path: Path) -> None:
    ship(tmp_path, 1, gateway_id="b")
    ship(tmp_path, 1, gateway_id="a")
    (tmp_path / "other" / "c").mkdir(parents=True)
    assert gateways(FS, str(tmp_path), ASSISTANT) == ["a", "b"]


def test_segments_come_in_order_after_the_mark(tmp_path: Path) -> None:
    for number in (3, 1, 2, 11, 10):
        ship(tmp_path, number)
    (tmp_path / ASSISTANT / GATEWAY / "000000000004.jsonl.new").write_text("half")
    assert read(tmp_path) == [1, 2, 3]
    assert read(tmp_path, 2) == [3]
    assert read(tmp_path, 3) == []
    assert numbers_after(FS, str(tmp_path), ASSISTANT, GATEWAY, 9) == [10, 11]


def test_a_gap_stops_the_reading_until_it_is_filled(tmp_path: Path) -> None:
    ship(tmp_path, 1)
    ship(tmp_path, 3)
    assert read(tmp_path) == [1]
    ship(tmp_path, 2)
    assert read(tmp_path, 1) == [2, 3]


def test_rows_come_with_their_place_and_payload(tmp_path: Path) -> None:
    ship(tmp_path, 1, encode_line("request", GATEWAY, 1, 0, '{"request_id":"r","answer":"a\u2028b"}'.encode()))
    (segment,) = segments_after(FS, str(tmp_path), ASSISTANT, GATEWAY, 0)
    (row,) = segment.rows
    assert (segment.gateway_id, row["kind"], row["segment"], row["row"]) == (GATEWAY, "request", 1, 0)
    assert row["payload"] == {"request_id": "r", "answer": "a\u2028b"}


@pytest.mark.parametrize(
    "line",
    [
        b'{"format":1,"ki\n',
        b"[1]\n",
        b'{"format":1}\n',
        encode_line("request", GATEWAY, 1, 2, b"{}"),
        encode_line("request", "elsewhere", 1, 1, b"{}"),
        encode_line("gossip", GATEWAY, 1, 1, b"{}"),
        encode_line("request", GATEWAY, 1, 1, b"[]"),
        b"\xff\xfe\n",
    ],
)
def test_a_line_that_is_no_row_of_its_place_is_named_with_its_file(tmp_path: Path, line: bytes) -> None:
    file = ship(tmp_path, 1, encode_line("request", GATEWAY, 1, 0, b"{}") + line)
    with pytest.raises(PermanentError, match=rf"{file}, line 2: "):
        read(tmp_path)


def test_a_newer_format_asks_for_a_newer_version(tmp_path: Path) -> None:
    ship(tmp_path, 1, encode_line("request", GATEWAY, 1, 0, b"{}").replace(b'"format":1', b'"format":2'))
    with pytest.raises(PermanentError, match="a newer one"):
        read(tmp_path)


def test_taken_segments_are_removed_and_the_others_stay(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        ship(tmp_path, number)
    assert remove_upto(FS, str(tmp_path), ASSISTANT, GATEWAY, 2) == 2
    assert read(tmp_path, 2) == [3]
    assert remove_upto(FS, str(tmp_path), ASSISTANT, GATEWAY, 2) == 0


def test_a_segment_that_somebody_else_removes_at_the_same_time_does_not_matter(tmp_path: Path) -> None:
    class Raced:
        delete_file = staticmethod(FS.delete_file)

        def get_file_info(self, selector: Any) -> Any:
            listed = FS.get_file_info(selector)
            first.unlink()
            return listed

    first, second = ship(tmp_path, 1), ship(tmp_path, 2)
    remove_upto(Raced(), str(tmp_path), ASSISTANT, GATEWAY, 2)
    assert not second.exists()


def test_a_storage_that_fails_may_be_tried_again(tmp_path: Path) -> None:
    (tmp_path / ASSISTANT).write_text("a file where the folder should be")
    with pytest.raises(LakehouseError, match="cannot be reached"):
        gateways(FS, str(tmp_path), ASSISTANT)
