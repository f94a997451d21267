"""Paths within a source: which of them a glob picks, and how they are written down."""

import os
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

NOT_UTF8 = "file name is not UTF-8: rename it"


class PathGlob:
    """A glob in which `**` stands for any number of folders; what begins with a dot is hidden and never picked."""

    def __init__(self, pattern: str) -> None:
        self._parts = PurePosixPath(pattern).parts

    def picks(self, path: str) -> bool:
        """Whether the glob picks a path, whose parts are separated by slashes."""
        parts = tuple(path.split("/"))
        return not any(part.startswith(".") for part in parts) and _matches(parts, self._parts)


def printable(path: str) -> str:
    """A path as text that every table can hold: bytes that are not UTF-8 become backslash escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _matches(parts: tuple[str, ...], glob: tuple[str, ...]) -> bool:
    if not glob:
        return not parts
    if glob[0] == "**":
        return any(_matches(parts[start:], glob[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], glob[0]) and _matches(parts[1:], glob[1:])
