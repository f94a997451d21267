"""Copies of requests that the canary answers for nobody, behind the users' backs and never in their way.

One copy at a time, in a thread and a task of their own. Where the canary's engine is a local one, which decodes one answer at a
time and may be prod's as well, a copy waits until no user's request is under way, and makes way for one that comes: then it is
begun anew, so that long answers are not missing from the log because they are long.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import aiohttp
from starlette.types import ASGIApp, Receive, Scope, Send

from llmops_core.errors import EngineError
from llmops_core.ids import uuid7
from llmops_core.traffic.row import RequestRow
from llmops_gateway.answer import Answer
from llmops_gateway.errors import status_of
from llmops_gateway.protocol import ChatRequest
from llmops_gateway.releases import Served

log = logging.getLogger("llmops.gateway")

# Copies that wait; of more, none is made.
WAITING_COPIES = 100
CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Copy:
    """A request to answer once more."""

    request_id: str
    """Of the original."""
    request: ChatRequest
    served: Served


class Shadows:
    """Answers copies in the background."""

    def __init__(
        self, answer: Callable[[Copy], Awaitable[RequestRow]], append: Callable[[RequestRow], Awaitable[None]]
    ) -> None:
        self._answer = answer
        self._append = append
        self._waiting: deque[Copy] = deque()
        self._users = 0
        self._changed = asyncio.Condition()
        self._at_work: tuple[Copy, asyncio.Task[None]] | None = None
        self._loop: asyncio.Task[None]

    def start(self) -> None:
        """Begin; from a running event loop."""
        self._loop = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Leave the copies that wait, and the one at work."""
        self._loop.cancel()
        await asyncio.gather(self._loop, return_exceptions=True)

    async def offer(self, copy: Copy) -> None:
        """Have the request answered once more, some time; not if too many wait already."""
        if len(self._waiting) < WAITING_COPIES:
            async with self._changed:
                self._waiting.append(copy)
                self._changed.notify_all()

    def user_came(self) -> None:
        """A user's request begins."""
        self._users += 1
        if self._at_work and _shares_cores(self._at_work[0]):
            self._at_work[1].cancel()

    async def user_went(self) -> None:
        """A user's request has ended."""
        self._users -= 1
        async with self._changed:
            self._changed.notify_all()

    async def _run(self) -> None:
        while True:
            async with self._changed:
                await self._changed.wait_for(self._may_begin)
            copy = self._waiting[0]
            task = asyncio.ensure_future(self._log(copy))
            self._at_work = (copy, task)
            try:
                await asyncio.wait({task})
            finally:
                self._at_work = None
                task.cancel()
            if task.cancelled():
                continue
            self._waiting.popleft()
            if error := task.exception():
                log.error("The copy of %s is not in the request log: %s", copy.request_id, error)

    def _may_begin(self) -> bool:
        return bool(self._waiting) and (self._users == 0 or not _shares_cores(self._waiting[0]))

    async def _log(self, copy: Copy) -> None:
        row = await self._answer(copy)
        # From here on it makes way no more: it would be logged twice.
        self._at_work = None
        await self._append(replace(row, shadow_of=copy.request_id))


class CountsUsers:
    """Middleware: tells the shadows when users' requests begin and end."""

    def __init__(self, app: ASGIApp, shadows: Shadows) -> None:
        self._app = app
        self._shadows = shadows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        if scope["type"] != "http" or scope["path"] != CHAT:
            await self._app(scope, receive, send)
            return
        self._shadows.user_came()
        try:
            await self._app(scope, receive, send)
        finally:
            await self._shadows.user_went()


def _shares_cores(copy: Copy) -> bool:
    return copy.served.release.manifest.generator.engine == "local"


async def answered(
    copy: Copy, session: aiohttp.ClientSession, threads: Executor, failed: Callable[[Served, EngineError], None]
) -> RequestRow:
    """The log row of a copy: its answer, or what the user would have met. `failed` is told of an engine that did."""
    answer = Answer(uuid7(), copy.request, copy.served, session, threads)
    try:
        await answer.prepare()
        async for _ in answer.pieces():
            pass
    except Exception as error:  # whatever it is, it is what the user would have met
        if isinstance(error, EngineError):
            failed(copy.served, error)
        return answer.row(status_of(error), error)
    return answer.row(200)
