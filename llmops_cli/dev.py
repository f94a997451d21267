"""`llmops dev`: the Dagster UI with its daemon, and the gateway, as one thing to start and to stop."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import click
import httpx

from llmops_cli.context import assistant_folders, reports_errors
from llmops_cli.dagster_process import STOP_TIMEOUT_S
from llmops_cli.instance import prepare_instance
from llmops_cli.output import facts, progress, url_of
from llmops_core.errors import ConfigError
from llmops_core.settings import load_settings, project_root

UI_HOST, UI_PORT = "127.0.0.1", 3000
POLL_S = 0.5
ANSWER_TIMEOUT_S = 5.0


@click.command()
@click.option("--ui-port", default=UI_PORT, show_default=True, type=click.IntRange(1, 65535), help="Port of the UI.")
@click.option("--port", default=None, type=click.IntRange(1, 65535), help="Port of the gateway (LLMOPS_PORT or 8400).")
@reports_errors
def command(ui_port: int, port: int | None) -> None:
    """Run Dagster's UI and daemon and the gateway together; Ctrl-C or SIGTERM ends all of them."""
    settings = load_settings()
    prepare_instance(settings)
    ui = url_of(UI_HOST, _free_port("UI", UI_HOST, ui_port))
    gateway_port = _free_port("gateway", settings.host, port or settings.port)
    gateway = url_of(settings.host, gateway_port)
    stop = threading.Event()
    # Before the children are started: signals that are handled here are not ignored there, whatever this process began with.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    workspace = str(project_root() / "workspace.yaml")
    progress.print("Starting Dagster and the gateway …")
    children = {
        "Dagster": _start("llmops_cli.dagster_process", "-w", workspace, "-p", str(ui_port), "-h", UI_HOST),
        # Its standard output is its address, which is told when it answers there.
        "the gateway": _start("llmops_cli.gateway_process", "--port", str(gateway_port), stdout=subprocess.DEVNULL),
    }
    ended, ready = None, False
    while not stop.wait(POLL_S):
        ended = next((name for name, child in children.items() if child.poll() is not None), None)
        if ended:
            break
        if not ready and _answer(f"{ui}/server_info") and _answer(f"{gateway}/healthz"):
            ready = True
            models = _answer(f"{gateway}/v1/models") or {"data": []}
            progress.print(ready_text(ui, gateway, [model["id"] for model in models["data"]]))
    for child in children.values():
        _end(child)
    if ended:
        raise ConfigError(f"{ended} ended by itself; what it printed above says why.")


def _free_port(name: str, host: str, port: int) -> int:
    """The port, or some free one for 0; raises `ConfigError` if it is in use."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            option = "--ui-port" if name == "UI" else "--port"
            raise ConfigError(
                f"Port {port} for the {name} is in use: end what listens there, or set {option}."
            ) from error
        free: int = probe.getsockname()[1]
        return free


def _start(module: str, *arguments: str, stdout: int | None = None) -> "subprocess.Popen[bytes]":
    """Start a child in a process group of its own; it ends when its standard input does, which is when this process does."""
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout, start_new_session=True)


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End a child and everything that it started: code servers outlive a parent that is gone."""
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _answer(url: str) -> Any:
    """The JSON that is answered there, past any proxy that the environment names; None while there is none or an error."""
    try:
        return httpx.get(url, timeout=ANSWER_TIMEOUT_S, trust_env=False).raise_for_status().json()
    except (httpx.HTTPError, ValueError):
        return None


def ready_text(ui: str, gateway: str, models: Sequence[str]) -> str:
    """What a person can do now; `models` are the names that the gateway knows."""
    folders = assistant_folders()
    served = [name for name in models if "@" not in name]
    if served:
        option = f" --assistant {served[0]}" if len(folders) > 1 else ""
        first = f'in another terminal: llmops ask{option} "…"'
    elif folders:
        first = f"no assistant has a release yet. Dagster builds each by itself now: see {ui}/runs, or llmops build"
    else:
        first = "llmops init NAME --docs DIR makes an assistant of your documents; then start this again"
    known = f"  (model: {', '.join(served)})" if served else ""
    lines = {"  Dagster UI": ui, "  Gateway": f"{gateway}/v1{known}", "  First": first}
    return f"\nReady. Ctrl-C ends everything.\n{facts(lines)}\n"
