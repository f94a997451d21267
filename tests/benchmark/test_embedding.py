"""Embedding through the pipeline beside `SentenceTransformer.encode`, on the same texts and settings in one run.

`make bench` prints both rates. The pipeline's side holds the anti-join, batching, and commits to Iceberg.
"""

import time
from pathlib import Path

from llmops_core.assistant import load_assistant
from llmops_core.chunks.chunk import embedded_text
from llmops_core.chunks.sync import sync_chunks
from llmops_core.corpus.sync import sync_corpus
from llmops_core.embedders.load import load_embedder
from llmops_core.embedders.sentence_transformer import BATCH_CPU
from llmops_core.embedders.sync import EmbeddingTables, embed_bucket
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.models.device import compute_dtype
from llmops_core.settings import load_settings
from tests.benchmark.conftest import Report

PROJECT = Path(__file__).parents[2]


def test_embedding_through_the_pipeline_beside_encode(tmp_path: Path, models: Path, report: Report) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(models)
    settings = load_settings(home=home, device="cpu")
    assistant = load_assistant(PROJECT / "assistants" / "python_help")
    lakehouse = Lakehouse.open(settings)
    lakehouse.prepare(assistant.name)
    run = Provenance("benchmark")
    documents = sync_corpus(lakehouse, assistant, run, lambda _: None).documents_snapshot
    assert documents is not None
    snapshot = sync_chunks(lakehouse, assistant, settings, documents, run).snapshot
    assert snapshot is not None
    embedder = load_embedder(settings, "minilm")
    embedder.embed_documents(["warm up"])

    rows = lakehouse.table(assistant.name, "corpus_chunks").read(snapshot)
    texts = [
        embedded_text(row["title"], tuple(row["heading_path"]), row["text"])
        for row in rows.sort("chunk_id").iter_rows(named=True)
    ]
    raw = SentenceTransformer(
        str(models / "minilm"), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.bfloat16}
    ).to(compute_dtype("cpu"))
    raw.max_seq_length = embedder.max_tokens
    raw.encode(["warm up"])
    started = time.perf_counter()
    raw.encode(texts, batch_size=BATCH_CPU, normalize_embeddings=True, convert_to_tensor=True)
    alone = len(texts) / (time.perf_counter() - started)

    tables = EmbeddingTables.of(lakehouse, assistant.name, snapshot)
    started = time.perf_counter()
    done = embed_bucket(tables, embedder, embedder.revision, 0, 1, run, lambda _done, _of: None)
    pipeline = done / (time.perf_counter() - started)
    report(
        "embedding through the pipeline",
        f"{pipeline:.1f} chunks/s",
        f"{alone:.1f} chunks/s by encode",
        pipeline / alone,
        "at least 0.95",
    )
    assert done == len(texts)
