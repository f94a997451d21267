"""Lineage where a part of it is not there: said, and never guessed. The whole chain is shown in tests/llmops_cli/test_past.py."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from llmops_core.errors import NotFoundError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.lineage.document import lineage_of_document
from llmops_core.lineage.request import GONE, lineage_of_request
from llmops_core.prompts.versions import PromptVersions
from llmops_core.release.registry import Releases
from llmops_core.traffic.row import FeedbackRow, RequestRow
from tests.llmops_core.release.test_manifest import manifest
from tests.llmops_core.traffic.conftest import feedback_row, request_row  # noqa: F401 (fixtures)
from tests.llmops_core.traffic.test_ingest import ship, take

RUN = Provenance("run")
MakeRow = Callable[..., RequestRow]


def test_what_retention_let_go_of_is_said_to_be_gone(
    lakehouse: Lakehouse,
    request_row: MakeRow,  # noqa: F811
) -> None:
    PromptVersions(lakehouse, "helper").register("answer", "text", author="me", message="why", provenance=RUN)
    release, _ = Releases(lakehouse, "helper").create(manifest(), author="me", message="made", provenance=RUN)
    chain = lineage_of_request(lakehouse, "helper", request_row(release_id=release.release_id))
    assert chain["release"]["moved"] is None
    assert (chain["release"]["message"], chain["prompt"]["message"], chain["prompt"]["run_id"]) == (
        "made",
        "why",
        "run",
    )
    assert chain["index"]["snapshots"] == [
        {"table": "corpus_chunks", "snapshot": str(2**62 + 1), "at": None, "run_id": None, "state": GONE}
    ]
    assert chain["index"]["run_id"] is None
    (chunk,) = chain["chunks"]
    assert (chunk["document_hash"], chunk["document"]) == (None, {"document_id": "d1", "state": GONE})
    assert chain["feedback"] == []


def test_a_request_that_came_to_no_release_has_no_chain(
    lakehouse: Lakehouse,
    request_row: MakeRow,  # noqa: F811
) -> None:
    chain = lineage_of_request(lakehouse, "helper", request_row(release_id=None, chunks=[]))
    assert (chain["release"], chain["request"]["status"]) == (None, 200)


def test_releases_whose_documents_are_gone_are_counted(lakehouse: Lakehouse) -> None:
    Releases(lakehouse, "helper").create(manifest(), author="me", message="", provenance=RUN)
    with pytest.raises(NotFoundError, match="1 looked at, of 1 the documents are no longer retained"):
        lineage_of_document(lakehouse, "helper", "d1")


def test_feedback_is_there_once_before_and_after_it_is_ingested(
    lakehouse: Lakehouse,
    request_row: MakeRow,  # noqa: F811
    feedback_row: FeedbackRow,  # noqa: F811
) -> None:
    row = request_row(release_id=None, request_id=feedback_row.request_id)
    ship(lakehouse, feedback_row, 1)
    ship(lakehouse, replace(feedback_row, request_id="another"), 2)

    def said() -> list[tuple[str, str | None]]:
        found = lineage_of_request(lakehouse, "helper", row)["feedback"]
        return [(one["comment"], one["run_id"]) for one in found]

    assert said() == [("1", None)]
    take(lakehouse)
    assert said() == [("1", "test")]
