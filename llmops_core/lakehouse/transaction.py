"""A transaction of PyIceberg that does not copy the table's whole metadata at each look.

`Transaction.table_metadata` copies every snapshot, and an append looks 18 times: with 288 snapshots that is 280 ms an
append, and 80 ms when each state is copied once.
"""

from pyiceberg.table import Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.update import AssertRefSnapshotId


class LakeTransaction(Transaction):
    """Works like its base class; the metadata with the staged updates is made anew only when either has changed."""

    _made_of: tuple[object, object] = (None, None)
    _made: TableMetadata | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        """The table's metadata as it will be after the commit."""
        metadata, updates = self._made_of
        if self._made is None or metadata is not self._table.metadata or updates is not self._updates:
            self._made = super().table_metadata
            self._made_of = (self._table.metadata, self._updates)
        return self._made

    def require_current_snapshot(self) -> None:
        """Have the commit fail if rows were written meanwhile; PyIceberg asks for that only when it writes rows itself."""
        current = self._table.metadata.current_snapshot_id
        self._stage((), (AssertRefSnapshotId(snapshot_id=current, ref=MAIN_BRANCH),))
