"""Peak memory of a build of 100,000 chunks beside one of 10,000, and what a chunk costs apart from its embedding.

`make bench` prints both. Vectors come from a fixed random projection of the words, since no model would get through in
time; all else is the real build, in a process of its own each time.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.benchmark.conftest import Report
from tests.benchmark.corpora import write_corpus
from tests.running_gateway import write_assistant

FEW, MANY, SECTIONS = 10_000, 100_000, 100
BUILD = """
import json, resource, sys, time, zlib
from pathlib import Path
import numpy as np
import llmops_core.embedders.load as load
from llmops_core.embedders.embedder import l2_normalised

class Projection:
    model, dimension, max_tokens, seconds = "minilm", 384, 256, 0.0

    def __init__(self, revision):
        self.revision = revision
        self._matrix = np.random.default_rng(0).standard_normal((4096, 384), dtype=np.float32)

    def embed_documents(self, texts):
        started = time.perf_counter()
        places = [[zlib.crc32(word.encode()) % 4096 for word in text.split()] for text in texts]
        vectors = l2_normalised(np.stack([self._matrix[of].sum(axis=0) for of in places]))
        Projection.seconds += time.perf_counter() - started
        return vectors

load.load_embedder = lambda settings, model, *_: Projection(load.embedder_revision(settings, model))
from llmops_cli.build import build
from llmops_core.assistant import load_assistant
from llmops_core.settings import load_settings

started = time.perf_counter()
done = build(load_settings(), load_assistant(Path(sys.argv[1])))
seconds = time.perf_counter() - started - Projection.seconds
peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"chunks": done["chunks"], "seconds": seconds, "peak_mb": peak_mb}))
"""


def test_memory_of_a_build_does_not_follow_the_corpus(tmp_path: Path, models: Path, report: Report) -> None:
    few, many = (_build(tmp_path / str(chunks), models, chunks) for chunks in (FEW, MANY))
    report(
        "peak memory of a build of 100,000 chunks",
        f"{many['peak_mb']:.0f} MB",
        f"{few['peak_mb']:.0f} MB for 10,000",
        many["peak_mb"] / few["peak_mb"],
        "at most 2",
    )
    per_chunk = [1000 * of["seconds"] / of["chunks"] for of in (many, few)]
    report(
        "time a chunk without embedding, 100,000 chunks",
        f"{per_chunk[0]:.2f} ms",
        f"{per_chunk[1]:.2f} ms for 10,000",
        per_chunk[0] / per_chunk[1],
        "none stated",
    )


def _build(folder: Path, models: Path, chunks: int) -> dict[str, float]:
    home = folder / "home"
    home.mkdir(parents=True)
    (home / "models").symlink_to(models)
    write_corpus(folder / "notes" / "corpus", chunks // SECTIONS, SECTIONS)
    write_assistant(folder / "notes", sources=[{"type": "folder", "path": "corpus"}])
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder / "notes")],
        stdout=subprocess.PIPE,
        env={**os.environ, "LLMOPS_HOME": str(home)},
        check=True,
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    assert result["chunks"] >= chunks
    return result
