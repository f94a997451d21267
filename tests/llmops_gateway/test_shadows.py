"""When copies are answered: one at a time, never in a user's way, and each until it is done."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llmops_core.traffic.row import RequestRow
from llmops_gateway.protocol import ChatMessage, ChatRequest
from llmops_gateway.releases import Served
from llmops_gateway.shadows import WAITING_COPIES, Copy, Shadows

REQUEST = ChatRequest(model="notes", messages=[ChatMessage(role="user", content="Why?")])
LONGEST_S = 30.0


def copy(number: int, engine: str = "local") -> Copy:
    release = SimpleNamespace(manifest=SimpleNamespace(generator=SimpleNamespace(engine=engine)))
    return Copy(f"q{number}", REQUEST, cast(Served, SimpleNamespace(release=release)))


@dataclass
class Engine:
    """Answers a copy when it is let; `began` counts the tries."""

    let: asyncio.Event = field(default_factory=asyncio.Event)
    began: list[str] = field(default_factory=list)
    logged: list[RequestRow] = field(default_factory=list)
    broken: bool = False

    async def answer(self, found: Copy) -> RequestRow:
        self.began.append(found.request_id)
        await self.let.wait()
        return RequestRow(
            request_id=f"copy of {found.request_id}",
            assistant="notes",
            started_at=datetime.now(UTC),
            subject="local",
            user="ann",
            model="notes",
            status=200,
            stream=False,
            messages=[],
            timings_ms={},
            code_version="1",
            lock_hash="1",
        )

    async def append(self, row: RequestRow) -> None:
        if self.broken:
            raise OSError("the disk is full")
        self.logged.append(row)


async def until(look: Callable[[], Any]) -> None:
    """Let the others go on until it is so."""
    async with asyncio.timeout(LONGEST_S):
        while not look():
            await asyncio.sleep(0)


def run(play: Callable[[Engine, Shadows], Awaitable[None]]) -> None:
    """Play with an engine, and shadows that are started."""

    async def whole() -> None:
        engine = Engine()
        shadows = Shadows(engine.answer, engine.append)
        shadows.start()
        try:
            await play(engine, shadows)
        finally:
            await shadows.stop()

    asyncio.run(whole())


def test_one_copy_is_answered_at_a_time_and_linked_to_its_original() -> None:
    async def play(engine: Engine, shadows: Shadows) -> None:
        for number in range(3):
            await shadows.offer(copy(number))
        await until(lambda: engine.began == ["q0"])
        engine.let.set()
        await until(lambda: len(engine.logged) == 3)
        assert [row.shadow_of for row in engine.logged] == ["q0", "q1", "q2"]

    run(play)


def test_with_a_local_engine_a_copy_waits_while_a_user_does() -> None:
    async def play(engine: Engine, shadows: Shadows) -> None:
        engine.let.set()
        shadows.user_came()
        await shadows.offer(copy(1))
        shadows.user_came()
        await shadows.user_went()
        await asyncio.sleep(0)
        assert engine.began == []
        await shadows.user_went()
        await until(lambda: len(engine.logged) == 1)

    run(play)


def test_a_user_who_comes_has_the_engine_at_once_and_the_copy_is_begun_anew() -> None:
    async def play(engine: Engine, shadows: Shadows) -> None:
        await shadows.offer(copy(1))
        await shadows.offer(copy(2))
        await until(lambda: engine.began == ["q1"])
        shadows.user_came()
        engine.let.set()
        await until(lambda: shadows._at_work is None)
        assert engine.logged == []
        await shadows.user_went()
        await until(lambda: len(engine.logged) == 2)
        # The one that made way is not lost, however long its answer is, and each is logged once.
        assert engine.began == ["q1", "q1", "q2"]

    run(play)


def test_a_server_elsewhere_answers_copies_beside_users() -> None:
    async def play(engine: Engine, shadows: Shadows) -> None:
        shadows.user_came()
        await shadows.offer(copy(1, "openai"))
        await until(lambda: engine.began == ["q1"])
        shadows.user_came()
        engine.let.set()
        await until(lambda: len(engine.logged) == 1)
        assert engine.began == ["q1"]

    run(play)


def test_of_more_copies_than_may_wait_none_is_made() -> None:
    async def play(engine: Engine, shadows: Shadows) -> None:
        shadows.user_came()
        for number in range(WAITING_COPIES + 5):
            await shadows.offer(copy(number))
        engine.let.set()
        await shadows.user_went()
        await until(lambda: len(engine.logged) == WAITING_COPIES)
        await asyncio.sleep(0)
        assert len(engine.began) == WAITING_COPIES

    run(play)


def test_a_copy_that_cannot_be_logged_is_told_and_the_next_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    async def play(engine: Engine, shadows: Shadows) -> None:
        engine.broken = True
        engine.let.set()
        await shadows.offer(copy(1))
        await until(lambda: "The copy of q1 is not in the request log: the disk is full" in caplog.text)
        engine.broken = False
        await shadows.offer(copy(2))
        await until(lambda: [row.shadow_of for row in engine.logged] == ["q2"])

    run(play)
