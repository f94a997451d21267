"""The versions of prompts: immutable, numbered, one for each content."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from llmops_core.errors import NotFoundError
from llmops_core.ids import content_hash
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance


@dataclass(frozen=True)
class PromptVersion:
    """One version of one prompt."""

    name: str
    version: int
    hash: str
    text: str
    author: str
    message: str
    created_at: datetime


class PromptVersions:
    """Table `prompts_versions` of one assistant."""

    def __init__(self, lakehouse: Lakehouse, assistant: str) -> None:
        self._table = lakehouse.table(assistant, "prompts_versions")

    def all(self) -> list[PromptVersion]:
        """All versions, by name and number."""
        return _versions(self._table.read())

    def register(
        self, name: str, text: str, *, author: str, message: str, provenance: Provenance
    ) -> tuple[PromptVersion, bool]:
        """Give a text its version; a text that has one already keeps it, with False."""
        text_hash = content_hash(text)

        def decide(rows: pl.DataFrame) -> tuple[tuple[PromptVersion, bool], dict[str, Any] | None]:
            versions = [v for v in _versions(rows) if v.name == name]
            found = next((v for v in versions if v.hash == text_hash), None)
            if found:
                return (found, False), None
            version = PromptVersion(name, len(versions) + 1, text_hash, text, author, message, datetime.now(UTC))
            return (version, True), vars(version)

        return self._table.append_decided(decide, provenance)

    def get(self, name: str, version: int) -> PromptVersion:
        """Find a version; raises `NotFoundError`."""
        found = next((v for v in self.all() if v.name == name and v.version == version), None)
        if found is None:
            raise NotFoundError(f"There is no version {version} of prompt {name!r}.")
        return found


def _versions(rows: pl.DataFrame) -> list[PromptVersion]:
    return [PromptVersion(**row) for row in rows.sort("name", "version").iter_rows(named=True)]
