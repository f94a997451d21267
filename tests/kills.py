"""Processes that are killed just before a write of theirs, whichever it is: of Python, SQLite, Arrow or Lance.

What a kill leaves behind is told by the system calls that came before it, so a moment is a number of writes and not a time:
a busy machine changes nothing. A filter in the kernel (seccomp) stops the process at each call that changes files, asks
here, and here it is let go on or killed. Processes are forked from one that has everything imported and nothing opened.
"""

import ctypes
import fcntl
import multiprocessing
import os
import platform
import secrets
import select
import shutil
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

# System calls that change files; of writes to sockets and pipes nothing is lost but a little time.
CALLS = {
    "x86_64": {
        "seccomp": 317, "write": 1, "pwrite64": 18, "writev": 20, "pwritev": 296, "pwritev2": 328, "sendfile": 40,
        "copy_file_range": 326, "ftruncate": 77, "fallocate": 285, "rename": 82, "renameat": 264, "renameat2": 316,
        "link": 86, "linkat": 265, "unlink": 87, "unlinkat": 263, "mkdir": 83, "mkdirat": 258, "rmdir": 84,
    },
    "aarch64": {
        "seccomp": 277, "write": 64, "pwrite64": 68, "writev": 66, "pwritev": 70, "pwritev2": 287, "sendfile": 71,
        "copy_file_range": 285, "ftruncate": 46, "fallocate": 47, "renameat": 38, "renameat2": 276, "linkat": 37,
        "unlinkat": 35, "mkdirat": 34,
    },
}  # fmt: skip

needs_seccomp = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in CALLS, reason="needs Linux on x86-64 or ARM"
)

KILLS = 20
# Nothing here takes as long: a process that hangs is a failure, and is told so.
WAIT_S = 300.0

# Imported once, by the process from which all others are forked.
PRELOADED = (
    "lance",
    "polars",
    "pytest",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "pyiceberg.catalog.sql",
    "pyiceberg.io.pyarrow",
    "sqlalchemy",
    "llmops_core.maintenance.maintain",
    "llmops_core.release.publish",
    "llmops_core.traffic.ingest",
    "llmops_core.vectors.sync",
    "llmops_gateway.server",
)

_ASK_SIZE, _ANSWER = 80, struct.Struct("QqiI")
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_GO_ON = 1


class Killable:
    """A process that does `work(*arguments)` to its end, or is killed instead of its write number `dies_at`."""

    def __init__(self, work: Callable[..., None], *arguments: object, dies_at: int | None = None) -> None:
        self.dies_at = dies_at
        """May be changed while it runs."""
        self.writes = 0
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOADED))
        ours, its = socket.socketpair()
        with ours, its:
            ours.settimeout(WAIT_S)
            self._process = context.Process(target=_work_watched, args=(its, work, arguments), daemon=True)
            self._process.start()
            self._filter = socket.recv_fds(ours, 1, 1)[1][0]
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    def join(self) -> bool:
        """Wait for its end: False if it was killed. An error of its own fails the test."""
        self._process.join(WAIT_S)
        ended = self._process.exitcode
        if ended is None:
            self._process.kill()
        self._process.join()
        self._watcher.join()
        assert ended in (0, -signal.SIGTERM, -signal.SIGKILL), f"it ended with {ended}; see what it printed"
        return ended != -signal.SIGKILL

    def terminate(self) -> None:
        """Ask it to end by itself."""
        self._process.terminate()

    def _watch(self) -> None:
        """Let it go on at each write, up to the one at which it is to die."""
        with os.fdopen(self._filter, "rb", buffering=0) as asks:
            poll = select.poll()
            poll.register(asks, select.POLLIN)
            # The kernel does not always tell the file that the last who may ask is gone.
            poll.register(self._process.sentinel, select.POLLIN)
            while dict(poll.poll()) == {asks.fileno(): select.POLLIN}:
                with suppress(FileNotFoundError):  # the thread that asked is gone
                    ask = bytearray(_ASK_SIZE)
                    fcntl.ioctl(asks, _RECEIVE, ask)
                    if self.dies_at is not None and self.writes + 1 >= self.dies_at:
                        self._process.kill()
                        return
                    self.writes += 1
                    fcntl.ioctl(asks, _SEND, bytearray(_ANSWER.pack(*struct.unpack_from("Q", ask), 0, 0, _GO_ON)))


def seed() -> int:
    """What random numbers are drawn from: another one each time, which a failed test shows; or the one to be repeated."""
    drawn = int(os.environ.get("LLMOPS_TEST_SEED") or secrets.randbelow(1_000_000))
    print(f"LLMOPS_TEST_SEED={drawn} repeats these kills")
    return drawn


def run(work: Callable[..., None], *arguments: object, dies_at: int | None = None) -> tuple[bool, int]:
    """Do the work in a process of its own: whether it got to its end, and how many writes it made."""
    process = Killable(work, *arguments, dies_at=dies_at)
    return process.join(), process.writes


class Killing:
    """Does the same work on the same folder over and over, killed at random writes until a run gets through."""

    def __init__(self, folder: Path, work: Callable[..., None], *arguments: object) -> None:
        self._folder = folder
        self._before = folder.with_name(f"{folder.name}.before")
        self._work, self._arguments = work, arguments
        self._chance = Random(seed())
        self.kills = 0
        shutil.copytree(folder, self._before, symlinks=True)

    def undisturbed(self) -> None:
        """Do the work once without a kill, which tells how many writes it makes."""
        done, self.writes = self._run()
        assert done

    def rounds(self, after_kill: Callable[[], object] = lambda: None, kills: int = KILLS) -> Iterator[int]:
        """Yield after each round: a folder as it was, killed runs, `after_kill` each, and one that got through."""
        while self.kills < kills:
            self._restore()
            attempts = 0
            while not self._run(self._chance.randint(1, self.writes))[0]:
                self.kills += 1
                attempts += 1
                after_kill()
            yield attempts

    def _run(self, dies_at: int | None = None) -> tuple[bool, int]:
        return run(self._work, *self._arguments, dies_at=dies_at)

    def _restore(self) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(self._folder)
        shutil.copytree(self._before, self._folder, symlinks=True)


def _work_watched(parent: socket.socket, work: Callable[..., None], arguments: tuple[object, ...]) -> None:
    with parent:
        asks = _filter_writes()
        socket.send_fds(parent, [b"."], [asks])
        os.close(asks)
    work(*arguments)


def _filter_writes() -> int:
    """Have this process, and its threads to come, ask before each call; the file at which they are answered."""
    calls = dict(CALLS[platform.machine()])
    seccomp = calls.pop("seccomp")
    rule = struct.Struct("HBBI")
    load_number, allow, ask = (
        rule.pack(0x20, 0, 0, 0),
        rule.pack(0x06, 0, 0, 0x7FFF0000),
        rule.pack(0x06, 0, 0, 0x7FC00000),
    )
    jumps = [rule.pack(0x15, len(calls) - n, 0, number) for n, number in enumerate(calls.values())]
    rules = ctypes.create_string_buffer(b"".join((load_number, *jumps, allow, ask)))
    program = struct.pack("HxxxxxxP", len(jumps) + 3, ctypes.addressof(rules))
    system = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_filter, new_listener = 38, 1, 8
    if system.prctl(no_new_privileges, 1, 0, 0, 0) == 0:
        asks = system.syscall(seccomp, set_filter, new_listener, program)
        if asks >= 0:
            return int(asks)
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
