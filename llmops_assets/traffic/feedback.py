"""`traffic/feedback`: what people said of answers; the last word counts, the history is kept."""

import dagster as dg

from llmops_assets.traffic.requests import traffic_table
from llmops_core.assistant import Assistant


def feedback(assistant: Assistant) -> dg.AssetsDefinition:
    """Feedback, joined to its request by `request_id`."""
    return traffic_table(
        assistant, "feedback", "feedback", "One row a message of feedback: thumbs, score, comment, corrected answer."
    )
