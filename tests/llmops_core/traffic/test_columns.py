import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import polars as pl
import pytest

from llmops_core.errors import PermanentError
from llmops_core.traffic.columns import (
    FEEDBACK_COLUMNS,
    PLACE_COLUMNS,
    REQUEST_COLUMNS,
    feedback_frame,
    frame_schema,
    request_frame,
    request_rows,
)
from llmops_core.traffic.line import decode_line, encode_line, encode_payload
from llmops_core.traffic.row import FeedbackRow, RequestRow

MakeRow = Callable[..., RequestRow]


def lines(*payloads: Mapping[str, Any], kind: str = "request") -> list[dict[str, Any]]:
    encoded = [encode_line(kind, "gw", 7, n, encode_payload(payload)) for n, payload in enumerate(payloads)]
    return [decode_line(line[:-1], "gw", 7, n) for n, line in enumerate(encoded)]


def test_every_field_of_a_row_has_its_column() -> None:
    fields = [field.name.replace("code_version", "gateway_code_version") for field in dataclasses.fields(RequestRow)]
    assert list(REQUEST_COLUMNS) == [*fields, *PLACE_COLUMNS]
    assert list(FEEDBACK_COLUMNS) == [*(field.name for field in dataclasses.fields(FeedbackRow)), *PLACE_COLUMNS]


def test_request_rows_become_a_frame(request_row: MakeRow) -> None:
    row = request_row()
    empty = request_row(query_vector=None, chunks=[], prompt=None, cut=None, started_at=row.started_at)
    frame = request_frame(lines(row.to_payload(), empty.to_payload()))
    assert frame.schema == frame_schema(REQUEST_COLUMNS)
    first, second = frame.to_dicts()
    assert (first["gateway_id"], first["segment"], [first["row"], second["row"]]) == ("gw", 7, [0, 1])
    assert first["started_at"] == row.started_at
    assert json.loads(first["messages"]) == row.messages
    assert json.loads(first["sampling"])["seed"] == 2**70
    assert first["query_vector"] == row.query_vector
    assert first["chunks"] == [vars(chunk) for chunk in row.chunks]
    assert first["gateway_code_version"] == row.code_version
    assert (second["query_vector"], second["chunks"], second["prompt"], second["cut"]) == (None, [], None, None)


def test_a_frame_gives_back_the_rows_that_it_was_made_of(request_row: MakeRow) -> None:
    rows = [request_row(), request_row(query_vector=None, chunks=[], prompt=None, cut=None, answer=None)]
    assert request_rows(request_frame(lines(*(row.to_payload() for row in rows)))) == rows


def test_feedback_rows_become_a_frame(feedback_row: FeedbackRow) -> None:
    plain = dataclasses.replace(feedback_row, thumbs=None, score=None, chunk_ratings=None)
    frame = feedback_frame(lines(feedback_row.to_payload(), plain.to_payload(), kind="feedback"))
    assert frame.schema == frame_schema(FEEDBACK_COLUMNS)
    assert frame["thumbs"].to_list() == [-1, None]
    assert frame["chunk_ratings"].to_list() == ['{"c1": -1}', None]


def test_no_rows_are_an_empty_frame_of_the_same_columns() -> None:
    assert request_frame([]).schema == frame_schema(REQUEST_COLUMNS)
    assert feedback_frame([]).schema == frame_schema(FEEDBACK_COLUMNS)


def test_text_that_a_table_cannot_hold_does_not_stop_the_log(request_row: MakeRow) -> None:
    row = request_row(answer="half \ud83d", messages=[{"role": "user", "content": "\ud83d ok 🙂"}])
    (first,) = request_frame(lines(row.to_payload())).to_dicts()
    assert first["answer"] == "half ?"
    assert json.loads(first["messages"])[0]["content"] == "? ok 🙂"


@pytest.mark.parametrize(("key", "value"), [("status", "ok"), ("prompt_tokens", 2**40), ("answer", 3), ("stream", 2.5)])
def test_a_value_of_the_wrong_type_is_named_by_its_column(request_row: MakeRow, key: str, value: object) -> None:
    with pytest.raises(PermanentError, match=f"Column {key} .* gateway gw, segments 7 to 7"):
        request_frame(lines({**request_row().to_payload(), key: value}))


def test_a_whole_number_will_do_where_a_fraction_is_meant(feedback_row: FeedbackRow) -> None:
    frame = feedback_frame(lines(dataclasses.replace(feedback_row, score=1).to_payload(), kind="feedback"))
    assert frame["score"].to_list() == [1.0]
    assert frame.schema["score"] == pl.Float64
