"""The release manifest, format 1: the seam from the asset side to the gateway.

`release_id` is the hash of the canonical JSON. A section that is not used is absent from that JSON, so that ids made today
stay valid when later versions of the platform know more sections. Number, message, author and time are kept beside it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from llmops_core.errors import PermanentError
from llmops_core.ids import canonical_json, content_hash


class Pin(BaseModel):
    """A section of the manifest: frozen, and closed to keys that this version does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PromptPin(Pin):
    """A version of a prompt, and what of it gives way first when the context window is full."""

    name: str
    version: int
    hash: str
    budget: list[Literal["chunks", "history", "features"]]


class GeneratorParams(Pin):
    """How the generator samples."""

    max_tokens: int
    temperature: float
    top_p: float


class GeneratorPin(Pin):
    """The generator: engine, weights, adapter (content hash), parameters; the address for a remote one."""

    engine: Literal["local", "openai"]
    model: str
    revision: str
    adapter: str | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    context_window: int
    params: GeneratorParams


class EmbedderPin(Pin):
    """The embedder of questions; its revision must be the one that the index was made with."""

    model: str
    revision: str
    query_prefix: str | None = None
    document_prefix: str | None = None


class RerankerPin(Pin):
    """The reranker and how many hits it sees."""

    model: str
    revision: str
    pool: int


class RetrievalPin(Pin):
    """How chunks are found."""

    mode: Literal["dense", "full_text", "hybrid"]
    top_k: int
    query: Literal["last_turn", "condensed"]
    reranker: RerankerPin | None = None


class IndexPin(Pin):
    """The index version and the Iceberg snapshots that it was built from (table → snapshot id)."""

    version: str
    snapshots: dict[str, int]


class Manifest(Pin):
    """Everything that an answer depends on."""

    format: Literal[1] = 1
    assistant: str
    prompt: PromptPin
    generator: GeneratorPin
    embedder: EmbedderPin
    retrieval: RetrievalPin
    index: IndexPin
    features: dict[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON value, unused sections absent."""
        return self.model_dump(mode="json", exclude_none=True)

    def to_json(self) -> str:
        """The canonical JSON."""
        return canonical_json(self.to_dict())

    @property
    def release_id(self) -> str:
        """Hash of the canonical JSON."""
        return content_hash(self.to_dict())

    def with_index(self, index: IndexPin) -> "Manifest":
        """The same release on another index version."""
        return self.model_copy(update={"index": index})

    def differs_in_index_alone(self, other: "Manifest") -> bool:
        """Whether only fresh documents lie between the two."""
        return self.index.version != other.index.version and self.with_index(other.index) == other

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read a manifest; raises `PermanentError` that names what this version cannot read."""
        try:
            return cls.model_validate(json.loads(text))
        except (ValidationError, json.JSONDecodeError) as error:
            raise PermanentError(
                f"A release manifest cannot be read: {error}. If a newer version of llmops-assets wrote it, upgrade this one."
            ) from error


@dataclass(frozen=True)
class Release:
    """A manifest with what is kept beside it."""

    manifest: Manifest
    number: int
    author: str
    message: str
    created_at: datetime

    @property
    def release_id(self) -> str:
        """Hash of the manifest."""
        return self.manifest.release_id


def bundle(release: Release, prompt_text: str) -> dict[str, Any]:
    """What a gateway keeps on local disk of a release, so that it serves without the lakehouse."""
    return {
        "release_id": release.release_id,
        "number": release.number,
        "manifest": release.manifest.to_dict(),
        "prompt_text": prompt_text,
    }


def manifest_of_bundle(value: Mapping[str, Any]) -> Manifest:
    """Read a bundle's manifest and check that it is the one it says; raises `PermanentError`."""
    manifest = Manifest.from_json(canonical_json(value["manifest"]))
    if manifest.release_id != value["release_id"]:
        raise PermanentError(
            f"The local copy of release {value['release_id']} is damaged: its content hashes to {manifest.release_id}."
            " Delete the file; the gateway fetches it again."
        )
    return manifest
