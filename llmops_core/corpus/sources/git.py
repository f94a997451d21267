"""Files of a git repository, read as those of a folder are: at the tip of a branch, or for ever at one revision."""

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from llmops_core.assistant import GitSource as GitSection
from llmops_core.corpus.document import Document, Rejected
from llmops_core.corpus.files import MAX_BYTES, documents_of, file_type_of, read_file, size_problem
from llmops_core.corpus.sources.git_repository import Blobs, GitRepository, TreeEntry, public_url
from llmops_core.corpus.sources.paths import NOT_UTF8, PathGlob, printable
from llmops_core.ids import content_hash

_LINK = "120000"
_SUBMODULE = "160000"


class GitSource:
    """Files below a folder of a repository that match a glob, in git's order; hidden files and folders are skipped.

    A document's id is the repository's name and the path in it: the same in every copy.
    """

    def __init__(self, section: GitSection, assistant_folder: Path, cache: Path) -> None:
        ref = section.branch or section.revision or ""
        self._path = posixpath.normpath("/" + section.path).strip("/")
        self.name = f"git:{public_url(section.url)}"
        self.name += f"@{ref}" if ref else ""
        self.name += f"/{self._path}" if self._path else ""
        self.name += f"/{section.glob}" if section.glob != "**/*" else ""
        self._public_url = public_url(section.url)
        is_path = "://" not in section.url and not re.match(r"[^/]+:", section.url)
        url = os.path.abspath(assistant_folder / Path(section.url).expanduser()) if is_path else section.url  # noqa: PTH100
        self._repository_name = re.split(r"[/:]", url.rstrip("/").removesuffix("/.git"))[-1].removesuffix(".git")
        self._glob = PathGlob(section.glob)
        self._repository = GitRepository(self.name, url, ref, is_branch=not section.revision, cache=cache)

    def read(self) -> Iterator[Document | Rejected]:
        """Stream the documents of the newest commit; raises `SourceError` if the repository is away."""
        commit = self._repository.commit()
        self._repository.fetch(commit)
        with self._repository.blobs() as blobs:
            for entry in self._repository.entries(commit, self._path):
                if not self._is_wanted(entry):
                    continue
                path = f"{self._path}/{entry.path}" if self._path else entry.path
                uri = f"{self._public_url}#{printable(path)}"
                try:
                    yield from self._read(blobs, entry, commit, path, uri)
                except ValueError as error:
                    yield Rejected(self.name, uri, str(error))

    def stat_fingerprint(self) -> str:
        """Name the commit, for which the repository is asked and nothing is fetched."""
        return content_hash([self.name, self._repository.commit()])

    def content_fingerprint(self) -> str:
        """Name the commit, which stands for all bytes."""
        return self.stat_fingerprint()

    def _is_wanted(self, entry: TreeEntry) -> bool:
        if entry.mode == _SUBMODULE:  # It is a folder, which no glob speaks of.
            return not any(part.startswith(".") for part in entry.path.split("/"))
        return self._glob.picks(entry.path)

    def _read(self, blobs: Blobs, entry: TreeEntry, commit: str, path: str, uri: str) -> Iterator[Document]:
        """Read one file; raises `ValueError` with the reason if it is no document."""
        if entry.mode == _SUBMODULE:
            raise ValueError("submodule: not read; make it a source of its own")
        if path != printable(path):
            raise ValueError(NOT_UTF8)
        if entry.mode == _LINK and "\n" in path:
            raise ValueError("link with a line break in its name: rename it")
        kind = file_type_of(path)
        if problem := size_problem(kind, entry.size):
            raise ValueError(problem)
        data = blobs.read(f"{commit}:{path}" if entry.mode == _LINK else entry.object_id, MAX_BYTES)
        file = read_file(data, kind, PurePosixPath(path).stem)
        yield from documents_of(file, f"{self._repository_name}/{path}", uri, self.name)
