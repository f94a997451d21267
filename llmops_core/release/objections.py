"""What stands against a release that would go to all users: a person's rejection, or a canary that did not pass.

A candidate is the same one with each index that it gets: what was rejected or taken back must not return with the next change
of a document.
"""

from collections.abc import Collection

import polars as pl

from llmops_core.release.channels import CANARY
from llmops_core.release.manifest import Manifest
from llmops_core.release.registry import Releases


def one_candidate(releases: Releases, manifest: Manifest) -> set[str]:
    """The releases that are this one with any index."""
    return {known.release_id for known in releases.all() if known.manifest.with_index(manifest.index) == manifest}


def rejection(events: pl.DataFrame, release_ids: Collection[str], channel: str) -> dict[str, object] | None:
    """The event that rejects one of these releases and was not overruled since for this channel; None if there is none."""
    overruled = (pl.col("action") == "override") & (pl.col("channel") == channel)
    decided = events.filter(
        pl.col("release_id").is_in(list(release_ids)) & ((pl.col("action") == "reject") | overruled)
    )
    last = decided.sort("at").tail(1).rows(named=True)
    return last[0] if last and last[0]["action"] == "reject" else None


def left_to_canary(events: pl.DataFrame) -> set[str]:
    """Releases that are on canary, or were and did not pass, and that nobody has put on prod since."""
    found: set[str] = set()
    moves = events.filter(pl.col("channel").is_in([CANARY, "prod"])).sort("at", maintain_order=True)
    for channel, release_id, before in moves.select("channel", "release_id", "previous_release_id").iter_rows():
        if channel == CANARY:
            found.add(release_id or before)
        else:
            found.discard(release_id)
    return found
