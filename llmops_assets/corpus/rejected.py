"""`corpus/rejected`: what could not be read, with the reason, so that nothing is lost in silence."""

import dagster as dg

from llmops_assets.house import asset_key, described, recorded
from llmops_core.assistant import Assistant
from resources.platform import LakehouseResource


def rejected_spec(assistant: Assistant) -> dg.AssetSpec:
    """The asset; `corpus/documents` fills it in the same read."""
    return dg.AssetSpec(
        asset_key(assistant, "corpus", "rejected"),
        description="One row for each thing in the sources that could not be read, with the reason.",
        **described(assistant, "corpus", "iceberg"),
    )


def nothing_rejected(assistant: Assistant) -> dg.AssetChecksDefinition:
    """Warns when something could not be read; the rest goes on."""
    key = asset_key(assistant, "corpus", "rejected")

    @dg.asset_check(asset=key, description="Everything in the sources could be read.")
    def nothing_rejected(context: dg.AssetCheckExecutionContext, lakehouse: LakehouseResource) -> dg.AssetCheckResult:
        version, table = recorded(context, key), lakehouse.open(assistant).table(assistant.name, "corpus_rejected")
        # While nothing was ever rejected, there is no snapshot.
        rows = table.read(int(version)).height if version.isdecimal() else 0
        return dg.AssetCheckResult(
            passed=rows == 0,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"rejected": rows, "data_version": version},
        )

    return nothing_rejected
