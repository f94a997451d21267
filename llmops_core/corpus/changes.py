"""What changed between two states of a corpus, by document id and content hash."""

from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Changes:
    """Document ids, sorted: what must be added, replaced, left alone and removed."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]
    deleted: tuple[str, ...]

    @property
    def anything(self) -> bool:
        """Whether the two states differ."""
        return bool(self.new or self.changed or self.deleted)


def diff(current: pl.DataFrame, read: pl.DataFrame) -> Changes:
    """Compare what the lakehouse holds with what the sources hold now.

    Both frames have `document_id` (unique) and `document_hash`, both strings; further columns are ignored.
    """
    columns = ["document_id", "document_hash"]
    both = current.select(columns).join(
        read.select(columns), on="document_id", how="full", suffix="_read", coalesce=True
    )
    before, now = pl.col("document_hash"), pl.col("document_hash_read")

    def ids(condition: pl.Expr) -> tuple[str, ...]:
        return tuple(both.filter(condition).get_column("document_id").sort())

    return Changes(
        new=ids(before.is_null()),
        changed=ids(before != now),
        unchanged=ids(before == now),
        deleted=ids(now.is_null()),
    )
