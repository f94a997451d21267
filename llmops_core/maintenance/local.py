"""What releases left on this machine: adapters, and the gateway's copies of manifests.

Prompts and manifests themselves are never deleted: they are small, and say what an answer was made with.
"""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.maintenance.needed import Needed
from llmops_core.maintenance.notes import GRACE, Notes
from llmops_core.models.adapters import WEIGHTS
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings


@dataclass(frozen=True)
class LocalPlan:
    """Adapters and copies that go; adapters that wait."""

    adapters: list[str]
    copies: list[Path]
    waiting: list[str]
    notes: Notes


def plan_local(lakehouse: Lakehouse, settings: Settings, assistant: str, needed: Needed, now: datetime) -> LocalPlan:
    """Look which adapters this assistant's releases pinned and no kept one does, and which copies nobody needs.

    The adapters of other assistants stay, whatever their releases are worth, and so does one that no release has pinned
    yet. A copy that is missed is fetched again.
    """
    others = {
        adapter for other in lakehouse.assistants() if other != assistant for adapter in _pinned(lakehouse, other)
    }
    unneeded = {
        adapter
        for adapter in _pinned(lakehouse, assistant) - others - set(needed.adapters)
        if (settings.models / "adapters" / adapter).is_dir()
    }
    notes = Notes(lakehouse, f"{assistant}.adapters")
    gone = notes.due(unneeded, now)
    files = (settings.gateway / assistant / "releases").glob("*.json")
    old = [f for f in files if f.stem not in needed.releases and now - _changed_at(f) > GRACE]
    return LocalPlan(gone, sorted(old), sorted(unneeded.difference(gone)), notes)


def apply_local(settings: Settings, plan: LocalPlan, needed: Needed) -> None:
    """Delete them, but for what is needed by now."""
    for adapter in set(plan.adapters).difference(needed.adapters):
        folder = settings.models / "adapters" / adapter
        # The weights tell that an adapter is there, whole: without them it is stored anew, even if a kill leaves the rest.
        (folder / WEIGHTS).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    for file in plan.copies:
        file.unlink(missing_ok=True)
    plan.notes.save(plan.adapters)


def _pinned(lakehouse: Lakehouse, assistant: str) -> set[str]:
    manifests = [release.manifest for release in Releases(lakehouse, assistant).all()]
    return {manifest.generator.adapter for manifest in manifests if manifest.generator.adapter}


def _changed_at(file: Path) -> datetime:
    return datetime.fromtimestamp(file.stat().st_mtime, UTC)
