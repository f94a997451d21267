"""Shipped spool segments whose rows both traffic tables have.

What lies in a gateway's own spool is the gateways' to ship and to forget, also when its gateway is gone (see
llmops_gateway/spools.py). The marks `spool.<gateway_id>` stay for good: without its mark, a segment that comes late would be
taken twice.
"""

from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.traffic.columns import TRAFFIC_TABLES
from llmops_core.traffic.ingest import taken_by_all
from llmops_core.traffic.segments import gateways, numbers_upto, remove_upto


def plan_segments(lakehouse: Lakehouse, assistant: str) -> dict[str, tuple[int, int]]:
    """Gateway → (last segment that both tables have, number of segments up to it that are still there)."""
    filesystem, root = lakehouse.spool()
    taken = taken_by_all(lakehouse.table(assistant, name) for name in TRAFFIC_TABLES)
    return {
        gateway_id: (upto, len(numbers_upto(filesystem, root, assistant, gateway_id, upto)))
        for gateway_id in gateways(filesystem, root, assistant)
        for upto in [taken[gateway_id]]
    }


def apply_segments(lakehouse: Lakehouse, assistant: str, plan: dict[str, tuple[int, int]]) -> None:
    """Delete the planned segments."""
    filesystem, root = lakehouse.spool()
    for gateway_id, (upto, _) in plan.items():
        remove_upto(filesystem, root, assistant, gateway_id, upto)
