"""The gateway's application without a socket: clients that do what no real one can be made to do at the right moment."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from starlette.types import Message

from llmops_core.settings import Settings
from llmops_core.traffic.line import Kind
from llmops_core.traffic.spool import SpoolWriter
from llmops_core.traffic.waiting import Place
from llmops_gateway.gateway import Gateway
from llmops_gateway.protocol import Stream
from tests.fake_engine import PIECES
from tests.running_gateway import NAME, QUESTION, shipped


def _ask(settings: Settings, user: str, leaves: asyncio.Event) -> tuple[bytes, dict[str, Any]]:
    """Ask for a streamed answer as a client that leaves at this event; the body, and the one log row."""
    turns = [{"role": "user", "content": QUESTION}]
    asks = {"model": NAME, "stream": True, "user": user, "messages": turns}
    asked = iter([{"type": "http.request", "body": json.dumps(asks).encode()}])
    sent: list[Message] = []

    async def receive() -> Message:
        for message in asked:
            return message
        await leaves.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def ask() -> None:
        gateway = Gateway(settings)
        app = gateway.app()
        headers = [(b"host", b"127.0.0.1:8400"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers, "state": {}}
        async with app.router.lifespan_context(app):
            while not gateway.releases.serving():
                await asyncio.sleep(0.05)
            await app(scope, receive, send)

    asyncio.run(asyncio.wait_for(ask(), 120))
    (row,) = [line["payload"] for line in shipped(settings) if line["payload"].get("user") == user]
    return b"".join(message.get("body", b"") for message in sent), row


@pytest.mark.usefixtures("notes")
def test_a_client_that_leaves_while_the_row_is_written_has_one_row(
    shared_home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = asyncio.Event()
    really_append = SpoolWriter.append

    def append(spool: SpoolWriter, kind: Kind, payload: Mapping[str, Any]) -> asyncio.Future[Place]:
        writing.set()
        return really_append(spool, kind, payload)

    monkeypatch.setattr(SpoolWriter, "append", append)
    _, row = _ask(shared_home, "late", writing)
    assert (row["status"], row["answer"]) == (200, "".join(PIECES))


@pytest.mark.usefixtures("notes")
def test_a_fault_of_the_gateway_in_mid_stream_is_told_and_logged(
    shared_home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise RuntimeError("secret")

    monkeypatch.setattr(Stream, "text", fail)
    body, row = _ask(shared_home, "unlucky", asyncio.Event())
    assert b"its log says why" in body
    assert b"secret" not in body
    assert (row["status"], row["error_type"], row["error_message"]) == (500, "RuntimeError", "secret")
