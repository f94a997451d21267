"""Who meets the canary: the same users always, and as many as the plan says."""

from dataclasses import replace

import pytest

from llmops_core.ids import uuid7
from llmops_core.release.arms import Experiment, Plan

PLAN = Plan("share", 0.1, 200, 24, 0.05, ("errors", "latency", "empty", "feedback"), "r0")
USERS = [f"user-{number}" for number in range(20_000)]
EXPERIMENTS = [Experiment(f"01a20ee5-8987-70df-b17d-{number:012}", "r1", PLAN) for number in range(2)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_as_many_users_are_drawn_as_the_plan_says(share: float) -> None:
    for experiment in EXPERIMENTS:
        found = replace(experiment, plan=replace(PLAN, share=share))
        drawn = sum(found.drawn(user) for user in USERS)
        # Four standard deviations of a binomial.
        assert abs(drawn - share * len(USERS)) < 4 * (len(USERS) * share * (1 - share)) ** 0.5


def test_a_user_stays_in_its_arm_also_after_fresh_documents() -> None:
    before = EXPERIMENTS[0]
    after = Experiment.from_dict(replace(before, release_id="r2").to_dict())
    assert [before.drawn(user) for user in USERS] == [after.drawn(user) for user in USERS]


def test_each_experiment_mixes_the_users_anew() -> None:
    first, second = ({user for user in USERS if experiment.drawn(user)} for experiment in EXPERIMENTS)
    # One in ten of those of the first, and not all or none.
    assert 0.06 < len(first & second) / len(first) < 0.14


def test_users_that_are_drawn_by_a_small_share_are_drawn_by_a_large_one() -> None:
    small, large = (replace(EXPERIMENTS[0], plan=replace(PLAN, share=share)) for share in (0.1, 0.3))
    assert {u for u in USERS if small.drawn(u)} < {u for u in USERS if large.drawn(u)}


def test_an_experiment_began_when_its_event_says() -> None:
    first, second = (Experiment(uuid7(), "r1", PLAN).began_at for _ in range(2))
    assert first <= second
    assert first.tzinfo is not None


def test_a_name_that_is_no_text_has_an_arm() -> None:
    assert EXPERIMENTS[0].drawn("\ud800") in (True, False)
