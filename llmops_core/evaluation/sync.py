"""Brings the case table to the case file: the work behind `evaluation/cases`."""

from dataclasses import dataclass

from llmops_core.assistant import Assistant
from llmops_core.errors import ConfigError
from llmops_core.evaluation.cases import cases_frame, load_cases
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance


@dataclass(frozen=True)
class CasesSync:
    """The cases that are stored now."""

    cases: int
    held_out: int
    with_answers: int
    snapshot: int | None


def sync_cases(
    lakehouse: Lakehouse, assistant: Assistant, documents_snapshot: int, provenance: Provenance
) -> CasesSync:
    """Read and check the case file, and store it if it differs from what is stored; raises `ConfigError`."""
    if assistant.evaluation.cases is None:
        raise ConfigError(f"{assistant.folder / 'assistant.yaml'}: evaluation.cases names no case file.")
    documents = lakehouse.table(assistant.name, "corpus_documents").scan(documents_snapshot)
    known = set(documents.select("document_id").collect()["document_id"])
    cases = load_cases(assistant.path(assistant.evaluation.cases), known)
    table = lakehouse.table(assistant.name, "evaluation_cases")
    columns = table.spec.frame_schema.names()
    frame = cases_frame(cases).select(columns)
    before = table.snapshot_id()
    changed = not table.read(before).sort("case_id").equals(frame.sort("case_id"))
    return CasesSync(
        len(cases),
        sum(case.split == "held_out" for case in cases),
        sum(bool(case.answers) for case in cases),
        table.overwrite(frame, provenance) if changed else before,
    )
