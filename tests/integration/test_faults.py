"""When something is wrong with the place: a full disk, a home that cannot be written, a catalog that another process holds, a
model that is damaged, a clock that goes back. Each is told with the way out, and what was there is there afterwards.

A full disk under the gateway's spool is in tests/llmops_core/traffic/test_spool.py, damaged indexes in
tests/llmops_core/vectors/test_damage.py.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llmops_cli.doctor import examine
from llmops_cli.main import main
from llmops_core.assistant import Assistant
from llmops_core.errors import LakehouseError
from llmops_core.ids import uuid7
from llmops_core.lakehouse import catalog
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings, load_settings
from llmops_core.traffic.ingest import ingest
from llmops_core.traffic.line import encode_line, encode_payload, segment_name
from llmops_core.traffic.row import FeedbackRow
from llmops_core.traffic.shipping import put
from llmops_core.traffic.spool import SpoolWriter
from llmops_core.traffic.waiting import Place
from tests.locked_catalog import locked_catalog
from tests.running_gateway import NAME, write_assistant

# A server where nothing listens.
NOBODY = {"engine": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}

# The command in a process whose clocks are ten days behind.
CLOCK_BACK = """
import datetime, time
DAYS = 10
seconds, nanoseconds = time.time, time.time_ns
time.time = lambda: seconds() - DAYS * 86_400
time.time_ns = lambda: nanoseconds() - DAYS * 86_400 * 10**9

class SameInstances(type):
    def __instancecheck__(cls, value):
        return isinstance(value, datetime.datetime)

class Behind(datetime.datetime, metaclass=SameInstances):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(time.time(), tz)

from llmops_cli.doctor import examine
from llmops_cli.main import main
import llmops_core.release.channels, llmops_core.release.registry
for module in list(__import__("sys").modules.values()):
    if getattr(module, "__name__", "").startswith("llmops_") and getattr(module, "datetime", None) is datetime.datetime:
        module.datetime = Behind
main()
"""


def mount(*arguments: str) -> None:
    """Mount, or skip where that is not allowed."""
    if (
        sys.platform != "linux"
        or os.geteuid() != 0
        or subprocess.run(["mount", *arguments], capture_output=True).returncode
    ):
        pytest.skip("mounting a volume needs Linux and the right to do it")


@pytest.fixture
def home(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """An empty home on a volume of its own, of 64 MiB."""
    folder = tmp_path / "home"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder))
    try:
        (folder / "models").symlink_to(models)
        monkeypatch.setenv("LLMOPS_HOME", str(folder))
        monkeypatch.setenv("DAGSTER_HOME", str(folder / "dagster"))
        yield load_settings()
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def assistant(tmp_path: Path) -> Assistant:
    """Full text and a server where nothing listens: no model has to be loaded."""
    return write_assistant(
        tmp_path / "notes",
        retrieval={"mode": "full_text"},
        generator=NOBODY,
    )


def llmops(assistant: Assistant, *arguments: str) -> dict[str, Any]:
    """What a command says, as a program sees it."""
    done = CliRunner().invoke(main, [*arguments, "--assistant", str(assistant.folder), "--json"])
    print(done.stderr[-3000:])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def refused(assistant: Assistant, *arguments: str) -> str:
    """The message of a command that cannot work."""
    message: str = llmops(assistant, *arguments)["error"]["message"]
    return message


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """No byte is free on the volume within the block."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    yield
    filler.unlink()


def test_a_build_on_a_full_disk_says_so_and_leaves_what_was_served_and_the_next_one_goes_on(
    home: Settings, assistant: Assistant
) -> None:
    llmops(assistant, "build")
    released = llmops(assistant, "release", "list")
    (assistant.folder / "docs" / "ferry.md").write_text("# Ferry\n\nThe ferry leaves at seven.\n")
    with full(home.home):
        message = refused(assistant, "build")
    assert str(home.home) in message
    assert "free space" in message.lower()
    assert llmops(assistant, "release", "list") == released
    assert llmops(assistant, "build")["embedded"] == 1
    assert "ferry" in llmops(assistant, "search", "ferry")["hits"][0]["text"]


def test_rows_that_a_full_disk_keeps_out_of_the_lakehouse_are_taken_once_when_there_is_room(
    home: Settings, assistant: Assistant
) -> None:
    lakehouse = Lakehouse.open(home)
    lakehouse.prepare(NAME)
    table = lakehouse.table(NAME, "traffic_feedback")
    row = FeedbackRow(
        feedback_id="f",
        request_id="r",
        assistant=NAME,
        at=datetime.now(UTC),
        subject="local",
        thumbs=1,
        score=None,
        comment=None,
        corrected_answer=None,
        chunk_ratings=None,
    )
    filesystem, root = lakehouse.spool()
    line = encode_line("feedback", "gateway", 1, 0, encode_payload(row.to_payload()))
    put(filesystem, f"{root}/{NAME}/gateway/{segment_name(1)}", line)
    with full(home.home), pytest.raises(LakehouseError, match=r"[Ff]ree space"):
        ingest(table, "feedback", filesystem, root, NAME, Provenance("test"))
    assert table.read().is_empty()
    assert ingest(table, "feedback", filesystem, root, NAME, Provenance("test")).rows == 1
    assert ingest(table, "feedback", filesystem, root, NAME, Provenance("test")).rows == 0
    assert table.read()["feedback_id"].to_list() == ["f"]


def test_a_home_that_can_only_be_read_is_searched_and_refuses_to_build(home: Settings, assistant: Assistant) -> None:
    llmops(assistant, "build")
    mount("--bind", str(home.home), str(home.home))
    try:
        mount("-o", "remount,bind,ro", str(home.home))
        assert llmops(assistant, "search", "bread dough")["hits"]
        message = refused(assistant, "build")
        seen = {finding.what: finding for finding in examine(home)}["disk"]
    finally:
        subprocess.run(["umount", "--lazy", str(home.home)], check=True)
    assert seen.state == "fail"
    assert "cannot be written" in seen.detail
    assert str(home.home) in message
    assert "may write there" in message
    assert llmops(assistant, "build")["embedded"] == 0


def test_a_locked_catalog_is_told_by_every_command_and_works_again_when_it_is_let_go(
    home: Settings, assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    llmops(assistant, "build")
    monkeypatch.setattr(catalog, "SQLITE_TIMEOUT_S", 0.1)
    with locked_catalog(home):
        for command in ("build", "search tea", "release list", "maintain --dry-run"):
            message = refused(assistant, *command.split())
            assert "database is locked. Another process holds" in message, command
            assert str(home.home) in message, command
    assert llmops(assistant, "build")["embedded"] == 0


@pytest.mark.models
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: os.truncate(file, 1000), "model.onnx has 1000 bytes instead of"),
        (lambda file: file.unlink(), "model.onnx is missing"),
    ],
    ids=["cut short", "gone"],
)
def test_a_damaged_model_ends_a_build_with_its_file_and_the_way_out_and_no_release(
    home: Settings, models: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    home.models.unlink()
    shutil.copytree(models / "bge-small", home.models / "bge-small", symlinks=True)
    damage(home.models / "bge-small" / "model.onnx")
    assistant = write_assistant(tmp_path / "dense", embedder={"model": "bge-small"}, generator=NOBODY)
    message = refused(assistant, "build")
    assert said in message
    assert "llmops models pull" in message
    assert Releases(Lakehouse.open(home), NAME).all() == []


def test_a_clock_that_goes_back_between_two_builds_changes_nothing_of_what_they_make(
    home: Settings, assistant: Assistant
) -> None:
    first = llmops(assistant, "build")
    (assistant.folder / "docs" / "ferry.md").write_text("# Ferry\n\nThe ferry leaves at seven.\n")
    command = [sys.executable, "-c", CLOCK_BACK, "build", "--assistant", str(assistant.folder), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    second = json.loads(done.stdout)
    assert second["embedded"] == 1
    table = Lakehouse.open(home).table(NAME, "corpus_documents").load()
    times = [snapshot.timestamp_ms for snapshot in table.snapshots()]
    assert times != sorted(times), "the clock did not go back"
    channels = Releases(Lakehouse.open(home), NAME).channels.state()
    assert channels["prod"].release_id == channels["dev"].release_id == second["release_id"] != first["release_id"]
    assert "ferry" in llmops(assistant, "search", "ferry")["hits"][0]["text"]
    again = llmops(assistant, "build")
    assert (again["embedded"], again["release_id"]) == (0, second["release_id"])


def test_request_ids_and_segments_are_never_given_twice_though_the_clock_stands_or_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def append(writer: SpoolWriter) -> Place:
        return await writer.append("request", {"request_id": uuid7()})

    places, ids = [], set()
    for moment in (2_000, 1_000, 1_000):
        monkeypatch.setattr(time, "time_ns", lambda moment=moment: moment * 10**9)
        with SpoolWriter(tmp_path, NAME) as writer:
            places.append(asyncio.run(append(writer)))
            ids |= {uuid7() for _ in range(100)}
    assert places == [Place(1, 0), Place(2, 0), Place(3, 0)]
    assert len(ids) == 300
