"""A gateway is killed under load, again and again: what it acknowledged is there, once."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from llmops_core.traffic.folder import abandoned
from llmops_core.traffic.segments import Segment

ROUNDS = 10

# Appends without end from 16 tasks and says each request id when its row is durable.
WRITER = """
import asyncio, os, sys
from pathlib import Path
from llmops_core.ids import uuid7
from llmops_core.traffic.open_segment import SealRule
from llmops_core.traffic.spool import SpoolWriter

async def appender(writer):
    while True:
        request_id = uuid7()
        await writer.append("request", {"request_id": request_id, "answer": "x" * 3000})
        os.write(1, (request_id + "\\n").encode())

async def main():
    writer = SpoolWriter(Path(sys.argv[1]), "helper", SealRule(max_rows=37, max_age_seconds=0.01)).open()
    await asyncio.gather(*(appender(writer) for _ in range(16)))

asyncio.run(main())
"""


def killed_after(root: Path, rows: int) -> list[str]:
    """Run the writer, kill it when it has acknowledged so many rows, and return all that it acknowledged."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, env=os.environ)
    try:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline() for _ in range(rows)]
    finally:
        process.kill()
    acknowledged += process.stdout.readlines()
    process.stdout.close()
    process.wait()
    # The kill may cut the last word short.
    return [line.decode().strip() for line in acknowledged if line.endswith(b"\n")]


def test_after_kills_at_random_moments_every_acknowledged_row_is_there_exactly_once(
    tmp_path: Path, local_segments: Callable[[Path, str], list[Segment]]
) -> None:
    chance = random.Random(20260301)
    acknowledged: list[str] = []
    for _ in range(ROUNDS):
        rows = chance.randint(1, 400)
        new = killed_after(tmp_path, rows)
        assert len(new) >= rows
        acknowledged += new
    (folder,) = abandoned(tmp_path, "helper")
    segments = local_segments(tmp_path, folder.gateway_id)
    assert [s.number for s in segments] == list(range(1, len(folder.sealed()) + 1))
    written = [row["payload"]["request_id"] for s in segments for row in s.rows]
    assert len(set(written)) == len(written)
    assert set(acknowledged) <= set(written)
    # Each kill leaves at most the rows that were in flight.
    assert len(written) - len(acknowledged) <= 16 * ROUNDS
