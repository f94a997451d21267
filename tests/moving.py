"""Moves channels past the gate, as tests need them to stand."""

from collections.abc import Mapping

from llmops_core.lakehouse.table import Provenance
from llmops_core.release.channels import Channels, Pointer, Step


def move(
    channels: Channels,
    channel: str,
    release_id: str,
    *,
    action: str = "promote",
    expected: Mapping[str, Pointer] | None = None,
) -> Pointer:
    """Point a channel to a release; `expected` is the state that the move was decided on, by default the present one."""
    seen = channels.state() if expected is None else expected
    step = Step(channel, release_id, action)
    return channels.take([step], author="test", reason="test", provenance=Provenance("test"), expected=seen)[channel]
