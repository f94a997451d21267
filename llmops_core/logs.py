"""Logs of the processes that the platform starts, in `<home>/logs`."""

from contextlib import suppress
from pathlib import Path

from llmops_core.settings import Settings


def log_file(settings: Settings, name: str) -> Path:
    """Where the log of a process lies; the folder is made."""
    folder = settings.home / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.log"


def begin_log(file: Path) -> None:
    """Begin a log anew with each start, so that it does not grow for ever; the one before says why that process ended."""
    with suppress(FileNotFoundError):
        file.replace(file.with_suffix(".previous.log"))
