"""Which code and which libraries are running: both go into every write and every logged answer."""

import importlib.metadata
import os
import subprocess
from functools import cache
from pathlib import Path

from llmops_core.ids import content_hash


@cache
def code_version() -> str:
    """Name the running code: `LLMOPS_CODE_VERSION` if set (images do), else package version and git commit."""
    given = os.environ.get("LLMOPS_CODE_VERSION")
    if given:
        return given
    version = importlib.metadata.version("llmops-assets")
    commit = _git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return version
    return f"{version}+{commit}{'.dirty' if _git('status', '--porcelain', '-uno') else ''}"


@cache
def lock_hash() -> str:
    """Hash the names and versions of all installed distributions."""
    installed = {f"{d.name}=={d.version}" for d in importlib.metadata.distributions() if d.name}
    return content_hash(sorted(installed))


def _git(*arguments: str) -> str:
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
