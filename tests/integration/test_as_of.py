"""The index of any retained moment, from Iceberg alone: the same ids and scores for every query and mode."""

import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from llmops_core.assistant import Assistant, load_assistant
from llmops_core.errors import NotFoundError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.maintenance import compaction
from llmops_core.maintenance.maintain import maintain
from llmops_core.models.revisions import embedder_revision
from llmops_core.release.manifest import IndexPin, Release
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings, load_settings
from llmops_core.vectors.index import IndexSettings
from llmops_core.vectors.past import index_as_of, index_of
from llmops_core.vectors.reader import IndexReader
from llmops_core.vectors.search import search
from llmops_core.vectors.sync import sync_index
from tests.llmops_core.release.test_manifest import manifest
from tests.llmops_core.vectors.conftest import WORDS, row_of, unit_vector
from tests.moving import move
from tests.running_gateway import NAME

RUN = Provenance("test")
REVISIONS, MOMENTS, QUERIES, TOP = 30, 10, 200, 20
# The content of the first of each pair comes back as the second.
CAME_BACK = {4: 17, 9: 25}
Found = list[tuple[str, int, list[tuple[str, float]]]]


@dataclass
class Lived:
    """A corpus of thirty revisions; of ten of them, what was found at a moment while it was on prod."""

    settings: Settings
    assistant: Assistant
    revision: str
    releases: list[Release] = field(default_factory=list)
    found: dict[datetime, Found] = field(default_factory=dict)
    at: dict[datetime, Release] = field(default_factory=dict)

    @property
    def lakehouse(self) -> Lakehouse:
        return Lakehouse.open(self.settings)

    def maintain(self, days: float) -> None:
        maintain(self.lakehouse, self.settings, self.assistant, {}, RUN, now=datetime.now(UTC) + timedelta(days=days))

    def build(self, rows: dict[int, Any]) -> Release:
        """Bring the tables to these chunks, the index with them, and a release of it on prod."""
        lakehouse = self.lakehouse
        chunks, vectors = (lakehouse.table(NAME, name) for name in ("corpus_chunks", "index_embeddings"))
        wanted = pl.DataFrame([row | {"document_hash": "h", "cutting": "c"} for row in rows.values()])
        present, embedded = chunks.read()["chunk_id"], vectors.read()["chunk_id"]
        new = wanted.filter(~pl.col("chunk_id").is_in(present.implode()))
        gone = set(present) - set(wanted["chunk_id"])
        chunks.replace("chunk_id", gone, [new.select(chunks.spec.frame_schema.names())], RUN, chunks.snapshot_id())
        vectors.append(
            wanted.filter(~pl.col("chunk_id").is_in(embedded.implode())).select(
                "chunk_id", "vector", embedder_revision=pl.lit(self.revision)
            ),
            RUN,
        )
        snapshots = {table.spec.name: table.snapshot_id() or 0 for table in (chunks, vectors)}
        whole = manifest().model_copy(update={"assistant": NAME})
        whole = whole.model_copy(update={"embedder": whole.embedder.model_copy(update={"revision": self.revision})})
        index = index_of(self.settings, whole)
        built = sync_index(lakehouse, NAME, index, self.revision, IndexSettings(), snapshots, RUN, print)
        registry = Releases(lakehouse, NAME)
        pin = IndexPin(version=built.version, snapshots=built.snapshots)
        release, _ = registry.create(whole.with_index(pin), author="me", message="", provenance=RUN)
        move(registry.channels, "prod", release.release_id)
        self.releases.append(release)
        return release


def search_all(reader: IndexReader) -> Found:
    """Ids and scores for every query in each mode."""
    return [
        (mode, number, [(hit.chunk_id, hit.score) for hit in search(reader, mode, words, unit_vector(number), TOP)])
        for number in range(QUERIES)
        for words in [" ".join(random.Random(number).sample(WORDS, 1 + number % 6))]
        for mode in ("dense", "full_text", "hybrid")
    ]


def revisions() -> Iterator[dict[int, Any]]:
    """Each with some chunks gone and some new; a third of all are copies, so that ties are cut at nearly every k."""
    chance = random.Random(7)
    states: list[dict[int, Any]] = []
    corpus = {n: row_of(n, n % 20 if n % 3 == 0 else None) for n in range(250)}
    for number in range(REVISIONS):
        back = next((old for old, new in CAME_BACK.items() if new == number), None)
        if back is not None:
            corpus = dict(states[back])
        elif number:
            for gone in chance.sample(sorted(corpus), 15):
                del corpus[gone]
            for new in range(1000 * number, 1000 * number + 17):
                corpus[new] = row_of(new, new % 20 if new % 3 == 0 else None)
        states.append(dict(corpus))
        yield states[-1]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    base = tmp_path_factory.mktemp("lived")
    description = {
        "name": NAME,
        "sources": [{"type": "folder", "path": "."}],
        "retention": {"log_days": 2, "index_days": 2},
    }
    (base / "assistant.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
    settings = load_settings(home=base / "home")
    assistant = load_assistant(base)
    lived = Lived(settings, assistant, embedder_revision(settings, assistant.embedder.model))
    lived.lakehouse.prepare(NAME)
    chance = random.Random(3)
    chosen = {*CAME_BACK, *CAME_BACK.values()}
    chosen |= set(chance.sample(sorted(set(range(REVISIONS)) - chosen), MOMENTS - len(chosen)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "MANY", 2)
        for number, rows in enumerate(revisions()):
            release = lived.build(rows)
            if number in chosen:
                reader = index_of(settings, release.manifest).open(release.manifest.index.version)
                moment = datetime.now(UTC)
                lived.found[moment], lived.at[moment] = search_all(reader), release
        lived.maintain(days=0.5)
        lived.maintain(days=1.5)
        yield lived


def test_ten_moments_of_thirty_revisions_come_back_from_iceberg_alone(lived: Lived) -> None:
    assert len(lived.found) == MOMENTS
    assert len({release.manifest.index.version for release in lived.releases}) == REVISIONS - len(CAME_BACK)
    shutil.rmtree(Path(lived.settings.lancedb))
    made = set()
    for moment in random.Random(5).sample(sorted(lived.found), MOMENTS):
        past = index_as_of(lived.lakehouse, lived.settings, NAME, "prod", moment)
        version = past.release.manifest.index.version
        assert past.release == lived.at[moment]
        assert past.made == (version not in made)
        made.add(version)
        reader = index_of(lived.settings, past.release.manifest).open(version)
        assert search_all(reader) == lived.found[moment]


def test_a_build_goes_on_from_whatever_moment_was_made_anew_last(lived: Lived) -> None:
    index_as_of(lived.lakehouse, lived.settings, NAME, "prod", min(lived.found))
    rows = {n: row_of(n) for n in range(5_000, 5_040)}
    release = lived.build(rows)
    assert index_of(lived.settings, release.manifest).open(release.manifest.index.version).rows == 40


def test_a_moment_that_is_no_longer_retained_is_refused_with_the_nearest_that_is(lived: Lived) -> None:
    last = lived.releases[-1]
    for days in (10, 11, 12):
        lived.maintain(days)
    shutil.rmtree(Path(lived.settings.lancedb))
    moved = Releases(lived.lakehouse, NAME).channels.state()["prod"].at
    with pytest.raises(NotFoundError) as error:
        index_as_of(lived.lakehouse, lived.settings, NAME, "prod", min(lived.found))
    assert "no longer retained" in str(error.value)
    assert f"The nearest moment that is: {moved.isoformat()} (release {last.number})" in str(error.value)
    assert index_as_of(lived.lakehouse, lived.settings, NAME, "prod", moved).release == last
    with pytest.raises(NotFoundError, match=re.escape(f"at which there was: {_first(lived).isoformat()}")):
        index_as_of(lived.lakehouse, lived.settings, NAME, "prod", _first(lived) - timedelta(seconds=1))


def _first(lived: Lived) -> datetime:
    first = Releases(lived.lakehouse, NAME).channels.events()["at"].min()
    assert isinstance(first, datetime)
    return first
