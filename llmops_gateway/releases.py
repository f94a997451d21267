"""The loaded releases: prod's of each assistant always, others on demand, at most a few.

A new release is loaded in a thread beside the one that serves, warmed, and then takes its place in one assignment; requests
under way keep the one that they began with.
"""

import logging
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from llmops_core.answering.loaded import LoadedRelease, ModelPool, load_release
from llmops_core.engines.pool import Endpoint, EnginePool
from llmops_core.errors import EngineError, NotFoundError
from llmops_core.release.manifest import manifest_of_bundle
from llmops_core.settings import Settings
from llmops_gateway.channel_watch import ChannelWatch

log = logging.getLogger("llmops.gateway")

# Beside the ones on prod: each holds an index open, and models of its own if its revisions differ.
LOADED_ON_DEMAND = 4
DEFAULT_CHANNEL = "prod"
WARM_UP_QUESTION = "warm up"


@dataclass(frozen=True)
class Served:
    """A loaded release with the engine that answers for it, and how the client asked for it."""

    release: LoadedRelease
    endpoint: Endpoint
    assistant: str
    channel: str


class LoadedReleases:
    """Resolves `model` names to loaded releases."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._models = ModelPool(settings)
        self._engines = EnginePool(settings)
        self._prod: dict[str, LoadedRelease] = {}
        self._on_demand: OrderedDict[str, LoadedRelease] = OrderedDict()
        self._problems: dict[str, str] = {}
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
        self._loader.shutdown(cancel_futures=True)
        self._engines.close()

    def refresh(self) -> None:
        """Have the loader look whether prod moved or an engine died; returns at once."""
        with self._lock:
            if self._loading is None or self._loading.done():
                self._loading = self._loader.submit(self._catch_up)

    def problems(self) -> dict[str, str]:
        """Assistant → why its prod release does not serve; empty when all do."""
        waiting = {name: "its release is being loaded" for name in self.watch.assistants() if name not in self._prod}
        return {**waiting, **self._problems}

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
        """The release behind a name if it is loaded; None means `load` has to be called, in a thread.

        Raises `NotFoundError` for an unknown name, `EngineError` while the engine is being started again.
        """
        assistant, channel, release_id = self._resolve(model)
        release = self._prod.get(assistant)
        if release is None or (release.release_id != release_id and channel != DEFAULT_CHANNEL):
            with self._lock:
                release = self._on_demand.get(release_id)
                if release is not None:
                    self._on_demand.move_to_end(release_id)
        if release is None:
            return None
        generator = release.manifest.generator
        endpoint = self._engines.ready(generator)
        if endpoint is None:
            self.refresh()
            raise EngineError(
                f"The engine of {generator.model} ended and is being started again: retry in some seconds."
            )
        return Served(release, endpoint, assistant, channel)

    def load(self, model: str) -> Served:
        """Load the release behind a name; takes seconds. Raises the error of the part that is missing."""
        assistant, channel, release_id = self._resolve(model)
        release, endpoint = self._loader.submit(self._load, assistant, release_id).result()
        with self._lock:
            self._on_demand[release.release_id] = release
            while len(self._on_demand) > LOADED_ON_DEMAND:
                self._on_demand.popitem(last=False)
        return Served(release, endpoint, assistant, channel)

    def _resolve(self, model: str) -> tuple[str, str, str]:
        assistant, wanted = self.assistant_of(model), model.partition("@")[2]
        channels = self.watch.channels(assistant)
        channel = wanted or DEFAULT_CHANNEL
        if channel in channels:
            return assistant, channel, channels[channel]
        if not wanted:
            raise NotFoundError(
                f"{assistant} has no release on prod yet. Promote one: llmops release promote RELEASE prod"
            )
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
                    log.error("release %s: its engine does not start: %s", release.release_id, error)

    def _follow_prod(self) -> None:
        for assistant in self.watch.assistants():
            release_id = self.watch.channels(assistant).get(DEFAULT_CHANNEL)
            if release_id is None:
                self._problems[assistant] = "no release on prod"
                continue
            serving = self._prod.get(assistant)
            if serving and serving.release_id == release_id and self._engines.ready(serving.manifest.generator):
                continue
            try:
                release, _ = self._load(assistant, release_id)
            except Exception as error:  # a release that does not load must not stop the others
                self._problems[assistant] = f"release {release_id}: {error}"
                log.error("%s: release %s does not load: %s", assistant, release_id, error)
                continue
            self._prod[assistant] = release
            self._problems.pop(assistant, None)
            log.info("%s serves release %s", assistant, release_id)

    def _load(self, assistant: str, reference: str) -> tuple[LoadedRelease, Endpoint]:
        found = self.watch.fetch(assistant, reference)
        manifest = manifest_of_bundle(found)
        release = load_release(self._settings, self._models, manifest, str(found["prompt_text"]))
        endpoint = self._engines.endpoint(manifest.generator)
        release.retrieve(WARM_UP_QUESTION)
        return release, endpoint
