"""The home as a whole: which program made it and where, and which programs may use it.

`home.json` holds the home's format, a number that grows only when an older program would do harm in it, and the home's
path: Iceberg's metadata name their files by absolute paths, so a copy would read, write and clean up the original's. A home
made before there was such a file is of format 1.
"""

import json
import os
import threading
from pathlib import Path

from llmops_core.errors import ConfigError
from llmops_core.settings import Settings
from llmops_core.version import code_version

FORMAT = 2
FILE_NAME = "home.json"
# What the programs that wrote no `home.json` left in a home that they had used.
SIGNS_OF_USE = ("lakehouse", "spool", "gateway", "dagster/dagster.yaml")


def open_home(settings: Settings) -> None:
    """Begin to use the home, making and marking it when it is new.

    Raises `ConfigError` when a newer program wrote it, when it was copied or moved, or when it cannot hold data.
    """
    found = home_format(settings)
    if found is None:
        mark_home(settings)
        return
    marks = _marks(settings)
    if found > FORMAT:
        raise ConfigError(
            f"LLMOPS_HOME: {settings.home} is a home of format {found}, written by llmops-assets"
            f" {marks.get('code_version', 'of unknown version')}; this is {code_version()}, which knows formats up to {FORMAT}."
            " Use that version or a newer one, or another home."
        )
    made_at = marks.get("path")
    # Those that were marked before the path was recorded have none.
    if isinstance(made_at, str) and Path(made_at).resolve() != settings.home:
        raise ConfigError(
            f"LLMOPS_HOME: {settings.home} was made as {made_at} and copied or moved since, but its tables name their files by"
            f" that path. Move it back to {made_at}, or leave a link to it there; for a second home, set LLMOPS_HOME to an empty"
            " folder and build anew."
        )


def home_format(settings: Settings) -> int | None:
    """The home's format; None for a home in which nothing was made yet. Raises `ConfigError` if it cannot be told."""
    marks = _marks(settings)
    if marks:
        number = marks.get("format")
        if isinstance(number, int):
            return number
        raise ConfigError(f"{settings.home / FILE_NAME} names no format. {_WAY_OUT}")
    return 1 if any((settings.home / name).exists() for name in SIGNS_OF_USE) else None


def mark_home(settings: Settings) -> None:
    """Record that the home is of this program's format and lies here; raises `ConfigError` if it cannot hold data."""
    file = settings.home / FILE_NAME
    # Of its own, since several processes may begin to use a new home at once.
    fresh = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}.new")
    marks = {"format": FORMAT, "code_version": code_version(), "path": str(settings.home)}
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(marks) + "\n", encoding="utf-8")
        fresh.replace(file)
    except OSError as error:
        raise ConfigError(
            f"LLMOPS_HOME: {settings.home} cannot hold data: {error.strerror}. Set it to a folder that can be written."
        ) from error


_WAY_OUT = "Restore it from a copy, or delete it and run `llmops upgrade`."


def _marks(settings: Settings) -> dict[str, object]:
    """What `home.json` says; nothing while there is none."""
    file = settings.home / FILE_NAME
    try:
        marks = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {error}. {_WAY_OUT}") from error
    if not isinstance(marks, dict) or not marks:
        raise ConfigError(f"{file} is no JSON object with marks. {_WAY_OUT}")
    return marks
