"""Versions of the vector indexes: tags that nothing needs, with their rows, their files, and tables of former embedders."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from llmops_core.assistant import Assistant
from llmops_core.errors import IndexCorruptError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.maintenance.needed import Needed
from llmops_core.maintenance.notes import GRACE, Notes
from llmops_core.models.revisions import embedder_revision
from llmops_core.settings import Settings
from llmops_core.vectors.index import VectorIndex
from llmops_core.vectors.storage import table_names


@dataclass(frozen=True)
class IndexPlan:
    """What goes and what stays of the LanceDB tables below `uri`."""

    uri: str
    due: list[tuple[str, str]]
    """(table, version)."""
    tables: list[str]
    """Tables that go whole."""
    waiting: list[str]
    unreadable: list[str]
    notes: Notes
    kept: dict[str, str]
    """Old version, or table that cannot be read → why it stays."""

    def revisions_of(self, needed: Needed) -> set[str]:
        """The embedder revisions of versions that were to go and are needed by now."""
        return {revision for revision, version in self.due if version in needed.index_versions}


def plan_index_versions(
    lakehouse: Lakehouse, settings: Settings, assistant: Assistant, needed: Needed, now: datetime
) -> IndexPlan:
    """Look which versions may go: tagged or recorded ones, so that what a killed build or drop left is among them."""
    uri = f"{settings.lancedb}/{assistant.name}"
    young = now - timedelta(days=assistant.retention.index_days)
    rows = lakehouse.table(assistant.name, "index_vector_index").read()
    recorded = rows.select("embedder_revision", "index_version", "built_at").rows()
    made = {(revision, version): at for revision, version, at in recorded}
    idle: set[str] = set()
    kept: dict[str, str] = {}
    unreadable: list[str] = []
    for revision in table_names(uri):
        index = VectorIndex(uri, revision)
        try:
            made = {**{(revision, version): at for version, at in index.built_at().items()}, **made}
            changed_at = index.changed_at()
        except IndexCorruptError as error:
            unreadable.append(revision)
            kept[f"index table {revision}"] = str(error)
            continue
        if changed_at and now - changed_at > GRACE:
            idle.add(revision)
    old = {(revision, version) for (revision, version), at in made.items() if at < young}
    unneeded = {f"{revision}/{version}" for revision, version in old if version not in needed.index_versions}
    kept |= {f"index version {v}": needed.index_versions[v] for _, v in sorted(old) if v in needed.index_versions}
    notes = Notes(lakehouse, f"{assistant.name}.index_versions")
    gone = notes.due(unneeded, now)
    staying = {revision for revision, version in made if f"{revision}/{version}" not in gone}
    return IndexPlan(
        uri=uri,
        due=sorted(name for name in made if "/".join(name) in gone),
        tables=sorted(idle - staying - _current(settings, assistant)),
        waiting=sorted(unneeded.difference(gone)),
        unreadable=unreadable,
        notes=notes,
        kept=kept,
    )


def apply_index_versions(
    lakehouse: Lakehouse, assistant: Assistant, plan: IndexPlan, needed: Needed, provenance: Provenance
) -> None:
    """Delete tags, then rows, then files, but for what is needed by now.

    A version that is built again gets a new row with snapshots that exist.
    """
    due = [(revision, version) for revision, version in plan.due if version not in needed.index_versions]
    for revision, version in due:
        if revision not in plan.unreadable:
            VectorIndex(plan.uri, revision).delete_version(version)
    table = lakehouse.table(assistant.name, "index_vector_index")
    versions = {version for _, version in due}
    before = table.snapshot_id()
    if versions & set(table.read(before)["index_version"]):
        table.replace("index_version", versions, [], provenance, before)
    needed_again = plan.revisions_of(needed)
    for revision in table_names(plan.uri):
        index = VectorIndex(plan.uri, revision)
        if revision in plan.tables and revision not in needed_again:
            index.drop()
        elif revision not in plan.unreadable:
            index.clean(GRACE)
    plan.notes.save([f"{revision}/{version}" for revision, version in plan.due])


def _current(settings: Settings, assistant: Assistant) -> set[str]:
    """The embedders that assistant.yaml names: their tables stay, also while they have no version."""
    return {
        embedder_revision(settings, embedder.model, embedder.query_prefix, embedder.document_prefix)
        for embedder in (assistant.embedder, *assistant.embedder.beside)
    }
