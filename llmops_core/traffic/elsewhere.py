"""Finds a request that another gateway answered, before the lakehouse has its row: on this disk, or in shipped segments.

A request id tells when the request came, and a segment when it was last written. So the likely ones are read first, and those
that were done before the request came are not read at all. One segment at a time is in memory.
"""

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from llmops_core.errors import SpoolError
from llmops_core.ids import uuid7_time_ms
from llmops_core.lakehouse.table import LakeTable
from llmops_core.traffic.ingest import taken_by_all
from llmops_core.traffic.line import OPEN, SEALED, segment_name, segment_number
from llmops_core.traffic.segments import content, gateways, written_after

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

# The clocks of gateways and storage may differ, or be set back.
CLOCK_SKEW_S = 300.0

# When a segment was last written (Unix seconds), and how to read it.
Dated = tuple[float, Callable[[], BinaryIO]]


def find_on_disk(folders: Iterable[Path], request_id: str) -> dict[str, Any] | None:
    """The payload of a request in one of these spool folders, whoever writes there; None if it is not there.

    The last rows of an open segment may not be synced yet: a crash of the machine may still lose them. Raises `SpoolError`.
    """
    try:
        return _find(request_id, (segment for folder in folders for segment in _on_disk(folder)))
    except OSError as error:
        raise unreadable(error) from error


def unreadable(error: OSError) -> SpoolError:
    """What to say of a spool on this disk that cannot be read."""
    return SpoolError(
        f"The request spool of another gateway cannot be read: {error}. Gateways of one home have to run as one user."
    )


def find_shipped(
    table: LakeTable, fs: "FileSystem", root: str, assistant: str, request_id: str, but: Collection[str]
) -> dict[str, Any] | None:
    """The payload of a request that was shipped and is not in the table yet; None if it is not there.

    Gateways in `but` are passed over. Raises `LakehouseError`.
    """
    taken = taken_by_all([table])
    return _find(
        request_id,
        (
            segment
            for gateway_id in gateways(fs, root, assistant)
            if gateway_id not in but
            for segment in _shipped(fs, root, assistant, gateway_id, taken[gateway_id])
        ),
    )


def _on_disk(folder: Path) -> Iterator[Dated]:
    names: list[str] = []
    with suppress(FileNotFoundError):
        names = os.listdir(folder)  # noqa: PTH208 (names alone, fast)
    numbers = (segment_number(name, suffix) for name in names for suffix in (OPEN, SEALED))
    for number in {number for number in numbers if number is not None}:
        # Sealing renames the file and forgetting deletes it, both perhaps just now.
        for suffix in (OPEN, SEALED):
            file = folder / segment_name(number, suffix)
            with suppress(FileNotFoundError):
                yield file.stat().st_mtime, partial(_open, file)
                break


def _open(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except FileNotFoundError:
        return file.with_suffix(SEALED).open("rb")


def _shipped(fs: "FileSystem", root: str, assistant: str, gateway_id: str, last: int) -> Iterator[Dated]:
    for number, written_at in written_after(fs, root, assistant, gateway_id, last):
        yield written_at, partial(_fetch, fs, root, assistant, gateway_id, number)


def _fetch(fs: "FileSystem", root: str, assistant: str, gateway_id: str, number: int) -> BinaryIO:
    return BytesIO(content(fs, root, assistant, gateway_id, number))


def _find(request_id: str, segments: Iterable[Dated]) -> dict[str, Any] | None:
    try:
        came_at = uuid7_time_ms(request_id) / 1000
    except ValueError:  # no gateway gives such an id
        return None
    likely = [segment for segment in segments if segment[0] > came_at - CLOCK_SKEW_S]
    # A quote within a text of the row is escaped, so this stands nowhere else.
    begins = f'"payload":{{"request_id":"{request_id}"'.encode()
    for _, opened in sorted(likely, key=lambda segment: abs(segment[0] - came_at)):
        # What is gone by now is in the lakehouse.
        with suppress(FileNotFoundError), opened() as lines:
            for line in lines:
                # The last line of an open segment may not be whole yet: then nobody has its answer.
                if begins in line and line.endswith(b"\n"):
                    payload: dict[str, Any] = json.loads(line)["payload"]
                    return payload
    return None
