"""Files below a folder: Markdown, text, reStructuredText, HTML, PDF and DOCX.

The tree is walked by own code instead of `Path.glob`, whose answer to unreadable folders is silence (documents would look
deleted) and whose treatment of links differs between Python versions. Linked folders are not followed: a link to a parent
would make the corpus endless, one to elsewhere would bring in files that nobody meant. The walk holds the names of the
folders that it is in and nothing else, so a million files take the memory of their names.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from llmops_core.assistant import FolderSource as FolderSection
from llmops_core.corpus.document import Document, Rejected
from llmops_core.corpus.files import FILE_TYPES, documents_of, file_type_of, read_file, size_problem
from llmops_core.corpus.sources.paths import NOT_UTF8, PathGlob, printable
from llmops_core.errors import SourceError
from llmops_core.ids import HASH_LENGTH, canonical_json

_Kind = Literal["file", "folder", "link to a folder"]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file or a problem below the folder: its path relative to that, and why it cannot be read, if so."""

    relative: str
    problem: str = ""
    size: int = 0
    mtime_ns: int = 0


class FolderSource:
    """Files below a folder that match a glob, in the order of their paths; hidden files and folders are skipped."""

    def __init__(self, section: FolderSection, assistant_folder: Path) -> None:
        self.name = "folder:" + str(PurePosixPath(section.path))
        if section.glob != "**/*":
            self.name += f"/{section.glob}"
        self._glob = PathGlob(section.glob)
        base = Path(os.path.abspath(assistant_folder))  # noqa: PTH100 - resolve() would rename a linked folder
        self._folder = Path(os.path.abspath(base / Path(section.path).expanduser()))  # noqa: PTH100
        relative = self._folder.relative_to(base) if self._folder.is_relative_to(base) else self._folder
        self._uri_prefix = f"{relative.as_posix()}/" if self._folder != base else ""

    def read(self) -> Iterator[Document | Rejected]:
        """Stream the documents; a file that vanishes meanwhile is none. Raises `SourceError` if nothing can be listed."""
        for entry in self._entries():
            uri = self._uri_prefix + printable(entry.relative)
            try:
                yield from self._read(entry, uri)
            except FileNotFoundError:
                continue
            except (ValueError, OSError) as error:
                reason = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
                yield Rejected(self.name, uri, reason)

    def stat_fingerprint(self) -> str:
        """Hash paths, sizes and modification times, without reading a file."""
        return self._fingerprint([printable(e.relative), e.problem, e.size, e.mtime_ns] for e in self._entries())

    def content_fingerprint(self) -> str:
        """Hash paths and the bytes of every file that can be read."""
        return self._fingerprint([printable(e.relative), e.problem, self._digest(e)] for e in self._entries())

    def _fingerprint(self, states: Iterable[list[str | int]]) -> str:
        digest = hashlib.sha256(self.name.encode("utf-8", "surrogatepass"))
        for state in states:
            digest.update(canonical_json(state).encode() + b"\n")
        return digest.hexdigest()[:HASH_LENGTH]

    def _read(self, entry: _Entry, uri: str) -> Iterator[Document]:
        """Read one file; raises `ValueError` with the reason, or `OSError`, if it is no document."""
        if entry.problem:
            raise ValueError(entry.problem)
        kind = file_type_of(entry.relative)
        if problem := size_problem(kind, entry.size):
            raise ValueError(problem)
        file = read_file((self._folder / entry.relative).read_bytes(), kind, PurePosixPath(entry.relative).stem)
        yield from documents_of(file, f"{self._folder.name}/{entry.relative}", uri, self.name)

    def _entries(self) -> Iterator[_Entry]:
        """What the glob picks, and every folder that cannot be entered, by path."""
        try:
            os.scandir(self._folder).close()
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
        # A stack of its own: folders nest deeper than Python recurses.
        walks = [self._walk("")]
        while walks:
            found = next(walks[-1], None)
            if found is None:
                walks.pop()
            elif isinstance(found, str):
                walks.append(self._walk(found))
            else:
                yield found

    def _walk(self, at: str) -> Iterator[_Entry | str]:
        """The entries of one folder by name, and the paths of the folders in it where their turn comes."""
        try:
            with os.scandir(self._folder / at) as listing:
                kinds = {entry.name: _kind(entry) for entry in listing if not entry.name.startswith(".")}
        except FileNotFoundError:
            return
        except OSError as error:
            yield _Entry(at, f"folder cannot be listed: {error.strerror}")
            return
        for name in sorted(kinds):
            relative = f"{at}/{name}" if at else name
            if kinds[name] == "folder":
                yield relative
            elif kinds[name] == "link to a folder":
                yield _Entry(relative, "link to a folder: not followed; make it a source of its own")
            elif self._glob.picks(relative):
                yield from self._entry(relative)

    def _entry(self, relative: str) -> Iterator[_Entry]:
        """Look at a file; none if it has vanished since its folder was listed."""
        path = self._folder / relative
        if relative != printable(relative):
            yield _Entry(relative, NOT_UTF8)
            return
        try:
            status = path.stat()
        except OSError as error:
            if path.is_symlink() or not isinstance(error, FileNotFoundError):
                yield _Entry(relative, f"cannot be read: {error.strerror}")
            return
        problem = "" if stat.S_ISREG(status.st_mode) else "not a regular file"
        yield _Entry(relative, problem, status.st_size, status.st_mtime_ns)

    def _digest(self, entry: _Entry) -> str | int:
        kind = FILE_TYPES.get(PurePosixPath(entry.relative).suffix.lower())
        if entry.problem or not kind or size_problem(kind, entry.size):
            return entry.size if kind else ""
        try:
            with (self._folder / entry.relative).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return f"cannot be read: {error.strerror}"


def _kind(entry: "os.DirEntry[str]") -> _Kind:
    try:
        if entry.is_dir():
            return "link to a folder" if entry.is_symlink() else "folder"
    except OSError:
        return "file"
    return "file"
