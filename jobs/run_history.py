"""What Dagster keeps of runs: rows, events, logs and files go when they are old and nothing looks at them any more.

Dagster itself deletes no run. What it knows of an asset is in the events of the run that reported it last, so those runs stay.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import sqlalchemy as db
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS, DagsterEvent, DagsterEventType
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, SqlEventLogStorageTable
from dagster._core.storage.runs import SqlRunStorage
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable
from dagster._core.storage.tags import PARENT_RUN_ID_TAG, PARTITION_NAME_TAG, ROOT_RUN_ID_TAG
from dagster._serdes import deserialize_value

from jobs.build import CAUSE_TAG, assistant_tag, exclusive
from llmops_core.assistant import Assistant

PAGE = 500
# A home that was not maintained for long has very many: the rest goes the next days, and builds wait less for this one.
AT_ONCE = 2000

# Kind of event, asset, check, partition.
Thing = tuple[DagsterEventType, dg.AssetKey, str | None, object]


def unneeded_runs(instance: dg.DagsterInstance, assistant: Assistant, now: datetime) -> list[str]:
    """Ids of the assistant's runs that ended more than `retention.log_days` before `now` and may go; about `AT_ONCE` at most.

    A run stays while it holds the latest event of a kind of an asset, a check or a partition of one, while it is the latest of
    its job that ended as it did, while a run of its cause stays, since `documents_changed` counts and numbers those, and while
    a re-execution of it stays, since Dagster asks for its origin. Only a run that is old itself takes the place of another:
    how all stood at any moment since then can still be seen.
    """
    latest: dict[tuple[object, ...], tuple[int, str]] = {}
    causes: dict[str, str | None] = {}
    repeats = _repeats(instance)
    ended_before = now - timedelta(days=assistant.retention.log_days)
    for record, things in _runs(instance, assistant, ended_before):
        run = record.dagster_run
        causes[run.run_id] = run.tags.get(CAUSE_TAG)
        # By what the sensor asks for: the builds of a partition, those that it caused, and how they ended.
        ended = ("run", run.job_name, run.tags.get(PARTITION_NAME_TAG), run.status, CAUSE_TAG in run.tags)
        reports: list[tuple[tuple[object, ...], int]] = [(ended, record.storage_id), *things.items()]
        for what, number in reports:
            latest[what] = max(latest.get(what, (number, run.run_id)), (number, run.run_id))
        # Not by those looked at: of these any number may have to stay, for any time.
        if len(causes) % PAGE == 0 and len(unneeded := _unneeded(instance, latest, causes, repeats)) >= AT_ONCE:
            return unneeded
    return _unneeded(instance, latest, causes, repeats)


def forget_runs(instance: dg.DagsterInstance, run_ids: list[str]) -> None:
    """Delete runs with their events, verdicts of checks, logs and files."""
    storage = _events(instance)
    for run_id in run_ids:
        # First what Dagster leaves and only the run leads to: after a kill the next maintenance finds it once more.
        instance.compute_log_manager.delete_logs(prefix=[run_id])
        with storage.index_connection() as connection:
            connection.execute(db.delete(AssetCheckExecutionsTable).where(AssetCheckExecutionsTable.c.run_id == run_id))
        instance.delete_run(run_id)
        # SQLite keeps the tags, by which Dagster finds the re-executions of a run, and the emptied database of the run.
        with _rows(instance).connect() as connection:
            connection.execute(db.delete(RunTagsTable).where(RunTagsTable.c.run_id == run_id))
        if isinstance(storage, SqliteEventLogStorage):
            for end in ("", "-wal", "-shm"):
                Path(storage.path_for_shard(run_id) + end).unlink(missing_ok=True)


def _unneeded(
    instance: dg.DagsterInstance,
    latest: dict[tuple[object, ...], tuple[int, str]],
    causes: dict[str, str | None],
    repeats: list[tuple[str, str]],
) -> list[str]:
    """Those of the runs in `causes` that may go: none holds the latest of anything, or is held by a run that stays."""
    going = causes.keys() - {run_id for _, run_id in latest.values()}
    numbers = Counter(cause for run_id in going if (cause := causes[run_id]))
    whole = {cause for cause, number in numbers.items() if instance.get_runs_count(_of_cause(cause)) == number}
    while True:
        staying = {cause for run_id, cause in causes.items() if cause and (run_id not in going or cause not in whole)}
        held = {run_id for run_id in going if causes[run_id] in staying}
        held |= {origin for origin, repeat in repeats if origin in going and repeat not in going}
        if not held:
            return [run_id for run_id in causes if run_id in going]
        going -= held


def _repeats(instance: dg.DagsterInstance) -> list[tuple[str, str]]:
    """Runs that were executed anew, as a whole or from a step on, each with the run that did so."""
    tags = RunTagsTable.c
    query = (
        db.select(tags.value, tags.run_id)
        .join_from(RunTagsTable, RunsTable, tags.run_id == RunsTable.c.run_id)
        .where(tags.key.in_([ROOT_RUN_ID_TAG, PARENT_RUN_ID_TAG]))
    )
    with _rows(instance).connect() as connection:
        return [(origin, repeat) for origin, repeat in connection.execute(query)]


def _runs(
    instance: dg.DagsterInstance, assistant: Assistant, ended_before: datetime
) -> Iterator[tuple[dg.RunRecord, dict[Thing, int]]]:
    """The assistant's finished runs, oldest first, each with what it reported and the number of the event."""
    finished = dg.RunsFilter(statuses=FINISHED_STATUSES, updated_before=ended_before)
    cursor = None
    while records := instance.get_run_records(finished, limit=PAGE, cursor=cursor, ascending=True):
        cursor = records[-1].dagster_run.run_id
        reported = _reported(instance, [record.dagster_run.run_id for record in records])
        for record in records:
            things = reported.get(record.dagster_run.run_id, {})
            tags = record.dagster_run.tags.items()
            is_ours = exclusive(assistant).items() <= tags or assistant_tag(assistant).items() <= tags
            if is_ours or any(asset.path[0] == assistant.name for _, asset, *_ in things):
                yield record, things


def _reported(instance: dg.DagsterInstance, run_ids: list[str]) -> dict[str, dict[Thing, int]]:
    """Run → what it reported → number of the last such event, in the order of the instance."""
    events = SqlEventLogStorageTable.c
    query = (
        db.select(events.id, events.run_id, events.event)
        .where(events.run_id.in_(run_ids))
        .where(events.dagster_event_type.in_([kind.value for kind in ASSET_EVENTS | ASSET_CHECK_EVENTS]))
        .order_by(events.id)
    )
    found: dict[str, dict[Thing, int]] = {}
    with _events(instance).index_connection() as connection:
        for number, run_id, text in connection.execute(query):
            event = deserialize_value(text, dg.EventLogEntry).dagster_event
            assert event
            found.setdefault(run_id, {})[_thing(event)] = number
    return found


def _thing(event: DagsterEvent) -> Thing:
    kind = event.event_type
    if kind == DagsterEventType.ASSET_CHECK_EVALUATION:
        verdict = event.asset_check_evaluation_data
        return kind, verdict.asset_key, verdict.check_name, verdict.partition
    if kind == DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
        planned = event.asset_check_planned_data
        parts = planned.partitions_subset
        return kind, planned.asset_key, planned.check_name, frozenset(parts.get_partition_keys()) if parts else None
    assert event.asset_key
    return kind, event.asset_key, None, event.partition


def _of_cause(cause: str) -> dg.RunsFilter:
    return dg.RunsFilter(tags={CAUSE_TAG: cause})


def _rows(instance: dg.DagsterInstance) -> SqlRunStorage:
    storage = instance.run_storage
    assert isinstance(storage, SqlRunStorage)
    return storage


def _events(instance: dg.DagsterInstance) -> SqlEventLogStorage:
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    return storage
