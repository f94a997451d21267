"""Markdown, text, reStructuredText and HTML files below a folder.

The tree is walked by own code instead of `Path.glob`, whose answer to unreadable folders is silence (documents would look
deleted) and whose treatment of links differs between Python versions. Linked folders are not followed: a link to a parent
would make the corpus endless, one to elsewhere would bring in files that nobody meant.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from llmops_core.assistant import FolderSource as FolderSection
from llmops_core.corpus.decoding import decode_utf8, text_problem
from llmops_core.corpus.document import Document, MediaType, Rejected
from llmops_core.corpus.headings import title_of
from llmops_core.corpus.html import html_to_markdown
from llmops_core.errors import SourceError
from llmops_core.ids import content_hash

MEDIA_TYPES: dict[str, MediaType] = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".txt": "text/plain",
    ".text": "text/plain",
    ".rst": "text/x-rst",
    ".html": "text/html",
    ".htm": "text/html",
}
"""What is read, by lower-case suffix."""


@dataclass(frozen=True)
class _Entry:
    """A file or a problem below the folder: its path relative to that, and why it cannot be read, if so."""

    relative: str
    problem: str = ""
    size: int = 0
    mtime_ns: int = 0

    @property
    def media_type(self) -> MediaType | None:
        return MEDIA_TYPES.get(PurePosixPath(self.relative).suffix.lower())


class FolderSource:
    """Files below a folder that match a glob, in the order of their paths; hidden files and folders are skipped."""

    def __init__(self, section: FolderSection, assistant_folder: Path) -> None:
        self.name = "folder:" + str(PurePosixPath(section.path))
        if section.glob != "**/*":
            self.name += f"/{section.glob}"
        self._glob = PurePosixPath(section.glob).parts
        self._base = Path(os.path.abspath(assistant_folder))  # noqa: PTH100 - resolve() would rename a linked folder
        self._folder = Path(os.path.abspath(self._base / Path(section.path).expanduser()))  # noqa: PTH100

    def read(self) -> Iterator[Document | Rejected]:
        """Stream the documents; raises `SourceError` if the folder cannot be listed."""
        for entry in self._entries():
            uri = self._uri(entry.relative)
            try:
                yield self._read(entry, uri)
            except (ValueError, OSError) as error:
                reason = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
                yield Rejected(self.name, uri, reason)

    def stat_fingerprint(self) -> str:
        """Hash paths, sizes and modification times, without reading a file."""
        state = [[_printable(e.relative), e.problem, e.size, e.mtime_ns] for e in self._entries()]
        return content_hash([self.name, state])

    def content_fingerprint(self) -> str:
        """Hash paths and the bytes of every file of a supported kind."""
        state = [[_printable(e.relative), e.problem, self._digest(e)] for e in self._entries()]
        return content_hash([self.name, state])

    def _read(self, entry: _Entry, uri: str) -> Document:
        """Read one file; raises `ValueError` with the reason, or `OSError`, if it is no document."""
        if entry.problem:
            raise ValueError(entry.problem)
        media_type = entry.media_type
        if media_type is None:
            suffix = PurePosixPath(entry.relative).suffix or "(none)"
            raise ValueError(f"suffix not supported: {suffix}; supported: {' '.join(MEDIA_TYPES)}")
        text = decode_utf8((self._folder / entry.relative).read_bytes())
        if problem := text_problem(text):
            raise ValueError(problem)
        stem = PurePosixPath(entry.relative).stem
        if media_type == "text/html":
            title, text = html_to_markdown(text)
            if problem := text_problem(text):
                raise ValueError(f"nothing to read in the page: {problem}")
            media_type = "text/markdown"
            title = title or title_of(text, media_type, stem)
        else:
            title = title_of(text, media_type, stem)
        return Document(f"{self._folder.name}/{entry.relative}", title, text, uri, media_type, self.name)

    def _entries(self) -> list[_Entry]:
        """List what the glob matches, and every folder that cannot be entered; sorted by path."""
        try:
            with os.scandir(self._folder):
                pass
        except FileNotFoundError as error:
            raise SourceError(
                f"Source {self.name}: folder {self._folder} does not exist. Make it, or correct sources.path in assistant.yaml"
            ) from error
        except NotADirectoryError as error:
            raise SourceError(
                f"Source {self.name}: {self._folder} is not a folder. Name the folder that holds it and pick files with glob"
            ) from error
        except OSError as error:
            raise SourceError(
                f"Source {self.name}: folder {self._folder} cannot be listed: {error.strerror}. Check its permissions"
            ) from error
        return sorted(self._walk(), key=lambda entry: entry.relative.split("/"))

    def _walk(self) -> Iterator[_Entry]:
        unlisted: list[_Entry] = []

        def note(error: OSError) -> None:
            relative = Path(error.filename).relative_to(self._folder).as_posix()
            unlisted.append(_Entry(relative, f"folder cannot be listed: {error.strerror}"))

        for parent, folders, files in os.walk(self._folder, onerror=note):
            folders[:] = [name for name in folders if not name.startswith(".")]
            at = Path(parent).relative_to(self._folder)
            for name in folders:
                if (Path(parent) / name).is_symlink():
                    yield _Entry((at / name).as_posix(), "link to a folder: not followed; make it a source of its own")
            for name in files:
                relative = (at / name).as_posix()
                if not name.startswith(".") and _matches(tuple(relative.split("/")), self._glob):
                    yield self._entry(relative)
        yield from unlisted

    def _entry(self, relative: str) -> _Entry:
        if relative != _printable(relative):
            return _Entry(relative, "file name is not UTF-8: rename it")
        try:
            status = (self._folder / relative).stat()
        except OSError as error:
            return _Entry(relative, f"cannot be read: {error.strerror}")
        if not stat.S_ISREG(status.st_mode):
            return _Entry(relative, "not a regular file")
        return _Entry(relative, "", status.st_size, status.st_mtime_ns)

    def _digest(self, entry: _Entry) -> str:
        if entry.problem or not entry.media_type:
            return ""
        try:
            with (self._folder / entry.relative).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return f"cannot be read: {error.strerror}"

    def _uri(self, relative: str) -> str:
        path = self._folder / _printable(relative)
        return (path.relative_to(self._base) if path.is_relative_to(self._base) else path).as_posix()


def _printable(path: str) -> str:
    """A path as text that every table can hold: bytes that are not UTF-8 become backslash escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _matches(parts: tuple[str, ...], glob: tuple[str, ...]) -> bool:
    """Whether a path matches a glob in which `**` stands for any number of folders."""
    if not glob:
        return not parts
    if glob[0] == "**":
        return any(_matches(parts[start:], glob[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], glob[0]) and _matches(parts[1:], glob[1:])
