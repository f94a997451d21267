"""What the tests of the spool share: rows to write, a running coroutine's condition, and what lies on disk afterwards."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow.fs import LocalFileSystem

from llmops_core.ids import uuid7
from llmops_core.traffic.row import FeedbackRow, LoggedChunk, RequestRow
from llmops_core.traffic.segments import Segment, segments_after

ASSISTANT = "helper"


@pytest.fixture
def request_row() -> Callable[..., RequestRow]:
    """Makes a complete request row; keyword arguments replace fields."""

    def make(**changes: Any) -> RequestRow:
        chunk = LoggedChunk(
            chunk_id="c1", document_id="d1", title="Sieben", char_start=3, char_end=90, score=0.5, rank=1
        )
        values: dict[str, Any] = {
            "request_id": uuid7(),
            "assistant": ASSISTANT,
            "started_at": datetime(2026, 3, 1, 12, 30, 0, 123456, UTC),
            "subject": "local",
            "user": "anna",
            "model": "helper@staging",
            "release_id": "r" * 32,
            "channel": "staging",
            "status": 200,
            "error_type": None,
            "error_message": None,
            "stream": True,
            "messages": [{"role": "user", "content": "How many? 七 🙂"}],
            "query": "How many?",
            "query_vector": np.linspace(-1, 1, 384, dtype=np.float32).tolist(),
            "embedder_revision": "minilm-0123456789ab",
            "index_version": "i" * 32,
            "prompt_name": "answer",
            "prompt_version": 1,
            "prompt_hash": "p" * 32,
            "prompt": [{"role": "system", "content": "Answer."}, {"role": "user", "content": "How many?"}],
            "chunks": [chunk],
            "cut": {"chunks": 1, "history": 0, "features": 0},
            "features": None,
            "generator_model": "smollm2-135m-instruct",
            "generator_revision": "smollm2-0123456789ab",
            "adapter": None,
            "sampling": {"max_tokens": 128, "temperature": 0.0, "top_p": 1.0, "seed": 2**70, "stop": []},
            "answer": "Seven [1].",
            "citations": [{"chunk_id": "c1", "number": 1, "by": "marker"}],
            "finish_reason": "stop",
            "prompt_tokens": 40,
            "completion_tokens": 5,
            "cost_basis": {"model": "m", "prompt_tokens": 40, "completion_tokens": 5, "engine_seconds": 0.25},
            "cache": None,
            "routing": None,
            "timings_ms": {"retrieve": 3.5, "total": 260.0},
            "reproducible": {"answer": True, "reason": None},
            "code_version": "0.1.0+abc",
            "lock_hash": "l" * 32,
        }
        return RequestRow(**{**values, **changes})

    return make


@pytest.fixture
def feedback_row() -> FeedbackRow:
    """A complete message of feedback."""
    return FeedbackRow(
        feedback_id=uuid7(),
        request_id=uuid7(),
        assistant=ASSISTANT,
        at=datetime(2026, 3, 1, 12, 31, tzinfo=UTC),
        subject="local",
        thumbs=-1,
        score=0.0,
        comment="wrong",
        corrected_answer="Eight",
        chunk_ratings={"c1": -1},
    )


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Waits, in an event loop, for a condition; fails after 20 seconds."""

    async def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, "the condition never came true"
            await asyncio.sleep(0.005)

    return wait


@pytest.fixture
def local_segments() -> Callable[[Path, str], list[Segment]]:
    """Reads the sealed segments of a gateway in a local spool (its layout is that of the lakehouse's storage)."""

    def read(root: Path, gateway_id: str) -> list[Segment]:
        return list(segments_after(LocalFileSystem(), str(root), ASSISTANT, gateway_id, 0))

    return read
