"""What all assets share: how they are described, what they read, how they report and fail, when they run by themselves."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg

from llmops_assets.partitions import embedder_models
from llmops_core.assistant import Assistant
from llmops_core.errors import NotFoundError, PermanentError
from llmops_core.version import code_version

if TYPE_CHECKING:
    from llmops_core.lakehouse.table import Provenance

Context = dg.AssetExecutionContext | dg.AssetCheckExecutionContext | dg.OpExecutionContext

DATA_VERSION_TAG = "dagster/data_version"

# Partitioned checks are marked as a preview; data versions of outputs and owners of sensors, which Dagster itself passes on, as
# beta. Everyone would be told at every start and build.
warnings.filterwarnings(
    "ignore", message="Specifying a partitions_def on an AssetCheckSpec", category=dg.PreviewWarning
)
warnings.filterwarnings(
    "ignore", message="Parameter `(data_version|owners)` of initializer `(Output|Sensor)", category=dg.BetaWarning
)

# Named here since a release asks for the verdict of the check that the index defines.
INDEX_CHECK = "finds_what_exact_search_finds"

# Lost connections and lost commits pass; a permanent error is never retried (see `failing_for_good`).
RETRIES = dg.RetryPolicy(max_retries=2, delay=2, backoff=dg.Backoff.EXPONENTIAL)


def on_changed_data() -> dg.AutomationCondition[Any]:
    """The one house condition: run once for each changed data version of an upstream.

    `AutomationCondition.eager()` fires on every upstream materialisation, changed or not, and so would rebuild everything
    each time a source is looked at. What a blocking check refused goes no further, as within a run; Dagster does not look
    at checks of partitions here, so whoever reads a partition asks `passed_check`.
    """
    condition = dg.AutomationCondition
    changed = condition.any_deps_match(condition.data_version_changed())
    return (
        changed.since(condition.newly_requested() | condition.newly_updated())
        & ~condition.any_deps_missing()
        & ~condition.any_deps_in_progress()
        & ~condition.in_progress()
        & condition.all_deps_blocking_checks_passed()
    ).with_label("an upstream's data version changed")


def asset_key(assistant: Assistant, group: str, noun: str) -> dg.AssetKey:
    """The key `[assistant, group, noun]`: also the file, and the table `<assistant>.<group>_<noun>`."""
    return dg.AssetKey([assistant.name, group, noun])


def described(assistant: Assistant, group: str, *kinds: str) -> dict[str, Any]:
    """The arguments that every asset of a group has in common."""
    return {
        "group_name": group,
        "owners": assistant.owners or [f"team:{assistant.name}"],
        "kinds": set(kinds),
        "tags": {"assistant": assistant.name},
    }


def build_pool(assistant: Assistant) -> str:
    """The pool of all that a build writes: one run of it goes at a time (see `dagster.yaml`), whatever started it.

    A pool and not a tag, since "Materialize all" and automation start runs that carry no tag of ours.
    """
    return f"{assistant.name}/build"


def latest_materialization(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition_key: str | None = None
) -> dg.AssetMaterialization | None:
    """The latest materialisation of an asset, also by the run that asks; None if there was none."""
    record = instance.get_latest_data_version_record(key, partition_key=partition_key)
    return record.event_log_entry.asset_materialization if record else None


def latest_data_version(context: Context, key: dg.AssetKey, partition_key: str | None = None) -> str | None:
    """The data version that an asset's latest materialisation recorded; None if there was none."""
    materialization = latest_materialization(context.instance, key, partition_key)
    return version_of(materialization) if materialization else None


def version_of(materialization: dg.AssetMaterialization) -> str | None:
    """The data version that a materialisation recorded."""
    return (materialization.tags or {}).get(DATA_VERSION_TAG)


def latest_evaluation(
    context: Context, key: dg.AssetKey, check: str, partition_key: str | None = None
) -> dg.AssetCheckEvaluation | None:
    """What a check that ended said last; None if none ever did."""
    from dagster._core.event_api import PartitionKeyFilter
    from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

    ended = context.instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(key, check),
        limit=1,
        status={AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED},
        partition_filter=PartitionKeyFilter(key=partition_key) if partition_key else None,
    )
    return ended[0].evaluation if ended else None


def passed_check(context: Context, key: dg.AssetKey, check: str, partition_key: str, data_version: str) -> bool:
    """Whether the check of a partition said last that this data version passes.

    It says in its metadata which one it looked at: of two builds at once, either may have been the last to materialise.
    """
    evaluation = latest_evaluation(context, key, check, partition_key)
    if evaluation is None or "data_version" not in evaluation.metadata:
        return False
    return evaluation.passed and evaluation.metadata["data_version"].value == data_version


def passed_already(evaluation: dg.AssetCheckEvaluation | None, judged: str) -> dg.AssetCheckResult | None:
    """The verdict again, if a check passed on exactly this: rows and rules that cannot have changed since.

    `judged` names all that the verdict depends on and is in the check's metadata. What failed is looked at again.
    """
    if evaluation is None or not evaluation.passed or "judged" not in evaluation.metadata:
        return None
    if evaluation.metadata["judged"].value != judged:
        return None
    return dg.AssetCheckResult(passed=True, metadata=evaluation.metadata)


def recorded(context: Context, key: dg.AssetKey, partition_key: str | None = None) -> str:
    """The data version that an asset's latest materialisation recorded, where there has to be one.

    Upstreams are read at this version and never at head, so that what a run saw is what its lineage says.
    """
    return recorded_with_metadata(context, key, partition_key)[0]


def recorded_with_metadata(
    context: Context, key: dg.AssetKey, partition_key: str | None = None
) -> tuple[str, Mapping[str, Any]]:
    """Like `recorded`, and what the same materialisation says beside it: another may come between two looks."""
    materialization = latest_materialization(context.instance, key, partition_key)
    version = version_of(materialization) if materialization else None
    if materialization is None or version is None:
        where = f" for {partition_key}" if partition_key else ""
        evaluated = key.path[1] == "evaluation"
        way = "llmops evaluate (job evaluation_score)" if evaluated else "llmops build (job index_build)"
        raise dg.Failure(
            f"{key.to_user_string()} was never materialised{where}. Materialise it first: {way}.", allow_retries=False
        )
    return version, {name: value.value for name, value in materialization.metadata.items()}


def recorded_snapshot(context: Context, key: dg.AssetKey, partition_key: str | None = None) -> int:
    """The Iceberg snapshot that an asset's latest materialisation recorded."""
    return int(recorded(context, key, partition_key))


def provenance(context: Context, **reads: int | str) -> "Provenance":
    """Who writes (this run) and what was read to write it."""
    from llmops_core.lakehouse.table import Provenance

    return Provenance(context.run.run_id, reads)


def materialized(
    data_version: int | str | None,
    metadata: Mapping[str, Any],
    key: dg.AssetKey | None = None,
    checks: Sequence[dg.AssetCheckResult] = (),
) -> dg.MaterializeResult[None]:
    """Report a materialisation: its data version, numbers for the UI, and the code that made it."""
    version = str(data_version)
    facts = {"data_version": version, "code_version": code_version(), **metadata}
    return dg.MaterializeResult(
        asset_key=key, data_version=dg.DataVersion(version), metadata=facts, check_results=checks
    )


@contextmanager
def failing_for_good() -> Iterator[None]:
    """Turn errors that would come again into a failure that Dagster does not retry."""
    try:
        yield
    except NotFoundError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    except PermanentError as error:
        raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=False) from error


def recorded_versions(instance: dg.DagsterInstance, assistant: Assistant) -> dict[str, str]:
    """What the latest materialisation of each asset partition reported or read → that asset, for maintenance to keep it.

    Snapshot ids are digits alone; metadata that names one ends in `_snapshot`. A partition whose embedder `assistant.yaml`
    no longer names does not count: nothing will read it again.
    """
    found: dict[str, str] = {}
    embedders = embedder_models(assistant)
    for key in instance.get_asset_keys(prefix=[assistant.name]):
        partitions = instance.get_materialized_partitions(key)
        for partition in partitions & embedders.keys() if partitions else [None]:
            materialization = latest_materialization(instance, key, partition)
            if materialization is None:
                continue
            values = [v.value for name, v in materialization.metadata.items() if name.endswith("_snapshot")]
            values.append(version_of(materialization))
            found |= {str(value): "/".join(key.path[1:]) for value in values if value is not None}
    return found
