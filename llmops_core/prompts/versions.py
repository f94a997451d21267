"""The versions of prompts: immutable, numbered, one for each content."""

from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from llmops_core.errors import ConflictError, NotFoundError
from llmops_core.ids import content_hash
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance

ATTEMPTS = 20


@dataclass(frozen=True)
class PromptVersion:
    """One version of one prompt."""

    name: str
    version: int
    hash: str
    text: str


class PromptVersions:
    """Table `prompts_versions` of one assistant."""

    def __init__(self, lakehouse: Lakehouse, assistant: str) -> None:
        self._table = lakehouse.table(assistant, "prompts_versions")

    def all(self) -> list[PromptVersion]:
        """All versions, by name and number."""
        rows = self._table.read().sort("name", "version").select("name", "version", "hash", "text")
        return [PromptVersion(**row) for row in rows.iter_rows(named=True)]

    def register(
        self, name: str, text: str, *, author: str, message: str, provenance: Provenance
    ) -> tuple[PromptVersion, bool]:
        """Give a text its version; a text that has one already keeps it, with False."""
        text_hash = content_hash(text)
        for _ in range(ATTEMPTS):
            snapshot = self._table.snapshot_id()
            versions = [v for v in self.all() if v.name == name]
            found = next((v for v in versions if v.hash == text_hash), None)
            if found:
                return found, False
            version = PromptVersion(name, len(versions) + 1, text_hash, text)
            row = {
                "name": name,
                "version": version.version,
                "hash": text_hash,
                "text": text,
                "author": author,
                "message": message,
                "created_at": datetime.now(UTC),
            }
            try:
                self._table.append_after(
                    pl.DataFrame([row], schema=self._table.spec.frame_schema), provenance, snapshot
                )
            except ConflictError:
                continue
            return version, True
        raise ConflictError(f"Prompt {name} is being written all the time; try again.")

    def get(self, name: str, version: int) -> PromptVersion:
        """Find a version; raises `NotFoundError`."""
        found = next((v for v in self.all() if v.name == name and v.version == version), None)
        if found is None:
            raise NotFoundError(f"There is no version {version} of prompt {name!r}.")
        return found
