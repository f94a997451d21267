"""The loaded releases: prod's of each assistant and the one before it always, others on demand, at most a few.

A new release is loaded in a thread beside the one that serves, warmed, and then takes its place in one assignment; requests
under way keep the one that they began with. The one that it replaced stays warm: a rollback to it waits for no loading.
"""

import gc
import logging
import math
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal
from weakref import WeakSet, ref

from llmops_core.answering.loaded import LoadedRelease, ModelPool, load_release
from llmops_core.engines.client import UnknownModelError
from llmops_core.engines.pool import Endpoint, EnginePool
from llmops_core.errors import EngineError, LlmopsError, NotFoundError, RetryableError
from llmops_core.release.channels import CANARY
from llmops_core.release.manifest import manifest_of_bundle
from llmops_core.settings import Settings
from llmops_gateway.channel_watch import ChannelWatch

log = logging.getLogger("llmops.gateway")

# Beside the ones on prod and before them, also while answers under way hold them: each has an index open, and models of its
# own if its revisions differ.
LOADED_ON_DEMAND = 4
DEFAULT_CHANNEL = "prod"
WARM_UP_QUESTION = "warm up"
# A release that does not load is left alone for this long: each try of a local engine takes the cores for seconds.
RETRY_S = 15.0
# What a rollback goes to is loaded this long after the last change: whoever starts a gateway for a question or two does not pay
# for it, and those who are answered by what has just been loaded do not wait for it.
WARM_AFTER_S = 30.0


@dataclass(frozen=True)
class Served:
    """A loaded release with the engine that answers for it, and how the client asked for it."""

    release: LoadedRelease
    endpoint: Endpoint
    assistant: str
    channel: str
    experiment: str | None = None
    """The canary's, if the request counts for one of its arms."""
    instead: str | None = None
    """Why prod answers a user of the canary."""
    shadow: "Served | None" = None
    """What answers a copy of the request."""


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


@dataclass(frozen=True)
class Canary:
    """The release of an experiment, loaded; while fresh documents load, the one before them."""

    experiment: str
    release: LoadedRelease


class LoadedReleases:
    """Resolves `model` names to loaded releases."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._models = ModelPool(settings)
        self._engines = EnginePool(settings)
        self._prod: dict[str, LoadedRelease] = {}
        self._before: dict[str, LoadedRelease] = {}
        self._changed_at: dict[str, float] = {}
        self._canaries: dict[str, Canary] = {}
        self._on_demand: OrderedDict[str, LoadedRelease] = OrderedDict()
        # Also those that an answer under way still holds.
        self._alive: WeakSet[LoadedRelease] = WeakSet()
        # Revisions of the generators of those that are being loaded.
        self._starting: list[str] = []
        self._failures: dict[str, Failure] = {}
        self._loader = ThreadPoolExecutor(1, "release-loader")
        # What somebody asks for by name may take its time, and prod must not wait for it.
        self._on_demand_loader = ThreadPoolExecutor(1, "on-demand-loader")
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
        self._on_demand_loader.shutdown(cancel_futures=True)

    def refresh(self) -> None:
        """Have the loader look whether prod moved or an engine died; returns at once.

        A release that is loaded already, as after a rollback, serves from here on, whatever the loader is busy with.
        """
        for assistant in self.watch.assistants():
            release_id = self.watch.channels(assistant).get(DEFAULT_CHANNEL)
            release = self._loaded(assistant, release_id) if release_id else None
            if release and self._engines.ready(release.manifest.generator):
                self._serve(assistant, release)
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
        """`model` name → what keeps the release on this channel, prod or canary, from answering; empty when all do.

        An earlier release may answer meanwhile, see `serving`.
        """
        serving = self.serving()
        found: dict[str, Behind] = {}
        for assistant in self.watch.assistants():
            release_id = self.watch.channels(assistant).get(DEFAULT_CHANNEL)
            if release_id is None:
                found[f"{assistant}@{DEFAULT_CHANNEL}"] = Behind(None, "empty", _no_release(assistant))
            elif serving.get(assistant) != release_id:
                found[f"{assistant}@{DEFAULT_CHANNEL}"] = self._behind(assistant, release_id)
            experiment = self.watch.experiment(assistant)
            if experiment and not self._answers(self._canaries.get(assistant), experiment.release_id):
                name = f"{assistant}@{CANARY}"
                found[name] = self._behind(name, experiment.release_id)
        return found

    def _behind(self, name: str, release_id: str) -> Behind:
        failure = self._failures.get(name)
        if failure and failure.release_id == release_id:
            return Behind(release_id, "failed", failure.reason)
        return Behind(release_id, "loading")

    def canaries(self) -> dict[str, dict[str, object]]:
        """Assistant → the experiment of its canary, and the release that is loaded for it, null while there is none."""
        found: dict[str, dict[str, object]] = {}
        for assistant in self.watch.assistants():
            if experiment := self.watch.experiment(assistant):
                loaded = self._canaries.get(assistant)
                plan = experiment.plan
                found[assistant] = {
                    "experiment": experiment.experiment,
                    "mode": plan.mode,
                    "share": plan.share,
                    "serving": loaded.release.release_id if loaded else None,
                }
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

    def chosen(self, model: str, user: str | None) -> Served | None:
        """As `ready`, and for some users of an assistant that has a canary, the canary's release.

        An experiment counts requests only while both sides can answer here: else the arm of a request would hang on how its
        releases do. Who names no `user` is nobody in particular and is in no arm.
        """
        served = self.ready(model)
        experiment = self.watch.experiment(model)
        if served is None or experiment is None or user is None:
            return served
        drawn = experiment.drawn(user)
        canary = self._canaries.get(served.assistant)
        endpoint = self._engines.ready(canary.release.manifest.generator) if canary else None
        if canary is None or canary.experiment != experiment.experiment or endpoint is None:
            if drawn and experiment.plan.mode == "share":
                return replace(served, instead="the canary is not loaded")
            return served
        counted = replace(served, experiment=experiment.experiment)
        if not drawn:
            return counted if experiment.plan.mode == "share" else served
        second = Served(canary.release, endpoint, served.assistant, CANARY, experiment.experiment)
        return second if experiment.plan.mode == "share" else replace(counted, shadow=replace(second, channel="shadow"))

    def load(self, model: str) -> "Future[Served]":
        """Begin to load the release behind a name; takes seconds. The future raises the error of the part that is missing."""
        return self._on_demand_loader.submit(self._load_on_demand, model)

    def _load_on_demand(self, model: str) -> Served:
        # Of many that ask at once, the first has it loaded.
        if served := self.ready(model):
            return served
        assistant, channel, reference = self._resolve(model)
        with self._lock:
            self._make_room()
        release, endpoint = self._load(assistant, reference)
        with self._lock:
            self._on_demand[release.release_id] = release
        return Served(release, endpoint, assistant, channel)

    def _make_room(self) -> None:
        """Let go of the releases not used longest until one more may be loaded on demand.

        One that answers under way hold is not gone by that. Raises `RetryableError` if there are too many of those.
        """
        if self._beside() < LOADED_ON_DEMAND:
            return
        # An answer whose client left is held by its error, and that by itself.
        gc.collect()
        held: dict[str, LoadedRelease] = {}
        while self._on_demand and self._beside() >= LOADED_ON_DEMAND:
            release_id, release = self._on_demand.popitem(last=False)
            left = ref(release)
            del release
            if still := left():
                held[release_id] = still
        self._on_demand = OrderedDict({**held, **self._on_demand})
        if self._beside() >= LOADED_ON_DEMAND:
            raise RetryableError(
                f"{LOADED_ON_DEMAND} releases beside those on {DEFAULT_CHANNEL} are answering now, and no more may be loaded"
                " meanwhile: retry in some seconds."
            )

    def _beside(self) -> int:
        """How many releases are in memory that are neither on prod nor were before."""
        canaries = [canary.release for canary in self._canaries.values()]
        always = [*self._prod.values(), *self._before.values(), *canaries]
        return sum(not any(release is kept for kept in always) for release in self._alive)

    def _loaded(self, assistant: str, release_id: str) -> LoadedRelease | None:
        canary = self._canaries.get(assistant)
        for loaded in (self._prod.get(assistant), canary and canary.release, self._before.get(assistant)):
            if loaded and loaded.release_id == release_id:
                return loaded
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
        self._follow_canaries()
        self._follow_before()
        with self._lock:
            beside = [*self._before.values(), *self._on_demand.values()]
            # Not the releases: what is held here could not be let go of meanwhile.
            generators = {release.release_id: release.manifest.generator for release in beside}
            del beside
        for release_id, generator in generators.items():
            if self._engines.ready(generator) is None:
                try:
                    self._engines.endpoint(generator)
                except Exception as error:  # it is asked for again with the next request
                    if self._engines.closed:
                        return
                    log.error("release %s: its engine does not start: %s", release_id, error)
        with self._lock:
            revisions = {release.manifest.generator.revision for release in self._alive} | set(self._starting)
        self._engines.keep(revisions)

    def _follow_prod(self) -> None:
        for assistant in self.watch.assistants():
            release_id = self.watch.channels(assistant).get(DEFAULT_CHANNEL)
            if release_id is None:
                continue
            serving = self._prod.get(assistant)
            if serving and serving.release_id == release_id and self._engines.ready(serving.manifest.generator):
                continue
            if release := self._tried(assistant, assistant, release_id):
                is_first = not self._prod
                self._serve(assistant, release)
                if is_first:
                    # Half a million objects of libraries, each collection of which would hold up all answers for 0.4 s.
                    gc.collect()
                    gc.freeze()

    def _follow_before(self) -> None:
        """Load what a rollback of prod goes to, where that is not what prod has just left; each is tried once."""
        for assistant in self.watch.assistants():
            name, release_id = f"{assistant} before {DEFAULT_CHANNEL}", self.watch.before(assistant, DEFAULT_CHANNEL)
            kept, failure = self._before.get(assistant), self._failures.get(name)
            if (kept and kept.release_id) == release_id or (failure and failure.release_id == release_id):
                continue
            if time.monotonic() < self._changed_at.get(assistant, math.inf) + WARM_AFTER_S:
                continue
            if release_id is None:
                with self._lock:
                    self._before.pop(assistant, None)
            elif release := self._tried(name, assistant, release_id):
                with self._lock:
                    # While it was loaded, prod may have left another, which is warm.
                    if self.watch.before(assistant, DEFAULT_CHANNEL) != release_id:
                        continue
                    self._before[assistant] = release
                log.info("%s has release %s ready for a rollback", assistant, release_id)

    def _follow_canaries(self) -> None:
        for assistant in self.watch.assistants():
            name = f"{assistant}@{CANARY}"
            experiment, loaded = self.watch.experiment(assistant), self._canaries.get(assistant)
            if experiment is None or (loaded and loaded.experiment != experiment.experiment):
                with self._lock:
                    self._canaries.pop(assistant, None)
                self._failures.pop(name, None)
            if experiment is None or self._answers(self._canaries.get(assistant), experiment.release_id):
                continue
            if release := self._tried(name, assistant, experiment.release_id):
                with self._lock:
                    self._canaries[assistant] = Canary(experiment.experiment, release)
                self._failures.pop(name, None)
                log.info("%s has release %s as its canary", assistant, release.release_id)

    def _answers(self, canary: Canary | None, release_id: str) -> bool:
        """Whether the canary that is loaded is this release, and its engine is there."""
        if canary is None or canary.release.release_id != release_id:
            return False
        return self._engines.ready(canary.release.manifest.generator) is not None

    def _tried(self, name: str, assistant: str, release_id: str) -> LoadedRelease | None:
        """Load a release, unless that failed a moment ago; None, and a failure under this name, if it does not load."""
        failure = self._failures.get(name)
        if failure and failure.release_id == release_id and time.monotonic() < failure.retry_at:
            return None
        try:
            release, _ = self._load(assistant, release_id)
        except Exception as error:  # a release that does not load must not stop the others
            if self._engines.closed:
                return None
            reason = str(error) if isinstance(error, LlmopsError) else repr(error)
            self._failures[name] = Failure(release_id, reason, time.monotonic() + RETRY_S)
            if failure is None or (failure.release_id, failure.reason) != (release_id, reason):
                log.error("%s: release %s does not load: %s", name, release_id, reason)
            return None
        return release

    def _serve(self, assistant: str, release: LoadedRelease) -> None:
        """Put a release that is loaded in the place of the one that serves, if it is still the one on prod."""
        with self._lock:
            serving = self._prod.get(assistant)
            if self.watch.channels(assistant).get(DEFAULT_CHANNEL) != release.release_id:
                return
            self._failures.pop(assistant, None)
            if serving is release:
                return
            if serving:
                self._before[assistant] = serving
            self._prod[assistant] = release
            self._changed_at[assistant] = time.monotonic()
        log.info("%s serves release %s", assistant, release.release_id)

    def _load(self, assistant: str, reference: str) -> tuple[LoadedRelease, Endpoint]:
        found = self.watch.fetch(assistant, reference)
        manifest = manifest_of_bundle(found)
        # A reference may be a number or the beginning of an id.
        release = self._loaded(assistant, manifest.release_id) or load_release(
            self._settings, self._models, manifest, str(found["prompt_text"])
        )
        generator = manifest.generator
        with self._lock:
            self._starting.append(generator.revision)
        try:
            release.retrieve(WARM_UP_QUESTION)
            endpoint = self._engines.ready(generator) or self._engines.endpoint(generator)
            with self._lock:
                self._alive.add(release)
        finally:
            with self._lock:
                self._starting.remove(generator.revision)
        return release, endpoint


def _no_release(assistant: str) -> str:
    return f"{assistant} has no release on prod yet. Promote one: llmops release promote RELEASE prod"
