"""`llmops upgrade`: the home of an earlier version, as it was left, and the home of a newer one."""

import hashlib
import json
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llmops_cli.instance import INSTANCE_FILE, is_as_shipped
from llmops_cli.main import main
from llmops_core.home import FORMAT
from llmops_core.settings import Settings, load_settings

HOMES = Path(__file__).parents[1] / "homes"
FIRST = "0.1.0"
NEWER = json.dumps({"format": FORMAT + 1, "code_version": "99.0.0"})


@pytest.fixture
def first_home(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project and home that the first version left (see tests/homes/make.sh), under the path that they had."""
    base = Path(f"/tmp/llmops-home-{FIRST}")
    with tarfile.open(HOMES / f"{FIRST}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "home" / "models").symlink_to(models)
    base.unlink(missing_ok=True)
    base.symlink_to(tmp_path)
    monkeypatch.setenv("LLMOPS_HOME", str(base / "home"))
    monkeypatch.setenv("DAGSTER_HOME", str(base / "home" / "dagster"))
    monkeypatch.chdir(base / "project")
    yield tmp_path / "home"
    base.unlink()


def llmops(*arguments: str) -> dict[str, Any]:
    """What a command answers; it must succeed."""
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def contents(folder: Path) -> dict[str, str]:
    """Each file with the hash of its bytes, without what SQLite keeps beside a database that is open."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and "models" not in file.parts)
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if not file.name.endswith(("-wal", "-shm"))
    }


def test_a_home_of_the_first_version_is_upgraded_and_goes_on_without_doing_anything_again(first_home: Path) -> None:
    before = contents(first_home)
    planned = llmops("upgrade", "--dry-run")
    assert contents(first_home) == before
    done = llmops("upgrade")
    assert done["changes"] == planned["changes"]
    assert f"home: format 1 to {FORMAT}" in done["changes"]
    assert (first_home / "dagster" / "dagster.yaml").read_text() == INSTANCE_FILE
    assert llmops("upgrade")["changes"] == []

    logged = llmops("release", "list")
    built = llmops("build")
    assert built["embedded"] == 0
    assert llmops("release", "list") == logged
    llmops("maintain")
    answer = llmops("search", "How hot is the water for green tea?")
    assert answer["hits"][0]["document_id"] == "docs/tea.md"


def test_a_table_of_an_earlier_version_is_not_written_before_its_upgrade(first_home: Path) -> None:
    assert llmops("release", "list")
    promotion = ("release", "promote", "1", "staging", "--message", "tried")
    refused = CliRunner().invoke(main, [*promotion, "--json"])
    assert refused.exit_code == 1
    message = json.loads(refused.stdout)["error"]["message"]
    assert "notes.release_events was made by an earlier version and lacks experiment, gate" in message
    assert "llmops upgrade" in message
    llmops("upgrade")
    assert llmops(*promotion)["channel"] == "staging"


def test_an_older_schema_of_dagsters_storage_is_migrated(first_home: Path) -> None:
    database = first_home / "dagster" / "history" / "runs.db"
    (newest,) = read(database, "select version_num from alembic_version")
    write(database, "update alembic_version set version_num = '7e2f3204cf8e'")
    assert any("schema 7e2f3204cf8e to" in change for change in llmops("upgrade", "--dry-run")["changes"])
    assert read(database, "select version_num from alembic_version") == ["7e2f3204cf8e"]
    llmops("upgrade")
    assert read(database, "select version_num from alembic_version") == [newest]


def test_a_dagster_yaml_that_a_person_changed_stays_and_is_told_of(first_home: Path) -> None:
    file = first_home / "dagster" / "dagster.yaml"
    file.write_text(file.read_text() + "\nnux: {enabled: false}\n")
    mine = file.read_text()
    done = llmops("upgrade")
    assert file.read_text() == mine
    assert str(file.name) in done["by_hand"][0]
    assert INSTANCE_FILE in done["by_hand"][0]


def test_every_dagster_yaml_that_was_shipped_is_known_as_such() -> None:
    """When this fails, add the hash of the new text to SHIPPED; the earlier ones stay."""
    assert is_as_shipped(INSTANCE_FILE)


def test_a_new_home_is_marked_and_has_nothing_to_upgrade(project: Path) -> None:
    assert llmops("upgrade", "--dry-run")["changes"] == []
    marks = json.loads((load_settings().home / "home.json").read_text())
    assert marks["format"] == FORMAT


def test_a_home_that_was_marked_without_its_path_gets_it(project: Path, home_with_models: Settings) -> None:
    mark = home_with_models.home / "home.json"
    mark.write_text(json.dumps({"format": FORMAT, "code_version": "0.1.0"}))
    assert llmops("upgrade", "--dry-run")["changes"] == []
    assert "path" not in json.loads(mark.read_text())
    assert llmops("upgrade")["changes"] == []
    assert json.loads(mark.read_text())["path"] == str(home_with_models.home)


@pytest.mark.parametrize("arguments", [["build"], ["search", "tea"], ["upgrade"], ["dev"], ["serve"], ["maintain"]])
def test_the_home_of_a_newer_program_is_refused(
    project: Path, home_with_models: Settings, arguments: list[str]
) -> None:
    (home_with_models.home / "home.json").write_text(NEWER)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert f"is a home of format {FORMAT + 1}, written by llmops-assets 99.0.0" in done.stderr
    assert {file.name for file in home_with_models.home.iterdir()} == {"home.json", "models"}


def test_dagster_refuses_the_home_of_a_newer_program_too(project: Path, home_with_models: Settings) -> None:
    (home_with_models.home / "home.json").write_text(NEWER)
    home_with_models.dagster_home.mkdir()
    file = project / "assistants" / "notes" / "definitions.py"
    command = [
        sys.executable,
        "-m",
        "dagster",
        "asset",
        "materialize",
        "-f",
        str(file),
        "--select",
        "notes/prompts/versions",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "written by llmops-assets 99.0.0" in done.stderr + done.stdout


@pytest.mark.parametrize("text", ["", "[]", '{"format": "two"}'])
def test_a_damaged_mark_is_told_with_the_way_out(project: Path, home_with_models: Settings, text: str) -> None:
    (home_with_models.home / "home.json").write_text(text)
    done = CliRunner().invoke(main, ["build"])
    assert done.exit_code == 1
    assert "home.json" in done.stderr
    assert "llmops upgrade" in done.stderr


def read(database: Path, query: str) -> list[Any]:
    """First column of a query's rows."""
    connection = sqlite3.connect(database)
    try:
        return [row[0] for row in connection.execute(query)]
    finally:
        connection.close()


def write(database: Path, statement: str) -> None:
    """Run a statement and commit it."""
    connection = sqlite3.connect(database)
    try:
        connection.execute(statement)
        connection.commit()
    finally:
        connection.close()
