"""Who meets the canary: the plan of an experiment, and the arm of each user.

The gateway decides with it and the comparison relies on it: an arm depends on the experiment and the user alone, so that a user
stays in it on every gateway and after fresh documents, and the users of one experiment are mixed anew for the next.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self

from llmops_core.ids import uuid7_time_ms

Metric = Literal["errors", "latency", "empty", "feedback"]
Mode = Literal["share", "shadow"]

_HASHES = 2**64


@dataclass(frozen=True)
class Plan:
    """How an experiment is to go: fixed when it begins, so that nobody changes it after a look at the results."""

    mode: Mode
    """`share`: some users are answered by the canary; `shadow`: it answers copies, and all users see prod."""
    share: float
    min_requests: int
    max_hours: float
    alpha: float
    metrics: tuple[Metric, ...]
    base: str
    """The release that was on prod."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "metrics": list(self.metrics)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_dict` made."""
        return cls(**{**value, "metrics": tuple(value["metrics"])})


@dataclass(frozen=True)
class Experiment:
    """A canary that runs."""

    experiment: str
    """The event that began it."""
    release_id: str
    """The canary's release now: fresh documents change it."""
    plan: Plan

    @property
    def began_at(self) -> datetime:
        """When it began: the event's id is a UUIDv7."""
        return datetime.fromtimestamp(uuid7_time_ms(self.experiment) / 1000, UTC)

    def drawn(self, user: str) -> bool:
        """Whether this user is one of the plan's share: answered by the canary, or with copies of the requests for it."""
        digest = hashlib.sha256(f"{self.experiment}:{user}".encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") < self.plan.share * _HASHES

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"experiment": self.experiment, "release_id": self.release_id, "plan": self.plan.to_dict()}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_dict` made."""
        return cls(value["experiment"], value["release_id"], Plan.from_dict(value["plan"]))
