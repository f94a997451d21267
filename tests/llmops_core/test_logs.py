import subprocess
import sys
from pathlib import Path

from llmops_core.logs import begin_log, path_of
from llmops_core.settings import Settings


def _start(settings: Settings, says: str) -> "tuple[subprocess.Popen[str], Path]":
    """A process that has said something to its log and lives until its standard input ends."""
    code = f"import sys; sys.stderr.write({says!r}); sys.stderr.flush(); print(flush=True); sys.stdin.read()"
    with begin_log(settings, "engine") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert process.stdout
        process.stdout.readline()
        return process, path_of(log)


def test_processes_at_once_write_a_log_each_and_the_next_begins_the_first_anew(settings: Settings) -> None:
    logs = settings.home / "logs"
    one, log_of_one = _start(settings, "one")
    two, log_of_two = _start(settings, "two")
    assert (log_of_one, log_of_two) == (logs / "engine.log", logs / "engine-2.log")
    assert (log_of_one.read_text(), log_of_two.read_text()) == ("one", "two")
    one.communicate()
    three, log_of_three = _start(settings, "three")
    assert log_of_three == log_of_one
    assert (log_of_three.read_text(), (logs / "engine.previous.log").read_text()) == ("three", "one")
    for process in (two, three):
        process.communicate()
    assert log_of_two.read_text() == "two"
