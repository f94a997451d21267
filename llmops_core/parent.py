"""Ends a child process with its parent, however the parent ends.

The parent holds the other end of the child's standard input, and the kernel closes it even after SIGKILL.
"""

import os
import select
import sys
import threading
from collections.abc import Callable

POLL_S = 1.0


def when_parent_ends(end: Callable[[], None]) -> None:
    """Begin to watch the parent, in a thread; `end` is called once, when standard input closes or the parent is gone.

    A fork of the parent may hold the other end of the pipe as well, so the parent's id is watched too.
    """
    threading.Thread(target=_watch, args=[os.getppid(), end], name="parent-watch", daemon=True).start()


def _watch(parent: int, end: Callable[[], None]) -> None:
    stdin = sys.stdin.fileno()
    while os.getppid() == parent:
        readable, _, _ = select.select([stdin], [], [], POLL_S)
        if readable and not os.read(stdin, 4096):
            break
    end()
