"""`index/embeddings`: vectors of all chunks, by embedder revision.

Graph-backed: plan → one step for each hash bucket with new chunks → commit. On a laptop that is one bucket in one process;
with `LLMOPS_EMBED_BUCKETS` and the k8s executor each bucket is a pod. A bucket commits its own vectors as it goes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from llmops_assets.house import (
    RETRIES,
    asset_key,
    build_pool,
    described,
    failing_for_good,
    latest_data_version,
    materialized,
    on_changed_data,
    provenance,
    recorded_snapshot,
)
from llmops_assets.partitions import embedder_of, embedder_revisions
from llmops_core.assistant import Assistant
from resources.platform import LakehouseResource, ModelsResource


def embeddings(assistant: Assistant) -> dg.AssetsDefinition:
    """Vectors of the chunks; only chunks that have none of this revision are embedded."""
    upstream = asset_key(assistant, "corpus", "chunks")
    plan, embed, commit = _plan(assistant), _embed(assistant), _commit(assistant)

    @dg.graph_asset(
        key=_key(assistant),
        ins={"chunks": dg.AssetIn(key=upstream, dagster_type=dg.Nothing)},
        partitions_def=embedder_revisions(assistant),
        description="One vector for each chunk and embedder revision; adding an embedder leaves the others untouched.",
        automation_condition=on_changed_data(),
        **described(assistant, "index", "iceberg", "huggingface"),
    )
    def index_embeddings(chunks: None) -> None:
        return commit(plan(chunks).map(embed).collect())

    return index_embeddings


def _key(assistant: Assistant) -> dg.AssetKey:
    return asset_key(assistant, "index", "embeddings")


def _plan(assistant: Assistant) -> dg.OpDefinition:
    """Which buckets have chunks without a vector; one empty bucket if none has."""

    @dg.op(
        name="plan_embeddings",
        ins={"chunks": dg.In(dg.Nothing)},
        out=dg.DynamicOut(dict[str, int]),
        retry_policy=RETRIES,
        pool=build_pool(assistant),
    )
    def plan(
        context: dg.OpExecutionContext, lakehouse: LakehouseResource, models: ModelsResource
    ) -> Iterator[dg.DynamicOutput[dict[str, int]]]:
        from llmops_core.embedders.sync import EmbeddingTables, missing_by_bucket

        snapshot = recorded_snapshot(context, asset_key(assistant, "corpus", "chunks"))
        buckets = models.settings().embed_buckets
        tables = EmbeddingTables.of(lakehouse.open(assistant), assistant.name, snapshot)
        missing = missing_by_bucket(tables, context.partition_key, buckets)
        for bucket in sorted(missing) or [0]:
            yield dg.DynamicOutput(
                {"bucket": bucket, "buckets": buckets, "chunks_snapshot": snapshot}, mapping_key=f"bucket_{bucket}"
            )

    return plan


def _embed(assistant: Assistant) -> dg.OpDefinition:
    """Embed and commit one bucket."""

    @dg.op(name="embed_bucket", retry_policy=RETRIES)
    def embed(
        context: dg.OpExecutionContext, part: dict[str, int], lakehouse: LakehouseResource, models: ModelsResource
    ) -> dict[str, int]:
        from llmops_core.embedders.sync import EmbeddingTables, embed_bucket, missing_by_bucket

        revision = context.partition_key
        tables = EmbeddingTables.of(lakehouse.open(assistant), assistant.name, part["chunks_snapshot"])
        bucket, buckets = part["bucket"], part["buckets"]
        embedded = 0
        lock = models.settings().home / "embedding" / f"{assistant.name}.{revision}.{bucket}-{buckets}.lock"
        with _after_other_builds(context, lock):
            if missing_by_bucket(tables, revision, buckets).get(bucket):
                with failing_for_good():
                    embedder = models.embedder(embedder_of(assistant, revision))
                embedded = embed_bucket(
                    tables,
                    embedder,
                    revision,
                    bucket,
                    buckets,
                    provenance(context, corpus_chunks=part["chunks_snapshot"]),
                    lambda done, of: context.log.info(f"Embedded {done} of {of} chunks (bucket {bucket})"),
                )
        return {"embedded": embedded, "chunks_snapshot": part["chunks_snapshot"]}

    return embed


@contextmanager
def _after_other_builds(context: dg.OpExecutionContext, file: Path) -> Iterator[None]:
    """Wait while another build on this machine embeds the same bucket: both would write the same vectors.

    The queue holds back builds that go through it, but not those of `llmops build`. The operating system lets go of the
    lock when its holder dies.
    """
    from filelock import FileLock, Timeout

    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        context.log.info("Another build embeds these chunks: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _commit(assistant: Assistant) -> dg.OpDefinition:
    """Report the snapshot that holds all vectors: the old one if it did already, so that nothing downstream runs."""

    @dg.op(name="commit_embeddings", out=dg.Out(dg.Nothing), retry_policy=RETRIES)
    def commit(
        context: dg.OpExecutionContext, parts: list[dict[str, int]], lakehouse: LakehouseResource
    ) -> dg.Output[None]:
        from llmops_core.embedders.sync import EmbeddingTables, is_complete

        revision, snapshot = context.partition_key, parts[0]["chunks_snapshot"]
        tables = EmbeddingTables.of(lakehouse.open(assistant), assistant.name, snapshot)
        before = latest_data_version(context, _key(assistant), revision)
        unchanged = before is not None and is_complete(tables, revision, int(before))
        # The newest, whoever made it: vectors are only ever added, so it has at least those of these chunks.
        result = materialized(
            before if unchanged else tables.embeddings.snapshot_id(),
            {
                "embedded": sum(part["embedded"] for part in parts),
                "buckets": len(parts),
                "chunks_snapshot": snapshot,
            },
        )
        return dg.Output(None, metadata=result.metadata, data_version=result.data_version)

    return commit
