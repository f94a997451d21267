"""A gateway to ask: the one that runs already, or one for the time of a command."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from openai import APIError, APIStatusError

from llmops_core.errors import EngineError, LakehouseError, PermanentError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings

START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 60.0
POLL_S = 0.2
PROD = "prod"


@contextmanager
def gateway(settings: Settings, assistant: str, reference: str = PROD) -> Iterator[str]:
    """The address, up to and with `/v1`, of a gateway that can be asked for a release of the assistant.

    Raises `EngineError` with the reason if the gateway does not start or the release on prod does not load.
    """
    running = f"http://{settings.host}:{settings.port}"
    if settings.port and _state(running, settings, assistant):
        _wait(running, settings, assistant, reference)
        yield f"{running}/v1"
        return
    _check_release(settings, assistant, reference)
    command = [sys.executable, "-m", "llmops_cli.main", "serve", "--port", "0", "--json"]
    with _log(settings).open("ab") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, start_new_session=True)
    try:
        assert process.stdout
        line = process.stdout.readline()
        if not line:
            raise EngineError(f"The gateway did not start; see {_log(settings)}")
        url = str(json.loads(line)["url"])
        _wait(url, settings, assistant, reference, process)
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


def _check_release(settings: Settings, assistant: str, reference: str) -> None:
    """Say at once what a new gateway would look for in vain; with the lakehouse away it may have a copy to serve."""
    with suppress(LakehouseError):
        Releases(Lakehouse.open(settings), assistant).get(reference)


def _log(settings: Settings) -> Path:
    (settings.home / "logs").mkdir(parents=True, exist_ok=True)
    return settings.home / "logs" / "gateway.log"


def _state(url: str, settings: Settings, assistant: str) -> dict[str, Any] | None:
    """What a gateway says of itself; None unless it runs, is of this very home and knows the assistant."""
    try:
        state: dict[str, Any] = httpx.get(f"{url}/readyz", timeout=2).json()
    except (httpx.HTTPError, ValueError):
        return None
    known = {assistant, f"{assistant}@{PROD}"} & {*state.get("serving", {}), *state.get("behind", {})}
    return state if known and state.get("home") == str(settings.home) else None


def _wait(
    url: str, settings: Settings, assistant: str, reference: str, started: "subprocess.Popen[bytes] | None" = None
) -> None:
    """Return when the release can be asked for: at once for any but prod's, which is loaded when it is asked for."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        state = _state(url, settings, assistant)
        if state is None and (started is None or started.poll() is not None):
            raise EngineError(f"The gateway on {url} ended; see {_log(settings)}")
        if state and (reference != PROD or assistant in state["serving"]):
            return
        behind = state["behind"].get(f"{assistant}@{PROD}", {}) if state else {}
        if behind.get("state") == "failed":
            raise EngineError(f"Release {behind['release_id']} on prod does not load: {behind['reason']}")
        if behind.get("state") == "empty":
            _check_release(settings, assistant, reference)
        if time.monotonic() > deadline:
            raise EngineError(f"The gateway on {url} is not ready after {START_TIMEOUT_S:.0f} s: {state}")
        time.sleep(POLL_S)
