import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from llmops_core.errors import PermanentError
from llmops_core.traffic.row import FeedbackRow, RequestRow

MakeRow = Callable[..., RequestRow]


def test_a_request_row_survives_json(request_row: MakeRow) -> None:
    row = request_row()
    assert RequestRow.from_payload(json.loads(json.dumps(row.to_payload()))) == row


def test_a_feedback_row_survives_json(feedback_row: FeedbackRow) -> None:
    assert FeedbackRow.from_payload(json.loads(json.dumps(feedback_row.to_payload()))) == feedback_row


def test_a_refused_request_is_a_row_too(request_row: MakeRow) -> None:
    row = request_row(status=400, release_id=None, query_vector=None, prompt=None, chunks=[], citations=[], answer=None)
    assert RequestRow.from_payload(json.loads(json.dumps(row.to_payload()))) == row


def test_the_request_id_stands_first(request_row: MakeRow) -> None:
    assert next(iter(request_row().to_payload())) == "request_id"


def test_a_query_vector_comes_back_bit_by_bit(request_row: MakeRow) -> None:
    vector = np.random.default_rng(1).standard_normal(384).astype(np.float32)
    row = RequestRow.from_payload(request_row(query_vector=vector).to_payload())
    assert row.query_vector is not None
    assert np.array_equal(np.asarray(row.query_vector, dtype=np.float32), vector)


def test_times_are_utc_with_microseconds(request_row: MakeRow) -> None:
    local = datetime(2026, 3, 1, 14, 0, tzinfo=timezone(timedelta(hours=2)))
    payload = request_row(started_at=local).to_payload()
    assert payload["started_at"] == "2026-03-01T12:00:00.000000+00:00"
    assert RequestRow.from_payload(payload).started_at == datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_unknown_and_missing_keys_are_named(request_row: MakeRow, feedback_row: FeedbackRow) -> None:
    payload = request_row(request_id="r1").to_payload()
    payload["colour"] = payload.pop("answer")
    with pytest.raises(PermanentError, match=r"RequestRow r1 .*unknown keys \['colour'\], missing keys \['answer'\]"):
        RequestRow.from_payload(payload)
    with pytest.raises(PermanentError, match=r"missing keys \['thumbs'\]"):
        FeedbackRow.from_payload({k: v for k, v in feedback_row.to_payload().items() if k != "thumbs"})
    chunk = {**request_row().chunks[0].to_payload(), "text": "?"}
    with pytest.raises(PermanentError, match=r"LoggedChunk.*unknown keys \['text'\]"):
        RequestRow.from_payload({**request_row().to_payload(), "chunks": [chunk]})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("started_at", "yesterday"),
        ("started_at", "2026-03-01T12:00:00"),
        ("started_at", None),
        ("query_vector", "AAA"),
        ("query_vector", "AAAA"),
        ("chunks", 3),
    ],
)
def test_a_value_that_cannot_be_read_is_named(request_row: MakeRow, key: str, value: object) -> None:
    with pytest.raises(PermanentError, match=f"RequestRow r1: {key} cannot be read"):
        RequestRow.from_payload({**request_row(request_id="r1").to_payload(), key: value})
