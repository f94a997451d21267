"""`dagster dev` as the child of a command: it prints what a person needs, and ends with its parent and with all it started."""

import os
import runpy
import signal
import sys
import time
import warnings

import dagster as dg

from llmops_core.parent import when_parent_ends

STOP_TIMEOUT_S = 30.0


def _main() -> None:
    """Be `dagster dev` with the arguments of this process, which has to lead a process group of its own."""
    # Before Dagster does the same, for its imports take long: SIGTERM must come to `finally`.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    when_parent_ends(_end)
    # It commends `dg dev`, which is not part of Dagster itself.
    warnings.filterwarnings("ignore", category=dg.SupersessionWarning)
    sys.argv = ["dagster", "dev", "--log-level", "warning", *sys.argv[1:]]
    try:
        runpy.run_module("dagster", run_name="__main__")
    finally:
        # Code servers outlive a parent that is gone.
        os.killpg(0, signal.SIGKILL)


def _end() -> None:
    """End as after Ctrl-C, and if that takes too long, at once."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_TIMEOUT_S)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    _main()
