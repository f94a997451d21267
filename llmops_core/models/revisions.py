"""What pins a model: a short stable string that changes whenever its weights, or how they are used, do.

A revision is part of table keys, partition keys and release manifests. Those of built-in and hub models need no file;
those of `path:` folders hash their files, once for each (size, modification time). The device is not part of one.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from llmops_core.errors import ModelError
from llmops_core.ids import content_hash
from llmops_core.models.builtin import BuiltinModel
from llmops_core.models.record import files_below, sha256_of
from llmops_core.models.reference import FolderModel, HubModel, Pullable, Reference, parse_reference, slug
from llmops_core.settings import Settings

HEX_DIGITS = 12
FOLDER_DTYPE = "bfloat16"
"""What embedders that are not built in run in."""
_ENCODING = 1
"""Raised when our code makes other vectors or scores of the same weights and texts."""
_CACHE = "revisions.json"
# Say something about a model but do not change what it computes.
_IRRELEVANT = (".md", "LICENSE", "NOTICE")


def embedder_revision(settings: Settings, model: str, query_prefix: str = "", document_prefix: str = "") -> str:
    """The revision of an embedder: weights, number format, length, pooling and prefixes. Raises `ModelError`."""
    reference = parse_reference(model, "embedder")
    if isinstance(reference, BuiltinModel):
        use = {"dtype": reference.dtype, "max_tokens": reference.max_tokens, "pooling": reference.pooling}
        query_prefix = query_prefix or reference.query_prefix
        document_prefix = document_prefix or reference.document_prefix
    else:
        use = {"dtype": FOLDER_DTYPE}  # length and pooling are in the model's own files
    prefixes = {"query_prefix": query_prefix, "document_prefix": document_prefix}
    return _revision(settings, reference, {**use, **prefixes, "encoding": _ENCODING})


def reranker_revision(settings: Settings, model: str) -> str:
    """The revision of a reranker: weights and length. Raises `ModelError`."""
    reference = parse_reference(model, "reranker")
    use = {"max_tokens": reference.max_tokens} if isinstance(reference, BuiltinModel) else {}
    return _revision(settings, reference, {**use, "encoding": _ENCODING})


def generator_revision(settings: Settings, model: str) -> str:
    """The revision of a generator that runs here: weights and number format. Raises `ModelError`.

    A model behind somebody else's server has none that we could know.
    """
    return _revision(settings, parse_reference(model, "generator"), {"dtype": "bfloat16"})


def check_revision(model: str, pinned: str, present: str) -> None:
    """Raise `ModelError` if what is here of a model is not what a release pins."""
    if pinned != present:
        raise ModelError(
            f"The release pins {model} at {pinned}, and the one here is {present}. Put the pinned weights back,"
            " or build a release on the present ones: llmops build"
        )


def default_revision(settings: Settings, model: Pullable) -> str:
    """The revision of a built-in model with no prefixes of the user's own; of a hub model, whose role is open, its commit."""
    if isinstance(model, HubModel):
        return model.commit
    revision = {"embedder": embedder_revision, "reranker": reranker_revision, "generator": generator_revision}
    return revision[model.role](settings, model.name)


def _revision(settings: Settings, reference: Reference, use: dict[str, Any]) -> str:
    match reference:
        case BuiltinModel():
            name, weights = reference.name, reference.made_from
        case HubModel():
            name, weights = reference.repo.rpartition("/")[2], reference.made_from
        case FolderModel():
            name, weights = reference.folder.name, folder_hash(reference.folder, settings.models / _CACHE)
    return f"{slug(name)}-{content_hash({'weights': weights, 'use': use})[:HEX_DIGITS]}"


def folder_hash(folder: Path, cache: Path) -> str:
    """Content hash of a model folder's files; what was hashed is remembered in the JSON file `cache`.

    Raises `ModelError` if the folder is not there, holds no file or cannot be read.
    """
    remembered = _read_cache(cache)
    hashes: dict[str, str] = {}
    fresh: dict[str, list[Any]] = {}
    try:
        for name, file in files_below(folder).items():
            if name.endswith(_IRRELEVANT):
                continue
            found = file.stat()
            state = [found.st_size, found.st_mtime_ns]
            known = remembered.get(str(file))
            hashes[name] = known[2] if known is not None and known[:2] == state else sha256_of(file)
            fresh[str(file)] = [*state, hashes[name]]
    except OSError as error:
        raise ModelError(f"Model folder {folder} cannot be read: {error}") from error
    if not hashes:
        raise ModelError(f"Model folder {folder} is not there or holds no file. Name it path:<folder>")
    if any(remembered.get(path) != entry for path, entry in fresh.items()):
        _write_cache(cache, {**remembered, **fresh})
    return content_hash(hashes)


def _read_cache(cache: Path) -> dict[str, list[Any]]:
    try:
        data = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in data.items() if isinstance(v, list) and len(v) == 3} if isinstance(data, dict) else {}


def _write_cache(cache: Path, entries: dict[str, list[Any]]) -> None:
    """Write the cache if it can be written; without it the files are hashed again next time."""
    part = cache.with_name(f".{cache.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(entries, indent=0, sort_keys=True), encoding="utf-8")
        part.replace(cache)
