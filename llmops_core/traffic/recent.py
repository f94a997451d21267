"""Where the newest requests lie on the local disk: the log row of an answer can be read before the lakehouse has it."""

import json
import re
import threading
from collections.abc import Iterable
from typing import Any

from llmops_core.traffic.folder import SpoolFolder
from llmops_core.traffic.line import OPEN, segment_name

# About 200 bytes of memory a row. Beyond that, rows are found in the lakehouse alone, once they are there.
MAX_ROWS = 500_000

# The request id stands first in a payload, so that the index is rebuilt without parsing megabytes of JSON.
_REQUEST = re.compile(rb'\{"format":\d+,"kind":"request",[^{}]*"payload":\{"request_id":"([^"\\]+)"')


class RecentRows:
    """Request id → segment and offset, for the segments that are on disk; safe to use from several threads."""

    def __init__(self, folder: SpoolFolder, max_rows: int = MAX_ROWS) -> None:
        self._folder = folder
        self._max_rows = max_rows
        self._lock = threading.Lock()
        # Oldest segment first: forgetting a segment is one deletion, and a look-up begins at the other end.
        self._segments: dict[int, dict[str, int]] = {}
        self._rows = 0

    def load(self) -> None:
        """Index the sealed segments that are on disk, newest first until the limit is reached. Raises `OSError`."""
        found: list[tuple[int, list[tuple[str, int]]]] = []
        rows = 0
        for number in reversed(self._folder.sealed()):
            if rows >= self._max_rows:
                break
            places = _places(self._folder.file(number).read_bytes())
            rows += len(places)
            found.append((number, places))
        for number, places in reversed(found):
            self.add(number, places)

    def add(self, segment: int, places: Iterable[tuple[str, int]]) -> None:
        """Note rows (request id, offset) that are durable now, and drop what was forgotten or is too much."""
        with self._lock:
            rows = self._segments.setdefault(segment, {})
            before = len(rows)
            rows.update(places)
            self._rows += len(rows) - before
            while len(self._segments) > 1:
                oldest = next(iter(self._segments))
                if oldest > self._folder.forgotten and self._rows <= self._max_rows:
                    break
                self._rows -= len(self._segments.pop(oldest))

    def find(self, request_id: str) -> dict[str, Any] | None:
        """Read the payload of a request's row; None if it is not (or no longer) on this disk."""
        with self._lock:
            newest_first = ((number, rows.get(request_id)) for number, rows in reversed(self._segments.items()))
            place = next(((number, offset) for number, offset in newest_first if offset is not None), None)
        if place is None:
            return None
        number, offset = place
        # Sealing renames the file and forgetting deletes it, both perhaps just now.
        for name in (segment_name(number, OPEN), segment_name(number)):
            try:
                with (self._folder.path / name).open("rb") as file:
                    file.seek(offset)
                    payload: dict[str, Any] = json.loads(file.readline())["payload"]
                    return payload
            except FileNotFoundError:
                continue
        return None


def _places(content: bytes) -> list[tuple[str, int]]:
    """The request id and offset of each request in a segment."""
    places, offset = [], 0
    while (end := content.find(b"\n", offset)) >= 0:
        match = _REQUEST.match(content, offset, end)
        if match:
            places.append((match[1].decode(), offset))
        offset = end + 1
    return places
