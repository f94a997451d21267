"""Before a release moves towards users: what evidence it needs, who may go without, and what is kept of it."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import polars as pl
import pytest

from llmops_core.assistant import Assistant
from llmops_core.errors import ConflictError, GateError, InvalidRequestError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release import moves
from llmops_core.release.canary import End, end, look, running
from llmops_core.release.channels import CANARY, Channels, Step
from llmops_core.release.history import Entry, history
from llmops_core.release.manifest import IndexPin, Manifest, Release
from llmops_core.release.moves import Mover
from llmops_core.release.publish import Move, follow, publish
from llmops_core.release.registry import Releases
from tests.llmops_core.release.evaluated import RUN, case_rows, result_rows, store
from tests.llmops_core.release.test_manifest import manifest
from tests.moving import move

CASES = 120
FOUND = [1.0] * CASES
LOST = [1.0] * 90 + [0.0] * 30
RULE = {"metric": "recall_at_5", "mode": "not_worse", "margin": 0.05}
ME, BUILD = Mover("me", "it is better"), Mover("run 1", "built", person=False)
# Another index, so that retrieval is not the same by what it is made of.
OLD, NEW = manifest(), manifest("i2", prompt=2)


def assistant(cases: bool = True, release: dict[str, Any] | None = None, **gate: Any) -> Assistant:
    return Assistant.model_validate(
        {
            "name": "helper",
            "sources": [{"type": "python_topics"}],
            "evaluation": {"cases": "cases.jsonl" if cases else None, "gate": {"rules": [RULE], **gate}},
            "release": release or {},
        }
    )


def made(lakehouse: Lakehouse, *manifests: Manifest) -> list[Release]:
    releases = Releases(lakehouse, "helper")
    return [releases.create(m, author="me", message="", provenance=RUN)[0] for m in manifests]


def serving(lakehouse: Lakehouse, first: Manifest = OLD) -> None:
    """Put the first release on prod, as a build does."""
    (release,) = made(lakehouse, first)
    moves.promote(lakehouse, assistant(cases=False), release.release_id, "prod", BUILD, RUN)


def scored(lakehouse: Lakehouse, ours: list[float], theirs: list[float] = FOUND) -> None:
    """Have the old and the new release evaluated."""
    store(lakehouse, case_rows(CASES), result_rows(OLD.release_id, theirs), result_rows(NEW.release_id, ours))


def promote(lakehouse: Lakehouse, by: Mover = ME, of: Assistant | None = None, **more: Any) -> moves.Moved:
    """Promote the new release to prod."""
    return moves.promote(lakehouse, of or assistant(), NEW.release_id, "prod", by, RUN, **more)


def on_prod(lakehouse: Lakehouse) -> str:
    return Channels(lakehouse, "helper").state()["prod"].release_id


def last(lakehouse: Lakehouse) -> Entry:
    return history(Channels(lakehouse, "helper").events())[-1]


def test_a_release_that_passes_is_moved_on_its_report_and_verdict(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    made(lakehouse, NEW)
    scored(lakehouse, FOUND)
    moved = promote(lakehouse)
    assert on_prod(lakehouse) == NEW.release_id
    event = last(lakehouse)
    assert (event.action, event.author, event.reason, event.outcome) == ("promote", "me", "it is better", "passed")
    assert moved.verdict
    assert event.gate
    assert event.gate == json.loads(json.dumps(moved.verdict.to_dict()))
    assert event.gate["incumbent_id"] == OLD.release_id
    kept = lakehouse.table("helper", "evaluation_reports").read().filter(pl.col("report_id") == event.report_id)
    assert set(kept["release_id"]) == {NEW.release_id}
    assert event.gate["snapshots"] == {
        name: lakehouse.table("helper", name).snapshot_id() for name in ("evaluation_cases", "evaluation_results")
    }


def test_a_release_that_is_worse_is_refused_with_what_to_do(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    made(lakehouse, NEW)
    scored(lakehouse, LOST)
    for by in (ME, BUILD):
        with pytest.raises(GateError, match=r"recall_at_5: .* llmops release promote 2 prod --override --message WHY"):
            promote(lakehouse, by)
    with pytest.raises(GateError):
        moves.promote(lakehouse, assistant(), NEW.release_id, "staging", ME, RUN)
    assert on_prod(lakehouse) == OLD.release_id
    # It may be looked at where no user is.
    moves.promote(lakehouse, assistant(), NEW.release_id, "dev", BUILD, RUN)


def test_an_override_needs_a_reason_and_is_kept_with_the_verdict(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    made(lakehouse, NEW)
    scored(lakehouse, LOST)
    with pytest.raises(InvalidRequestError, match="--message"):
        promote(lakehouse, Mover("ann", " ", override=True))
    promote(lakehouse, Mover("ann", "the old one leaks names", override=True))
    event = last(lakehouse)
    assert on_prod(lakehouse) == NEW.release_id
    assert (event.action, event.author, event.reason) == ("override", "ann", "the old one leaks names")
    assert event.outcome == "failed"


def test_what_was_not_evaluated_waits_and_the_command_is_named(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    made(lakehouse, NEW)
    with pytest.raises(GateError) as nothing:
        promote(lakehouse)
    for release in (OLD, NEW):
        assert f"llmops evaluate --release {release.release_id[:12]}" in str(nothing.value)
    store(lakehouse, case_rows(CASES), result_rows(NEW.release_id, FOUND), result_rows(OLD.release_id, FOUND[:-1]))
    with pytest.raises(GateError, match=f"--release {OLD.release_id[:12]}") as one:
        promote(lakehouse)
    assert f"--release {NEW.release_id[:12]}" not in str(one.value)
    verdict = moves.assess(lakehouse, assistant(), Releases(lakehouse, "helper").get("2"), "prod", RUN)
    assert verdict.unscored == {OLD.release_id: 1}
    promote(lakehouse, Mover("me", "the engine is away", override=True))


def test_too_few_cases_leave_it_to_a_person_with_a_reason(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    made(lakehouse, NEW)
    scored(lakehouse, FOUND)
    few = assistant(min_cases=CASES + 1, release={"approval": "none"})
    for by in (Mover("me"), Mover("run 1", "built", person=False)):
        with pytest.raises(GateError, match=r"min_cases .* A person decides, with a reason: .* --message WHY"):
            promote(lakehouse, by, few)
    promote(lakehouse, ME, few)
    assert (last(lakehouse).action, last(lakehouse).outcome) == ("promote", "inconclusive")


def test_a_passed_gate_moves_it_by_itself_only_where_no_approval_is_asked_for(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    made(lakehouse, NEW)
    scored(lakehouse, FOUND)
    with pytest.raises(GateError, match="llmops release approve 2"):
        promote(lakehouse, BUILD)
    promote(lakehouse, BUILD, assistant(release={"approval": "none"}))
    assert on_prod(lakehouse) == NEW.release_id


def test_an_approval_is_kept_beside_the_move_that_it_makes(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    made(lakehouse, NEW)
    scored(lakehouse, LOST)
    with pytest.raises(GateError):
        moves.approve(lakehouse, assistant(), NEW.release_id, ME, RUN)
    assert Channels(lakehouse, "helper").events().height == 1
    moves.approve(lakehouse, assistant(), NEW.release_id, Mover("me", "known, and small", override=True), RUN)
    entries = history(Channels(lakehouse, "helper").events())[1:]
    assert [(e.channel, e.action, e.outcome) for e in entries] == [
        (None, "approve", "failed"),
        ("canary", "override", "failed"),
    ]
    assert on_prod(lakehouse) == OLD.release_id


def test_an_approved_release_meets_some_users_first_on_its_report_and_verdict(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    made(lakehouse, NEW, NEW.model_copy(update={"prompt": manifest(prompt=3).prompt}))
    scored(lakehouse, FOUND)
    canary = {"canary": {"share": 0.25, "mode": "shadow"}}
    moved = moves.approve(lakehouse, assistant(release=canary), NEW.release_id, ME, RUN)
    assert (moved.channel, moved.action, on_prod(lakehouse)) == ("canary", "begin", OLD.release_id)
    experiment = running(Channels(lakehouse, "helper").state())
    assert experiment
    assert (experiment.plan.share, experiment.plan.mode, experiment.plan.base) == (0.25, "shadow", OLD.release_id)
    assert last(lakehouse).outcome == "passed"
    with pytest.raises(ConflictError, match="llmops release canary stop"):
        moves.approve(lakehouse, assistant(cases=False), "3", ME, RUN)
    with pytest.raises(InvalidRequestError, match="is on canary"):
        moves.reject(lakehouse, assistant(), NEW.release_id, ME, RUN)


def test_a_refused_canary_is_told_how_to_go_on(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    made(lakehouse, NEW)
    scored(lakehouse, LOST)
    with pytest.raises(GateError, match=r"not moved to canary.*llmops release approve 2 --override --message WHY"):
        moves.approve(lakehouse, assistant(), NEW.release_id, ME, RUN)


def test_where_nothing_can_be_compared_an_approved_release_goes_to_prod(lakehouse: Lakehouse) -> None:
    made(lakehouse, OLD, manifest("i2"))
    assert moves.approve(lakehouse, assistant(cases=False), OLD.release_id, ME, RUN).channel == "prod"
    assert moves.approve(lakehouse, assistant(cases=False), "2", ME, RUN).channel == "prod"


def test_fresh_documents_reach_both_sides_of_an_experiment(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    made(lakehouse, NEW)
    moves.approve(lakehouse, assistant(cases=False), NEW.release_id, ME, RUN)
    before = running(Channels(lakehouse, "helper").state())
    index = IndexPin(version="i7", snapshots={})
    indexes = {NEW.embedder.revision: index}
    done = publish(
        lakehouse,
        assistant(cases=False),
        NEW.with_index(index),
        indexes,
        author="run 1",
        message="built",
        provenance=RUN,
    )
    assert {move.channel for move in done.moves if not move.waits} == {"dev", "prod", "canary"}
    after = running(Channels(lakehouse, "helper").state())
    assert before
    assert after
    assert (after.experiment, after.plan) == (before.experiment, before.plan)
    assert (on_prod(lakehouse), after.release_id) == (
        OLD.with_index(index).release_id,
        NEW.with_index(index).release_id,
    )
    assert last(lakehouse).action == "refresh"
    found = look(lakehouse, "helper")
    assert found
    assert found.comparison.outcome == "waiting"


def test_what_a_person_rejected_only_an_override_promotes(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    made(lakehouse, NEW, manifest("i3"))
    scored(lakehouse, FOUND)
    for number in ("2", "3"):
        moves.reject(lakehouse, assistant(), number, Mover("ann", f"rude {number}"), RUN)
    with pytest.raises(GateError, match=r"ann rejected it: rude 2\. .*--override"):
        promote(lakehouse)
    with pytest.raises(GateError, match="rude 3"):
        moves.promote(lakehouse, assistant(), "3", "prod", BUILD, RUN)
    promote(lakehouse, Mover("bob", "not so rude", override=True))
    assert (last(lakehouse).action, last(lakehouse).outcome) == ("override", "passed")
    # Overruled once, it is no longer rejected.
    moves.promote(lakehouse, assistant(), "1", "prod", Mover("me", "back", override=True), RUN)
    promote(lakehouse)


def test_what_was_rejected_or_taken_back_does_not_return_with_the_next_documents(lakehouse: Lakehouse) -> None:
    free = assistant(release={"approval": "none"})
    serving(lakehouse)
    fresh = NEW.with_index(IndexPin(version="i3", snapshots={}))
    made(lakehouse, NEW, fresh)
    scored(lakehouse, FOUND)
    store(lakehouse, case_rows(CASES), result_rows(fresh.release_id, FOUND))
    promote(lakehouse)
    channels = Channels(lakehouse, "helper")
    move(channels, "prod", OLD.release_id, action="rollback")
    with pytest.raises(GateError, match="was taken back"):
        moves.promote(lakehouse, free, fresh.release_id, "prod", BUILD, RUN)
    moves.reject(lakehouse, free, NEW.release_id, Mover("ann", "rude"), RUN)
    with pytest.raises(GateError, match="ann rejected it: rude"):
        moves.promote(lakehouse, free, fresh.release_id, "prod", ME, RUN)


def test_a_word_against_some_documents_is_none_against_the_next(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    bad, good = made(lakehouse, manifest("i2"), manifest("i3"))
    moves.promote(lakehouse, assistant(), bad.release_id, "prod", BUILD, RUN)
    channels = Channels(lakehouse, "helper")
    move(channels, "prod", OLD.release_id, action="rollback")
    with pytest.raises(GateError, match="was taken back"):
        moves.promote(lakehouse, assistant(), bad.release_id, "prod", BUILD, RUN)
    moves.promote(lakehouse, assistant(), good.release_id, "prod", BUILD, RUN)
    assert on_prod(lakehouse) == good.release_id


def test_a_rejection_needs_a_reason_and_takes_nothing_from_users(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    made(lakehouse, NEW)
    with pytest.raises(InvalidRequestError, match="--message"):
        moves.reject(lakehouse, assistant(), NEW.release_id, Mover("me"), RUN)
    with pytest.raises(InvalidRequestError, match="llmops release rollback --channel prod"):
        moves.reject(lakehouse, assistant(), OLD.release_id, Mover("me", "bad"), RUN)


def test_an_unknown_channel_names_the_known_ones(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    with pytest.raises(InvalidRequestError, match="dev, staging, prod, canary"):
        moves.promote(lakehouse, assistant(), "1", "production", ME, RUN)


def test_the_canary_is_rejected_by_ending_it_also_after_fresh_documents(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    made(lakehouse, NEW)
    scored(lakehouse, FOUND)
    moves.approve(lakehouse, assistant(), NEW.release_id, ME, RUN)
    index = IndexPin(version="i3", snapshots={})
    made(lakehouse, NEW.with_index(index))
    moves.promote(lakehouse, assistant(), NEW.with_index(index).release_id, CANARY, BUILD, RUN)
    for release in (NEW, NEW.with_index(index)):
        with pytest.raises(InvalidRequestError, match="llmops release canary stop"):
            moves.reject(lakehouse, assistant(), release.release_id, Mover("me", "bad"), RUN)


def test_the_end_of_a_canary_is_in_the_history_of_its_release_alone(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    made(lakehouse, NEW)
    scored(lakehouse, FOUND)
    moves.approve(lakehouse, assistant(), NEW.release_id, ME, RUN)
    channels = Channels(lakehouse, "helper")
    harm = {"outcome": "rolled_back"}
    end(channels, "rolled_back", author="run 1", reason="harm", provenance=RUN, verdict=harm)
    told = history(channels.events(), NEW.release_id)[-1]
    assert (told.action, told.reason, told.outcome) == ("rolled_back", "harm", "rolled_back")
    assert "rolled_back" not in {entry.action for entry in history(channels.events(), OLD.release_id)}


def before_the_next(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have somebody act after the next mover has looked and before it writes."""
    really_take = Channels.take

    def after_another(channels: Channels, steps: Sequence[Step], **more: Any) -> Any:
        monkeypatch.setattr(Channels, "take", really_take)
        act()
        return really_take(channels, steps, **more)

    monkeypatch.setattr(Channels, "take", after_another)


def test_a_rejection_while_the_gate_weighs_is_heard(lakehouse: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    serving(lakehouse)
    made(lakehouse, NEW)
    scored(lakehouse, FOUND)
    before_the_next(
        monkeypatch, lambda: moves.reject(lakehouse, assistant(), NEW.release_id, Mover("ann", "rude"), RUN)
    )
    with pytest.raises(GateError, match="ann rejected it meanwhile: rude"):
        promote(lakehouse)
    assert on_prod(lakehouse) == OLD.release_id


def test_what_goes_to_users_while_it_is_rejected_is_not_rejected(
    lakehouse: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving(lakehouse)
    made(lakehouse, NEW)
    scored(lakehouse, FOUND)
    before_the_next(monkeypatch, lambda: promote(lakehouse))
    with pytest.raises(InvalidRequestError, match="is on prod"):
        moves.reject(lakehouse, assistant(), NEW.release_id, Mover("ann", "rude"), RUN)


def test_an_override_counts_for_its_own_channel_alone(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    made(lakehouse, NEW)
    scored(lakehouse, FOUND)
    moves.reject(lakehouse, assistant(), NEW.release_id, Mover("ann", "rude"), RUN)
    moves.promote(lakehouse, assistant(), NEW.release_id, "staging", Mover("bob", "look", override=True), RUN)
    with pytest.raises(GateError, match="ann rejected it: rude"):
        promote(lakehouse)


def test_cases_that_the_release_was_trained_on_fail_the_gate_with_their_ids(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    made(lakehouse, NEW)
    scored(lakehouse, FOUND)
    with pytest.raises(GateError, match="training set: c003, c007"):
        promote(lakehouse, training=["c007", "h003", "other"])
    promote(lakehouse, training=["other"])


def test_without_a_case_file_the_first_release_and_fresh_documents_go_by_themselves(lakehouse: Lakehouse) -> None:
    plain = assistant(cases=False)
    serving(lakehouse)
    fresh, other = made(lakehouse, manifest("i2"), manifest(prompt=3))
    moves.promote(lakehouse, plain, fresh.release_id, "prod", BUILD, RUN)
    assert on_prod(lakehouse) == fresh.release_id
    with pytest.raises(GateError, match=r"no case file .* A person decides"):
        moves.promote(lakehouse, plain, other.release_id, "prod", Mover("me"), RUN)
    moves.promote(lakehouse, plain, other.release_id, "prod", ME, RUN)


def test_a_gate_without_rules_leaves_every_candidate_to_a_person(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    made(lakehouse, NEW)
    with pytest.raises(GateError, match=r"evaluation\.gate\.rules"):
        promote(lakehouse, Mover("me"), assistant(rules=[]))
    promote(lakehouse, ME, assistant(rules=[]))


def test_to_where_it_is_already_nothing_moves_and_nothing_is_asked(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    moved = moves.promote(lakehouse, assistant(), "prod", "prod", Mover("me"), RUN)
    assert moved.verdict is None
    assert Channels(lakehouse, "helper").events().height == 1


def test_of_two_who_promote_at_once_one_wins_and_the_other_is_told(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    other = manifest("i3", prompt=3)
    made(lakehouse, NEW, other)
    scored(lakehouse, FOUND)
    store(lakehouse, case_rows(CASES), result_rows(other.release_id, FOUND))
    seen = Channels(lakehouse, "helper").state()

    def attempt(release_id: str) -> str:
        try:
            moves.promote(lakehouse, assistant(), release_id, "prod", ME, RUN, expected=seen)
        except ConflictError as error:
            return str(error)
        return "won"

    with ThreadPoolExecutor(2) as threads:
        told = sorted(threads.map(attempt, (NEW.release_id, other.release_id)))
    assert "won" in told
    told.remove("won")
    assert on_prod(lakehouse) in told[0]
    assert Channels(lakehouse, "helper").events().height == 2


# Floors


def test_the_first_release_meets_all_floors_before_it_serves(lakehouse: Lakehouse) -> None:
    (first,) = made(lakehouse, OLD)
    strict = assistant(floors={"recall_at_5": 0.9})
    with pytest.raises(GateError, match="llmops evaluate --release"):
        moves.promote(lakehouse, strict, "1", "prod", BUILD, RUN)
    store(lakehouse, case_rows(CASES), result_rows(first.release_id, LOST))
    with pytest.raises(GateError, match=r"recall_at_5: 0.750 is not at least 0\.9"):
        moves.promote(lakehouse, strict, "1", "prod", BUILD, RUN)
    moves.promote(lakehouse, assistant(floors={"recall_at_5": 0.7}), "1", "prod", BUILD, RUN)
    assert (on_prod(lakehouse), last(lakehouse).outcome) == (first.release_id, "passed")


def test_fresh_documents_meet_the_floors_of_retrieval_alone(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    (fresh,) = made(lakehouse, manifest("i2"))
    limits = assistant(floors={"recall_at_5": 0.9, "f1": 0.5})
    store(lakehouse, case_rows(CASES), result_rows(fresh.release_id, FOUND))
    moved = moves.promote(lakehouse, limits, fresh.release_id, "prod", BUILD, RUN)
    assert moved.verdict
    assert [(rule.metric, rule.outcome) for rule in moved.verdict.rules] == [("recall_at_5", "passed")]


@pytest.mark.parametrize(("found", "serves"), [(FOUND, "i2"), (LOST, "i1")])
def test_a_build_measures_fresh_documents_before_they_serve(
    lakehouse: Lakehouse, found: list[float], serves: str
) -> None:
    limits = assistant(floors={"recall_at_5": 0.9})
    serving(lakehouse)
    measured: list[str] = []

    def measure(release: Release) -> None:
        measured.append(release.release_id)
        store(lakehouse, case_rows(CASES), result_rows(release.release_id, found))

    pins = {OLD.embedder.revision: IndexPin(version="i2", snapshots={})}
    done = publish(lakehouse, limits, NEW, pins, author="run", message="built", provenance=RUN, measure=measure)
    assert measured == [manifest("i2").with_index(pins[OLD.embedder.revision]).release_id]
    assert Releases(lakehouse, "helper").get("prod").manifest.index.version == serves
    (prod,) = (move for move in done.moves if move.channel == "prod")
    assert (prod.waits is None) == (serves == "i2")
    assert prod.waits is None or "is not at least 0.9" in str(prod)


# What moves after an evaluation


def followed(lakehouse: Lakehouse, of: Assistant) -> Move | None:
    return follow(lakehouse, of, NEW.release_id, author="run 2", provenance=RUN)


def test_an_evaluation_moves_the_release_on_dev_where_no_approval_is_asked_for(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    made(lakehouse, NEW)
    scored(lakehouse, FOUND)
    free = assistant(release={"approval": "none"})
    assert followed(lakehouse, free) is None
    moves.promote(lakehouse, free, NEW.release_id, "dev", BUILD, RUN)
    waits = followed(lakehouse, assistant())
    assert waits
    assert "llmops release approve 2" in (waits.waits or "")
    assert on_prod(lakehouse) == OLD.release_id
    done = followed(lakehouse, free)
    assert done
    assert done.waits is None
    assert on_prod(lakehouse) == NEW.release_id
    assert followed(lakehouse, free) is None


@pytest.mark.parametrize("how", ["rolled_back", "stopped"])
def test_what_meets_users_as_a_canary_goes_to_all_by_its_verdict_or_a_person(lakehouse: Lakehouse, how: End) -> None:
    free = assistant(release={"approval": "none"})
    serving(lakehouse)
    fresh = NEW.with_index(IndexPin(version="i3", snapshots={}))
    made(lakehouse, NEW, fresh)
    scored(lakehouse, FOUND)
    store(lakehouse, case_rows(CASES), result_rows(fresh.release_id, FOUND))

    def waits(release: Manifest) -> str | None:
        moves.promote(lakehouse, free, release.release_id, "dev", BUILD, RUN)
        move = follow(lakehouse, free, release.release_id, author="run 2", provenance=RUN)
        assert move
        return move.waits

    moves.approve(lakehouse, free, NEW.release_id, ME, RUN)
    assert "Its canary runs, or was taken back" in (waits(NEW) or "")
    end(Channels(lakehouse, "helper"), how, author="run 1", reason="harm in errors", provenance=RUN)
    for release in (NEW, fresh):
        assert "Its canary runs, or was taken back" in (waits(release) or "")
    assert on_prod(lakehouse) == OLD.release_id
    # Once a person has put it there, it is as good as any other.
    promote(lakehouse)
    moves.promote(lakehouse, free, OLD.release_id, "prod", Mover("me", "compare", override=True), RUN)
    assert waits(NEW) is None


def test_fresh_documents_that_a_person_promotes_do_not_follow_an_evaluation(lakehouse: Lakehouse) -> None:
    serving(lakehouse)
    (fresh,) = made(lakehouse, manifest("i2"))
    manual = assistant(release={"index_only": "manual"})
    moves.promote(lakehouse, manual, fresh.release_id, "dev", BUILD, RUN)
    move = follow(lakehouse, manual, fresh.release_id, author="run 2", provenance=RUN)
    assert move
    assert "release.index_only" in (move.waits or "")
    moves.promote(lakehouse, manual, fresh.release_id, "prod", Mover("me"), RUN)
    assert on_prod(lakehouse) == fresh.release_id
