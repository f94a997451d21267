"""A local copy of one state of a git repository, kept up to date by the program `git`.

The program, and no library, because people's access works with it already (credential helpers, ssh, proxies), and since no
library fetches a shallow state incrementally. The copy is bare and shallow (the newest state of one branch, without its
history) and not partial: files that are fetched one by one when they are read cost a round trip each. Nothing is checked
out, so that no link, filter or hook of the repository does anything on this machine.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from filelock import FileLock

from llmops_core.errors import SourceError
from llmops_core.ids import content_hash

REMOTE_TIMEOUT_S = 60
FETCH_TIMEOUT_S = 3600
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_OF_ANOTHER_REPOSITORY = {
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES"),
    *("GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX", "GIT_SHALLOW_FILE"),
}
"""Set where git itself has started this process, for example in a hook."""

_LINK_PROBLEMS = {
    "dangling": "cannot be read: a link to nothing",
    "loop": "cannot be read: a link that leads to itself",
    "notdir": "cannot be read: a link through a file",
    "symlink": "cannot be read: a link that leaves the repository",
}


@dataclass(frozen=True)
class TreeEntry:
    """What lies in a folder of the repository: git's file mode, object id, size in bytes (0 where git has none), path."""

    mode: str
    object_id: str
    size: int
    path: str


class GitRepository:
    """One branch, tag or commit of a repository (`ref`; empty: its default branch), copied below `cache`."""

    def __init__(self, source: str, url: str, ref: str, *, is_branch: bool, cache: Path) -> None:
        self.public_url = public_url(url)
        self._source = source
        self._url = url
        self._ref = ref
        self._is_branch = is_branch
        self._folder = cache / content_hash([self.public_url, ref, is_branch])
        self._environment = _environment(
            {
                # Not as an argument and not in the copy's own configuration: it may hold a password.
                "remote.source.url": url,
                "gc.autoDetach": "false",
            }
        )

    def commit(self) -> str:
        """Ask the repository for the commit that is wanted now; raises `SourceError` if it is away or has none."""
        if not self._is_branch and _COMMIT.fullmatch(self._ref):
            return self._ref
        names = (
            [f"refs/heads/{self._ref}"] if self._is_branch else [f"refs/tags/{self._ref}{end}" for end in ("^{}", "")]
        )
        names = names if self._ref else ["HEAD"]
        answer = self._run("ls-remote", "source", *names, timeout=REMOTE_TIMEOUT_S, problem="cannot be reached")
        found = {name: commit for commit, _, name in (line.partition("\t") for line in answer.splitlines())}
        for name in names:
            if name in found:
                return found[name]
        what = f"has no {'branch' if self._is_branch else 'tag'} {self._ref!r}" if self._ref else "has no commit yet"
        way_out = "A commit needs all its digits" if self._ref and not self._is_branch else "Look at what it has"
        raise SourceError(
            f"Source {self._source}: {self.public_url} {what}. {way_out}, or correct sources in assistant.yaml"
        )

    def fetch(self, commit: str) -> None:
        """Bring a commit if it is not here yet; only what is new travels. Raises `SourceError`."""
        if self._has(commit):
            return
        try:
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self._folder}.lock"):
                if not self._has(commit):
                    self._fetch(commit)
        except OSError as error:
            raise SourceError(
                f"Source {self._source}: {self._folder} cannot be written: {error.strerror}. Look at its rights and the space"
                " on its disk, or set LLMOPS_HOME to another folder"
            ) from error

    def entries(self, commit: str, path: str) -> Iterator[TreeEntry]:
        """Stream what lies at any depth below a folder of the repository (empty: the root), paths relative to that."""
        tree = f"{commit}:{path}"
        if (self._try("cat-file", "-t", tree) or "").strip() != "tree":
            raise SourceError(
                f"Source {self._source}: {self.public_url} has no folder {path!r} at {commit[:12]}. Correct sources.path in"
                " assistant.yaml"
            )
        with self._streaming("ls-tree", "-r", "-l", "-z", tree) as process:
            assert process.stdout is not None
            rest = b""
            while block := process.stdout.read(1 << 16):
                *records, rest = (rest + block).split(b"\0")
                for record in records:
                    facts, _, name = record.partition(b"\t")
                    mode, _, object_id, size = facts.decode().split()
                    yield TreeEntry(mode, object_id, int(size) if size.isdigit() else 0, os.fsdecode(name))
            if process.wait() != 0:
                raise self._damaged()

    @contextmanager
    def blobs(self) -> Iterator["Blobs"]:
        """Open the repository for reading files."""
        with self._streaming("cat-file", "--batch", "--follow-symlinks") as process:
            yield Blobs(process, self._damaged())

    def _has(self, commit: str) -> bool:
        # Git makes a reference as the last thing of a fetch, after it has seen that nothing is missing.
        return self._folder.is_dir() and bool(
            self._try("rev-parse", "--verify", "--quiet", f"refs/llmops/{commit}^{{tree}}")
        )

    def _fetch(self, commit: str) -> None:
        for _ in range(2):
            for left in self._folder.rglob("*.lock"):  # By a process that was killed: ours is the lock that counts.
                left.unlink()
            self._run("init", "--bare", "--quiet", str(self._folder), problem="cannot be copied")
            fetch = ("fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
            try:
                self._run(
                    *("--git-dir", str(self._folder), *fetch, "source", f"+{commit}:refs/llmops/{commit}"),
                    timeout=FETCH_TIMEOUT_S,
                    problem="cannot be fetched",
                )
                break
            except SourceError:
                if self._try("fsck", "--connectivity-only", "--no-progress") is not None:
                    raise
                shutil.rmtree(self._folder)
        else:
            raise self._damaged()
        for name in (self._try("for-each-ref", "--format=%(refname)", "refs/llmops") or "").split():
            if name != f"refs/llmops/{commit}":
                self._try("update-ref", "-d", name)

    def _damaged(self) -> SourceError:
        return SourceError(
            f"Source {self._source}: the copy of {self.public_url} is damaged. Delete {self._folder} and build again"
        )

    def _try(self, *arguments: str) -> str | None:
        """What a command on the copy prints; None if it fails."""
        process = subprocess.run(
            ["git", "--git-dir", str(self._folder), *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        return process.stdout.decode(errors="replace") or "ok" if process.returncode == 0 else None

    def _run(self, *arguments: str, problem: str, timeout: float = REMOTE_TIMEOUT_S) -> str:
        """What a command prints; raises `SourceError` with git's own reason, without credentials."""
        try:
            # A session of its own has no terminal on which ssh could ask, and can be ended with all that it started.
            process = subprocess.Popen(
                ["git", *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise SourceError(f"Source {self._source}: the program git is not installed. Install it") from error
        try:
            out, errors = process.communicate(timeout=timeout)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise SourceError(
                    f"Source {self._source}: {self.public_url} {problem}: no answer within {timeout:g} s"
                ) from None
            raise
        if process.returncode == 0:
            return out.decode(errors="replace")
        said = self._without_credentials(errors.decode(errors="replace"))
        raise SourceError(
            f"Source {self._source}: {self.public_url} {problem}: {said}. Check sources.url, the network, and what"
            f" `git ls-remote` says"
        )

    def _without_credentials(self, text: str) -> str:
        lines = [line for line in text.replace(self._url, self.public_url).splitlines() if line.strip()]
        text = "; ".join(re.sub(r"://[^/\s@]*@", "://", line).strip() for line in lines[:3])
        secret = urlsplit(self._url).password if "://" in self._url else None
        return (text.replace(secret, "…") if secret else text) or "git gives no reason"

    @contextmanager
    def _streaming(self, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
        """A command on the copy whose pipes are read and written while it runs; it ends with the block."""
        process = subprocess.Popen(
            ["git", "--git-dir", str(self._folder), *arguments],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


class Blobs:
    """Reads files of a repository, one after the other; `damaged` is raised where one is missing that should be there."""

    def __init__(self, process: "subprocess.Popen[bytes]", damaged: SourceError) -> None:
        self._process = process
        self._damaged = damaged

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of an object id, or of `<commit>:<path>`, where links are followed within the repository.

        Raises `ValueError` with the reason if that is no file or has more than `limit` bytes.
        """
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        try:
            requests.write(os.fsencode(name) + b"\n")
            requests.flush()
        except BrokenPipeError:
            raise self._damaged from None
        head = answers.readline()
        if not head.endswith(b"\n") or head.endswith(b" missing\n"):
            raise self._damaged
        kind, size = head.split()[-2].decode(), int(head.split()[-1])
        if kind == "blob" and size <= limit:
            content = answers.read(size)
            answers.read(1)
            return content
        left = size + 1
        while left:
            left -= len(answers.read(min(left, 1 << 20))) or left
        if problem := _LINK_PROBLEMS.get(head.split()[0].decode()):
            raise ValueError(problem)
        if kind == "tree":
            raise ValueError("link to a folder: not followed; make it a source of its own")
        raise ValueError(f"{size:,} bytes, the limit is {limit:,}; split it")


def public_url(url: str) -> str:
    """An address without what may be secret in it: user, password and query."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _environment(config: Mapping[str, str]) -> dict[str, str]:
    """The environment for git: nothing is asked on a terminal, messages are English, `config` is set."""
    environment = {name: value for name, value in os.environ.items() if name not in _OF_ANOTHER_REPOSITORY}
    count = int(environment.get("GIT_CONFIG_COUNT", "0"))
    for number, (key, value) in enumerate(config.items(), start=count):
        environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return environment | {
        "GIT_CONFIG_COUNT": str(count + len(config)),
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
