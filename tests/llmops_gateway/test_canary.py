"""Arms and shadows as users and the log meet them, at a gateway that runs."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from llmops_core.assistant.schema import Canary
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release.arms import Experiment
from llmops_core.release.canary import beginning, end, look, refreshing, running
from llmops_core.release.channels import Channels, Step
from llmops_core.release.manifest import GeneratorParams, IndexPin
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings
from llmops_core.traffic.ingest import ingest
from tests.fake_engine import PIECES, FakeEngine
from tests.moving import move
from tests.running_gateway import NAME, Running, create, release_by_words, running_gateway, until

RUN = Provenance("test")
USERS = [f"user {number}" for number in range(12)]
HALF = Canary(share=0.5, min_requests=5, max_hours=1)
NO_INDEX = {"index": IndexPin(version="gone", snapshots={})}
SHORT = GeneratorParams(max_tokens=8, temperature=0.0, top_p=1.0)


@pytest.fixture(scope="module")
def served(shared_home: Settings, fake_engine: FakeEngine) -> Iterator[Running]:
    """A gateway in front of a release that no model has to be loaded for."""
    release_by_words(shared_home, fake_engine.base_url)
    with running_gateway(shared_home) as running_one:
        yield running_one


@pytest.fixture
def gateway(served: Running) -> Iterator[Running]:
    """The same without a canary, before and after."""
    yield served
    if running(_channels(served.settings).state()):
        end(_channels(served.settings), "stopped", author="test", reason="", provenance=RUN)
    until(lambda: True if served.state()["canary"] == {} else None)


def _channels(settings: Settings) -> Channels:
    return Channels(Lakehouse.open(settings), NAME)


def _generator(settings: Settings, **changes: Any) -> dict[str, Any]:
    generator = Releases(Lakehouse.open(settings), NAME).get("prod").manifest.generator
    return {"generator": generator.model_copy(update=changes)}


def _begun(gateway: Running, section: Canary, release_id: str) -> Experiment:
    """Begin a canary, and wait until the gateway knows of it."""
    experiment = _taken(gateway, beginning(section, release_id, _channels(gateway.settings).state()))
    until(lambda: True if NAME in gateway.state()["canary"] else None)
    return experiment


def _taken(gateway: Running, step: Step) -> Experiment:
    channels = _channels(gateway.settings)
    state = channels.take([step], author="test", reason="", provenance=RUN, expected=channels.state())
    experiment = running(state)
    assert experiment
    return experiment


def _serves(gateway: Running, release_id: str) -> Mapping[str, Any]:
    """What /readyz says of the canary once this release is loaded for it."""

    def look() -> Mapping[str, Any] | None:
        said: Mapping[str, Any] = gateway.state()["canary"].get(NAME, {})
        return said if said.get("serving") == release_id else None

    return until(look)


def _asked(gateway: Running, user: str, **more: Any) -> dict[str, Any]:
    """The log row of a request of this user."""
    return gateway.logged(gateway.ask(user=user, **more).id)


def test_users_are_answered_by_their_arm_and_the_log_says_so(gateway: Running) -> None:
    prod, second = (
        gateway.state()["serving"][NAME],
        create(gateway.settings, **_generator(gateway.settings, params=SHORT)),
    )
    experiment = _begun(gateway, HALF, second)
    said = _serves(gateway, second)
    assert said == {"experiment": experiment.experiment, "mode": "share", "share": 0.5, "serving": second}
    assert gateway.state()["behind"] == {}
    assert f"{NAME}@canary" in [model.id for model in gateway.client.models.list()]
    drawn = {user for user in USERS if experiment.drawn(user)}
    assert 0 < len(drawn) < len(USERS)
    for user in [*USERS, *USERS]:
        completion, headers = gateway.raw(user=user)
        row = gateway.logged(completion.id)
        of = ("canary", second) if user in drawn else ("prod", prod)
        assert (row["channel"], row["release_id"]) == of
        assert row["experiment"] == experiment.experiment
        assert headers["x-llmops-release"] == of[1]
        assert completion.choices[0].message.content == "".join(PIECES)
    streamed = gateway.logged(list(gateway.stream(user=min(drawn)))[-1].id)
    assert (streamed["channel"], streamed["experiment"]) == ("canary", experiment.experiment)


def test_what_the_log_says_of_the_arms_reaches_the_comparison(gateway: Running) -> None:
    """Over the spool and the ingest, as by the job that runs every five minutes."""
    second = create(gateway.settings, **_generator(gateway.settings, params=SHORT))
    experiment = _begun(gateway, HALF, second)
    _serves(gateway, second)
    asked = [gateway.ask(user=user).id for user in USERS]
    gateway.ask()
    assert gateway.feedback(request_id=asked[0], thumbs=-1).status_code == 200
    until(lambda: True if len(_counted(gateway, experiment)) == len(USERS) and _rated(gateway, asked[0]) else None)
    lakehouse = Lakehouse.open(gateway.settings)
    for name, kind in (("traffic_requests", "request"), ("traffic_feedback", "feedback")):
        ingest(lakehouse.table(NAME, name), kind, *lakehouse.spool(), NAME, RUN)
    found = look(lakehouse, NAME)
    assert found
    drawn = sum(experiment.drawn(user) for user in USERS)
    assert found.comparison.requests == {"prod": len(USERS) - drawn, "canary": drawn}
    errors, latency, empty, feedback = found.comparison.metrics
    assert (errors.canary.users, errors.canary.harm, empty.prod.users, empty.prod.harm) == (
        drawn,
        0,
        len(USERS) - drawn,
        0,
    )
    assert "what is slow is not known" in latency.why
    assert (feedback.canary if experiment.drawn(USERS[0]) else feedback.prod).harm == 1.0


def _counted(gateway: Running, experiment: Experiment) -> list[dict[str, Any]]:
    return [row for row in gateway.shipped_requests() if row["experiment"] == experiment.experiment]


def _rated(gateway: Running, request_id: str) -> bool:
    return any(line["kind"] == "feedback" and line["payload"]["request_id"] == request_id for line in gateway.shipped())


def test_nobody_and_whoever_names_a_channel_are_in_no_arm(gateway: Running) -> None:
    second = create(gateway.settings, **_generator(gateway.settings, params=SHORT))
    experiment = _begun(gateway, Canary(share=0.99, min_requests=5), second)
    _serves(gateway, second)
    nobody = gateway.logged(gateway.ask().id)
    assert (nobody["channel"], nobody["experiment"], nobody["user"]) == ("prod", None, "local")
    user = next(user for user in USERS if experiment.drawn(user))
    for channel in ("prod", "canary"):
        row = _asked(gateway, user, model=f"{NAME}@{channel}")
        assert (row["channel"], row["experiment"]) == (channel, None)


def test_while_the_canary_does_not_load_prod_answers_and_nobody_counts(gateway: Running) -> None:
    broken = create(gateway.settings, **NO_INDEX)
    experiment = _begun(gateway, HALF, broken)
    behind = until(lambda: gateway.state()["behind"].get(f"{NAME}@canary"))
    until(lambda: True if gateway.state()["behind"][f"{NAME}@canary"]["state"] == "failed" else None)
    assert behind["release_id"] == broken
    assert gateway.state()["status"] == "ready"
    assert gateway.state()["canary"][NAME]["serving"] is None
    for user in USERS:
        row = _asked(gateway, user)
        assert (row["channel"], row["experiment"]) == ("prod", None)
        instead = {"instead_of_canary": "the canary is not loaded"} if experiment.drawn(user) else None
        assert row["routing"] == instead


def test_fresh_documents_keep_users_in_their_arm_and_the_experiment(gateway: Running) -> None:
    second = create(gateway.settings, **_generator(gateway.settings, params=SHORT))
    experiment = _begun(gateway, HALF, second)
    _serves(gateway, second)
    index = IndexPin(version="i1", snapshots={"corpus_chunks": 7})
    fresh = create(gateway.settings, **_generator(gateway.settings, params=SHORT), index=index)
    _taken(gateway, refreshing(fresh, _channels(gateway.settings).state()))
    _serves(gateway, fresh)
    for user in USERS:
        row = _asked(gateway, user)
        assert row["experiment"] == experiment.experiment
        assert (row["release_id"] == fresh) == experiment.drawn(user) == (row["channel"] == "canary")


def test_a_release_that_passed_answers_everybody(gateway: Running) -> None:
    before = gateway.state()["serving"][NAME]
    second = create(gateway.settings, **_generator(gateway.settings, params=SHORT.model_copy(update={"max_tokens": 9})))
    _begun(gateway, HALF, second)
    _serves(gateway, second)
    end(_channels(gateway.settings), "passed", author="test", reason="", provenance=RUN)
    until(lambda: True if gateway.state()["serving"] == {NAME: second} else None)
    until(lambda: True if gateway.state()["canary"] == {} else None)
    row = _asked(gateway, USERS[0])
    assert (row["channel"], row["experiment"], row["release_id"]) == ("prod", None, second)
    move(_channels(gateway.settings), "prod", before, action="rollback")
    until(lambda: True if gateway.state()["serving"] == {NAME: before} else None)


def test_copies_are_answered_behind_users_who_see_prod_alone(gateway: Running) -> None:
    prod = gateway.state()["serving"][NAME]
    # Its engine does not know this model: every copy fails, and no user notices.
    broken = create(gateway.settings, **_generator(gateway.settings, model="unknown"))
    experiment = _begun(gateway, Canary(mode="shadow", share=0.5, min_requests=5), broken)
    _serves(gateway, broken)
    originals: dict[str, str] = {}
    for user in USERS:
        completion, headers = gateway.raw(user=user)
        assert (headers["x-llmops-release"], completion.choices[0].message.content) == (prod, "".join(PIECES))
        row = gateway.logged(completion.id)
        drawn = experiment.drawn(user)
        assert (row["channel"], row["experiment"]) == ("prod", experiment.experiment if drawn else None)
        if drawn:
            originals[completion.id] = user

    def copies() -> list[dict[str, Any]] | None:
        found = [row for row in gateway.shipped_requests() if row["channel"] == "shadow"]
        return found if len(found) >= len(originals) else None

    found = until(copies)
    assert {row["shadow_of"]: row["user"] for row in found} == originals
    for row in found:
        assert (row["release_id"], row["experiment"], row["status"]) == (broken, experiment.experiment, 503)
        assert row["request_id"] not in originals


def test_a_gateway_that_starts_without_the_lakehouse_knows_the_canary(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = create(gateway.settings, **_generator(gateway.settings, params=SHORT))
    experiment = _begun(gateway, HALF, second)
    _serves(gateway, second)
    monkeypatch.setenv("PYICEBERG_CATALOG__LLMOPS__URI", "sqlite:////nowhere/catalog.db")
    with running_gateway(gateway.settings) as other:
        assert other.state()["lakehouse"].startswith("away since")
        assert _serves(other, second)["experiment"] == experiment.experiment
        user = next(user for user in USERS if experiment.drawn(user))
        assert other.raw(user=user)[1]["x-llmops-release"] == second
