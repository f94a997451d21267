"""Which code and which libraries are running: both go into every write and every logged answer."""

import importlib.metadata
import os
import subprocess
from functools import cache
from pathlib import Path

from llmops_core.ids import content_hash

_COMMIT = "# branch.oid "


@cache
def code_version() -> str:
    """Name the running code: `LLMOPS_CODE_VERSION` if set (images do), else package version and git commit."""
    given = os.environ.get("LLMOPS_CODE_VERSION")
    if given:
        return given
    version = importlib.metadata.version("llmops-assets")
    # Of a package that is installed below a repository of somebody else's, that one's commit would say nothing.
    if not _git("ls-files", "--error-unmatch", Path(__file__).name):
        return version
    state = _git("status", "--porcelain=v2", "--branch", "-uno").splitlines()
    commit = next((line.removeprefix(_COMMIT) for line in state if line.startswith(_COMMIT)), "")[:12]
    dirty = any(not line.startswith("#") for line in state)
    return f"{version}+{commit}{'.dirty' if dirty else ''}" if commit else version


@cache
def lock_hash() -> str:
    """Hash the names and versions of all installed distributions."""
    installed = {f"{d.name}=={d.version}" for d in importlib.metadata.distributions() if d.name}
    return content_hash(sorted(installed))


def _git(*arguments: str) -> str:
    # Without optional locks: a `status` that is killed while it refreshes the index leaves its lock, and nobody can commit.
    command = ["git", "--no-optional-locks", "-C", str(Path(__file__).resolve().parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
