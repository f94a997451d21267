"""Dagster's home below `LLMOPS_HOME`: its `dagster.yaml`, and how a process comes to use it."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from filelock import FileLock

from llmops_core.errors import ConfigError
from llmops_core.home import open_home
from llmops_core.settings import Settings

INSTANCE_FILE = """\
# Written once; yours to change. See https://docs.dagster.io/deployment/oss/dagster-yaml
telemetry:
  enabled: false
# The UI asks nobody for an e-mail address.
nux:
  enabled: false
# Runs do not print each of their events; the UI shows them all the same.
python_logs:
  python_log_level: INFO
# Two builds of one assistant at once would write the same rows twice: the second run waits for the first.
concurrency:
  pools:
    granularity: run
    default_limit: 1
  runs:
    # Dagster knows a pool only after it has queued a run of it, and so lets the very first builds pass together.
    tag_concurrency_limits:
      - key: llmops/exclusive
        value: {applyLimitPerUniqueValue: true}
        limit: 1
# A run whose process was killed has failed, and nothing waits for it any longer.
run_launcher:
  module: resources.launcher
  class: LocalRunLauncher
run_monitoring:
  enabled: true
  poll_interval_seconds: 30
# Ticks of the schedules and sensors, in days; most find nothing to do. The runs go with `llmops maintain`.
retention:
  schedule:
    purge_after_days: {skipped: 3, started: 30, success: 30, failure: 30}
  sensor:
    purge_after_days: {skipped: 3, started: 30, success: 30, failure: 30}
  auto_materialize:
    purge_after_days: {skipped: 3, started: 30, success: 30, failure: 30}
"""

# SHA-256 of every text that this file was ever shipped with: who has one of them has changed nothing in it.
SHIPPED = frozenset(
    {
        "a077b1306f7905c17c7fd0d39f4a7b47cb37dddb26363c0ad404e0633e80c8d0",
        "6be0ba376bfb9456a44f7d7b2bcbea9531c415f2154df8281bd0ea1d57ddb6cd",
        "15de6551bb6e759b157676634b5995994dea9c52636fce498c541ca9d0a17d39",
        "ffce200eb0d8b60cd642e584954b9aa6e7bf1d14da299c4403bd286ced832a67",
        "4dc5e1fc2c4faac8412485f21da9e744f3cd6faaeafa86c6a7563d4f15c83262",
    }
)


def prepare_instance(settings: Settings) -> None:
    """Make Dagster's home and have this process, and its children, use it."""
    open_home(settings)
    os.environ["LLMOPS_HOME"] = str(settings.home)
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
    file = instance_file(settings)
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(file.with_name("making.lock")):
                _make_instance(file)
    except OSError as error:
        raise ConfigError(
            f"LLMOPS_HOME: {settings.home} cannot hold data: {error.strerror}. Set it to a folder that can be written."
        ) from error


def _make_instance(file: Path) -> None:
    """Make Dagster's databases, then its settings, whose file says that all is there.

    Dagster makes its tables where it finds none, and of two processes that do so at once the slower one fails.
    """
    if file.exists():
        return
    # As a whole: half a file would be taken for the user's own, and the queue and the launcher be lost for good.
    fresh = file.with_suffix(".new")
    fresh.write_text(INSTANCE_FILE, encoding="utf-8")
    with dg.DagsterInstance.from_config(str(file.parent), fresh.name):
        pass
    fresh.replace(file)


def instance_file(settings: Settings) -> Path:
    """Where Dagster's own settings lie."""
    return settings.dagster_home / "dagster.yaml"


def is_as_shipped(text: str) -> bool:
    """Whether a `dagster.yaml` is as some version of the program wrote it, changed by nobody since."""
    return hashlib.sha256(text.encode()).hexdigest() in SHIPPED


def missing_settings(settings: Settings) -> list[str]:
    """What `dagster.yaml` says nothing of and this version writes there, by dotted names."""
    present = yaml.safe_load(instance_file(settings).read_text(encoding="utf-8"))
    return list(_missing(yaml.safe_load(INSTANCE_FILE), present or {}))


def _missing(wanted: dict[str, Any], present: dict[str, Any]) -> Iterator[str]:
    for name, value in wanted.items():
        if name not in present:
            yield name
        elif isinstance(value, dict) and isinstance(present[name], dict):
            yield from (f"{name}.{below}" for below in _missing(value, present[name]))
