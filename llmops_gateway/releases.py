"""The loaded releases: prod's of each assistant always, others on demand, at most a few.

A new release is loaded in a thread beside the one that serves, warmed, and then takes its place in one assignment; requests
under way keep the one that they began with.
"""

import logging
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal
from weakref import WeakSet

from llmops_core.answering.loaded import LoadedRelease, ModelPool, load_release
from llmops_core.engines.client import UnknownModelError
from llmops_core.engines.pool import Endpoint, EnginePool
from llmops_core.errors import EngineError, LlmopsError, NotFoundError, RetryableError
from llmops_core.release.manifest import manifest_of_bundle
from llmops_core.settings import Settings
from llmops_gateway.channel_watch import ChannelWatch

log = logging.getLogger("llmops.gateway")

# Beside the ones on prod: each holds an index open, and models of its own if its revisions differ.
LOADED_ON_DEMAND = 4
DEFAULT_CHANNEL = "prod"
WARM_UP_QUESTION = "warm up"
# A release that does not load is left alone for this long: each try of a local engine takes the cores for seconds.
RETRY_S = 15.0


@dataclass(frozen=True)
class Served:
    """A loaded release with the engine that answers for it, and how the client asked for it."""

    release: LoadedRelease
    endpoint: Endpoint
    assistant: str
    channel: str


@dataclass(frozen=True)
class Behind:
    """What keeps the release on a channel from answering."""

    release_id: str | None
    state: Literal["empty", "loading", "failed"]
    reason: str | None = None


@dataclass(frozen=True)
class Failure:
    """Why a release did not load, and when it is tried again (`time.monotonic`)."""

    release_id: str
    reason: str
    retry_at: float


class LoadedReleases:
    """Resolves `model` names to loaded releases."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._models = ModelPool(settings)
        self._engines = EnginePool(settings)
        self._prod: dict[str, LoadedRelease] = {}
        self._on_demand: OrderedDict[str, LoadedRelease] = OrderedDict()
        # Also those that an answer under way still holds.
        self._alive: WeakSet[LoadedRelease] = WeakSet()
        self._failures: dict[str, Failure] = {}
        self._loader = ThreadPoolExecutor(1, "release-loader")
        self._loading: Future[None] | None = None
        self._lock = threading.Lock()
        self.watch = ChannelWatch(settings, self.refresh)

    def start(self) -> None:
        """Begin to follow the channels and to load what is on prod."""
        self.watch.start()
        self.refresh()

    def stop(self) -> None:
        """End the threads and the engines."""
        self.watch.stop()
        # First, so that the loader does not wait for an engine that is still loading its model.
        self._engines.close()
        self._loader.shutdown(cancel_futures=True)

    def refresh(self) -> None:
        """Have the loader look whether prod moved or an engine died; returns at once."""
        with self._lock:
            if self._loading is None or self._loading.done():
                self._loading = self._loader.submit(self._catch_up)

    def engine_failed(self, served: Served, error: EngineError) -> None:
        """Have the loader look what has to be started or loaded again; returns at once."""
        if isinstance(error, UnknownModelError):
            self._engines.forget_adapter(served.endpoint)
        self.refresh()

    def serving(self) -> dict[str, str]:
        """Assistant → the release that answers for its prod channel now."""
        return {
            assistant: release.release_id
            for assistant, release in dict(self._prod).items()
            if self._engines.ready(release.manifest.generator)
        }

    def behind(self) -> dict[str, Behind]:
        """`model` name → what keeps the release on this channel from answering; empty when all on prod do.

        An earlier release may answer meanwhile, see `serving`.
        """
        serving = self.serving()
        found: dict[str, Behind] = {}
        for assistant in self.watch.assistants():
            release_id = self.watch.channels(assistant).get(DEFAULT_CHANNEL)
            failure = self._failures.get(assistant)
            name = f"{assistant}@{DEFAULT_CHANNEL}"
            if release_id is None:
                found[name] = Behind(None, "empty", _no_release(assistant))
            elif serving.get(assistant) == release_id:
                continue
            elif failure and failure.release_id == release_id:
                found[name] = Behind(release_id, "failed", failure.reason)
            else:
                found[name] = Behind(release_id, "loading")
        return found

    def models(self) -> list[str]:
        """The names that `model` may have."""
        names: list[str] = []
        for assistant in self.watch.assistants():
            names.append(assistant)
            names.extend(f"{assistant}@{channel}" for channel in sorted(self.watch.channels(assistant)))
        return names

    def assistant_of(self, model: str) -> str:
        """The assistant that a `model` names; raises `NotFoundError`."""
        assistant = model.partition("@")[0]
        if assistant not in self.watch.assistants():
            raise NotFoundError(f"There is no model {model!r}. Models are: {', '.join(self.models()) or 'none yet'}")
        return assistant

    def ready(self, model: str) -> Served | None:
        """The release behind a name if it is loaded; None means `load` has to be called.

        Raises `NotFoundError` for an unknown name, `RetryableError` with the reason if its release on prod did not load,
        `EngineError` while the engine is being started again.
        """
        assistant, channel, release_id = self._resolve(model)
        release = self._prod.get(assistant) if channel == DEFAULT_CHANNEL else None
        release = release or self._loaded(assistant, release_id)
        failure = self._failures.get(assistant)
        if release is None:
            if failure and failure.release_id == release_id and channel == DEFAULT_CHANNEL:
                raise RetryableError(f"{assistant}: release {release_id} on prod does not load: {failure.reason}")
            return None
        generator = release.manifest.generator
        endpoint = self._engines.ready(generator)
        if endpoint is None:
            self.refresh()
            raise EngineError(
                f"The engine of {generator.model} ended or lost its adapter, and is being made ready again: retry in some"
                " seconds."
                + (f" The last try failed: {failure.reason}" if failure and failure.release_id == release_id else "")
            )
        return Served(release, endpoint, assistant, channel)

    def load(self, model: str) -> "Future[Served]":
        """Begin to load the release behind a name; takes seconds. The future raises the error of the part that is missing."""
        return self._loader.submit(self._load_on_demand, model)

    def _load_on_demand(self, model: str) -> Served:
        # Of many that ask at once, the first has it loaded.
        if served := self.ready(model):
            return served
        assistant, channel, reference = self._resolve(model)
        release, endpoint = self._load(assistant, reference)
        with self._lock:
            self._on_demand[release.release_id] = release
            while len(self._on_demand) > LOADED_ON_DEMAND:
                self._on_demand.popitem(last=False)
        return Served(release, endpoint, assistant, channel)

    def _loaded(self, assistant: str, release_id: str) -> LoadedRelease | None:
        on_prod = self._prod.get(assistant)
        if on_prod and on_prod.release_id == release_id:
            return on_prod
        with self._lock:
            release = self._on_demand.get(release_id)
            if release:
                self._on_demand.move_to_end(release_id)
        return release

    def _resolve(self, model: str) -> tuple[str, str, str]:
        assistant, wanted = self.assistant_of(model), model.partition("@")[2]
        channels = self.watch.channels(assistant)
        channel = wanted or DEFAULT_CHANNEL
        if channel in channels:
            return assistant, channel, channels[channel]
        if not wanted:
            raise NotFoundError(_no_release(assistant))
        return assistant, "pinned", wanted

    def _catch_up(self) -> None:
        self._follow_prod()
        with self._lock:
            on_demand = list(self._on_demand.values())
        for release in on_demand:
            generator = release.manifest.generator
            if self._engines.ready(generator) is None:
                try:
                    self._engines.endpoint(generator)
                except Exception as error:  # it is asked for again with the next request
                    if self._engines.closed:
                        return
                    log.error("release %s: its engine does not start: %s", release.release_id, error)
        self._engines.keep({release.manifest.generator.revision for release in self._alive})

    def _follow_prod(self) -> None:
        for assistant in self.watch.assistants():
            release_id = self.watch.channels(assistant).get(DEFAULT_CHANNEL)
            if release_id is None:
                continue
            serving = self._prod.get(assistant)
            if serving and serving.release_id == release_id and self._engines.ready(serving.manifest.generator):
                continue
            failure = self._failures.get(assistant)
            if failure and failure.release_id == release_id and time.monotonic() < failure.retry_at:
                continue
            try:
                release, _ = self._load(assistant, release_id)
            except Exception as error:  # a release that does not load must not stop the others
                if self._engines.closed:
                    return
                reason = str(error) if isinstance(error, LlmopsError) else repr(error)
                self._failures[assistant] = Failure(release_id, reason, time.monotonic() + RETRY_S)
                if failure is None or (failure.release_id, failure.reason) != (release_id, reason):
                    log.error("%s: release %s does not load: %s", assistant, release_id, reason)
                continue
            self._prod[assistant] = release
            self._failures.pop(assistant, None)
            log.info("%s serves release %s", assistant, release_id)

    def _load(self, assistant: str, reference: str) -> tuple[LoadedRelease, Endpoint]:
        found = self.watch.fetch(assistant, reference)
        manifest = manifest_of_bundle(found)
        # A reference may be a number or the beginning of an id.
        release = self._loaded(assistant, manifest.release_id) or load_release(
            self._settings, self._models, manifest, str(found["prompt_text"])
        )
        self._alive.add(release)
        release.retrieve(WARM_UP_QUESTION)
        return release, self._engines.endpoint(manifest.generator)


def _no_release(assistant: str) -> str:
    return f"{assistant} has no release on prod yet. Promote one: llmops release promote RELEASE prod"
