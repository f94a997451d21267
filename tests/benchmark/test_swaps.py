"""A migration to another embedder, and 20 promotions and rollbacks, under the load of OpenAI's own client.

`make bench` prints the p99 of requests around a swap beside that of the same run between swaps. A swap lasts from the moment in
which the channel is moved, over loading and warming, until a second after the release serves. Channels are moved by a process
of its own, as by a command or a job; builds are not in the figures, since they take the cores whatever serves.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from llmops_core.assistant import load_assistant
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings
from tests.benchmark.conftest import Report
from tests.fake_engine import FakeEngine
from tests.running_gateway import NAME, Running, running_gateway, write_assistant
from tests.steady_load import SteadyLoad, mixed

SWAPS = 20
AFTER_S = 1.0
STEADY_S = 4.0

# Moves prod for each line that it reads: a release to promote, or nothing to roll back.
OPERATOR = """
import sys
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release import rollback
from llmops_core.release.channels import Step
from llmops_core.release.registry import Releases
from llmops_core.settings import load_settings

name, settings, run = sys.argv[1], load_settings(), Provenance("operator")
lakehouse = Lakehouse.open(settings)
for line in sys.stdin:
    if line.strip():
        channels = Releases(lakehouse, name).channels
        steps, seen = [Step("prod", line.strip(), "promote")], channels.state()
        channels.take(steps, author="operator", reason="", provenance=run, expected=seen)
    else:
        decided = rollback.decide(lakehouse, settings, name, "prod", None)
        rollback.apply(lakehouse, name, decided, author="operator", reason="", provenance=run)
    print("moved", flush=True)
"""


@contextmanager
def operator() -> Iterator[Any]:
    """Somebody who moves prod: `move(release_id)` promotes, `move("")` rolls back; returns when it is done."""
    command = [sys.executable, "-c", OPERATOR, NAME]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        ask, tell = process.stdin, process.stdout

        def move(release_id: str) -> None:
            ask.write(f"{release_id}\n")
            ask.flush()
            assert tell.readline() == "moved\n"

        yield move
        ask.close()


def build(folder: Path) -> str:
    """Build in a process of its own; the release on dev."""
    command = [sys.executable, "-m", "llmops_cli.main", "build", "--assistant", str(folder), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return str(json.loads(done.stdout)["release_id"])


def swapped(gateway: Running, move: Any, release_id: str, expected: str) -> tuple[float, float, float]:
    """Move prod: when that began, when the release served everybody, and when the swap is over."""
    began = time.perf_counter()
    move(release_id)
    while httpx.get(f"{gateway.url}/readyz").json()["serving"] != {NAME: expected}:
        time.sleep(0.05)
    served = time.perf_counter()
    time.sleep(AFTER_S)
    return began, served, time.perf_counter()


def p99(seconds: list[float]) -> float:
    return float(np.percentile(seconds, 99)) * 1000


def test_swaps_under_load(home_with_models: Settings, fake_engine: FakeEngine, tmp_path: Path, report: Report) -> None:
    settings, folder = home_with_models, tmp_path / "notes"
    generator = {"engine": "openai", "model": "fake", "base_url": fake_engine.base_url}
    write_assistant(folder, generator=generator, embedder={"model": "minilm"})
    first = build(folder)
    swaps: list[tuple[float, float, float]] = []
    with operator() as move, running_gateway(settings) as gateway, SteadyLoad(gateway) as load:
        load.more(100)
        write_assistant(folder, generator=generator, embedder={"model": "bge-small"})
        second = build(folder)
        assert load_assistant(folder).embedder.model == "bge-small"
        time.sleep(2)
        began = time.perf_counter()
        time.sleep(STEADY_S)
        swaps.append(swapped(gateway, move, second, second))
        for number in range(SWAPS):
            time.sleep(STEADY_S / 2)
            back = number % 2 == 0
            swaps.append(swapped(gateway, move, "" if back else second, first if back else second))
    lost = len(load.failed) + len(mixed(load))
    number = len(load.answered) + len(load.failed)
    report("requests under a migration and 20 swaps, failed or mixed", f"{lost}", f"{number}", lost / number, "0")
    assert load.failed == []
    assert mixed(load) == []
    events = Releases(Lakehouse.open(settings), NAME).channels.events()["action"].to_list()
    assert events.count("rollback") == SWAPS / 2

    measured = [answer for answer in load.answered if answer.started >= began]
    around = [a.seconds for a in measured if any(b <= a.started + a.seconds and a.started <= e for b, _, e in swaps)]
    cold = [a.seconds for a in measured if swaps[0][0] <= a.started + a.seconds and a.started <= swaps[0][2]]
    steady = [a.seconds for a in measured if a.seconds not in set(around)]
    until_served = sorted(served - at for at, served, _ in swaps)
    print(
        f"\n{len(around)} requests around {len(swaps)} swaps, {len(steady)} between; median"
        f" {statistics.median(around) * 1000:.0f} and {statistics.median(steady) * 1000:.0f} ms; the first swap, which loads"
        f" the embedder: p99 {p99(cold):.0f} ms; served after {until_served[len(until_served) // 2]:.1f} s,"
        f" at most {until_served[-1]:.1f} s"
    )
    report(
        f"p99 around {len(swaps)} promotions and rollbacks, beside that between them",
        f"{p99(around):.0f} ms",
        f"{p99(steady):.0f} ms",
        p99(around) / p99(steady),
        "at most 3",
    )
    report(
        "rollback or promotion until the gateway serves it, longest",
        f"{until_served[-1]:.1f} s",
        "5 s",
        until_served[-1] / 5,
        "at most 1",
    )
    assert p99(around) <= 3 * p99(steady)
    assert until_served[-1] <= 5
