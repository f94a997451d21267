"""Small data files become large ones, and no row changes.

Every append makes a file, and every read opens all of them. A rewrite names exactly the files that it replaces and commits
on the snapshot that it read: what others append meanwhile stays beside it, and if they touched those files, it is
dropped and the next maintenance tries again. Its snapshot says which one it rewrote (see lakehouse/history.py), so no
asset takes it for new data. One commit a group of files bounds memory, and a killed run has lost one group at most.
"""

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntry
from pyiceberg.table import FileScanTask
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Snapshot

from llmops_core.lakehouse.history import COMPACTION, data_snapshot_id
from llmops_core.lakehouse.transaction import LakeTransaction

# Files below SMALL are merged when a partition has MANY of them, in groups of at most GROUP, which a rewrite holds in memory
# (decompressed, some times more).
SMALL = 16 << 20
MANY = 16
GROUP = 64 << 20


def groups(table: IcebergTable) -> list[list[DataFile]]:
    """The files to be merged, a list for each file that will take their place, older files first."""
    found: list[list[DataFile]] = []
    for files in _small_files(table):
        if len(files) < MANY:
            continue
        group: list[DataFile] = []
        for file in files:
            if sum(f.file_size_in_bytes for f in group) + file.file_size_in_bytes > GROUP:
                found.append(group)
                group = []
            group.append(file)
        found.append(group)
    return [group for group in found if len(group) > 1]


def rewrite(
    table: IcebergTable,
    group: list[DataFile],
    properties: Mapping[str, str],
    keep: Callable[[pa.Table], pa.Table] | None = None,
) -> bool:
    """Replace these files by one of the same rows, or of those that `keep` leaves: all that anybody will ever read.

    False if somebody else changed the table so that it was dropped.
    """
    from pyiceberg.io.pyarrow import ArrowScan, _dataframe_to_data_files

    scan = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue())
    rows = scan.to_table([FileScanTask(file) for file in group])
    rows = keep(rows) if keep else rows
    original = data_snapshot_id(table)
    try:
        with LakeTransaction(table) as transaction:
            update = transaction.update_snapshot(snapshot_properties={**properties, COMPACTION: str(original)})
            # No single call of PyIceberg's replaces files by files; this is how its own copy-on-write delete does it.
            with update.overwrite(commit_uuid=uuid.uuid4()) as overwrite:
                for file in group:
                    overwrite.delete_data_file(file)
                for file in _dataframe_to_data_files(table.metadata, rows, table.io, write_uuid=overwrite.commit_uuid):
                    overwrite.append_data_file(file)
    except (CommitFailedException, ValidationException):
        table.refresh()
        return False
    return True


def entries(table: IcebergTable, snapshots: Iterable[Snapshot]) -> list[ManifestEntry]:
    """The data files of snapshots, one that several have once; none where another engine keeps its deletes beside them."""
    manifests = {m.manifest_path: m for snapshot in snapshots for m in snapshot.manifests(table.io)}
    if any(manifest.content == ManifestContent.DELETES for manifest in manifests.values()):
        return []
    found = (e for m in manifests.values() for e in m.fetch_manifest_entry(table.io, discard_deleted=True))
    return list({entry.data_file.file_path: entry for entry in found}.values())


def _small_files(table: IcebergTable) -> list[list[DataFile]]:
    """The small files of each partition, in the order in which they were written."""
    snapshot = table.current_snapshot()
    by_partition: dict[str, list[DataFile]] = defaultdict(list)
    for entry in sorted(entries(table, [snapshot] if snapshot else []), key=lambda e: e.sequence_number or 0):
        if entry.data_file.file_size_in_bytes < SMALL:
            by_partition[f"{entry.data_file.spec_id} {entry.data_file.partition}"].append(entry.data_file)
    return list(by_partition.values())
