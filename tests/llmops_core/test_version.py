"""Which code runs: a commit is named only of the repository that the package belongs to."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "llmops_core"


def git(repository: Path, *arguments: str) -> str:
    """Run git there, as nobody in particular."""
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    command = ["git", "-C", str(repository), *who, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def version_of(package: Path) -> str:
    """What a program that imports the package from there says."""
    code = "from llmops_core.version import code_version; print(code_version())"
    done = subprocess.run([sys.executable, "-c", code], cwd=package.parent, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a commit, and the package in its folder, not tracked."""
    monkeypatch.delenv("LLMOPS_CODE_VERSION", raising=False)
    git(tmp_path, "init", "--quiet")
    (tmp_path / "file").write_text("text")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "-m", "a file")
    package = tmp_path / "llmops_core"
    package.mkdir()
    for name in ("__init__.py", "version.py", "ids.py"):
        shutil.copy(PACKAGE / name, package)
    return tmp_path


def test_the_commit_of_a_repository_that_does_not_have_the_package_is_not_named(repository: Path) -> None:
    assert "+" not in version_of(repository / "llmops_core")


def test_the_commit_that_has_the_package_is_named_and_whether_files_differ_from_it(repository: Path) -> None:
    git(repository, "add", "llmops_core")
    git(repository, "commit", "--quiet", "-m", "the package")
    commit = git(repository, "rev-parse", "HEAD")[:12]
    assert version_of(repository / "llmops_core").endswith(f"+{commit}")
    (repository / "file").write_text("other text")
    assert version_of(repository / "llmops_core").endswith(f"+{commit}.dirty")


def test_the_repository_is_only_looked_at(repository: Path) -> None:
    git(repository, "add", "llmops_core")
    git(repository, "commit", "--quiet", "-m", "the package")
    (repository / "file").touch()
    before = (repository / ".git" / "index").read_bytes()
    version_of(repository / "llmops_core")
    assert (repository / ".git" / "index").read_bytes() == before
