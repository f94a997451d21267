"""What maintenance did, or would do: the same numbers for the terminal, JSON and the Dagster UI."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# Reasons shown at most; JSON has all.
SHOWN = 20


@dataclass(frozen=True)
class TableWork:
    """One table: rows past `retention.log_days`, snapshots, files that became fewer, and files that went."""

    rows: int
    snapshots: int
    merged_files: int
    """Small files whose rows move to large ones; they stay as long as a snapshot needs them."""
    files: int
    bytes: int
    waiting_files: int
    """Files that no snapshot needs, and that go when the grace for running readers and writers is over."""


@dataclass(frozen=True)
class Maintained:
    """Everything that went, or would go, and why old things stayed."""

    dry_run: bool
    counted_from: str
    """The moment from which retention counted (ISO 8601)."""
    doubt: str | None = None
    """Why nothing was done at all."""
    tables: Mapping[str, TableWork] = field(default_factory=dict)
    index_versions: tuple[str, ...] = ()
    index_tables: tuple[str, ...] = ()
    """LanceDB tables of embedders that nothing uses any more."""
    vectors: int = 0
    """Vectors of former embedders, and of chunks that no snapshot has."""
    adapters: tuple[str, ...] = ()
    segments: int = 0
    """Shipped spool segments whose rows the tables have."""
    local_copies: int = 0
    """Manifests in the gateway's folder here."""
    runs: int = 0
    """Finished runs, with their events, logs and files."""
    waiting: tuple[str, ...] = ()
    """Index versions and adapters that go when the grace is over."""
    kept: Mapping[str, str] = field(default_factory=dict)
    """Old thing → why it stays."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON value."""
        return asdict(self)

    def markdown(self) -> str:
        """For the UI and the terminal."""
        verb = "would go" if self.dry_run else "went"
        if self.doubt:
            return f"Nothing {verb}. {self.doubt}"
        lines = ["| table | rows | snapshots | small files merged | files | MB | files waiting |", "|---|" + "---|" * 6]
        for name, work in self.tables.items():
            if any(asdict(work).values()):
                size = f"{work.bytes / 1e6:.1f}"
                cells = (name, work.rows, work.snapshots, work.merged_files, work.files, size, work.waiting_files)
                lines.append(f"| {' | '.join(map(str, cells))} |")
        if len(lines) == 2:
            lines = [f"In no table anything {verb}."]
        facts = {
            "index versions": ", ".join(self.index_versions),
            "index tables": ", ".join(self.index_tables),
            "vectors": self.vectors,
            "adapters": ", ".join(self.adapters),
            "spool segments": self.segments,
            "local copies of releases": self.local_copies,
            "finished runs": self.runs,
        }
        lines += ["", f"Also {verb}: " + "; ".join(f"{name}: {value or 'none'}" for name, value in facts.items())]
        if self.waiting:
            lines += ["", f"Goes when the grace is over: {', '.join(self.waiting)}"]
        if self.kept:
            lines += ["", "Old and kept:", ""]
            lines += [f"- {thing}: {reason}" for thing, reason in list(self.kept.items())[:SHOWN]]
            if len(self.kept) > SHOWN:
                lines.append(f"- and {len(self.kept) - SHOWN} more")
        return "\n".join([*lines, "", f"Retention counted from {self.counted_from}."])
