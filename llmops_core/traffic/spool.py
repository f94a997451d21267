"""The request spool, writing side: a row is durable on the local disk before its caller goes on.

Why a spool and not the lakehouse: an append to Iceberg takes longer than an answer may wait, and the gateway has to serve
while the lakehouse is away. Why one writer thread: all rows that arrive while the disk is busy share the next fdatasync
(group commit), so throughput does not hang on the latency of the disk. Knows nothing of HTTP or Iceberg.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from llmops_core.errors import PermanentError, SpoolError
from llmops_core.traffic.disk_errors import explain
from llmops_core.traffic.durable import probe_writing
from llmops_core.traffic.folder import SpoolFolder, adopt
from llmops_core.traffic.line import Kind, encode_payload
from llmops_core.traffic.open_segment import OpenSegment, SealRule
from llmops_core.traffic.recent import RecentRows
from llmops_core.traffic.waiting import Place, Waiting, deliver

MAX_QUEUED_BYTES = 64 << 20
# After an error: how often the disk is tried without being asked, and with how many bytes at least and at most.
PROBE_SECONDS = 1.0
PROBE_BYTES = (64 << 10, 8 << 20)

log = logging.getLogger(__name__)


class SpoolWriter:
    """Writes the rows of one gateway for one assistant. `open` it, `append` from any event loop, `close` it."""

    def __init__(
        self,
        root: Path,
        assistant: str,
        seal: SealRule | None = None,
        max_queued_bytes: int = MAX_QUEUED_BYTES,
    ) -> None:
        self._root = root
        self._assistant = assistant
        self._seal = seal or SealRule()
        self._max_queued_bytes = max_queued_bytes
        self._folder: SpoolFolder | None = None
        self._recent: RecentRows | None = None
        self._segment: OpenSegment | None = None
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._queue: deque[Waiting] = deque()
        self._queued_bytes = 0
        self._closing = False
        self._error: str | None = None
        self._probe_bytes = PROBE_BYTES[0]
        self.rows = 0
        """Rows made durable since `open`."""
        self.commits = 0
        """Group commits (each is one fdatasync) since `open`."""

    def open(self) -> Self:
        """Take a spool folder, seal what a crash left in it, and begin to write. Raises `SpoolError`."""
        try:
            folder = adopt(self._root, self._assistant)
        except OSError as error:
            raise SpoolError(explain(error, self._root / self._assistant)) from error
        try:
            folder.recover()
            self._recent = RecentRows(folder)
            self._recent.load()
        except OSError as error:
            folder.release()
            raise SpoolError(explain(error, folder.path)) from error
        except BaseException:
            folder.release()
            raise
        self._folder = folder
        self._thread = threading.Thread(target=self._run, name=f"spool-{self._assistant}", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Make durable what is queued, seal the open segment and let go of the folder. Blocks; safe to call twice."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread:
            self._thread.join()
            self._thread = None
        if self._folder:
            self._folder.release()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def folder(self) -> SpoolFolder:
        """The folder that this writer holds; what ships and forgets its segments shares it."""
        if self._folder is None:
            raise SpoolError(f"The spool of {self._assistant} is not open: call open() first.")
        return self._folder

    @property
    def gateway_id(self) -> str:
        """Name of the gateway, as it stands in every row."""
        return self.folder.gateway_id

    @property
    def last_error(self) -> str | None:
        """Why rows cannot be written now, and the way out; None while all is well."""
        return self._error

    def healthy(self) -> bool:
        """Whether rows can be written, as far as is known; after an error the disk is tried again every second."""
        return self._error is None and not self._closing and self._thread is not None and self._thread.is_alive()

    def append(self, kind: Kind, payload: Mapping[str, Any]) -> "asyncio.Future[Place]":
        """Queue a row at once; the future, of the running event loop, is done when the row is durable.

        It fails with `SpoolError` if the row could not be written (then it is not in the spool). Raises `SpoolError` if
        the spool is closed or the queue full, `PermanentError` if the payload is not JSON. A request needs a `request_id`.
        """
        request_id = None
        if kind == "request":
            # First in the line, where the index of recent rows looks for it.
            request_id = payload.get("request_id")
            if not isinstance(request_id, str):
                raise PermanentError(f"A request for the spool has no request_id. Keys: {', '.join(payload)}")
            payload = {"request_id": request_id, **payload}
        loop = asyncio.get_running_loop()
        waiting = Waiting(kind, request_id, encode_payload(payload), loop, loop.create_future())
        with self._changed:
            if self._closing or self._thread is None:
                raise SpoolError(f"The spool of {self._assistant} is closed; start the gateway again.")
            # One row alone is always taken, however large it is.
            if self._queue and self._queued_bytes + len(waiting.payload) > self._max_queued_bytes:
                raise SpoolError(
                    f"{self._queued_bytes:,} bytes wait for the disk of {self.folder.path} (limit"
                    f" {self._max_queued_bytes:,}). It is too slow for this traffic: retry later, or use a faster volume."
                )
            self._queue.append(waiting)
            self._queued_bytes += len(waiting.payload)
            self._changed.notify()
        return waiting.future

    def find(self, request_id: str) -> dict[str, Any] | None:
        """Read the payload of a durable request from local disk; None if it is not (or no longer) there."""
        return self._recent.find(request_id) if self._recent else None

    # What follows runs in the writer thread.

    def _run(self) -> None:
        while self._wait():
            try:
                self._mend()
                self._seal_if_due()
            except Exception as error:  # whatever it is: callers must not wait for ever
                self._fail(self._take(None), error)
                continue
            batch = self._take(self._segment.room if self._segment else (self._seal.max_rows, self._seal.max_bytes))
            try:
                self._commit(batch)
            except Exception as error:
                self._fail(batch, error)
                continue
            self._resolve(batch)
        self._end()

    def _wait(self) -> bool:
        """Sleep until there are rows, a segment is to be sealed or the disk to be tried; False when all is done."""
        with self._changed:
            while not self._queue and not self._closing:
                timeout = self._idle_seconds()
                if timeout is not None and timeout <= 0:
                    break
                if not self._changed.wait(timeout) and self._error:
                    break
            return bool(self._queue) or not self._closing

    def _idle_seconds(self) -> float | None:
        if self._error:
            return PROBE_SECONDS
        seal_at = self._segment.seal_at if self._segment else None
        return None if seal_at is None else seal_at - time.monotonic()

    def _take(self, room: tuple[int, int] | None) -> list[Waiting]:
        """Take from the queue what fits into the segment, but one row at least; all of it without `room`."""
        batch: list[Waiting] = []
        size = 0
        with self._changed:
            while self._queue and (room is None or (len(batch) < room[0] and size < room[1])):
                batch.append(self._queue.popleft())
                size += len(batch[-1].payload)
            self._queued_bytes -= size
        return batch

    def _commit(self, batch: Sequence[Waiting]) -> None:
        if not batch:
            return
        if self._segment is None:
            self._segment = OpenSegment(self.folder, self.folder.next_number(), self._seal)
        offsets = self._segment.commit([(row.kind, row.payload) for row in batch])
        self.commits += 1
        self.rows += len(batch)
        assert self._recent is not None
        requests = zip(batch, offsets, strict=True)
        self._recent.add(self._segment.number, [(r.request_id, at) for r, at in requests if r.request_id is not None])

    def _resolve(self, batch: Sequence[Waiting]) -> None:
        if not batch or self._segment is None:
            return
        first = self._segment.rows - len(batch)
        number = self._segment.number
        deliver(batch, [Place(number, first + n) for n in range(len(batch))])

    def _seal_if_due(self) -> None:
        if self._segment and self._segment.seal_at is not None and self._segment.seal_at <= time.monotonic():
            self._segment.seal()
            self._segment = None

    def _mend(self) -> None:
        """After an error: bring the file back to its last good row, and see whether the disk takes as much again."""
        if self._error is None:
            return
        if self._segment:
            self._segment.roll_back()
        probe_writing(self.folder.path / "probe", self._probe_bytes)
        log.warning("Spool %s can be written again", self.folder.path)
        self._error = None

    def _fail(self, batch: Sequence[Waiting], error: Exception) -> None:
        message = explain(error, self.folder.path)
        if message != self._error:
            log.error("%s", message, exc_info=None if isinstance(error, OSError) else error)
        self._error = message
        if batch:
            low, high = PROBE_BYTES
            self._probe_bytes = min(max(low, sum(len(row.payload) for row in batch)), high)
        with suppress(OSError):
            # At once, so that even a kill now leaves no row that its caller was told is lost.
            if self._segment:
                self._segment.roll_back()
        deliver(batch, [SpoolError(message) for _ in batch])

    def _end(self) -> None:
        """Seal at the end; what cannot be sealed now is sealed by whoever adopts the folder."""
        if self._segment is None:
            return
        try:
            self._segment.roll_back()
            if self._segment.rows:
                self._segment.seal()
            else:
                self._segment.discard()
        except OSError as error:
            log.error("%s", explain(error, self.folder.path))
            self._segment.close()
