"""The gateway's copy of channels, manifests and prompts on local disk.

With it a gateway starts and serves while the lakehouse is away. Files: `<home>/gateway/<assistant>/channels.json` and
`…/releases/<release_id>.json`; each is replaced as a whole.
"""

import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmops_core.ids import HASH_LENGTH

_ID = re.compile(rf"[0-9a-f]{{{HASH_LENGTH}}}")


class LocalCopy:
    """The files of one assistant."""

    def __init__(self, root: Path, assistant: str) -> None:
        self._folder = root / assistant

    @staticmethod
    def assistants(root: Path) -> list[str]:
        """The assistants that have files here."""
        return sorted(f.parent.name for f in root.glob("*/channels.json"))

    def channels(self) -> dict[str, str]:
        """Channel → release id, as last seen; empty if never seen."""
        value = _read(self._folder / "channels.json")
        return {str(k): str(v) for k, v in (value or {}).items()}

    def save_channels(self, channels: Mapping[str, str]) -> None:
        """Keep the channels."""
        _write(self._folder / "channels.json", channels)

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
