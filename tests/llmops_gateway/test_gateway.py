"""The gateway as its clients meet it: a process of its own, asked through OpenAI's client, in front of a fake engine."""

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import openai
import pytest
import uvicorn
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from llmops_core.assistant import Assistant, load_assistant
from llmops_core.ids import uuid7
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings, load_settings
from llmops_core.traffic.segments import gateways, segments_after

TEMPLATE = Path(__file__).resolve().parents[2] / "llmops_cli" / "new_assistant" / "prompts" / "answer.jinja"
DOCUMENTS = {
    "tea.md": "# Tea\n\nGreen tea is brewed at eighty degrees for two minutes.\n",
    "bread.md": "# Bread\n\nBread dough rests for one hour before it is baked.\n",
    "bikes.md": "# Bikes\n\nA bike chain is oiled every three hundred kilometres.\n",
}
QUESTION = "How hot should the water for green tea be?"
PIECES = ("Eighty ", "degrees ", "[1].")
WAIT_S = 30.0

T = TypeVar("T")


def until(look: Callable[[], T | None]) -> T:
    """What `look` finds, once it finds something."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.1)
    raise AssertionError(f"nothing after {WAIT_S} s")


class FakeEngine:
    """A generator that streams the same answer always, and fails as it is told to."""

    def __init__(self) -> None:
        self.behaviour = "normal"
        self.received: list[dict[str, Any]] = []
        app = Starlette(routes=[Route("/v1/chat/completions", self._answer, methods=["POST"])])
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="critical", log_config=None))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})

    def __enter__(self) -> "FakeEngine":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    async def _answer(self, request: Request) -> Response:
        self.received.append(await request.json())
        if self.behaviour == "error":
            return JSONResponse({"error": {"message": "out of memory", "code": None}}, status_code=500)
        return StreamingResponse(self._events(self.behaviour), media_type="text/event-stream")

    async def _events(self, behaviour: str) -> AsyncIterator[str]:
        yield _event(choices=[{"index": 0, "delta": {"content": PIECES[0]}, "finish_reason": None}])
        if behaviour == "hang up":
            raise ConnectionError("the engine dies")
        for _ in range(1_000 if behaviour == "slow" else 0):
            await asyncio.sleep(0.05)
            yield _event(choices=[{"index": 0, "delta": {"content": "… "}, "finish_reason": None}])
        for piece in PIECES[1:]:
            yield _event(choices=[{"index": 0, "delta": {"content": piece}, "finish_reason": None}])
        yield _event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
        if behaviour != "uncounted":
            yield _event(choices=[], usage={"prompt_tokens": 40, "completion_tokens": 5, "total_tokens": 45})
        yield "data: [DONE]\n\n"


def _event(**value: Any) -> str:
    return f"data: {json.dumps(value)}\n\n"


@dataclass
class Running:
    """A gateway that runs, its engine, and what was asked of it."""

    url: str
    settings: Settings
    assistant: Assistant
    engine: FakeEngine
    client: openai.OpenAI
    answered: list[str] = field(default_factory=list)

    def raw(self, content: str = QUESTION, model: str = "notes", **more: Any) -> tuple[Any, Mapping[str, str]]:
        """Ask for a whole answer; the answer and the headers that it came with."""
        messages = more.pop("messages", [{"role": "user", "content": content}])
        reply = self.client.chat.completions.with_raw_response.create(model=model, messages=messages, **more)
        completion = reply.parse()
        self.answered.append(completion.id)
        return completion, reply.headers

    def ask(self, content: str = QUESTION, model: str = "notes", **more: Any) -> Any:
        """Ask for a whole answer."""
        return self.raw(content, model, **more)[0]

    def stream(self, **more: Any) -> Any:
        """Ask for a streamed answer."""
        messages: Any = [{"role": "user", "content": QUESTION}]
        return self.client.chat.completions.create(model="notes", messages=messages, stream=True, **more)

    def logged(self, request_id: str) -> dict[str, Any]:
        """The row of a request, once it is there."""

        def look() -> dict[str, Any] | None:
            reply = httpx.get(f"{self.url}/v1/requests/{request_id}")
            return dict(reply.json()) if reply.status_code == 200 else None

        return until(look)

    def shipped(self) -> list[dict[str, Any]]:
        """All lines of the log that are in the lakehouse's storage."""
        filesystem, root = Lakehouse.open(self.settings).spool()
        return [
            line
            for gateway_id in gateways(filesystem, root, "notes")
            for segment in segments_after(filesystem, root, "notes", gateway_id, 0)
            for line in segment.rows
        ]

    def feedback(self, **body: Any) -> httpx.Response:
        """Post feedback."""
        return httpx.post(f"{self.url}/v1/feedback", json=body)


@pytest.fixture(scope="module")
def gateway(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    from llmops_cli.build import build

    home = tmp_path_factory.mktemp("home")
    folder = tmp_path_factory.mktemp("notes")
    (home / "models").symlink_to(models)
    (folder / "docs").mkdir()
    for name, text in DOCUMENTS.items():
        (folder / "docs" / name).write_text(text, encoding="utf-8")
    (folder / "prompts").mkdir()
    shutil.copy(TEMPLATE, folder / "prompts" / "answer.jinja")
    with pytest.MonkeyPatch.context() as patch, FakeEngine() as engine:
        patch.setenv("LLMOPS_HOME", str(home))
        patch.setenv("DAGSTER_HOME", str(home / "dagster"))
        description = {
            "name": "notes",
            "sources": [{"type": "folder", "path": "docs"}],
            "generator": {"engine": "openai", "model": "fake", "base_url": engine.base_url},
        }
        (folder / "assistant.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
        settings, assistant = load_settings(), load_assistant(folder)
        build(settings, assistant)
        with (home / "gateway.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "llmops_cli.main", "serve", "--port", "0", "--json"],
                stdout=subprocess.PIPE,
                stderr=log,
            )
        try:
            assert process.stdout
            url = str(json.loads(process.stdout.readline())["url"])
            until(lambda: _ready(url))
            with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=WAIT_S) as client:
                yield Running(url, settings, assistant, engine, client)
        finally:
            process.terminate()
            process.wait(60)
            assert process.stdout
            process.stdout.close()


def _ready(url: str) -> bool | None:
    try:
        return True if httpx.get(f"{url}/readyz").status_code == 200 else None
    except httpx.TransportError:
        return None


@pytest.fixture
def behave(gateway: Running) -> Iterator[Callable[[str], None]]:
    """Sets how the engine behaves until the test is over."""
    yield lambda behaviour: setattr(gateway.engine, "behaviour", behaviour)
    gateway.engine.behaviour = "normal"


def test_an_answer_says_which_chunks_it_was_made_from(gateway: Running) -> None:
    completion, headers = gateway.raw()
    assert completion.choices[0].message.content == "".join(PIECES)
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.total_tokens == 45
    made_from = completion.model_extra["llmops"]
    assert made_from["request_id"] == completion.id == headers["x-request-id"]
    assert made_from["release_id"] == headers["x-llmops-release"]
    documents = Lakehouse.open(gateway.settings).table("notes", "corpus_documents").read()
    texts = dict(zip(documents["document_id"], documents["text"], strict=True))
    assert made_from["chunks"]
    for chunk in made_from["chunks"]:
        assert texts[chunk["document_id"]][chunk["char_start"] : chunk["char_end"]] == chunk["text"]
    assert "eighty degrees" in made_from["chunks"][0]["text"]
    assert made_from["chunks"][0]["cited"] is not None


def test_a_streamed_answer_is_the_same_answer(gateway: Running) -> None:
    chunks = list(gateway.stream(stream_options={"include_usage": True}))
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == "".join(PIECES)
    last = [chunk for chunk in chunks if chunk.choices][-1]
    assert last.choices[0].finish_reason == "stop"
    assert last.model_extra["llmops"]["request_id"] == last.id
    assert chunks[-1].usage.prompt_tokens == 40
    row = gateway.logged(last.id)
    assert (row["status"], row["stream"], row["answer"]) == (200, True, "".join(PIECES))
    gateway.answered.append(last.id)


def test_usage_is_streamed_only_to_those_who_ask(gateway: Running) -> None:
    assert all(chunk.usage is None for chunk in gateway.stream())


def test_an_engine_that_counts_no_tokens_answers_all_the_same(gateway: Running, behave: Callable[[str], None]) -> None:
    behave("uncounted")
    completion = gateway.ask()
    assert completion.choices[0].message.content == "".join(PIECES)
    assert completion.usage is None
    assert gateway.logged(completion.id)["prompt_tokens"] is None


def test_earlier_turns_reach_the_engine(gateway: Running) -> None:
    turns = [
        {"role": "user", "content": "How long does bread dough rest?"},
        {"role": "assistant", "content": "One hour."},
        {"role": "user", "content": "And how often is a bike chain oiled?"},
    ]
    completion = gateway.ask(messages=turns)
    sent = gateway.engine.received[-1]["messages"]
    assert [m["role"] for m in sent if m["role"] != "system"] == ["user", "assistant", "user"]
    assert "One hour." in sent[-2]["content"]
    assert "bike chain" in completion.model_extra["llmops"]["chunks"][0]["text"]


def test_an_unknown_model_is_answered_with_the_known_ones(gateway: Running) -> None:
    with pytest.raises(openai.NotFoundError, match="notes@prod"):
        gateway.ask(model="letters")


def test_an_unknown_release_is_not_found(gateway: Running) -> None:
    with pytest.raises(openai.NotFoundError, match="0123456789abcdef"):
        gateway.ask(model="notes@0123456789abcdef")


def test_what_the_gateway_does_not_carry_out_is_refused_by_name(gateway: Running) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    with pytest.raises(openai.BadRequestError, match="tools"):
        gateway.ask(tools=[tool])


def test_a_body_that_is_no_json_is_a_bad_request(gateway: Running) -> None:
    reply = httpx.post(f"{gateway.url}/v1/chat/completions", content=b"{not json")
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"


def test_a_release_is_asked_for_by_channel_or_id(gateway: Running) -> None:
    release_id = gateway.ask().model_extra["llmops"]["release_id"]
    for reference in ("dev", release_id):
        completion = gateway.ask(model=f"notes@{reference}")
        assert completion.model_extra["llmops"]["release_id"] == release_id
    assert gateway.logged(completion.id)["channel"] == "pinned"


def test_models_are_listed(gateway: Running) -> None:
    names = {model.id for model in gateway.client.models.list()}
    assert {"notes", "notes@dev", "notes@prod"} <= names
    assert gateway.client.models.retrieve("notes@dev").id == "notes@dev"


def test_a_request_can_be_looked_up(gateway: Running) -> None:
    completion = gateway.ask(user="ada")
    row = gateway.logged(completion.id)
    assert (row["status"], row["user"], row["query"]) == (200, "ada", QUESTION)
    assert [chunk["chunk_id"] for chunk in row["chunks"]] == [
        chunk["chunk_id"] for chunk in completion.model_extra["llmops"]["chunks"]
    ]
    assert httpx.get(f"{gateway.url}/v1/requests/{uuid7()}").status_code == 404


def test_feedback_is_taken_for_a_known_request(gateway: Running) -> None:
    completion = gateway.ask()
    chunk_id = completion.model_extra["llmops"]["chunks"][0]["chunk_id"]
    reply = gateway.feedback(request_id=completion.id, thumbs=1, chunk_ratings={chunk_id: 1})
    assert reply.status_code == 200
    assert reply.json()["request_id"] == completion.id


def test_feedback_that_fits_no_answer_is_refused(gateway: Running) -> None:
    completion = gateway.ask()
    assert gateway.feedback(request_id=uuid7(), thumbs=1).status_code == 404
    assert gateway.feedback(request_id=completion.id).status_code == 400
    refused = gateway.feedback(request_id=completion.id, chunk_ratings={"nochunk": 1})
    assert refused.status_code == 400
    assert "nochunk" in refused.json()["error"]["message"]


def test_an_engine_that_fails_is_reported_and_logged(gateway: Running, behave: Callable[[str], None]) -> None:
    behave("error")
    with pytest.raises(openai.InternalServerError, match="out of memory") as failed:
        gateway.ask(user="unlucky")
    assert failed.value.status_code == 503

    def look() -> dict[str, Any] | None:
        rows = (line["payload"] for line in gateway.shipped() if line["kind"] == "request")
        return next((row for row in rows if row["user"] == "unlucky"), None)

    row = until(look)
    assert (row["status"], row["error_type"]) == (503, "EngineError")
    assert not row["answer"]


def test_an_engine_that_dies_in_mid_stream_ends_the_answer_with_an_error(
    gateway: Running, behave: Callable[[str], None]
) -> None:
    behave("hang up")
    stream = gateway.stream()
    opening = next(stream)
    with pytest.raises(openai.APIError, match="engine"):
        list(stream)
    row = gateway.logged(opening.id)
    assert (row["status"], row["error_type"], row["answer"]) == (503, "EngineError", PIECES[0])


def test_a_client_that_goes_away_is_logged(gateway: Running, behave: Callable[[str], None]) -> None:
    behave("slow")
    stream = gateway.stream()
    chunk = next(chunk for chunk in stream if chunk.choices[0].delta.content)
    stream.close()
    row = gateway.logged(chunk.id)
    assert row["status"] == 499
    assert row["answer"].startswith(PIECES[0])


def test_the_gateway_is_healthy_and_says_what_it_serves(gateway: Running) -> None:
    assert httpx.get(f"{gateway.url}/healthz").json()["status"] == "ok"
    ready = httpx.get(f"{gateway.url}/readyz").json()
    assert ready["serving"].keys() == {"notes"}
    assert ready["home"] == str(gateway.settings.home)


def test_every_answer_and_feedback_is_ingested_exactly_once(gateway: Running) -> None:
    from llmops_cli.runs import run_job

    asked = [gateway.ask().id for _ in range(3)]
    said = gateway.feedback(request_id=asked[0], score=0.5).json()["feedback_id"]
    wanted = {*gateway.answered, said}

    def look() -> bool | None:
        there = {line["payload"].get("feedback_id", line["payload"]["request_id"]) for line in gateway.shipped()}
        return True if wanted <= there else None

    until(look)
    for _ in range(2):
        run_job(gateway.settings, gateway.assistant, "traffic_ingest")
    lakehouse = Lakehouse.open(gateway.settings)
    request_ids = lakehouse.table("notes", "traffic_requests").read()["request_id"].to_list()
    assert len(request_ids) == len(set(request_ids))
    assert set(gateway.answered) <= set(request_ids)
    feedback = lakehouse.table("notes", "traffic_feedback").read()
    assert feedback["feedback_id"].to_list().count(said) == 1


def test_a_promoted_release_is_served_by_the_running_gateway(gateway: Running) -> None:
    releases = Releases(Lakehouse.open(gateway.settings), "notes")
    manifest = releases.get("prod").manifest
    retrieval = manifest.retrieval.model_copy(update={"top_k": 1})
    provenance = Provenance("test")
    release, new = releases.create(
        manifest.model_copy(update={"retrieval": retrieval}), author="test", message="one chunk", provenance=provenance
    )
    assert new
    releases.channels.move(
        "prod", release.release_id, action="promote", author="test", reason="test", provenance=provenance
    )

    def look() -> Any:
        completion, headers = gateway.raw()
        return completion if headers["x-llmops-release"] == release.release_id else None

    assert len(until(look).model_extra["llmops"]["chunks"]) == 1
