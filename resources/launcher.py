"""Launches runs on this machine, and tells Dagster's monitoring which of them have lost their process.

For homes whose runs are processes of one machine, as `dagster.yaml` has it. Dagster's own launcher cannot tell: after a power
cut or a kill a run would stay STARTED for ever, hold the build's pool, and every later build would wait for it.
"""

import dagster as dg
import psutil
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus

# Clocks are set right now and then: the times of a process and of its log are compared no closer than this.
CLOCK_S = 10.0


class LocalRunLauncher(DefaultRunLauncher):
    """Dagster's default launcher that also knows whether the process of a run lives, whoever started it."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Yes."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Look for the process that the run's log names first; a run that has named none yet counts as running."""
        for entry in self._instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
            assert entry.dagster_event
            named = entry.dagster_event.engine_event_data.metadata.get("pid")
            if named is None:
                continue
            pid = int(str(named.value))
            if _lives(pid, entry.timestamp):
                break
            return CheckRunHealthResult(WorkerStatus.FAILED, f"process {pid} of the run is gone")
        return CheckRunHealthResult(WorkerStatus.RUNNING)


def _lives(pid: int, seen_at: float) -> bool:
    """Whether the process that had this id at that time (Unix seconds) has it still: ids are used again."""
    try:
        process = psutil.Process(pid)
        same = process.create_time() <= seen_at + CLOCK_S
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
