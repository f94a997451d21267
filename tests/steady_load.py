"""Clients that ask a gateway steadily, through OpenAI's client, while something is changed under it."""

import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import openai

from llmops_core.lakehouse.lakehouse import Lakehouse
from tests.running_gateway import NAME, QUESTION, Running, until


@dataclass(frozen=True)
class Asked:
    """A question that was answered: when it was asked, how long that took, and which release answered."""

    started: float
    seconds: float
    request_id: str
    release_id: str


@dataclass
class SteadyLoad:
    """Some clients, each with a pause after each answer; whatever fails is kept, and nothing is tried again."""

    gateway: Running
    clients: int = 2
    pause_s: float = 0.05
    answered: list[Asked] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on) for _ in range(self.clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def more(self, number: int = 10) -> None:
        """Return when so many more were answered, or one failed."""
        wanted = len(self.answered) + number
        until(lambda: True if len(self.answered) >= wanted or self.failed else None)

    def _ask_on(self) -> None:
        messages: Any = [{"role": "user", "content": QUESTION}]
        with openai.OpenAI(base_url=f"{self.gateway.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
            while not self._stop.wait(self.pause_s):
                started = time.perf_counter()
                try:
                    reply = client.chat.completions.with_raw_response.create(model=NAME, messages=messages)
                    answer = reply.parse()
                except openai.OpenAIError as error:
                    self.failed.append(str(error))
                    continue
                seconds = time.perf_counter() - started
                self.answered.append(Asked(started, seconds, answer.id, str(reply.headers["x-llmops-release"])))


def logged(load: SteadyLoad) -> list[dict[str, Any]]:
    """The rows of all that was answered, once all are in the lakehouse's storage."""
    asked = {answer.request_id for answer in load.answered}

    def look() -> list[dict[str, Any]] | None:
        rows = [row for row in load.gateway.shipped_requests() if row["request_id"] in asked]
        return rows if len(rows) == len(asked) else None

    return until(look)


def mixed(load: SteadyLoad) -> list[str]:
    """Ids of the requests whose query was embedded by another embedder than the chunks of the index that it was sent to."""
    built = Lakehouse.open(load.gateway.settings).table(NAME, "index_vector_index").read()
    embedders = dict(built.select("index_version", "embedder_revision").iter_rows())
    return [row["request_id"] for row in logged(load) if row["embedder_revision"] != embedders[row["index_version"]]]
