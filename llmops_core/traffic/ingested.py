"""Reads requests that Iceberg has."""

import polars as pl

from llmops_core.lakehouse.table import LakeTable
from llmops_core.traffic.columns import request_rows
from llmops_core.traffic.row import RequestRow


def find_request(table: LakeTable, request_id: str) -> RequestRow | None:
    """One request of an assistant's `traffic_requests`; None if it is not there."""
    rows = request_rows(table.scan().filter(pl.col("request_id") == request_id).head(1).collect())
    return rows[0] if rows else None
