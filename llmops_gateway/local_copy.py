"""The gateway's copy of channels, manifests and prompts on local disk, and the rollbacks that the history lacks yet.

With it a gateway starts, serves and rolls back while the lakehouse is away. Files: `<home>/gateway/<assistant>/channels.json`,
`…/rollbacks.json` and `…/releases/<release_id>.json`; each is replaced as a whole. All gateways of a home share them.
"""

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import ValidationError

from llmops_core.errors import PermanentError
from llmops_core.ids import HASH_LENGTH
from llmops_core.release.rollback import Waiting

# Of what a channel had before, the nearest: as far as a gateway goes back without the lakehouse.
KEPT_BEFORE = 10

_ID = re.compile(rf"[0-9a-f]{{{HASH_LENGTH}}}")


@dataclass(frozen=True)
class Seen:
    """A channel as the history had it when it was last read."""

    release_id: str
    event_id: str | None = None
    """None if an earlier version wrote the file: then it is known where the channel points, and no more."""
    before: Sequence[str] = ()
    """Releases that it can go back to, the nearest last."""
    experiment: str | None = None
    plan: Mapping[str, Any] | None = None
    """Of the canary, with its experiment."""


class LocalCopy:
    """The files of one assistant."""

    def __init__(self, root: Path, assistant: str) -> None:
        self._folder = root / assistant

    @staticmethod
    def assistants(root: Path) -> list[str]:
        """The assistants that have files here."""
        return sorted(f.parent.name for f in root.glob("*/channels.json"))

    def channels(self) -> dict[str, Seen]:
        """The channels as last seen; empty if never seen."""
        value = _read(self._folder / "channels.json") or {}
        return {name: Seen(**seen) if isinstance(seen, dict) else Seen(seen) for name, seen in value.items()}

    def save_channels(self, channels: Mapping[str, Seen]) -> None:
        """Keep the channels."""
        _write(self._folder / "channels.json", {name: asdict(seen) for name, seen in channels.items()})

    def rollbacks(self) -> list[Waiting]:
        """The rollbacks that were decided here and are not known to be in the history, oldest first; raises `PermanentError`."""
        file = self._folder / "rollbacks.json"
        try:
            return [Waiting.model_validate(move) for move in (_read(file) or {}).get("waiting", [])]
        except ValidationError as error:
            raise PermanentError(
                f"{file} cannot be read, so the rollbacks in it do not hold: {error}. Upgrade if a newer version wrote it, or"
                " move it away and roll back again."
            ) from error

    def change_rollbacks(self, change: Callable[[list[Waiting]], list[Waiting]]) -> list[Waiting]:
        """Replace those that are kept by what `change` makes of them, and return that; one process at a time does so."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self._folder / "rollbacks.lock"):
            before = self.rollbacks()
            after = change(before)
            if after != before:
                moves = [move.model_dump(mode="json") for move in after]
                _write(self._folder / "rollbacks.json", {"waiting": moves})
        return after

    def bundle(self, release_id: str) -> dict[str, Any] | None:
        """A release's manifest and prompt; None if it was never seen here."""
        # What a client names may be anything, also a path.
        return _read(self._folder / "releases" / f"{release_id}.json") if _ID.fullmatch(release_id) else None

    def save_bundle(self, bundle: Mapping[str, Any]) -> None:
        """Keep a release."""
        _write(self._folder / "releases" / f"{bundle['release_id']}.json", bundle)


def _read(file: Path) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return value


def _write(file: Path, value: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as part:
            json.dump(value, part)
            part.flush()
            os.fsync(part.fileno())
        Path(name).replace(file)
    finally:
        # It is tried again every second: a full disk must not fill up with names as well.
        Path(name).unlink(missing_ok=True)
