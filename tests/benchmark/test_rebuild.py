"""What a rebuild costs beside the whole build, through `llmops build`: nothing changed, and one document in a hundred.

`make bench` prints both, at two sizes: what a command costs whatever it does (starting Python, importing libraries) weighs the
more the smaller the corpus and the faster its embedding. Wall clock of the whole command; the embedder is MiniLM.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.benchmark.conftest import Report
from tests.benchmark.corpora import write_corpus, write_document
from tests.running_gateway import write_assistant

SECTIONS = 10


@pytest.mark.parametrize("documents", [2_000, 6_000])
def test_a_rebuild_costs_what_changed(
    documents: int, tmp_path: Path, models: Path, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(models)
    monkeypatch.setenv("LLMOPS_HOME", str(home))
    folder = tmp_path / "notes"
    docs = folder / "corpus"
    write_corpus(docs, documents, SECTIONS)
    write_assistant(folder, sources=[{"type": "folder", "path": "corpus"}])

    full, full_s = _build(folder)
    assert full["chunks"] >= documents * SECTIONS
    assert full["embedded"] == full["chunks"]
    unchanged, unchanged_s = _build(folder)
    for number in range(0, documents, 100):
        write_document(docs, number, SECTIONS, edition=1)
    changed, changed_s = _build(folder)

    whole = f"{full['chunks']} chunks in {full_s:.0f} s"
    of = f"of {documents * SECTIONS:,} chunks"
    report(f"rebuild {of}, nothing changed", f"{unchanged_s:.1f} s", whole, unchanged_s / full_s, "under 5 s")
    report(f"rebuild {of}, 1% of documents changed", f"{changed_s:.1f} s", whole, changed_s / full_s, "under 0.05")
    assert unchanged["embedded"] == 0
    assert changed["embedded"] == documents // 100 * SECTIONS


def _build(folder: Path) -> tuple[dict[str, int], float]:
    command = [sys.executable, "-m", "llmops_cli.main", "build", "--assistant", str(folder), "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    seconds = time.perf_counter() - started
    result: dict[str, int] = json.loads(done.stdout)
    return result, seconds
