"""A local generator: a child process (`python -m llmops_engine`) that this class starts and ends.

A process of its own, so that loading never stalls the caller and a crash stays outside it. The child watches its standard
input: when this process ends, however it ends, the pipe closes and the child exits.
"""

import json
import os
import re
import selectors
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from llmops_core.errors import EngineError
from llmops_core.logs import begin_log, path_of
from llmops_core.settings import Settings

START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.1
LOG_LINES_SHOWN = 15


class LocalEngine:
    """Starts the child and waits until it is ready; raises `EngineError` with the end of its log if it is not.

    `base_url` is its address, up to and with `/v1`. Use as a context manager, or call `close`. Whoever sets `given_up`
    meanwhile ends the wait and the child.
    """

    def __init__(self, settings: Settings, folder: Path, name: str, given_up: threading.Event | None = None) -> None:
        self._given_up = given_up or threading.Event()
        self._deadline = time.monotonic() + START_TIMEOUT_S
        command = [sys.executable, "-m", "llmops_engine", "--model", str(folder), "--model-name", name]
        # A name may be a reference such as hf:owner/model@revision.
        with begin_log(settings, f"engine-{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}") as log:
            self._log = path_of(log)
            self._process = subprocess.Popen(
                [*command, "--device", settings.device],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
            )
        try:
            self.base_url = self._wait_until_ready()
        except BaseException:
            self._process.kill()
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether the child runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the child."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _wait_until_ready(self) -> str:
        address = f"http://127.0.0.1:{self._port()}"
        # Without the environment: a proxy that is set there does not reach this machine's loopback.
        with httpx.Client(trust_env=False, timeout=5) as client:
            while self._waits():
                if not self.alive():
                    raise self._failure("ended while it was loading its model")
                try:
                    if client.get(f"{address}/health").status_code == 200:
                        return f"{address}/v1"
                except httpx.HTTPError:
                    pass  # not listening yet
                time.sleep(POLL_S)
        raise self._failure(f"was not ready after {START_TIMEOUT_S:.0f} s")

    def _port(self) -> int:
        """The port that the child says on its standard output."""
        assert self._process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not selector.select(POLL_S):
                if not self._waits():
                    raise self._failure(f"did not say its port within {START_TIMEOUT_S:.0f} s")
        try:
            return int(json.loads(self._process.stdout.readline())["port"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._failure("did not start") from error

    def _waits(self) -> bool:
        """Whether there is time left; raises `EngineError` if nobody wants the engine any more."""
        if self._given_up.is_set():
            raise EngineError("The local engine was still loading its model when it was ended.")
        return time.monotonic() < self._deadline

    def _failure(self, what: str) -> EngineError:
        tail = "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES_SHOWN:])
        return EngineError(f"The local engine {what}. The end of {self._log}:\n{tail}")
