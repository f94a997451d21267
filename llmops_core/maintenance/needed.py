"""What has to stay, and for which reason: the one place that knows the retention rules.

A release stays whole (index version, snapshots, adapter) while a channel points to it or did within `retention.log_days`, so
that rows which a gateway has not shipped yet are covered, or within `retention.index_days`, so that the index of any moment of
these can be had; while a log row of `retention.log_days` names it; and while it is younger than `retention.index_days`, since
somebody may promote it. An index version also stays when the latest materialisation
recorded it or it is younger than that. Its snapshots stay as long as its row: until then a build that comes back to the same
content takes the version as it is, and its release pins them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from llmops_core.assistant import Assistant
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.schemas import TABLES
from llmops_core.release.manifest import Release
from llmops_core.release.registry import Releases
from llmops_core.traffic.ingest import waiting_rows


@dataclass(frozen=True)
class Needed:
    """Thing → why it stays."""

    releases: Mapping[str, str]
    index_versions: Mapping[str, str]
    snapshots: Mapping[int, str]
    adapters: Mapping[str, str]


def needed(lakehouse: Lakehouse, assistant: Assistant, recorded: Mapping[str, str], now: datetime) -> Needed:
    """Find what has to stay; `recorded`: snapshot id or data version → asset whose latest materialisation says so."""
    registry = Releases(lakehouse, assistant.name)
    all_releases = registry.all()
    why = _releases(lakehouse, assistant, registry, all_releases, now)
    kept = [release for release in all_releases if release.release_id in why]
    pins = [(release.manifest, f"release {release.number} ({why[release.release_id]})") for release in kept]
    rows = lakehouse.table(assistant.name, "index_vector_index").read()
    versions = _index_versions(assistant, rows, recorded, now)
    versions |= {manifest.index.version: reason for manifest, reason in pins}
    snapshots = {
        snapshot: f"index version {row['index_version']}"
        for row in rows.iter_rows(named=True)
        for snapshot in json.loads(row["snapshots"]).values()
    }
    snapshots |= {snapshot: reason for manifest, reason in pins for snapshot in manifest.index.snapshots.values()}
    outlived = set(_outlived(lakehouse, assistant, now))
    snapshots |= {
        int(value): f"recorded by {asset}"
        for value, asset in recorded.items()
        if value.isdecimal() and int(value) not in outlived
    }
    adapters = {manifest.generator.adapter: reason for manifest, reason in pins if manifest.generator.adapter}
    return Needed(why, versions, snapshots, adapters)


def _releases(
    lakehouse: Lakehouse, assistant: Assistant, registry: Releases, releases: list[Release], now: datetime
) -> dict[str, str]:
    """Release id → why it stays, the strongest reason last and so the one that is told."""
    log_since = now - timedelta(days=assistant.retention.log_days)
    young = now - timedelta(days=assistant.retention.index_days)
    # Before the table, so that what is ingested in between is seen twice and not overlooked.
    waiting = set(_waiting(lakehouse, assistant.name))
    logged = lakehouse.table(assistant.name, "traffic_requests").scan().filter(pl.col("started_at") >= log_since)
    return {
        **{release.release_id: "new" for release in releases if release.created_at >= young},
        **{release_id: f"on {channel} till lately" for channel, release_id in _left(registry, min(log_since, young))},
        **dict.fromkeys(logged.select("release_id").unique().collect()["release_id"].drop_nulls(), "in the log"),
        **dict.fromkeys(waiting, "in the log"),
        **{pointer.release_id: f"on {channel}" for channel, pointer in registry.channels.state().items()},
    }


def _waiting(lakehouse: Lakehouse, assistant: str) -> Iterator[str]:
    """Releases of requests that gateways have shipped and that are not ingested yet."""
    table = lakehouse.table(assistant, "traffic_requests")
    for payload in waiting_rows(table, "request", *lakehouse.spool(), assistant):
        if payload.get("release_id"):
            yield payload["release_id"]


def _outlived(lakehouse: Lakehouse, assistant: Assistant, now: datetime) -> Iterator[int]:
    """Snapshots of the log tables that are older than `retention.log_days`."""
    log_since_ms = (now - timedelta(days=assistant.retention.log_days)).timestamp() * 1000
    for spec in TABLES.values():
        if spec.log_time:
            snapshots = lakehouse.table(assistant.name, spec.name).load().snapshots()
            yield from (snapshot.snapshot_id for snapshot in snapshots if snapshot.timestamp_ms < log_since_ms)


def _left(registry: Releases, since: datetime) -> Iterator[tuple[str, str]]:
    """(channel, release id) of the releases that channels were moved away from since then."""
    for event in registry.channels.events().iter_rows(named=True):
        if event["at"] >= since and event["previous_release_id"]:
            yield event["channel"], event["previous_release_id"]


def _index_versions(
    assistant: Assistant, rows: pl.DataFrame, recorded: Mapping[str, str], now: datetime
) -> dict[str, str]:
    young = now - timedelta(days=assistant.retention.index_days)
    new = rows.filter(pl.col("built_at") >= young)["index_version"]
    present = set(rows["index_version"])
    return {
        **dict.fromkeys(new, "new"),
        **{version: f"recorded by {asset}" for version, asset in recorded.items() if version in present},
    }
