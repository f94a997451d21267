"""The one segment that is being written: rows go in by groups, each durable as a whole or not there at all."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from llmops_core.traffic.durable import sync_data, sync_folder, write_all
from llmops_core.traffic.folder import SpoolFolder
from llmops_core.traffic.line import OPEN, encode_line, segment_name


@dataclass(frozen=True)
class SealRule:
    """When a segment is full. Small segments reach the lakehouse soon, large ones make fewer objects."""

    max_rows: int = 1_000
    max_bytes: int = 8 << 20
    max_age_seconds: float = 2.0
    """Counted from its first row."""


class OpenSegment:
    """A segment file and the offset up to which it is good. Every method raises `OSError` when the disk does."""

    def __init__(self, folder: SpoolFolder, number: int, rule: SealRule) -> None:
        self.number = number
        self.rows = 0
        self.size = 0
        """Bytes that are acknowledged, or will be once the commit that runs has ended; a failed one leaves it as it was."""
        self._folder = folder
        self._rule = rule
        self._file = folder.path / segment_name(number, OPEN)
        self._first_row_at: float | None = None
        self._sealing = False
        # A failed attempt may have left the file; nothing in it was acknowledged.
        self._descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            sync_folder(folder.path)
        except OSError:
            self.close()
            raise

    @property
    def room(self) -> tuple[int, int]:
        """How many more rows and bytes fit."""
        return self._rule.max_rows - self.rows, self._rule.max_bytes - self.size

    @property
    def seal_at(self) -> float | None:
        """The moment (monotonic clock) from which on it is to be sealed; None while it is empty."""
        if self._first_row_at is None:
            return None
        if self._sealing or min(self.room) <= 0:
            return self._first_row_at
        return self._first_row_at + self._rule.max_age_seconds

    def commit(self, kinds_and_payloads: Sequence[tuple[str, bytes]]) -> list[int]:
        """Append rows and make them durable together; returns the offset of each in the file.

        After an error the file may hold garbage: call `roll_back`, until it succeeds, before anything else.
        """
        lines = [
            encode_line(kind, self._folder.gateway_id, self.number, self.rows + n, payload)
            for n, (kind, payload) in enumerate(kinds_and_payloads)
        ]
        write_all(self._descriptor, b"".join(lines))
        sync_data(self._descriptor)
        if self._first_row_at is None:
            self._first_row_at = time.monotonic()
        offsets = []
        for line in lines:
            offsets.append(self.size)
            self.size += len(line)
        self.rows += len(lines)
        return offsets

    def roll_back(self) -> None:
        """Cut off what a failed commit may have written."""
        if not self._sealing:
            os.ftruncate(self._descriptor, self.size)
            sync_data(self._descriptor)

    def seal(self) -> None:
        """Give the file its final name. May be called again after an error; takes no more rows after the first call."""
        self._sealing = True
        if self._file.exists():
            self._file.rename(self._folder.file(self.number))
        sync_folder(self._folder.path)
        self.close()

    def discard(self) -> None:
        """Remove the file; for a segment without rows, whose number then goes to the next."""
        self._file.unlink(missing_ok=True)
        sync_folder(self._folder.path)
        self.close()

    def close(self) -> None:
        """Let go of the file as it is."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
