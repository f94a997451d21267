"""A gateway to ask: the one that runs already, or one for the time of a command."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from openai import APIError, APIStatusError

from llmops_core.errors import EngineError, LakehouseError, PermanentError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings

START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 60.0
POLL_S = 0.2


@contextmanager
def gateway(settings: Settings, assistant: str) -> Iterator[str]:
    """The address of a gateway that serves the assistant's prod release, up to and with `/v1`."""
    running = f"http://{settings.host}:{settings.port}"
    if settings.port and _serves(running, settings, assistant):
        yield f"{running}/v1"
        return
    _check_release(settings, assistant)
    process = subprocess.Popen(
        [sys.executable, "-m", "llmops_cli.main", "serve", "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=(_log(settings)).open("ab"),
        start_new_session=True,
    )
    try:
        assert process.stdout
        line = process.stdout.readline()
        if not line:
            raise EngineError(f"The gateway did not start; see {_log(settings)}")
        url = str(json.loads(line)["url"])
        _wait(url, settings, assistant, process)
        yield f"{url}/v1"
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


@contextmanager
def reports_refusals() -> Iterator[None]:
    """Turn what OpenAI's client raises into the platform's errors, in the gateway's own words."""
    try:
        yield
    except APIStatusError as error:
        said = error.body.get("message") if isinstance(error.body, dict) else None
        kind = PermanentError if error.status_code < 500 else EngineError
        raise kind(str(said or error.message)) from error
    except APIError as error:
        raise EngineError(f"The gateway did not answer: {error.message}") from error


def _check_release(settings: Settings, assistant: str) -> None:
    """Say at once what a new gateway would wait for in vain; with the lakehouse away it may have a copy to serve."""
    with suppress(LakehouseError):
        Releases(Lakehouse.open(settings), assistant).get("prod")


def _log(settings: Settings) -> Path:
    (settings.home / "logs").mkdir(parents=True, exist_ok=True)
    return settings.home / "logs" / "gateway.log"


def _serves(url: str, settings: Settings, assistant: str) -> bool:
    """Whether a ready gateway of this very home serves the assistant."""
    try:
        state = httpx.get(f"{url}/readyz", timeout=2).json()
    except (httpx.HTTPError, ValueError):
        return False
    return state.get("home") == str(settings.home) and assistant in state.get("serving", {})


def _wait(url: str, settings: Settings, assistant: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _serves(url, settings, assistant):
        if process.poll() is not None:
            raise EngineError(f"The gateway ended; see {_log(settings)}")
        if time.monotonic() > deadline:
            reasons = httpx.get(f"{url}/readyz", timeout=5).text
            raise EngineError(f"The gateway is not ready: {reasons}")
        time.sleep(POLL_S)
