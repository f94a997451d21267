"""Makes releases of what was built, and moves the channels that need no person's word.

A changed `assistant.yaml` or prompt makes a candidate: it goes to dev and waits there. Fresh documents make a release that
differs from the one on a channel in its index alone: it replaces that one by itself, unless `release.index_only` is manual.
The first release of an assistant goes to prod, since there is nothing that it could be worse than. Both meet the floors that
`assistant.yaml` sets (see gate.py); what may not move waits, and says for what.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import polars as pl

from llmops_core.assistant import Assistant
from llmops_core.errors import GateError, NotFoundError
from llmops_core.evaluation.report import RETRIEVAL_SCORES
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.models.revisions import embedder_revision
from llmops_core.prompts.versions import PromptVersion
from llmops_core.release.channels import CANARY, Pointer
from llmops_core.release.compose import compose
from llmops_core.release.manifest import IndexPin, Manifest, Release
from llmops_core.release.moves import Mover, promote
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings

# Channels that users see: fresh documents reach them, also both sides of an experiment; dev gets every candidate anyway.
REFRESHED = ("staging", "prod", CANARY)

Measure = Callable[[Release], object]
"""Scores what a release finds for the stored cases, so that floors can be asked of fresh documents at once; without it they wait
until the release was evaluated."""


@dataclass(frozen=True)
class Move:
    """A channel that was moved, and why."""

    channel: str
    release: Release
    reason: str
    waits: str | None = None
    """What keeps it from moving by itself; None: it was moved."""

    def __str__(self) -> str:
        if self.waits:
            return f"{self.channel} waits: {self.waits}"
        return f"{self.channel} → release {self.release.number}: {self.reason}"


@dataclass(frozen=True)
class Published:
    """The release of the present configuration, and the moves that follow from it."""

    release: Release
    is_new: bool
    moves: tuple[Move, ...]


@dataclass(frozen=True)
class Built:
    """What materialised assets recorded: the prompt's hash, and the newest index version by embedder revision."""

    prompt_hash: str
    index_versions: Mapping[str, str]


def publish_built(
    lakehouse: Lakehouse,
    settings: Settings,
    assistant: Assistant,
    built: Built,
    *,
    author: str,
    message: str,
    provenance: Provenance,
    measure: Measure | None = None,
) -> Published:
    """Compose the release of what was built, record it, and move the channels that follow by themselves."""
    prompt = _prompt(lakehouse, assistant, built.prompt_hash)
    indexes = {revision: index_pin(lakehouse, assistant.name, v) for revision, v in built.index_versions.items()}
    section = assistant.embedder
    revision = embedder_revision(settings, section.model, section.query_prefix, section.document_prefix)
    if revision not in indexes:
        raise NotFoundError(f"{assistant.name} has no index for {revision}. Build it first: llmops build")
    candidate = compose(settings, assistant, prompt, indexes[revision])
    return publish(
        lakehouse,
        assistant,
        candidate,
        indexes,
        author=author,
        message=message,
        provenance=provenance,
        measure=measure,
    )


def publish(
    lakehouse: Lakehouse,
    assistant: Assistant,
    candidate: Manifest,
    indexes: Mapping[str, IndexPin],
    *,
    author: str,
    message: str,
    provenance: Provenance,
    measure: Measure | None = None,
) -> Published:
    """Record the candidate, put it on dev, and refresh what serves with the newest index of its embedder.

    `indexes`: embedder revision → newest index version whose checks passed.
    """
    releases = Releases(lakehouse, assistant.name)
    seen = releases.channels.state()
    release, is_new = releases.create(candidate, author=author, message=message, provenance=provenance)
    wanted: list[Move] = []
    if "dev" not in seen or seen["dev"].release_id != release.release_id:
        wanted.append(Move("dev", release, "newest release" if is_new else "built and configured like this again"))
    if "prod" not in seen:
        wanted.append(Move("prod", release, "first release: nothing serves yet"))
    for channel in REFRESHED:
        if channel not in seen:
            continue
        serving = releases.get(seen[channel].release_id).manifest
        newest = indexes.get(serving.embedder.revision)
        if newest is None or newest.version == serving.index.version:
            continue
        fresh, _ = releases.create(
            serving.with_index(newest), author=author, message="fresh documents", provenance=provenance
        )
        if assistant.release.index_only == "automatic":
            wanted.append(Move(channel, fresh, "fresh documents; checks passed"))
            if (
                measure
                and assistant.evaluation.cases
                and assistant.evaluation.gate.floors.keys() & set(RETRIEVAL_SCORES)
            ):
                measure(fresh)
    made = [_by_itself(lakehouse, assistant, move, seen, author, provenance) for move in wanted]
    return Published(release, is_new, tuple(made))


def follow(
    lakehouse: Lakehouse, assistant: Assistant, release_id: str, *, author: str, provenance: Provenance
) -> Move | None:
    """The move to prod that waited for an evaluation: that of the release on dev, once it was evaluated; None for any other."""
    releases = Releases(lakehouse, assistant.name)
    seen = releases.channels.state()
    on = {channel: pointer.release_id for channel, pointer in seen.items()}
    if on.get("dev") != release_id or on.get("prod") == release_id:
        return None
    move = Move("prod", releases.get(release_id), "evaluated, and the gate passed")
    return _by_itself(lakehouse, assistant, move, seen, author, provenance)


def _by_itself(
    lakehouse: Lakehouse,
    assistant: Assistant,
    move: Move,
    seen: Mapping[str, Pointer],
    author: str,
    provenance: Provenance,
) -> Move:
    """Make a move without a person; one that is refused waits."""
    by = Mover(author, move.reason, person=False)
    try:
        promote(lakehouse, assistant, move.release.release_id, move.channel, by, provenance, expected=seen)
    except GateError as error:
        return replace(move, waits=str(error))
    return move


def index_pin(lakehouse: Lakehouse, assistant: str, version: str) -> IndexPin:
    """The manifest's pin of a recorded index version; raises `NotFoundError`."""
    rows = lakehouse.table(assistant, "index_vector_index").read().filter(pl.col("index_version") == version)
    if rows.is_empty():
        raise NotFoundError(f"{assistant}: index version {version} is not recorded. Build it: llmops build")
    return IndexPin(version=version, snapshots=json.loads(rows["snapshots"][0]))


def _prompt(lakehouse: Lakehouse, assistant: Assistant, prompt_hash: str) -> PromptVersion:
    versions = Releases(lakehouse, assistant.name).prompts.all()
    found = [v for v in versions if v.hash == prompt_hash]
    if not found:
        raise NotFoundError(f"{assistant.name}: prompt {prompt_hash} is not recorded. Materialise prompts/versions.")
    return found[-1]
