"""Loading a code location beside a Dagster project of one asset: what every start of `dagster dev` and every run pays.

`make bench` prints both medians: whole processes that import the definitions, in turns.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmark.conftest import Report

DEFINITIONS = Path(__file__).parents[2] / "assistants" / "python_help" / "definitions.py"
ONE_ASSET = """\
import dagster as dg


@dg.asset
def one() -> int:
    return 1


defs = dg.Definitions(assets=[one])
"""
LOAD = "import json, runpy, sys; runpy.run_path(sys.argv[1]); print(json.dumps(sorted(sys.modules)))"
HEAVY = {"torch", "transformers", "lancedb", "great_expectations"}
TURNS = 9


def test_loading_a_code_location(tmp_path: Path, report: Report) -> None:
    one_asset = tmp_path / "definitions.py"
    one_asset.write_text(ONE_ASSET, encoding="utf-8")
    ours_s, bare_s = [], []
    for _ in range(TURNS):
        seconds, modules = _load(DEFINITIONS)
        ours_s.append(seconds)
        bare_s.append(_load(one_asset)[0])
    ours, bare = statistics.median(ours_s), statistics.median(bare_s)
    report("loading a code location", f"{ours:.2f} s", f"{bare:.2f} s for one asset", ours / bare, "at most 1.25")
    assert not HEAVY & modules


def _load(definitions: Path) -> tuple[float, set[str]]:
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", LOAD, str(definitions)], stdout=subprocess.PIPE, check=True)
    return time.perf_counter() - started, set(json.loads(done.stdout))
