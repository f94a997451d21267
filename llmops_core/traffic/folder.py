"""The folder of one gateway's spool: who holds it, which segments it has, and what a crash left in it.

`<spool>/<assistant>/<gateway_id>/` has sealed segments, at most one open one, `lock` (held by the living gateway) and
`forgotten` (the last segment that was deleted, so that no number is ever given twice).
"""

import fcntl
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from llmops_core.errors import PermanentError
from llmops_core.traffic.durable import replace_file, sync_data, sync_folder
from llmops_core.traffic.line import OPEN, SEALED, decode_line, segment_name, segment_number

LOCK, FORGOTTEN = "lock", "forgotten"

log = logging.getLogger(__name__)


class SpoolFolder:
    """A spool folder that this process holds until `release`. Made by `adopt` or `abandoned`, never directly."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.gateway_id = path.name
        self._lock: int | None = lock
        self.forgotten = _read_forgotten(path / FORGOTTEN)
        """Segments up to this number were deleted after they had reached the lakehouse."""

    def sealed(self) -> list[int]:
        """The numbers of the sealed segments that are here, ascending."""
        return self._numbers(SEALED)

    def next_number(self) -> int:
        """The number of the next segment; segments are numbered from 1 without a gap, whatever was deleted since."""
        return max([self.forgotten, *self.sealed()]) + 1

    def file(self, number: int) -> Path:
        """Path of a sealed segment."""
        return self.path / segment_name(number)

    def recover(self) -> None:
        """Seal what a killed gateway left open, without a last line that was never acknowledged. Raises `OSError`."""
        left = self._numbers(OPEN)
        for number in left:
            file = self.path / segment_name(number, OPEN)
            rows = _cut_torn_tail(file, self.gateway_id, number)
            if rows == 0 and number == left[-1]:
                # Nothing was acknowledged in it, so its number is free.
                file.unlink()
            else:
                file.rename(self.file(number))
                log.warning("Spool %s: sealed segment %d (%d rows) that was left open", self.path, number, rows)
        if left:
            sync_folder(self.path)

    def forget(self, upto: int) -> int:
        """Delete the sealed segments up to a number that the lakehouse has taken in; returns how many. Raises `OSError`.

        Raises `PermanentError` if the lakehouse has taken more than was ever written here: then numbers would repeat, and
        the rows behind them would never be taken.
        """
        sealed = self.sealed()
        newest = max([self.forgotten, *sealed])
        if upto > newest:
            raise PermanentError(
                f"{self.path} ends at segment {newest}, but the lakehouse has segment {upto} of gateway {self.gateway_id}:"
                " the folder is an old copy. Move it away and start the gateway again; it will take a new gateway id."
            )
        gone = [number for number in sealed if number <= upto]
        if not gone:
            return 0
        replace_file(self.path / FORGOTTEN, f"{gone[-1]}\n".encode())
        self.forgotten = gone[-1]
        for number in gone:
            self.file(number).unlink(missing_ok=True)
        return len(gone)

    def release(self) -> None:
        """Let another process have the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _numbers(self, suffix: str) -> list[int]:
        found = (segment_number(name, suffix) for name in os.listdir(self.path))  # noqa: PTH208 (names alone, fast)
        return sorted(number for number in found if number is not None)


def adopt(root: Path, assistant: str) -> SpoolFolder:
    """Take the first spool folder of an assistant that no living process holds, or make one. Raises `OSError`."""
    below = root / assistant
    below.mkdir(parents=True, exist_ok=True)
    for path in _folders(below):
        taken = _try_hold(path)
        if taken:
            return taken
    while True:
        path = below / secrets.token_hex(6)
        path.mkdir(mode=0o700)
        sync_folder(below)
        taken = _try_hold(path)
        # Another gateway that starts now may have adopted the new folder; then make one more.
        if taken:
            return taken


def abandoned(root: Path, assistant: str) -> Iterator[SpoolFolder]:
    """Recover and lend, one after the other, the spool folders of an assistant that no living process holds.

    For whoever brings the rows of gateways into the lakehouse that will not come back. Raises `OSError`.
    """
    for path in _folders(root / assistant):
        folder = _try_hold(path)
        if folder is None:
            continue
        try:
            folder.recover()
            yield folder
        finally:
            folder.release()


def spool_folders(root: Path) -> list[Path]:
    """The folders of all gateways of this disk, whoever holds them. Raises `OSError`."""
    return [folder for assistant in _folders(root) for folder in _folders(assistant)]


def _folders(below: Path) -> list[Path]:
    try:
        return sorted(path for path in below.iterdir() if path.is_dir()) if below.is_dir() else []
    except FileNotFoundError:  # gone meanwhile
        return []


def _try_hold(path: Path) -> SpoolFolder | None:
    """Lock a folder; None if a living process has it. The kernel frees the lock of a process that dies in any way."""
    lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return SpoolFolder(path, lock)
    except BlockingIOError:
        os.close(lock)
        return None
    except BaseException:
        os.close(lock)
        raise


def _read_forgotten(file: Path) -> int:
    try:
        return int(file.read_text())
    except FileNotFoundError:
        return 0
    except ValueError as error:
        raise PermanentError(
            f"{file} does not hold a number. Write the last segment into it that the lakehouse has of this gateway"
            " (table property spool.<gateway_id>), or move the folder away if it has no segments."
        ) from error


def _cut_torn_tail(file: Path, gateway_id: str, number: int) -> int:
    """Cut a segment before its first bad line, make it durable, and return how many rows it has.

    A row is acknowledged only when it and all before it are on the disk; so what follows a line that was not finished was
    never acknowledged. If lines after it are whole nevertheless, the disk may be at fault: they are kept in `<n>.damaged`.
    """
    content = file.read_bytes()
    good = rows = 0
    while (end := content.find(b"\n", good)) >= 0 and _is_row(content[good:end], gateway_id, number, rows):
        good, rows = end + 1, rows + 1
    rest = content[good:]
    if rest:
        log.warning("Spool %s: cut %d bytes of a row that was never acknowledged", file, len(rest))
        if b"\n" in rest[:-1]:
            replace_file(file.with_suffix(".damaged"), rest)
            log.error("Spool %s: more than one row was cut; the bytes are in %s", file, file.with_suffix(".damaged"))
    descriptor = os.open(file, os.O_RDWR)
    try:
        os.ftruncate(descriptor, good)
        sync_data(descriptor)
    finally:
        os.close(descriptor)
    return rows


def _is_row(line: bytes, gateway_id: str, number: int, row: int) -> bool:
    try:
        decode_line(line, gateway_id, number, row)
    except ValueError:
        return False
    return True
