"""What lies between two releases: the manifest's values that differ, and the prompts as a text diff."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llmops_core.release.manifest import Manifest, Release
from llmops_core.release.registry import Releases

# Ends of the paths of manifest values that say nothing to people.
HASHES = ("index", "revision", "adapter")


@dataclass(frozen=True)
class Difference:
    """Two releases, and what the second has otherwise than the first."""

    before: Release
    after: Release
    values: tuple[tuple[str, Any, Any], ...]
    """Path in the manifest, value before, value after; None where there is none."""
    prompt: str
    """Unified diff of the prompts' texts; empty if they are equal."""


def difference(releases: Releases, before: Release, after: Release) -> Difference:
    """Compare two releases of one assistant."""
    old, new = (releases.prompt_text(release).splitlines() for release in (before, after))
    lines = difflib.unified_diff(old, new, _prompt(before), _prompt(after), lineterm="")
    return Difference(before, after, tuple(_values(before.manifest, after.manifest)), "\n".join(lines))


def changes(before: Manifest, after: Manifest) -> list[str]:
    """What differs between two releases, as `generator.params.max_tokens 128 → 256`; hashes by their name alone."""
    return [
        path if path.endswith(HASHES) else f"{path} {shown(old)} → {shown(new)}"
        for path, old, new in _values(before, after)
    ]


def shown(value: Any) -> str:
    """A value of a manifest for people."""
    return "none" if value is None else str(value)


def _prompt(release: Release) -> str:
    pin = release.manifest.prompt
    return f"prompts:/{pin.name}/{pin.version}"


def _values(before: Manifest, after: Manifest) -> Iterator[tuple[str, Any, Any]]:
    old, new = dict(_leaves(before.to_dict())), dict(_leaves(after.to_dict()))
    for path in dict.fromkeys([*old, *new]):
        if old.get(path) != new.get(path):
            yield path, old.get(path), new.get(path)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of what is in a manifest: the index as a whole, and not the prompt's hash beside its version."""
    if isinstance(value, dict) and path != "index":
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}".lstrip("."))
    elif path != "prompt.hash":
        yield path, value
