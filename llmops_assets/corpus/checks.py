"""Great Expectations on the corpus: blocking, since bad documents would become bad answers."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import dagster as dg

from llmops_assets.house import asset_key, recorded_snapshot
from llmops_core.assistant import Assistant
from resources.platform import LakehouseResource

if TYPE_CHECKING:
    from llmops_core.quality import Suite

TEXT_CHARACTERS = 100


def documents_are_sound(assistant: Assistant) -> dg.AssetChecksDefinition:
    """Ids are unique and present, texts are not blank, there is at least one document."""

    def suite() -> "Suite":
        from llmops_core.quality import documents_suite

        return documents_suite()

    return _check(assistant, "documents", "documents_are_sound", suite)


def chunks_are_sound(assistant: Assistant) -> dg.AssetChecksDefinition:
    """Ids are unique, offsets make a span, no chunk is longer than the embedder may see."""

    def suite() -> "Suite":
        from llmops_core.quality import chunks_suite

        return chunks_suite(assistant.chunking.size)

    return _check(assistant, "chunks", "chunks_are_sound", suite)


def _check(assistant: Assistant, noun: str, name: str, suite: Callable[[], "Suite"]) -> dg.AssetChecksDefinition:
    key = asset_key(assistant, "corpus", noun)

    @dg.asset_check(asset=key, name=name, blocking=True, description=f"Great Expectations suite on {noun}.")
    def check(context: dg.AssetCheckExecutionContext, lakehouse: LakehouseResource) -> dg.AssetCheckResult:
        import polars as pl

        from llmops_core.quality import validate

        # A crash inside Great Expectations raises here and is an error of the check, not a verdict on the data.
        snapshot = recorded_snapshot(context, key)
        wanted = suite()
        columns = dict.fromkeys(column for rule in wanted.rules for column in rule.columns)
        rows = lakehouse.open(assistant).table(assistant.name, f"corpus_{noun}").scan(snapshot).select(*columns)
        # No rule looks further into a text than whether there is one, and all of them whole may not fit into memory.
        frame = rows.with_columns(pl.col("^text$").str.head(TEXT_CHARACTERS)).collect(engine="streaming")
        report = validate(frame, wanted)
        return dg.AssetCheckResult(
            passed=report.passed, metadata={"report": dg.MetadataValue.md(report.markdown()), "snapshot_id": snapshot}
        )

    return check
