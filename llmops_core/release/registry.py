"""The releases of an assistant: made once, numbered, found by id, number or channel."""

from datetime import UTC, datetime
from typing import Any

import polars as pl

from llmops_core.errors import InvalidRequestError, NotFoundError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.prompts.versions import PromptVersions
from llmops_core.release.channels import CANARY, CHANNELS, Channels, fold
from llmops_core.release.manifest import Manifest, Release


class Releases:
    """Table `release_manifests` of one assistant."""

    def __init__(self, lakehouse: Lakehouse, assistant: str) -> None:
        self._table = lakehouse.table(assistant, "release_manifests")
        self.channels = Channels(lakehouse, assistant)
        self.prompts = PromptVersions(lakehouse, assistant)
        self._assistant = assistant

    def all(self) -> list[Release]:
        """All releases, oldest first."""
        return [_release(row) for row in self._table.read().sort("number").iter_rows(named=True)]

    def create(self, manifest: Manifest, *, author: str, message: str, provenance: Provenance) -> tuple[Release, bool]:
        """Record a manifest under the next number; one that is there already is returned as it is, with False."""

        def decide(rows: pl.DataFrame) -> tuple[tuple[Release, bool], dict[str, Any] | None]:
            known = {row["release_id"]: row for row in rows.iter_rows(named=True)}
            if manifest.release_id in known:
                return (_release(known[manifest.release_id]), False), None
            release = Release(manifest, len(known) + 1, author, message, datetime.now(UTC))
            row = {
                "release_id": release.release_id,
                "number": release.number,
                "manifest": manifest.to_json(),
                "author": author,
                "message": message,
                "created_at": release.created_at,
            }
            return (release, True), row

        return self._table.append_decided(decide, provenance)

    def get(self, reference: str, at: datetime | None = None) -> Release:
        """Find a release by channel, number, id or unambiguous beginning of an id (8 characters or more).

        `at`: the moment at which the channel, which `reference` has to be then, is looked at; else as it is now.
        """
        if at is not None:
            reference = self._pointed_to(reference, at)
        releases = self.all()
        pointer = self.channels.state().get(reference)
        wanted = pointer.release_id if pointer else reference
        found = [
            r
            for r in releases
            if r.release_id == wanted
            or (wanted.isdecimal() and len(wanted) < 8 and r.number == int(wanted))
            or (len(wanted) >= 8 and r.release_id.startswith(wanted))
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise NotFoundError(f"{self._assistant}: {reference!r} fits {len(found)} releases; give more characters.")
        raise NotFoundError(
            f"{self._assistant}: there is no release {reference!r}. See `llmops release list`; a channel without a"
            " release is filled by `llmops build` or `llmops release promote RELEASE CHANNEL`."
        )

    def _pointed_to(self, channel: str, at: datetime) -> str:
        """The id of the release that a channel pointed to at a moment."""
        if channel not in (*CHANNELS, CANARY):
            raise InvalidRequestError(
                f"{channel} is no channel: what a moment is asked of is one of {', '.join((*CHANNELS, CANARY))}."
            )
        events = self.channels.events()
        then = fold(events.filter(pl.col("at") <= at))
        pointer = then.get(channel)
        if pointer is None:
            later = events.filter((pl.col("channel") == channel) & (pl.col("at") > at))["at"].min()
            assert later is None or isinstance(later, datetime)
            nearest = f"; the nearest moment at which there was: {later.isoformat()}" if later else ""
            others = f" There was one on {', '.join(then)}: --release {next(iter(then))}." if then else ""
            raise NotFoundError(f"{self._assistant}: at {at.isoformat()} no release was on {channel}{nearest}.{others}")
        return pointer.release_id

    def prompt_text(self, release: Release) -> str:
        """The template that a release pins."""
        pin = release.manifest.prompt
        return self.prompts.get(pin.name, pin.version).text


def _release(row: dict[str, object]) -> Release:
    created_at = row["created_at"]
    assert isinstance(created_at, datetime)
    return Release(
        Manifest.from_json(str(row["manifest"])),
        int(str(row["number"])),
        str(row["author"]),
        str(row["message"]),
        created_at,
    )
