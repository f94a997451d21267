import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from llmops_core.errors import PermanentError, SpoolError
from llmops_core.traffic.open_segment import SealRule
from llmops_core.traffic.segments import Segment
from llmops_core.traffic.spool import SpoolWriter
from llmops_core.traffic.waiting import Place

ASSISTANT = "helper"
# Nothing is sealed before the test says so.
LATE = SealRule(max_age_seconds=3600)

Until = Callable[[Callable[[], bool]], Awaitable[None]]
Segments = Callable[[Path, str], list[Segment]]


def request(number: int, size: int = 10) -> dict[str, str]:
    return {"request_id": f"r{number}", "answer": "x" * size}


async def append(writer: SpoolWriter, *numbers: int, size: int = 10) -> list[Place]:
    return list(await asyncio.gather(*(writer.append("request", request(n, size)) for n in numbers)))


def test_an_acknowledged_row_is_on_disk_with_its_place(tmp_path: Path) -> None:
    with SpoolWriter(tmp_path, ASSISTANT, LATE) as writer:
        assert asyncio.run(append(writer, 7, 8)) == [Place(1, 0), Place(1, 1)]
        lines = (writer.folder.path / "000000000001.open").read_text().splitlines()
    assert list(json.loads(lines[0])) == ["format", "kind", "gateway_id", "segment", "row", "payload"]
    assert json.loads(lines[1]) == {
        "format": 1,
        "kind": "request",
        "gateway_id": writer.gateway_id,
        "segment": 1,
        "row": 1,
        "payload": request(8),
    }


def test_a_segment_is_sealed_when_it_has_enough_rows(tmp_path: Path, local_segments: Segments) -> None:
    with SpoolWriter(tmp_path, ASSISTANT, SealRule(max_rows=3, max_age_seconds=3600)) as writer:
        places = asyncio.run(append(writer, *range(8)))
    assert places == [Place(n // 3 + 1, n % 3) for n in range(8)]
    assert [len(s.rows) for s in local_segments(tmp_path, writer.gateway_id)] == [3, 3, 2]


def test_a_segment_is_sealed_when_it_has_enough_bytes(tmp_path: Path, local_segments: Segments) -> None:
    with SpoolWriter(tmp_path, ASSISTANT, SealRule(max_bytes=1_000, max_age_seconds=3600)) as writer:
        asyncio.run(append(writer, *range(6), size=600))
    assert [len(s.rows) for s in local_segments(tmp_path, writer.gateway_id)] == [2, 2, 2]


def test_a_segment_is_sealed_by_itself_when_it_is_old_enough(tmp_path: Path, until: Until) -> None:
    async def story(writer: SpoolWriter) -> None:
        await append(writer, 1)
        await until(lambda: writer.folder.sealed() == [1])
        assert await append(writer, 2) == [Place(2, 0)]

    with SpoolWriter(tmp_path, ASSISTANT, SealRule(max_age_seconds=0.05)) as writer:
        asyncio.run(story(writer))


def test_closing_writes_what_is_queued_and_seals_it(tmp_path: Path, local_segments: Segments) -> None:
    async def story() -> SpoolWriter:
        writer = SpoolWriter(tmp_path, ASSISTANT, LATE).open()
        futures = [writer.append("request", request(n)) for n in range(50)]
        writer.close()
        assert [place.row for place in await asyncio.gather(*futures)] == list(range(50))
        with pytest.raises(SpoolError, match="closed"):
            writer.append("request", request(51))
        assert not writer.healthy()
        return writer

    writer = asyncio.run(story())
    (segment,) = local_segments(tmp_path, writer.gateway_id)
    assert [row["payload"]["request_id"] for row in segment.rows] == [f"r{n}" for n in range(50)]


def test_concurrent_rows_share_their_writes_to_disk(tmp_path: Path) -> None:
    async def appender(writer: SpoolWriter, first: int) -> None:
        for n in range(20):
            await append(writer, first + n)

    async def story(writer: SpoolWriter) -> None:
        await asyncio.gather(*(appender(writer, 100 * n) for n in range(50)))

    with SpoolWriter(tmp_path, ASSISTANT, LATE) as writer:
        asyncio.run(story(writer))
        assert writer.rows == 1_000
        # 20 rounds of 50 rows; without group commit it would be 1,000.
        assert writer.commits <= 200


def test_rows_come_from_several_event_loops_at_once(tmp_path: Path, local_segments: Segments) -> None:
    with SpoolWriter(tmp_path, ASSISTANT, SealRule(max_rows=7)) as writer:
        threads = [
            threading.Thread(target=lambda n=n: asyncio.run(append(writer, *range(100 * n, 100 * n + 100))))
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    rows = [row for s in local_segments(tmp_path, writer.gateway_id) for row in s.rows]
    assert sorted(row["payload"]["request_id"] for row in rows) == sorted(f"r{n}" for n in range(400))


def test_a_caller_who_goes_away_neither_loses_the_row_nor_stops_the_others(
    tmp_path: Path, local_segments: Segments
) -> None:
    async def story(writer: SpoolWriter) -> None:
        gone = writer.append("request", request(1))
        gone.cancel()
        await append(writer, 2)

    with SpoolWriter(tmp_path, ASSISTANT, LATE) as writer:
        asyncio.run(story(writer))
    (segment,) = local_segments(tmp_path, writer.gateway_id)
    assert [row["payload"]["request_id"] for row in segment.rows] == ["r1", "r2"]


def test_a_full_queue_refuses_rows_and_keeps_those_it_took(tmp_path: Path, local_segments: Segments) -> None:
    async def story(writer: SpoolWriter) -> int:
        taken, refused = [], []
        for n in range(5_000):
            try:
                taken.append(writer.append("request", request(n)))
            except SpoolError as error:
                refused.append(str(error))
        assert "too slow for this traffic" in refused[0]
        await asyncio.gather(*taken)
        return len(taken)

    with SpoolWriter(tmp_path, ASSISTANT, LATE, max_queued_bytes=100) as writer:
        taken = asyncio.run(story(writer))
    assert 0 < taken < 5_000
    assert sum(len(s.rows) for s in local_segments(tmp_path, writer.gateway_id)) == taken


def test_what_is_not_json_is_refused_at_once(tmp_path: Path) -> None:
    async def story(writer: SpoolWriter) -> None:
        with pytest.raises(PermanentError, match="not JSON"):
            writer.append("request", {"request_id": "r", "score": float("nan")})
        with pytest.raises(PermanentError, match="no request_id"):
            writer.append("request", {"answer": "x"})
        await append(writer, 1)

    with SpoolWriter(tmp_path, ASSISTANT) as writer:
        asyncio.run(story(writer))


def test_text_is_kept_as_it_came_even_half_a_surrogate_pair(tmp_path: Path) -> None:
    text = "七 🙂 \u2028 \n \x00 \ud83d"

    async def story(writer: SpoolWriter) -> None:
        await writer.append("request", {"request_id": "r1", "answer": text})

    with SpoolWriter(tmp_path, ASSISTANT) as writer:
        asyncio.run(story(writer))
        found = writer.find("r1")
    assert found is not None
    assert found["answer"] == text


def test_a_recent_request_is_found_while_open_when_sealed_and_after_a_restart(tmp_path: Path) -> None:
    async def feedback(writer: SpoolWriter) -> None:
        await writer.append("feedback", {"feedback_id": "f", "request_id": "unknown"})

    with SpoolWriter(tmp_path, ASSISTANT, SealRule(max_rows=2, max_age_seconds=3600)) as writer:
        asyncio.run(append(writer, 1, 2, 3))
        asyncio.run(feedback(writer))
        assert [writer.find(f"r{n}") for n in (1, 2, 3)] == [request(n) for n in (1, 2, 3)]
        assert writer.find("unknown") is None
    with SpoolWriter(tmp_path, ASSISTANT) as again:
        assert again.gateway_id == writer.gateway_id
        assert [again.find(f"r{n}") for n in (1, 2, 3)] == [request(n) for n in (1, 2, 3)]
        again.folder.forget(1)
        assert again.find("r1") is None
        assert again.find("r3") == request(3)


def test_two_writers_at_once_are_two_gateways(tmp_path: Path) -> None:
    with SpoolWriter(tmp_path, ASSISTANT) as one, SpoolWriter(tmp_path, ASSISTANT) as other:
        assert one.gateway_id != other.gateway_id
        both = {one.gateway_id, other.gateway_id}
    with SpoolWriter(tmp_path, ASSISTANT) as later:
        assert later.gateway_id in both
    with SpoolWriter(tmp_path, "other_assistant") as elsewhere:
        assert elsewhere.gateway_id not in both


def test_a_writer_that_is_not_open_says_so(tmp_path: Path) -> None:
    async def story(writer: SpoolWriter) -> None:
        writer.append("request", request(1))

    with pytest.raises(SpoolError):
        asyncio.run(story(SpoolWriter(tmp_path, ASSISTANT)))


def test_a_spool_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="a file stands where a folder should be"):
        SpoolWriter(tmp_path / "file", ASSISTANT).open()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A volume of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(options, capture_output=True).returncode:
        pytest.skip("mounting a small volume needs Linux and the right to do it")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_fails_the_rows_that_do_not_fit_and_heals_when_space_is_freed(
    small_disk: Path, until: Until, local_segments: Segments
) -> None:
    async def story(writer: SpoolWriter) -> tuple[set[str], set[str]]:
        written: set[str] = set()
        failed: set[str] = set()
        for group in range(40):
            numbers = range(10 * group, 10 * group + 10)
            futures = [writer.append("request", request(n, 3_000)) for n in numbers]
            for n, outcome in zip(numbers, await asyncio.gather(*futures, return_exceptions=True), strict=True):
                if isinstance(outcome, BaseException):
                    assert isinstance(outcome, SpoolError)
                    assert "free space on this volume" in str(outcome)
                (failed if isinstance(outcome, BaseException) else written).add(f"r{n}")
        assert not writer.healthy()
        assert "No space left" in (writer.last_error or "")
        (small_disk / "filler").unlink()
        await until(writer.healthy)
        assert writer.last_error is None
        await append(writer, 1_000, size=3_000)
        return written | {"r1000"}, failed

    (small_disk / "filler").write_bytes(bytes(600_000))
    with SpoolWriter(small_disk, ASSISTANT, LATE) as writer:
        written, failed = asyncio.run(story(writer))
        assert not any(writer.find(request_id) for request_id in failed)
    assert failed
    assert len(written) > 50
    rows = [row for s in local_segments(small_disk, writer.gateway_id) for row in s.rows]
    assert sorted(row["payload"]["request_id"] for row in rows) == sorted(written)
