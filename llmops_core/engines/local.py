"""A local generator: a child process (`python -m llmops_engine`) that this class starts and ends.

A process of its own, so that loading never stalls the caller and a crash stays outside it. The child watches its standard
input: when this process ends, however it ends, the pipe closes and the child exits.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

from llmops_core.errors import EngineError
from llmops_core.settings import Settings

START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.1
LOG_LINES_SHOWN = 15


class LocalEngine:
    """Starts the child and waits until it is ready; raises `EngineError` with the end of its log if it is not."""

    def __init__(self, settings: Settings, folder: Path, name: str) -> None:
        logs = settings.home / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self._log = logs / f"engine-{name}.log"
        command = [sys.executable, "-m", "llmops_engine", "--model", str(folder), "--model-name", name]
        with self._log.open("ab") as log:
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
            self.close()
            raise

    def alive(self) -> bool:
        """Whether the child runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the child."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def _wait_until_ready(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        try:
            port = int(json.loads(line)["port"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._failure("did not start") from error
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if not self.alive():
                raise self._failure("ended while it was loading its model")
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200:
                    return f"http://127.0.0.1:{port}/v1"
            except httpx.HTTPError:
                pass
            time.sleep(POLL_S)
        raise self._failure(f"was not ready after {START_TIMEOUT_S:.0f} s")

    def _failure(self, what: str) -> EngineError:
        tail = "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES_SHOWN:])
        return EngineError(f"The local engine {what}. The end of {self._log}:\n{tail}")
