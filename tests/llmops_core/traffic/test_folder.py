import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from llmops_core.errors import PermanentError
from llmops_core.traffic.folder import abandoned
from llmops_core.traffic.line import encode_line
from llmops_core.traffic.open_segment import SealRule
from llmops_core.traffic.segments import Segment
from llmops_core.traffic.spool import SpoolWriter
from llmops_core.traffic.waiting import Place

ASSISTANT = "helper"
GATEWAY = "0a1b2c3d4e5f"

Segments = Callable[[Path, str], list[Segment]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / ASSISTANT / GATEWAY
    path.mkdir(parents=True)
    return path


def row(segment: int, number: int) -> bytes:
    return encode_line("request", GATEWAY, segment, number, b'{"request_id":"%d-%d"}' % (segment, number))


def append_one(writer: SpoolWriter) -> Place:
    async def append() -> Place:
        return await writer.append("request", {"request_id": "new"})

    return asyncio.run(append())


@pytest.mark.parametrize("torn", [b'{"format":1,"ki', row(2, 1)[:-1], b"not json\n", bytes(4096)])
def test_a_torn_last_line_is_cut_and_the_rest_is_sealed(
    folder: Path, tmp_path: Path, torn: bytes, local_segments: Segments, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "000000000001.jsonl").write_bytes(row(1, 0))
    (folder / "000000000002.open").write_bytes(row(2, 0) + torn)
    with caplog.at_level(logging.WARNING), SpoolWriter(tmp_path, ASSISTANT) as writer:
        assert writer.gateway_id == GATEWAY
        assert writer.find("2-0") == {"request_id": "2-0"}
        assert append_one(writer) == Place(3, 0)
    assert "never acknowledged" in caplog.text
    assert (folder / "000000000002.jsonl").read_bytes() == row(2, 0)
    assert [s.number for s in local_segments(tmp_path, GATEWAY)] == [1, 2, 3]
    assert not list(folder.glob("*.damaged"))


@pytest.mark.parametrize("content", [b"", b'{"torn'])
def test_an_empty_open_segment_gives_its_number_back(folder: Path, tmp_path: Path, content: bytes) -> None:
    (folder / "000000000001.jsonl").write_bytes(row(1, 0))
    (folder / "000000000002.open").write_bytes(content)
    with SpoolWriter(tmp_path, ASSISTANT) as writer:
        assert append_one(writer) == Place(2, 0)


def test_whole_rows_behind_a_damaged_one_are_kept_aside(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "000000000001.open").write_bytes(row(1, 0) + b"damage\n" + row(1, 2))
    SpoolWriter(tmp_path, ASSISTANT).open().close()
    assert (folder / "000000000001.jsonl").read_bytes() == row(1, 0)
    assert (folder / "000000000001.damaged").read_bytes() == b"damage\n" + row(1, 2)
    assert "000000000001.damaged" in caplog.text


def test_rows_of_another_format_are_never_cut(folder: Path, tmp_path: Path) -> None:
    content = row(1, 0).replace(b'"format":1', b'"format":2')
    (folder / "000000000001.open").write_bytes(content)
    with pytest.raises(PermanentError, match="format 2"):
        SpoolWriter(tmp_path, ASSISTANT).open()
    assert (folder / "000000000001.open").read_bytes() == content


def test_a_number_is_not_used_again_after_all_segments_were_forgotten(folder: Path, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (folder / f"{number:012d}.jsonl").write_bytes(row(number, 0))
    with SpoolWriter(tmp_path, ASSISTANT) as writer:
        assert writer.folder.forget(2) == 2
        assert writer.folder.forget(2) == 0
        assert writer.folder.sealed() == [3]
        assert writer.folder.forget(3) == 1
    with SpoolWriter(tmp_path, ASSISTANT) as again:
        assert again.folder.forgotten == 3
        assert append_one(again) == Place(4, 0)


def test_a_folder_that_is_older_than_the_lakehouse_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "000000000001.jsonl").write_bytes(row(1, 0))
    with SpoolWriter(tmp_path, ASSISTANT) as writer, pytest.raises(PermanentError, match="old copy"):
        writer.folder.forget(5)
    assert (folder / "000000000001.jsonl").exists()


def test_folders_that_nobody_holds_are_lent_sealed_one_after_the_other(folder: Path, tmp_path: Path) -> None:
    (folder / "000000000001.open").write_bytes(row(1, 0))
    with SpoolWriter(tmp_path, ASSISTANT) as first:
        assert first.gateway_id == GATEWAY
        assert list(abandoned(tmp_path, ASSISTANT)) == []
        with SpoolWriter(tmp_path, ASSISTANT, SealRule(max_age_seconds=3600)) as second:
            append_one(second)
        lent = [(lent.gateway_id, lent.sealed()) for lent in abandoned(tmp_path, ASSISTANT)]
        assert lent == [(second.gateway_id, [1])]
    assert {lent.gateway_id for lent in abandoned(tmp_path, ASSISTANT)} == {GATEWAY, second.gateway_id}
    assert list(abandoned(tmp_path, "nobody")) == []
