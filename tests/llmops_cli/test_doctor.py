"""`llmops doctor`: each thing that can be wrong is one row that says so, and no row hides the others."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner
from dagster._daemon.types import DaemonHeartbeat

from llmops_cli import doctor
from llmops_cli.instance import instance_file, prepare_instance
from llmops_cli.main import main
from llmops_core.home import FORMAT
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.models.store import known_models
from llmops_core.release.registry import Releases
from llmops_core.settings import load_settings
from llmops_core.traffic.ingest import mark_name
from tests.llmops_cli.fake_gateway import serving

MODELS = {f"model {model.name}" for model in known_models()}
HOUR_S = 3600


@pytest.fixture(autouse=True)
def free_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports of this test's own: what else runs on this machine must not be seen."""
    monkeypatch.setattr(doctor, "UI_PORT", _unused_port())
    monkeypatch.setenv("LLMOPS_PORT", str(_unused_port()))


def examined() -> tuple[int, dict[str, tuple[str, str]]]:
    """Exit code, and what was looked at → its state and detail."""
    result = CliRunner().invoke(main, ["doctor", "--json"])
    assert isinstance(result.exception, SystemExit | None), result.exception
    findings = json.loads(result.stdout)
    assert all(set(finding) == {"what", "state", "detail"} for finding in findings)
    rows = {finding["what"]: (finding["state"], finding["detail"]) for finding in findings}
    assert len(rows) == len(findings)
    return result.exit_code, rows


def _unused_port() -> int:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return server.server_port


@contextmanager
def _listening(status: int) -> Iterator[int]:
    """Something on a port that answers every address with this status."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with serving(Answer) as port:
        yield port


def test_an_empty_home_has_failures_with_the_command_that_brings_the_models(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "empty" / "dagster"))
    code, rows = examined()
    assert code == 1
    assert {what for what, (state, _) in rows.items() if state == "fail"} == MODELS
    assert all("Run: llmops models pull" in rows[what][1] for what in MODELS)
    assert rows["lakehouse"][0] == "ok"
    state, detail = rows["release of notes"]
    assert state == "warn"
    assert f"llmops build --assistant {project / 'assistants' / 'notes'}" in detail


def test_a_built_assistant_is_sound_and_its_release_is_named(built: Path) -> None:
    release = Releases(Lakehouse.open(load_settings()), "notes").get("prod")
    code, rows = examined()
    assert code == 0
    assert {what for what, (state, _) in rows.items() if state != "ok"} == {"Dagster daemon"}
    assert release.release_id[:12] in rows["release of notes"][1]
    assert rows["assistant notes"][1] == str(built / "assistants" / "notes" / "assistant.yaml")
    assert set(rows) >= MODELS


def test_people_get_a_table_in_which_what_is_not_well_is_in_capitals(built: Path) -> None:
    result = CliRunner().invoke(main, ["doctor"])
    assert re.search(r"^ok    disk  ", result.stdout, re.MULTILINE)
    assert re.search(r"^WARN  Dagster daemon  ", result.stdout, re.MULTILINE)
    assert result.stdout.splitlines()[-1] == "0 problems, 1 warning"


def test_a_home_of_an_earlier_version_is_a_warning_until_it_is_upgraded(built: Path) -> None:
    marks = load_settings().home / "home.json"
    whole = marks.read_text(encoding="utf-8")
    assert examined()[1]["home"] == ("ok", "of this version")
    marks.write_text(json.dumps({**json.loads(whole), "format": FORMAT - 1}), encoding="utf-8")
    state, detail = examined()[1]["home"]
    assert state == "warn"
    assert f"home: format {FORMAT - 1} to {FORMAT}" in detail
    assert "llmops upgrade" in detail
    assert CliRunner().invoke(main, ["upgrade"]).exit_code == 0
    assert examined()[1]["home"][0] == "ok"


def test_a_daemon_that_gave_a_sign_of_life_runs(project: Path) -> None:
    assert examined()[1]["Dagster daemon"][0] == "warn"
    with dg.DagsterInstance.get() as instance:
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", None))
    assert examined()[1]["Dagster daemon"] == ("ok", "running")


def test_a_port_on_which_something_else_listens_fails(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _listening(404) as port:
        monkeypatch.setenv("LLMOPS_PORT", str(port))
        code, rows = examined()
    assert code == 1
    assert rows[f"port {port}"] == (
        "fail",
        "something else listens where the gateway would; end it or choose another port",
    )


def test_a_port_on_which_the_gateway_itself_answers_is_well(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _listening(200) as port:
        monkeypatch.setenv("LLMOPS_PORT", str(port))
        code, rows = examined()
    assert code == 0
    assert rows[f"port {port}"] == ("ok", "the gateway is running")


def test_a_sensor_that_was_switched_off_is_named_at_its_own_assistant(project: Path) -> None:
    """Every assistant has sensors of the same names, so the other one must not be blamed."""
    notes, letters = project / "assistants" / "notes", project / "assistants" / "letters"
    letters.mkdir()
    text = (notes / "assistant.yaml").read_text(encoding="utf-8")
    (letters / "assistant.yaml").write_text(text.replace("name: notes", "name: letters"), encoding="utf-8")
    prepare_instance(load_settings())
    stop = [
        sys.executable,
        "-m",
        "dagster",
        "sensor",
        "stop",
        "documents_changed",
        "-w",
        "workspace.yaml",
        "-l",
        "notes",
    ]
    subprocess.run(stop, check=True, capture_output=True)
    code, rows = examined()
    assert rows["sensors of notes"] == ("warn", "switched off: documents_changed")
    assert rows["sensors of letters"][0] == "ok"
    assert code == 0


@pytest.fixture
def segment(built: Path, tmp_path: Path) -> Iterator[Path]:
    """A sealed segment of the request log on the disk of a gateway of this test's own."""
    file = load_settings().spool / "notes" / tmp_path.name / "000000000001.jsonl"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"{}\n")
    yield file
    file.unlink()
    file.parent.rmdir()


def _age(file: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(file, (then, then))


def test_rows_that_wait_for_hours_are_a_warning_with_the_way_out(segment: Path) -> None:
    _age(segment, 2 * HOUR_S)
    state, detail = examined()[1]["spool"]
    assert state == "warn"
    assert "waits for 120 minutes" in detail
    assert "llmops ingest" in detail


def test_rows_that_have_only_just_been_written_are_no_warning(segment: Path) -> None:
    _age(segment, 60)
    assert examined()[1]["spool"] == ("ok", "the oldest row that is not in Iceberg waits for 1 minutes")


def test_a_segment_that_goes_while_it_is_looked_at_is_no_failure(segment: Path) -> None:
    gone = segment.with_name("000000000002.jsonl")
    gone.symlink_to("nowhere")  # is listed, and cannot be looked at
    try:
        assert examined()[1]["spool"][0] == "ok"
    finally:
        gone.unlink()


def test_old_segments_that_iceberg_has_are_no_warning(segment: Path) -> None:
    _age(segment, 2 * HOUR_S)
    lakehouse = Lakehouse.open(load_settings())
    for noun in ("requests", "feedback"):
        assert examined()[1]["spool"][0] == "warn"
        table = lakehouse.table("notes", f"traffic_{noun}")
        empty = pl.DataFrame(schema=table.spec.frame_schema)
        table.append_after(empty, Provenance("test"), None, {mark_name(segment.parent.name): "1"})
    assert examined()[1]["spool"] == ("ok", "every logged request is in Iceberg")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [\n", "not valid YAML"),
        ("name: letters\nsources: []\n", "sources"),
        ("name: letters\nsources: [{type: python_topics}]\nembedder: {model: m}\n", "embedder.model: Unknown embedder"),
    ],
)
def test_an_assistant_with_a_wrong_yaml_fails_and_the_others_are_looked_at_all_the_same(
    built: Path, text: str, said: str
) -> None:
    file = built / "assistants" / "letters" / "assistant.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    try:
        code, rows = examined()
    finally:
        file.unlink()
        file.parent.rmdir()
    assert code == 1
    state, detail = rows["assistant letters"]
    assert state == "fail"
    assert str(file) in detail
    assert said in detail
    assert rows["assistant notes"][0] == rows["release of notes"][0] == rows["sensors of notes"][0] == "ok"


@pytest.mark.parametrize(
    ("file", "failing"),
    [
        ("lakehouse/catalog.db", {"lakehouse", "spool", "home"}),
        ("dagster/dagster.yaml", {"Dagster", "home"}),
    ],
)
def test_what_is_damaged_does_not_hide_the_rest(project: Path, file: str, failing: set[str]) -> None:
    examined()
    (load_settings().home / file).write_text("this: is: neither a database\nnor: [a setting", encoding="utf-8")
    code, rows = examined()
    assert code == 1
    assert {what for what, (state, _) in rows.items() if state == "fail"} == failing
    assert set(rows) >= MODELS


def test_dagsters_storage_that_cannot_be_opened_is_told_with_its_folder_and_the_way_out(project: Path) -> None:
    prepare_instance(load_settings())
    database = load_settings().dagster_home / "history" / "runs.db"
    database.unlink()
    database.mkdir()  # the system's own answer is that of a volume that is read-only
    code, rows = examined()
    assert code == 1
    for what in ("Dagster", "home"):
        state, detail = rows[what]
        assert state == "fail"
        assert str(load_settings().dagster_home) in detail
        assert "unable to open database file" in detail
        assert "read-only" in detail
        assert "SQL" not in detail


def test_a_dagster_yaml_that_was_changed_by_hand_is_a_warning_while_anything_is_missing(project: Path) -> None:
    prepare_instance(load_settings())
    file = instance_file(load_settings())
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole.partition("run_launcher:")[0], encoding="utf-8")
    state, detail = examined()[1]["dagster.yaml"]
    assert state == "warn"
    assert str(file) in detail
    assert "lacks run_launcher, run_monitoring, retention." in detail
    assert "llmops upgrade --dry-run" in detail
    file.write_text(whole.replace("  poll_interval_seconds: 30\n", ""), encoding="utf-8")
    assert "lacks run_monitoring.poll_interval_seconds." in examined()[1]["dagster.yaml"][1]
    file.write_text(whole.replace("poll_interval_seconds: 30", "poll_interval_seconds: 20"), encoding="utf-8")
    assert "dagster.yaml" not in examined()[1]


def test_little_space_on_the_disk_is_a_warning_with_the_way_out(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ENOUGH_DISK_GB", 0)
    assert examined()[1]["disk"][0] == "ok"
    monkeypatch.setattr(doctor, "ENOUGH_DISK_GB", 10**9)
    code, rows = examined()
    state, detail = rows["disk"]
    assert (code, state) == (0, "warn")
    assert str(load_settings().home) in detail
    assert "free space" in detail


def test_a_home_that_cannot_be_one_is_the_first_failure(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_HOME", str(project / "workspace.yaml"))
    monkeypatch.setenv("DAGSTER_HOME", str(project / "workspace.yaml" / "dagster"))
    code, rows = examined()
    assert code == 1
    state, detail = rows["disk"]
    assert state == "fail"
    assert detail.startswith(f"LLMOPS_HOME: {project / 'workspace.yaml'} cannot hold data")
    assert rows["assistant notes"][0] == "ok"
