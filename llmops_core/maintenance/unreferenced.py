"""Files in a table's folder that no metadata of it leads to: what expiry, rewrites, lost races and killed writers leave.

Only folders of tables that the catalog has are looked at; the catalog's own database, the spool and folders of dropped
tables are none of them.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table as IcebergTable

from llmops_core.errors import LakehouseError
from llmops_core.lakehouse.lakehouse import Lakehouse


def unreferenced(lakehouse: Lakehouse, table: IcebergTable) -> dict[str, int]:
    """Path → size in bytes of the files that nothing refers to.

    They are listed before what is referred to is computed, so a file that a commit brings meanwhile is not among them; one
    that a writer has written and not yet committed is, and is saved by the grace (see notes.py). Raises `LakehouseError`
    if the table lies in another home, or if the listing does not even have the table's own metadata: then paths are not what
    they seem, and nothing may go.
    """
    from pyarrow.fs import FileSelector, FileType

    _check_home(lakehouse, table)
    filesystem, folder = lakehouse.filesystem(table.location())
    before = _path(table.refresh().metadata_location)
    listed = filesystem.get_file_info(FileSelector(folder, recursive=True, allow_not_found=True))
    candidates = {info.path: info.size for info in listed if info.type == FileType.File}
    if before not in candidates:
        raise LakehouseError(
            f"{table.location()} was listed without {before}, which the catalog names: no file was deleted there. Look whether"
            " the storage lists all that it has, and whether the table was moved."
        )
    referred = {_path(uri) for uri in _referred(table.refresh())}
    return {path: size for path, size in candidates.items() if path not in referred}


def delete(lakehouse: Lakehouse, table: IcebergTable, paths: list[str]) -> None:
    """Delete files; those that somebody else has deleted do not matter."""
    filesystem, _ = lakehouse.filesystem(table.location())
    for path in paths:
        with suppress(FileNotFoundError):
            filesystem.delete_file(path)


def _check_home(lakehouse: Lakehouse, table: IcebergTable) -> None:
    """Refuse a local table outside of the warehouse: Iceberg's metadata has absolute paths, so a copied home names files that
    the original has gone on to write and to need.
    """
    filesystem, warehouse = lakehouse.filesystem(lakehouse.warehouse())
    if filesystem.type_name == "local":
        folder, root = Path(_path(table.location())).resolve(), Path(warehouse).resolve()
        if not folder.is_relative_to(root):
            raise LakehouseError(
                f"{'.'.join(table.name())} lies in {folder}, outside of the warehouse {root}: this home was copied or moved, and"
                " no file was deleted. Use the home at its first path, or put a link there if it was moved."
            )


def _path(uri: str) -> str:
    return PyArrowFileIO.parse_location(uri)[2]


def _referred(table: IcebergTable) -> Iterator[str]:
    yield table.metadata_location
    yield from (entry.metadata_file for entry in table.metadata.metadata_log)
    yield from (statistics.statistics_path for statistics in table.metadata.statistics)
    yield from (statistics.statistics_path for statistics in table.metadata.partition_statistics)
    seen: set[str] = set()
    for snapshot in table.snapshots():
        yield snapshot.manifest_list
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path not in seen:
                seen.add(manifest.manifest_path)
                yield manifest.manifest_path
                for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
                    yield entry.data_file.file_path
