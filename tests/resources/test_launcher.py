"""Runs that lost their process: they are found, marked as failed, and built again."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.launcher import WorkerStatus
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from llmops_core.assistant import Assistant
from resources import launcher
from tests.running_gateway import until, write_assistant


@pytest.fixture
def notes(tmp_path: Path) -> Assistant:
    return write_assistant(tmp_path / "notes")


@pytest.fixture
def halted(instance: dg.DagsterInstance, notes: Assistant) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that builds, stopped in the middle of its first step."""
    command = [sys.executable, "-m", "llmops_cli.main", "build", "--assistant", str(notes.folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: _in_a_step(instance))
            process.send_signal(signal.SIGSTOP)
            yield process
        finally:
            process.kill()


def _in_a_step(instance: dg.DagsterInstance) -> bool | None:
    steps = [instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_START) for run in instance.get_runs()]
    return True if any(steps) else None


def the_run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    (run,) = instance.get_runs()
    return run


def health(instance: dg.DagsterInstance) -> WorkerStatus:
    return instance.run_launcher.check_run_worker_health(the_run(instance)).status


def look(instance: dg.DagsterInstance) -> None:
    """What Dagster's daemon does every half minute."""
    with create_test_daemon_workspace_context(EmptyWorkspaceTarget(), instance) as context:
        assert list(execute_run_monitoring_iteration(context, logging.getLogger(__name__))) == [None]


def test_a_run_whose_process_lives_is_left_alone(
    instance: dg.DagsterInstance, halted: "subprocess.Popen[bytes]"
) -> None:
    assert health(instance) == WorkerStatus.RUNNING
    look(instance)
    assert the_run(instance).status == dg.DagsterRunStatus.STARTED


def test_a_run_whose_process_was_killed_has_failed(
    instance: dg.DagsterInstance, halted: "subprocess.Popen[bytes]"
) -> None:
    halted.kill()
    halted.wait()
    assert the_run(instance).status == dg.DagsterRunStatus.STARTED
    look(instance)
    assert the_run(instance).status == dg.DagsterRunStatus.FAILURE


def test_another_process_that_was_given_the_same_id_is_not_taken_for_it(
    instance: dg.DagsterInstance, halted: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "CLOCK_S", -3600.0)  # as if the process were an hour younger than its run
    assert health(instance) == WorkerStatus.FAILED


def test_a_killed_process_that_nobody_waited_for_is_gone_too(
    instance: dg.DagsterInstance, halted: "subprocess.Popen[bytes]"
) -> None:
    os.kill(halted.pid, signal.SIGKILL)
    until(lambda: health(instance) == WorkerStatus.FAILED or None)
