"""Identifiers."""

import time

from llmops_core.ids import canonical_json, content_hash, uuid7, uuid7_time_ms


def test_equal_content_has_an_equal_id_whatever_the_order_of_its_keys() -> None:
    assert content_hash({"a": 1, "b": [1, "ü"]}) == content_hash({"b": [1, "ü"], "a": 1})
    assert canonical_json({"b": 1, "a": "ü"}) == '{"a":"ü","b":1}'
    assert content_hash("a") != content_hash("b")


def test_request_ids_sort_by_time() -> None:
    before = time.time_ns() // 1_000_000
    ids = [uuid7() for _ in range(100)]
    after = time.time_ns() // 1_000_000
    times = [uuid7_time_ms(i) for i in ids]
    assert len(set(ids)) == 100
    assert all(before <= t <= after for t in times)
    assert times == sorted(times)
