"""Another process that holds the catalog's database, as a backup or a forgotten shell does."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from llmops_core.settings import Settings

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(f"BEGIN {sys.argv[2]}")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked_catalog(settings: Settings, mode: Literal["IMMEDIATE", "EXCLUSIVE"] = "EXCLUSIVE") -> Iterator[None]:
    """Hold the lock within the block; `IMMEDIATE` lets others read, `EXCLUSIVE` does not."""
    command = [sys.executable, "-c", HOLD, str(settings.lakehouse / "catalog.db"), mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        yield
        holder.stdin.close()
