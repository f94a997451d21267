"""A gateway is killed in the middle of streamed answers, again and again: who got a whole answer finds it in the log, once."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.settings import load_settings
from llmops_core.traffic.ingest import ingest
from tests.fake_engine import PIECES, FakeEngine
from tests.kills import KILLS, Killable, needs_seccomp, seed
from tests.running_gateway import NAME, QUESTION, release_by_words, until

pytestmark = needs_seccomp

RUN = Provenance("run")
CLIENTS, STREAMS = 4, 3


@pytest.fixture
def home(tmp_path: Path, fake_engine: FakeEngine) -> Path:
    """A home with a release on prod."""
    release_by_words(load_settings(home=tmp_path / "home"), fake_engine.base_url)
    return tmp_path / "home"


def serve(home: Path, listener: socket.socket) -> None:
    """What `llmops serve` does once it has its port."""
    from llmops_gateway import server

    server.serve(load_settings(home=home), listener)


@dataclass
class Asked:
    """What the clients of a gateway got: ids of answers that were whole, and of those that were cut short."""

    whole: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)

    def stream(self, url: str) -> None:
        """Ask some questions, one after the other, until the gateway is gone."""
        body = {"model": NAME, "stream": True, "messages": [{"role": "user", "content": QUESTION}]}
        for _ in range(STREAMS):
            events: list[str] = []
            with (
                suppress(httpx.TransportError),
                httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=120) as reply,
            ):
                assert reply.status_code == 200, reply.read()
                events.extend(line.removeprefix("data: ") for line in reply.iter_lines() if line)
            if not events:
                return
            request_id = json.loads(events[0])["id"]
            (self.whole if events[-1] == "[DONE]" else self.cut).append(request_id)


@contextmanager
def gateway(home: Path) -> Iterator[tuple[Killable, str]]:
    """A gateway that serves, and its address; it is not over at the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = Killable(serve, home, listener)
    until(lambda: _is_ready(url))
    yield process, url


def _is_ready(url: str) -> bool | None:
    with suppress(httpx.TransportError):
        return True if httpx.get(f"{url}/readyz", timeout=120).status_code == 200 else None
    return None


def ask_at_once(asked: Asked, url: str) -> None:
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(lambda _: asked.stream(url), range(CLIENTS)))


def test_whole_answers_of_a_killed_gateway_are_in_the_log_once(home: Path) -> None:
    asked, chance, kills = Asked(), Random(seed()), 0
    with gateway(home) as (process, url):
        before = process.writes
        ask_at_once(asked, url)
        writes = process.writes - before
        process.terminate()
        assert process.join()
    while kills < KILLS:
        with gateway(home) as (process, url):
            for request_id in asked.whole[-2:]:
                assert httpx.get(f"{url}/v1/requests/{request_id}", timeout=120).json()["answer"] == "".join(PIECES)
            process.dies_at = process.writes + chance.randint(1, writes)
            ask_at_once(asked, url)
            process.terminate()
            kills += not process.join()
    with gateway(home) as (process, _):  # ships, when it ends, what the others left
        process.terminate()
        assert process.join()

    lakehouse = Lakehouse.open(load_settings(home=home))
    table = lakehouse.table(NAME, "traffic_requests")
    ingest(table, "request", *lakehouse.spool(), NAME, RUN)
    rows: dict[str, Any] = {row["request_id"]: row for row in table.read().iter_rows(named=True)}
    assert table.read().height == len(rows)
    print(f"{kills} kills, {len(asked.whole)} whole answers, {len(asked.cut)} cut short, {len(rows)} rows")
    assert set(asked.whole) <= rows.keys()
    assert {rows[request_id]["status"] for request_id in asked.whole} == {200}
    assert {row["answer"] for row in rows.values() if row["status"] == 200} == {"".join(PIECES)}
