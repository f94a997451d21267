"""The local engine as a process: how it starts, fails to start, and ends with its parent."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from llmops_core.engines.local import LocalEngine
from llmops_core.errors import EngineError
from llmops_core.settings import Settings

MODEL = "smollm2-135m-instruct"
ENDS_WITHIN_S = 30.0

PARENT = """
import os, signal, sys, time
from pathlib import Path
from llmops_core.engines.local import LocalEngine
from llmops_core.settings import load_settings
signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a background job may have inherited that it is ignored
engine = LocalEngine(load_settings(home=Path(sys.argv[1])), Path(sys.argv[2]), "small")
if "fork" in sys.argv and os.fork() == 0:
    os.write(1, f"{os.getpid()}\\n".encode())
    time.sleep(60)
    os._exit(0)
os.write(1, f"{engine.pid}\\n".encode())
sys.stdin.read()
"""


def _wait_until_gone(pid: int) -> None:
    try:
        psutil.Process(pid).wait(ENDS_WITHIN_S)
    except psutil.NoSuchProcess:
        return


def _parent(home: Path, model: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, str(home), str(model), *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_closing_ends_the_child(settings: Settings, models: Path) -> None:
    with LocalEngine(settings, models / MODEL, "hf:owner/model@1") as engine:
        assert engine.alive()
        assert psutil.Process(engine.pid).is_running()
    assert not engine.alive()
    engine.close()  # twice does no harm


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_the_child_ends_when_its_parent_is_killed(settings: Settings, models: Path, ending: signal.Signals) -> None:
    with _parent(settings.home, models / MODEL) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert psutil.pid_exists(child)
        parent.send_signal(ending)
        parent.wait(ENDS_WITHIN_S)
        _wait_until_gone(child)


def test_the_child_ends_although_a_fork_of_its_parent_lives(settings: Settings, models: Path) -> None:
    with _parent(settings.home, models / MODEL, "fork") as parent:
        assert parent.stdout
        pids = [int(parent.stdout.readline()) for _ in range(2)]
        (child,) = [pid for pid in pids if "llmops_engine" in psutil.Process(pid).cmdline()]
        (fork,) = set(pids) - {child}
        parent.kill()
        parent.wait()
        try:
            _wait_until_gone(child)
            assert psutil.pid_exists(fork)
        finally:
            for pid in pids:
                if psutil.pid_exists(pid):
                    os.kill(pid, signal.SIGKILL)


def test_a_child_that_is_killed_is_not_alive(settings: Settings, models: Path) -> None:
    with LocalEngine(settings, models / MODEL, MODEL) as engine:
        os.kill(engine.pid, signal.SIGKILL)
        _wait_until_gone(engine.pid)
        assert not engine.alive()


def test_a_model_that_cannot_be_loaded_is_an_engine_error_with_the_log(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be loaded") as caught:
        LocalEngine(settings, tmp_path, "nothing")
    assert str(settings.home / "logs" / "engine-nothing.log") in str(caught.value)


def test_each_start_begins_a_log_and_keeps_the_one_before(settings: Settings, tmp_path: Path) -> None:
    log, before = (settings.home / "logs" / f"engine-nothing{end}" for end in (".log", ".previous.log"))
    for number in range(3):
        with pytest.raises(EngineError, match="cannot be loaded"):
            LocalEngine(settings, tmp_path, "nothing")
        with log.open("a") as file:
            file.write(f"end of start {number}\n")
    assert sorted(log.parent.iterdir()) == [log, before]
    assert log.read_text().count("cannot be loaded") == before.read_text().count("cannot be loaded") == 1
    assert before.read_text().endswith("end of start 1\n")
