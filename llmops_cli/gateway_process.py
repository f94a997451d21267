"""A gateway to ask: the one that runs already, or one for the time of a command."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from openai import APIError, APIStatusError, DefaultHttpxClient, OpenAI

from llmops_cli.output import doing, progress, url_of
from llmops_core.errors import EngineError, LakehouseError, PermanentError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.logs import begin_log, path_of
from llmops_core.parent import when_parent_ends
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
    running = url_of(settings.host, settings.port)
    if settings.port and gateway_state(running, settings, assistant):
        _wait(running, settings, assistant, reference)
        yield f"{running}/v1"
        return
    _check_release(settings, assistant, reference)
    progress.print(
        f"No gateway of this home runs on {running}, so this command starts its own; `llmops dev` keeps one running."
    )
    command = [sys.executable, "-m", "llmops_cli.gateway_process", "--port", "0", "--json"]
    with begin_log(settings, "gateway") as log:
        file = path_of(log)
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
    try:
        assert process.stdin
        assert process.stdout
        with doing("Starting the gateway"):
            line = process.stdout.readline()
        if not line:
            raise EngineError(f"The gateway did not start; see {file}")
        said = json.loads(line)
        if "error" in said:
            raise EngineError(f"The gateway did not start: {said['error']['message']}")
        url = str(said["url"])
        _wait(url, settings, assistant, reference, (process, file))
        yield f"{url}/v1"
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()


@contextmanager
def client(url: str) -> Iterator[OpenAI]:
    """OpenAI's client for a gateway, past any proxy that the environment names."""
    with DefaultHttpxClient(trust_env=False) as http:
        yield OpenAI(base_url=url, api_key="none", timeout=600, max_retries=0, http_client=http)


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


def gateway_state(url: str, settings: Settings, assistant: str) -> dict[str, Any] | None:
    """What a gateway says of itself; None unless it runs, is of this very home and knows the assistant."""
    try:
        # Without the environment: a proxy that is set there does not reach this machine's loopback.
        state: dict[str, Any] = httpx.get(f"{url}/readyz", timeout=2, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return None
    known = {assistant, f"{assistant}@{PROD}"} & {*state.get("serving", {}), *state.get("behind", {})}
    return state if known and state.get("home") == str(settings.home) else None


def _wait(
    url: str,
    settings: Settings,
    assistant: str,
    reference: str,
    started: "tuple[subprocess.Popen[bytes], Path] | None" = None,
) -> None:
    """Return when the release can be asked for: at once for any but prod's, which is loaded when it is asked for.

    `started`: the gateway's process and its log, if this command started it.
    """

    def ready() -> bool:
        state = gateway_state(url, settings, assistant)
        if state is None and (started is None or started[0].poll() is not None):
            raise EngineError(f"The gateway on {url} ended" + (f"; see {started[1]}" if started else "."))
        if state and (reference != PROD or assistant in state["serving"]):
            return True
        behind = state["behind"].get(f"{assistant}@{PROD}", {}) if state else {}
        if behind.get("state") == "failed":
            raise EngineError(f"Release {behind['release_id']} on prod does not load: {behind['reason']}")
        if behind.get("state") == "empty":
            _check_release(settings, assistant, reference)
        return False

    if ready():
        return
    deadline = time.monotonic() + START_TIMEOUT_S
    with doing(f"Waiting until the gateway on {url} has loaded the release on {reference}"):
        while not ready():
            if time.monotonic() > deadline:
                raise EngineError(f"The gateway on {url} is not ready after {START_TIMEOUT_S:.0f} s.")
            time.sleep(POLL_S)


def _main() -> None:
    """Be `llmops serve` for the time of a command, however the command ends."""
    from llmops_cli.main import run

    when_parent_ends(lambda: os.kill(os.getpid(), signal.SIGTERM))
    run("serve", *sys.argv[1:])


if __name__ == "__main__":
    _main()
