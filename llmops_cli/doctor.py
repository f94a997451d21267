"""`llmops doctor`: what a person would check one by one when something does not work."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import click
import dagster as dg
import httpx
from dagster._core.scheduler.instigation import InstigatorStatus

from llmops_assets.definitions import build_definitions
from llmops_cli.context import assistant_folders, json_option, reports_errors
from llmops_cli.instance import instance_file, missing_settings, prepare_instance
from llmops_cli.output import emit, table
from llmops_cli.upgrade import upgrade
from llmops_core.assistant import FILE_NAME, Assistant
from llmops_core.errors import LlmopsError
from llmops_core.lakehouse.catalog_errors import mapped_errors
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.models.named import open_assistant
from llmops_core.models.store import known_models, model_folder
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings, load_settings
from llmops_core.traffic.columns import TRAFFIC_TABLES
from llmops_core.traffic.ingest import taken_by_all
from llmops_core.traffic.line import OPEN, SEALED, segment_number

UI_PORT = 3000
ENOUGH_DISK_GB = 5
STALE_SPOOL_MINUTES = 30
CHANGES_SHOWN = 3
DAEMON_SILENT = timedelta(minutes=2)
DAEMON_AWAY = (
    "not running, so nothing happens by itself: edited documents are not noticed, the request log is not moved to Iceberg,"
    " nothing is cleaned up. `llmops dev` runs it; without it, use llmops build, ingest and maintain"
)

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: State
    detail: str


@click.command()
@json_option
@click.pass_context
@reports_errors
def command(context: click.Context, as_json: bool) -> None:
    """Check ports, disk, models, lakehouse, daemon, sensors that are off, releases, the spool and the home's version."""
    settings = load_settings()
    findings = list(examine(settings))
    rows = [(f.state.upper() if f.state != "ok" else "ok", f.what, f.detail) for f in findings]
    problems, warnings = (sum(f.state == state for f in findings) for state in ("fail", "warn"))
    count = f"{problems} problem{'s' * (problems != 1)}, {warnings} warning{'s' * (warnings != 1)}"
    emit([asdict(f) for f in findings], f"{table(('', 'what', 'detail'), rows)}\n\n{count}", as_json=as_json)
    if problems:
        context.exit(1)


def examine(settings: Settings) -> Iterator[Finding]:
    """Everything, in the order in which a failure would explain the next."""
    yield from _so_far("disk", _disk(settings))
    yield _port("Dagster UI", UI_PORT, "/server_info")
    yield _port("gateway", settings.port, "/healthz")
    yield from _models(settings)
    assistants: list[Assistant] = []
    for folder in assistant_folders():
        try:
            assistants.append(open_assistant(folder))
            yield Finding(f"assistant {assistants[-1].name}", "ok", str(folder / FILE_NAME))
        except LlmopsError as error:
            yield Finding(f"assistant {folder.name}", "fail", str(error))
    yield from _so_far("lakehouse", _lakehouse(settings, assistants))
    yield from _so_far("Dagster", _dagster(settings, assistants))
    yield from _so_far("spool", _spool(settings, assistants))
    yield from _so_far("home", _home(settings))


def _so_far(what: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings up to the first error, and that error: what is broken in one place must not hide the others."""
    try:
        yield from findings
    except Exception as error:  # whatever Dagster's storage, a catalog or a disk raises when it is damaged
        yield Finding(what, "fail", str(error))


def _disk(settings: Settings) -> Iterator[Finding]:
    prepare_instance(settings)
    if not os.access(settings.home, os.W_OK):
        yield Finding(
            "disk", "fail", f"{settings.home} (LLMOPS_HOME) cannot be written: it is read-only, or another user's"
        )
        return
    free = shutil.disk_usage(settings.home).free / 1e9
    detail = f"{free:.0f} GB free in {settings.home} (LLMOPS_HOME)"
    if free < ENOUGH_DISK_GB:
        yield Finding("disk", "warn", f"{detail}, less than {ENOUGH_DISK_GB} GB: free space before the next build")
    else:
        yield Finding("disk", "ok", detail)


def _port(what: str, port: int, path: str) -> Finding:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) != 0:
            return Finding(f"port {port}", "ok", f"free; `llmops dev` starts the {what} here")
    try:
        is_ours = httpx.get(f"http://127.0.0.1:{port}{path}", timeout=3, trust_env=False).status_code == 200
    except httpx.HTTPError:
        is_ours = False
    if is_ours:
        return Finding(f"port {port}", "ok", f"the {what} is running")
    return Finding(
        f"port {port}", "fail", f"something else listens where the {what} would; end it or choose another port"
    )


def _models(settings: Settings) -> Iterator[Finding]:
    for model in known_models():
        try:
            model_folder(settings, model.name, model.role)
            yield Finding(f"model {model.name}", "ok", model.role)
        except LlmopsError as error:
            yield Finding(f"model {model.name}", "fail", str(error))


def _lakehouse(settings: Settings, assistants: list[Assistant]) -> Iterator[Finding]:
    lakehouse = Lakehouse.open(settings)
    present = lakehouse.assistants()
    yield Finding("lakehouse", "ok", lakehouse.warehouse())
    for assistant in assistants:
        pointers = Releases(lakehouse, assistant.name).channels.state() if assistant.name in present else {}
        if "prod" in pointers:
            yield Finding(f"release of {assistant.name}", "ok", f"prod serves {pointers['prod'].release_id[:12]}")
        else:
            hint = f"none on prod: llmops build --assistant {assistant.folder}"
            yield Finding(f"release of {assistant.name}", "warn", hint)


def _dagster(settings: Settings, assistants: list[Assistant]) -> Iterator[Finding]:
    prepare_instance(settings)
    with mapped_errors(f"Dagster's storage ({settings.dagster_home})"), dg.DagsterInstance.get() as instance:
        beats = [status.last_heartbeat for status in instance.get_daemon_statuses().values() if status.last_heartbeat]
        newest = max((beat.timestamp for beat in beats), default=0.0)
        silent = datetime.now(UTC).timestamp() - newest > DAEMON_SILENT.total_seconds()
        yield Finding(
            "Dagster daemon",
            "warn" if silent else "ok",
            DAEMON_AWAY if silent else "running",
        )
        for assistant in assistants:
            yield _instigators(instance, assistant)


def _instigators(instance: dg.DagsterInstance, assistant: Assistant) -> Finding:
    """Sensors and schedules that somebody switched off.

    They are named alike in every assistant: the code location, which has the assistant's name, tells them apart.
    """
    stopped = {
        state.instigator_name
        for state in instance.all_instigator_state()
        if state.status == InstigatorStatus.STOPPED
        and state.origin.repository_origin.code_location_origin.location_name == assistant.name
    }
    definitions = build_definitions(assistant.folder)
    names = {d.name for d in (*(definitions.sensors or ()), *(definitions.schedules or ()))}
    off = sorted(names & stopped)
    if off:
        return Finding(f"sensors of {assistant.name}", "warn", f"switched off: {', '.join(off)}")
    return Finding(f"sensors of {assistant.name}", "ok", f"on: {', '.join(sorted(names))}")


def _spool(settings: Settings, assistants: list[Assistant]) -> Iterator[Finding]:
    """Rows on local disk that Iceberg does not have; what it has lies there until a gateway clears it away."""
    lakehouse = Lakehouse.open(settings)
    present = lakehouse.assistants()
    written: list[float] = []
    for assistant in assistants:
        if assistant.name not in present:
            continue
        taken = taken_by_all(lakehouse.table(assistant.name, name) for name in TRAFFIC_TABLES)
        for folder in (settings.spool / assistant.name).glob("*/"):
            for file in folder.iterdir():
                number = segment_number(file.name, SEALED) or segment_number(file.name, OPEN)
                if number is not None and number > taken[folder.name]:
                    with suppress(FileNotFoundError):  # a gateway has sealed it or cleared it away meanwhile
                        written.append(file.stat().st_mtime)
    if not written:
        yield Finding("spool", "ok", "every logged request is in Iceberg")
        return
    minutes = (datetime.now(UTC).timestamp() - min(written)) / 60
    state: State = "warn" if minutes > STALE_SPOOL_MINUTES else "ok"
    hint = "; with a gateway running: llmops ingest" if state == "warn" else ""
    yield Finding("spool", state, f"the oldest row that is not in Iceberg waits for {minutes:.0f} minutes{hint}")


def _home(settings: Settings) -> Iterator[Finding]:
    """Whether an earlier version of the program left anything to upgrade, or a person something to add."""
    changes, by_hand = upgrade(settings, dry_run=True)
    if changes:
        hint = (
            f"left by an earlier version: {'; '.join(changes[:CHANGES_SHOWN])}{'; …' * (len(changes) > CHANGES_SHOWN)}"
        )
        yield Finding("home", "warn", f"{hint}. Run: llmops upgrade")
    else:
        yield Finding("home", "ok", "of this version")
    if by_hand and (missing := missing_settings(settings)):
        detail = (
            f"{instance_file(settings)} was changed by hand and lacks {', '.join(missing)}. `llmops upgrade --dry-run` shows"
            " what this version would write: add what is missing, then restart `llmops dev`"
        )
        yield Finding("dagster.yaml", "warn", detail)
