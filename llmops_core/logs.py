"""Logs of the processes that the platform starts, in `<home>/logs`."""

import fcntl
import os
from itertools import chain, count
from pathlib import Path
from typing import BinaryIO

from llmops_core.settings import Settings


def begin_log(settings: Settings, name: str) -> BinaryIO:
    """Open the log of a process that is about to start, for its standard error: `<name>.log`.

    It begins anew with each start, so that it does not grow for ever; the one before says why that process ended, and stays
    as `<name>.previous.log`. While another process writes it, the new one's is `<name>-2.log`, and so on.
    """
    folder = settings.home / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    stems = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(log for stem in stems if (log := _held(folder, stem)))


def path_of(log: BinaryIO) -> Path:
    """Where a log lies."""
    return Path(os.fsdecode(log.name))


def _held(folder: Path, stem: str) -> BinaryIO | None:
    """An empty log that this process and those that inherit it hold until the last of them has ended; None if others do."""
    path = folder / f"{stem}.log"
    while True:
        log = path.open("ab")
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.close()
            return None
        opened = os.fstat(log.fileno())
        # Another process may have renamed it before this one held it.
        is_there = path.exists() and os.path.samestat(path.stat(), opened)
        if is_there and opened.st_size == 0:
            return log
        if is_there:
            path.replace(folder / f"{stem}.previous.log")
        log.close()
