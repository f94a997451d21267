"""Great Expectations on the corpus: blocking, since bad documents would become bad answers."""

from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING

import dagster as dg

from llmops_assets.house import asset_key, latest_evaluation, passed_already, recorded_snapshot
from llmops_core.assistant import Assistant
from llmops_core.ids import content_hash
from llmops_core.version import code_version
from resources.platform import LakehouseResource

if TYPE_CHECKING:
    from llmops_core.lakehouse.table import LakeTable
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
        snapshot, wanted = recorded_snapshot(context, key), suite()
        # A snapshot never changes, and so neither does what the same rules say of it.
        by = [asdict(wanted), version("great_expectations"), code_version()]
        judged = content_hash([snapshot, *by])
        again = passed_already(latest_evaluation(context, key, name), judged)
        return again or _judge(
            lakehouse.open(assistant).table(assistant.name, f"corpus_{noun}"), snapshot, wanted, judged
        )

    return check


def _judge(table: "LakeTable", snapshot: int, wanted: "Suite", judged: str) -> dg.AssetCheckResult:
    import polars as pl

    from llmops_core.quality import validate

    columns = dict.fromkeys(column for rule in wanted.rules for column in rule.columns)
    # No rule looks further into a text than whether it is blank, and all of them whole may not fit into memory.
    begun = pl.col("^text$").str.strip_chars_start().str.head(TEXT_CHARACTERS)
    frame = table.scan(snapshot).select(*columns).with_columns(begun).collect(engine="streaming")
    # A crash inside Great Expectations raises here and is an error of the check, not a verdict on the data.
    report = validate(frame, wanted)
    return dg.AssetCheckResult(
        passed=report.passed,
        metadata={"report": dg.MetadataValue.md(report.markdown()), "snapshot_id": snapshot, "judged": judged},
    )
