"""The engines behind a process: local children by generator revision, and the addresses of remote servers.

Blocking on purpose: a local engine takes seconds to start, so callers on an event loop ask from a thread.
"""

import os
import threading
from collections.abc import Set
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx

from llmops_core.engines.local import LocalEngine
from llmops_core.errors import EngineError, ModelError
from llmops_core.models.adapters import adapter_folder
from llmops_core.models.revisions import check_revision, generator_revision
from llmops_core.models.store import model_folder
from llmops_core.release.manifest import GeneratorPin
from llmops_core.settings import Settings

ADAPTER_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Endpoint:
    """Where a generator is spoken to: the address up to and with `/v1`, and the name it goes by there."""

    base_url: str
    model: str
    api_key: str | None


class EnginePool:
    """Starts each local engine once, loads adapters, ends everything with `close`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._local: dict[str, LocalEngine] = {}
        self._adapters: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def endpoint(self, pin: GeneratorPin) -> Endpoint:
        """Where the generator of a manifest answers; starts it, or starts it again if it died.

        Raises `EngineError` if it does not come up, `ModelError` if its files or its key are missing.
        """
        with self._lock:
            base_url = self._local_url(pin) if pin.engine == "local" else _remote_url(pin)
            key = _api_key(pin)
            if pin.adapter is not None:
                self._load_adapter(base_url, pin.adapter, key)
            return Endpoint(base_url, pin.adapter or pin.model, key)

    def ready(self, pin: GeneratorPin) -> Endpoint | None:
        """Where the generator of a manifest answers, as far as is known without waiting; None: call `endpoint`."""
        engine = self._local.get(pin.revision)
        if pin.engine != "local":
            base_url = _remote_url(pin)
        elif engine is not None and engine.alive():
            base_url = engine.base_url
        else:
            return None
        if pin.adapter is not None and (base_url, pin.adapter) not in self._adapters:
            return None
        return Endpoint(base_url, pin.adapter or pin.model, _api_key(pin))

    def forget_adapter(self, endpoint: Endpoint) -> None:
        """Take the adapter behind an endpoint for not loaded: a server that was started again has none."""
        self._adapters.discard((endpoint.base_url, endpoint.model))

    def keep(self, revisions: Set[str]) -> None:
        """End the local engines of all other generator revisions; does nothing while one is being started, so ask again."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            for revision in self._local.keys() - revisions:
                self._end(self._local.pop(revision))
        finally:
            self._lock.release()

    def close(self) -> None:
        """End all local engines for good, also one that is still starting."""
        self._closed.set()
        with self._lock:
            for engine in self._local.values():
                engine.close()
            self._local.clear()
            self._adapters.clear()

    @property
    def closed(self) -> bool:
        """Whether no engine will be started any more."""
        return self._closed.is_set()

    def _local_url(self, pin: GeneratorPin) -> str:
        engine = self._local.get(pin.revision)
        if engine is None or not engine.alive():
            if engine is not None:
                self._end(engine)
            folder = model_folder(self._settings, pin.model, "generator")
            check_revision(pin.model, pin.revision, generator_revision(self._settings, pin.model))
            engine = LocalEngine(self._settings, folder, pin.model, self._closed)
            self._local[pin.revision] = engine
        return engine.base_url

    def _end(self, engine: LocalEngine) -> None:
        engine.close()
        self._adapters.difference_update([a for a in list(self._adapters) if a[0] == engine.base_url])

    def _load_adapter(self, base_url: str, adapter: str, key: str | None) -> None:
        if (base_url, adapter) in self._adapters:
            return
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        body = {"lora_name": adapter, "lora_path": str(adapter_folder(self._settings, adapter))}
        try:
            # Without the environment, as all that is said to engines: a proxy there does not reach this machine's loopback.
            reply = httpx.post(
                f"{base_url}/load_lora_adapter", json=body, headers=headers, timeout=ADAPTER_TIMEOUT_S, trust_env=False
            )
        except httpx.HTTPError as error:
            raise EngineError(f"The engine at {base_url} did not load adapter {adapter}: {error}") from error
        # A name is a content hash, so one that is loaded already is the same adapter.
        if reply.is_error and "already" not in reply.text:
            raise EngineError(
                f"The engine at {base_url} did not load adapter {adapter}: HTTP {reply.status_code} {reply.text[:500]}."
                " A vLLM server needs --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True."
            )
        self._adapters.add((base_url, adapter))


def _remote_url(pin: GeneratorPin) -> str:
    return str(pin.base_url).rstrip("/")


def _api_key(pin: GeneratorPin) -> str | None:
    if pin.api_key_env is None:
        return None
    key = os.environ.get(pin.api_key_env)
    if not key:
        raise ModelError(f"Variable {pin.api_key_env} is not set: it holds the key of {pin.model} at {pin.base_url}")
    return key
