"""Dagster's home below `LLMOPS_HOME`: its `dagster.yaml`, and how a process comes to use it."""

import os

from llmops_core.errors import ConfigError
from llmops_core.settings import Settings

INSTANCE_FILE = """\
# Written once; yours to change. See https://docs.dagster.io/deployment/oss/dagster-yaml
telemetry:
  enabled: false
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
"""


def prepare_instance(settings: Settings) -> None:
    """Make Dagster's home and have this process, and its children, use it."""
    file = settings.dagster_home / "dagster.yaml"
    try:
        settings.dagster_home.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_text(INSTANCE_FILE, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"LLMOPS_HOME: {settings.home} cannot hold data: {error.strerror}. Set it to a folder that can be written."
        ) from error
    os.environ["LLMOPS_HOME"] = str(settings.home)
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
