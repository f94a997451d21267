"""Retention: what may go, and the going.

Kept are the snapshots that the latest materialisation of any asset partition recorded, that a release on a channel pins, that
a log row within `retention.log_days` needs, or that are younger than `retention.index_days`. Index versions follow the same
rule. Files that nothing refers to any more are deleted in two steps, with a grace between them that is longer than any read.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
from pyiceberg.table import Table as IcebergTable

from llmops_core.assistant import Assistant
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.schemas import TABLES
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings
from llmops_core.traffic.ingest import taken_by_all
from llmops_core.traffic.segments import gateways, remove_upto
from llmops_core.vectors.index import VectorIndex

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

# Longer than the longest read of a snapshot.
GRACE = timedelta(hours=6)
# Untagged Lance versions: longer than the longest build.
LANCE_GRACE = timedelta(hours=6)


@dataclass(frozen=True)
class Maintained:
    """What went, or would go: table or index → number."""

    expired_snapshots: dict[str, int]
    deleted_files: dict[str, int]
    deleted_index_versions: tuple[str, ...]
    deleted_segments: int
    dry_run: bool

    def markdown(self) -> str:
        """A table for the UI."""
        names = sorted({*self.expired_snapshots, *self.deleted_files})
        rows = [
            f"| {name} | {self.expired_snapshots.get(name, 0)} | {self.deleted_files.get(name, 0)} |" for name in names
        ]
        head = ["| table | snapshots | files |", "|---|---|---|"]
        rest = f"index versions: {', '.join(self.deleted_index_versions) or 'none'}; spool segments: {self.deleted_segments}"
        return "\n".join([*head, *rows]) + f"\n\n{rest}{' (dry run)' if self.dry_run else ''}"


def maintain(
    lakehouse: Lakehouse, settings: Settings, assistant: Assistant, recorded: set[int], *, dry_run: bool = False
) -> Maintained:
    """Apply the assistant's retention; `recorded` are the snapshots that Dagster's materialisations name."""
    now = datetime.now(UTC)
    versions, pinned = _needed(lakehouse, assistant, now)
    young = now - timedelta(days=assistant.retention.index_days)
    expired: dict[str, int] = {}
    files: dict[str, int] = {}
    for name in TABLES:
        table = lakehouse.table(assistant.name, name).load()
        gone = [
            s.snapshot_id
            for s in table.snapshots()
            if s.snapshot_id not in recorded | pinned
            and s.timestamp_ms < young.timestamp() * 1000
            and s.snapshot_id != table.metadata.current_snapshot_id
        ]
        if gone:
            expired[name] = len(gone)
            if not dry_run:
                table.maintenance.expire_snapshots().by_ids(gone).commit()
        swept = sweep(lakehouse, table.refresh(), now, dry_run=dry_run)
        if swept:
            files[name] = swept
    return Maintained(
        expired,
        files,
        _drop_index_versions(lakehouse, settings, assistant, versions, young, dry_run=dry_run),
        0 if dry_run else _drop_segments(lakehouse, assistant.name),
        dry_run,
    )


def _needed(lakehouse: Lakehouse, assistant: Assistant, now: datetime) -> tuple[set[str], set[int]]:
    """Index versions and snapshots that channels or recent log rows need."""
    releases = Releases(lakehouse, assistant.name)
    since = now - timedelta(days=assistant.retention.log_days)
    logged = lakehouse.table(assistant.name, "traffic_requests").scan().filter(pl.col("started_at") >= since)
    used = set(logged.select("release_id").unique().collect()["release_id"])
    used |= {pointer.release_id for pointer in releases.channels.state().values()}
    pins = [release.manifest.index for release in releases.all() if release.release_id in used]
    return {pin.version for pin in pins}, {snapshot for pin in pins for snapshot in pin.snapshots.values()}


def _drop_index_versions(
    lakehouse: Lakehouse,
    settings: Settings,
    assistant: Assistant,
    needed: set[str],
    young: datetime,
    *,
    dry_run: bool,
) -> tuple[str, ...]:
    rows = lakehouse.table(assistant.name, "index_vector_index").read()
    newest = rows.sort("built_at").group_by("embedder_revision").last()["index_version"]
    old = rows.filter((pl.col("built_at") < young) & ~pl.col("index_version").is_in(sorted({*needed, *newest})))
    dropped = []
    for revision in sorted(set(rows["embedder_revision"])):
        index = VectorIndex(f"{settings.lancedb}/{assistant.name}", revision)
        present = set(index.versions())
        for version in old.filter(pl.col("embedder_revision") == revision)["index_version"]:
            if version in present:
                dropped.append(version)
                if not dry_run:
                    index.delete_version(version)
        if not dry_run:
            index.clean(LANCE_GRACE)
    return tuple(dropped)


def _drop_segments(lakehouse: Lakehouse, assistant: str) -> int:
    """Delete shipped spool segments whose rows both tables have."""
    filesystem, root = lakehouse.spool()
    tables = [lakehouse.table(assistant, f"traffic_{noun}") for noun in ("requests", "feedback")]
    return sum(
        remove_upto(filesystem, root, assistant, gateway_id, taken_by_all(tables, gateway_id))
        for gateway_id in gateways(filesystem, root, assistant)
    )


def sweep(lakehouse: Lakehouse, table: IcebergTable, now: datetime, *, dry_run: bool = False) -> int:
    """Delete files of a table that nothing has referred to for the grace period; returns how many.

    The candidates are listed before what is referred to is computed, so a file that a commit adds meanwhile is not in them.
    """
    from pyarrow.fs import FileSelector, FileType
    from pyiceberg.io.pyarrow import PyArrowFileIO

    filesystem, folder = lakehouse.filesystem(table.location())
    listed = filesystem.get_file_info(FileSelector(folder, recursive=True, allow_not_found=True))
    candidates = {info.path for info in listed if info.type == FileType.File}
    referred = {PyArrowFileIO.parse_location(uri)[2] for uri in _referred(table.refresh())}
    _, note = lakehouse.filesystem(f"{lakehouse.warehouse()}/_maintenance/{'.'.join(table.name())}.json")
    since = _read_note(filesystem, note)
    unreferenced = {path: since.get(path, now.isoformat()) for path in candidates - referred}
    due = [path for path, first in unreferenced.items() if now - datetime.fromisoformat(first) > GRACE]
    if dry_run:
        return len(due)
    for path in due:
        filesystem.delete_file(path)
        del unreferenced[path]
    if unreferenced != since:
        filesystem.create_dir(note.rpartition("/")[0], recursive=True)
        with filesystem.open_output_stream(note) as stream:
            stream.write(json.dumps(unreferenced).encode())
    return len(due)


def _referred(table: IcebergTable) -> Iterator[str]:
    """Every file that the table's metadata leads to."""
    yield table.metadata_location
    yield from (entry.metadata_file for entry in table.metadata.metadata_log)
    for statistics in table.metadata.statistics:
        yield statistics.statistics_path
    seen: set[str] = set()
    for snapshot in table.snapshots():
        yield snapshot.manifest_list
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path in seen:
                continue
            seen.add(manifest.manifest_path)
            yield manifest.manifest_path
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
                yield entry.data_file.file_path


def _read_note(filesystem: "FileSystem", path: str) -> dict[str, str]:
    try:
        with filesystem.open_input_stream(path) as stream:
            value: dict[str, str] = json.loads(stream.read())
    except (FileNotFoundError, ValueError):
        return {}
    return value
