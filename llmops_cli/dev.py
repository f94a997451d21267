"""`llmops dev`: the Dagster UI with its daemon, and the gateway, as one thing to start and to stop."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading

import click

from llmops_cli.context import reports_errors
from llmops_cli.instance import prepare_instance
from llmops_cli.output import progress
from llmops_core.errors import ConfigError
from llmops_core.settings import load_settings, project_root

STOP_TIMEOUT_S = 30.0
POLL_S = 0.5


@click.command()
@click.option("--ui-port", default=3000, show_default=True, type=click.IntRange(1, 65535), help="Port of the UI.")
@click.option("--port", default=None, type=click.IntRange(1, 65535), help="Port of the gateway (LLMOPS_PORT or 8400).")
@reports_errors
def command(ui_port: int, port: int | None) -> None:
    """Run Dagster's UI and daemon and the gateway together; Ctrl-C or SIGTERM ends all of them."""
    settings = load_settings()
    gateway_port = port or settings.port
    prepare_instance(settings)
    for name, number in (("UI", ui_port), ("gateway", gateway_port)):
        _check_free(name, number)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    workspace = str(project_root() / "workspace.yaml")
    dagster = [sys.executable, "-m", "dagster", "dev", "-w", workspace, "-p", str(ui_port), "-h", "127.0.0.1"]
    children = {
        "Dagster": _start(dagster),
        "the gateway": _start([sys.executable, "-m", "llmops_cli.main", "serve", "--port", str(gateway_port)]),
    }
    progress.print(f"Dagster UI  http://127.0.0.1:{ui_port}")
    progress.print(f"Gateway     http://127.0.0.1:{gateway_port}/v1")
    ended = None
    while not stop.wait(POLL_S):
        ended = next((name for name, child in children.items() if child.poll() is not None), None)
        if ended:
            break
    for child in children.values():
        _end(child)
    if ended:
        raise ConfigError(f"{ended} ended by itself; what it printed above says why.")


def _check_free(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            option = "--ui-port" if name == "UI" else "--port"
            raise ConfigError(
                f"Port {port} for the {name} is in use: end what listens there, or set {option}."
            ) from error


def _start(command: list[str]) -> "subprocess.Popen[bytes]":
    """Start a child in a process group of its own.

    A child inherits ignored signals: started from a shell's background or from make, this process may have SIGINT ignored,
    and `dagster dev` would then ignore SIGTERM too. So both are reset first.
    """

    def reset_signals() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    return subprocess.Popen(command, start_new_session=True, preexec_fn=reset_signals)


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End a child and everything that it started: code servers outlive a parent that is gone."""
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
