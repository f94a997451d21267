"""Releases in front of the real local engine: a reranker, condensed questions, and adapters side by side."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from llmops_cli.build import build
from llmops_cli.runs import run_job
from llmops_core.assistant import Assistant
from llmops_core.chunks.chunk import embedded_text
from llmops_core.embedders.load import load_embedder
from llmops_core.embedders.reranker import load_reranker
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings
from llmops_core.traffic.row import RequestRow
from tests.adapters import make_adapter
from tests.running_gateway import NAME, QUESTION, Running, running_gateway, write_assistant

RERANKER = "ms-marco-minilm"
PLAIN: dict[str, Any] = {
    "generator": {"engine": "local", "model": "smollm2-135m-instruct", "max_tokens": 12, "temperature": 0},
    "retrieval": {"mode": "hybrid", "top_k": 2, "query": "condensed", "reranker": {"model": RERANKER, "pool": 3}},
}


@pytest.fixture(scope="module")
def plain(shared_home: Settings, tmp_path_factory: pytest.TempPathFactory) -> Assistant:
    """The assistant without an adapter, on prod."""
    assistant = write_assistant(tmp_path_factory.mktemp(NAME), **PLAIN)
    build(shared_home, assistant)
    return assistant


@pytest.fixture(scope="module")
def adapters(shared_home: Settings, plain: Assistant) -> dict[str, str]:
    """Two releases that differ from the one on prod in their adapter alone: release id → adapter."""
    releases = Releases(Lakehouse.open(shared_home), NAME)
    made: dict[str, str] = {}
    for name, rank in (("first", 2), ("second", 4)):
        make_adapter(shared_home.models / PLAIN["generator"]["model"], plain.folder / name, rank, seed=rank)
        tuned = write_assistant(plain.folder, **PLAIN | {"generator": PLAIN["generator"] | {"adapter": name}})
        release_id = run_job(shared_home, tuned, "release_create").assets["release/manifests"]["data_version"]
        made[release_id] = str(releases.get(release_id).manifest.generator.adapter)
    return made


@pytest.fixture(scope="module")
def gateway(shared_home: Settings, adapters: dict[str, str]) -> Iterator[Running]:
    with running_gateway(shared_home) as running:
        yield running


def test_each_release_answers_with_its_own_adapter_at_the_same_time(gateway: Running, adapters: dict[str, str]) -> None:
    models = [NAME, *(f"{NAME}@{release_id}" for release_id in adapters)]
    alone = [gateway.ask(model=model) for model in models]
    with ThreadPoolExecutor(len(models)) as threads:
        together = list(threads.map(lambda model: gateway.ask(model=model), models))
    texts = [completion.choices[0].message.content for completion in alone]
    assert len(set(texts)) == len(models)
    assert [completion.choices[0].message.content for completion in together] == texts
    logged = [gateway.logged(completion.id)["adapter"] for completion in together]
    assert logged == [None, *adapters.values()]


def test_chunks_are_in_the_order_of_the_reranker(gateway: Running) -> None:
    chunks = gateway.ask().model_extra["llmops"]["chunks"]
    reranker = load_reranker(gateway.settings, RERANKER)
    texts = [embedded_text(chunk["title"], chunk["heading_path"], chunk["text"]) for chunk in chunks]
    scores = reranker.score(QUESTION, texts)
    assert list(scores) == sorted(scores, reverse=True)
    assert [chunk["score"] for chunk in chunks] == pytest.approx(list(scores), abs=1e-3)


def test_a_question_within_a_conversation_is_searched_for_as_the_generator_condensed_it(gateway: Running) -> None:
    turns = [
        {"role": "user", "content": "How long does bread dough rest?"},
        {"role": "assistant", "content": "It rests for one hour."},
        {"role": "user", "content": "And what happens after it?"},
    ]
    row = RequestRow.from_payload(gateway.logged(gateway.ask(messages=turns).id))
    assert row.query
    assert row.query != turns[-1]["content"]
    embedder = load_embedder(gateway.settings, "minilm", "", "")
    np.testing.assert_allclose(np.asarray(row.query_vector), embedder.embed_query(row.query), atol=1e-2)
