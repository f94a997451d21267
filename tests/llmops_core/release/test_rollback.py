"""Back, further back, and never forth: what a channel can go back to, and rollbacks that the history gets later."""

from collections.abc import Callable

import polars as pl
import pytest

from llmops_core.assistant.schema import Canary
from llmops_core.errors import ConflictError, InvalidRequestError, NotFoundError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release import canary, rollback
from llmops_core.release.channels import Channels, Pointer
from llmops_core.release.registry import Releases
from llmops_core.release.rollback import Waiting, outcome, past, record
from llmops_core.settings import Settings
from llmops_core.vectors.index import IndexSettings, VectorIndex
from tests.llmops_core.release.test_manifest import manifest
from tests.moving import move

RUN = Provenance("test")
GoBack = Callable[..., str]
CHUNK = pl.DataFrame(
    {"chunk_id": "c", "document_id": "d", "title": "", "heading_path": [["Tea"]], "text": "tea", "char_start": 0}
    | {"char_end": 3, "vector": [[1.0, 0.0]]},
    schema_overrides={"vector": pl.List(pl.Float32)},
)


def moved(lakehouse: Lakehouse, *moves: tuple[str, str], channel: str = "prod") -> Channels:
    """A channel after moves: what was done, and to which release."""
    channels = Channels(lakehouse, "helper")
    for action, release_id in moves:
        move(channels, channel, release_id, action=action)
    return channels


def promoted(*release_ids: str) -> list[tuple[str, str]]:
    return [("promote", release_id) for release_id in release_ids]


@pytest.mark.parametrize(
    ("moves", "stack", "taken_back"),
    [
        ([], "", ""),
        (promoted("a", "b", "c"), "abc", ""),
        ([*promoted("a", "b", "c"), ("rollback", "b")], "ab", "c"),
        ([*promoted("a", "b", "c"), ("rollback", "b"), ("rollback", "a")], "a", "bc"),
        ([*promoted("a", "b", "c"), ("rollback", "a")], "a", "bc"),
        ([*promoted("a", "b"), ("rollback", "a"), ("promote", "c")], "ac", "b"),
        ([*promoted("a", "b"), ("rollback", "a"), ("promote", "b")], "ab", ""),
        ([*promoted("a", "b", "a", "c"), ("rollback", "a")], "aba", "c"),
        ([*promoted("a", "b", "a"), ("rollback", "b"), ("rollback", "a")], "a", "b"),
    ],
)
def test_a_rollback_takes_off_what_lies_above(
    lakehouse: Lakehouse, moves: list[tuple[str, str]], stack: str, taken_back: str
) -> None:
    channels = moved(lakehouse, *moves)
    moved(lakehouse, *promoted("x", "y"), channel="dev")
    found = past(channels.events(), "prod")
    assert ("".join(found.stack), "".join(sorted(found.taken_back))) == (stack, taken_back)


@pytest.fixture
def go_back(lakehouse: Lakehouse, settings: Settings) -> GoBack:
    """Go back on prod, which had releases 1, 2 and 3, whose indexes are all there; the number of the release there now."""
    releases = Releases(lakehouse, "helper")
    index = VectorIndex(f"{settings.lancedb}/helper", manifest().embedder.revision)
    for version in ("i1", "i2", "i3"):
        index.build([CHUNK], version, IndexSettings())
        made, _ = releases.create(manifest(version), author="me", message="", provenance=RUN)
        moved(lakehouse, *promoted(made.release_id))

    def do(to: str | None = None, channel: str = "prod") -> str:
        decided = rollback.decide(lakehouse, settings, "helper", channel, to)
        rollback.apply(lakehouse, "helper", decided, author="me", reason="it is bad", provenance=RUN)
        return str(releases.get(channel).number)

    return do


def test_one_after_the_other_goes_further_back_until_nothing_is_left(lakehouse: Lakehouse, go_back: GoBack) -> None:
    assert [go_back(), go_back()] == ["2", "1"]
    with pytest.raises(NotFoundError, match="prod has no release to go back to"):
        go_back()
    last = Channels(lakehouse, "helper").events().row(-1, named=True)
    assert (last["action"], last["author"], last["reason"]) == ("rollback", "me", "it is bad")


def test_to_a_release_that_was_there_before_and_to_no_other(lakehouse: Lakehouse, go_back: GoBack) -> None:
    assert go_back("1") == "1"
    for taken_back in ("2", "3"):
        with pytest.raises(InvalidRequestError, match="was taken back"):
            go_back(taken_back)
    with pytest.raises(NotFoundError, match="no release '7'"):
        go_back("7")


def test_to_where_it_is_does_nothing(lakehouse: Lakehouse, go_back: GoBack) -> None:
    events = Channels(lakehouse, "helper").events().height
    assert go_back("3") == "3"
    assert Channels(lakehouse, "helper").events().height == events


def test_a_channel_without_a_release_has_nothing_to_go_back_to(go_back: GoBack) -> None:
    with pytest.raises(NotFoundError, match="staging has no release to go back to"):
        go_back(channel="staging")
    with pytest.raises(InvalidRequestError, match="Channels are"):
        go_back(channel="canary")


def test_what_no_gateway_could_load_is_refused(settings: Settings, go_back: GoBack) -> None:
    VectorIndex(f"{settings.lancedb}/helper", manifest().embedder.revision).delete_version("i2")
    with pytest.raises(NotFoundError, match="llmops index rebuild --release 2"):
        go_back()
    assert go_back("1") == "1"


def test_of_two_at_once_one_wins_and_the_other_is_told(
    lakehouse: Lakehouse, settings: Settings, go_back: GoBack
) -> None:
    first, second = (rollback.decide(lakehouse, settings, "helper", "prod", None) for _ in range(2))
    rollback.apply(lakehouse, "helper", first, author="me", reason="", provenance=RUN)
    with pytest.raises(ConflictError, match=f"moved meanwhile, to {first.release.release_id}"):
        rollback.apply(lakehouse, "helper", second, author="you", reason="", provenance=RUN)


def test_a_rollback_of_prod_ends_the_canary_beside_it(lakehouse: Lakehouse, go_back: GoBack) -> None:
    """In the same commit, whoever records it."""
    releases = Releases(lakehouse, "helper")

    def begin() -> None:
        made, _ = releases.create(manifest("i9"), author="me", message="", provenance=RUN)
        state = releases.channels.state()
        step = canary.beginning(Canary(), made.release_id, state)
        releases.channels.take([step], author="me", reason="", provenance=RUN, expected=state)

    begin()
    go_back("3")
    assert "canary" in releases.channels.state()
    go_back()
    assert "canary" not in releases.channels.state()
    begin()
    head = releases.channels.state()["prod"]
    record(lakehouse, "helper", Waiting.now("prod", releases.get("1").release_id, head, author="me", reason=""))
    assert "canary" not in releases.channels.state()
    assert releases.get("prod").number == 1


@pytest.fixture
def waiting(lakehouse: Lakehouse) -> list[Waiting]:
    """Two rollbacks of prod, one after the other, that were decided without the lakehouse."""
    state = moved(lakehouse, *promoted("a", "b", "c")).state()
    first = Waiting.now("prod", "b", state["prod"], author="me", reason="")
    head = Pointer("b", first.event_id, first.at)
    return [first, Waiting.now("prod", "a", head, author="me", reason="")]


def test_rollbacks_are_written_once_however_often_they_are(lakehouse: Lakehouse, waiting: list[Waiting]) -> None:
    channels = Channels(lakehouse, "helper")
    assert list(outcome(channels.events(), waiting).values()) == ["waiting", "waiting"]
    for one in (waiting[0], waiting[0], *waiting, *waiting):
        record(lakehouse, "helper", one)
    assert channels.events()["event_id"].to_list()[-2:] == [one.event_id for one in waiting]
    assert channels.events().height == 5
    assert set(outcome(channels.events(), waiting).values()) == {"recorded"}
    assert past(channels.events(), "prod").stack == ("a",)


def test_who_moved_the_channel_first_wins(lakehouse: Lakehouse, waiting: list[Waiting]) -> None:
    moved(lakehouse, *promoted("d"))
    with pytest.raises(ConflictError, match="moved meanwhile, to d"):
        record(lakehouse, "helper", waiting[0])
    assert set(outcome(Channels(lakehouse, "helper").events(), waiting).values()) == {"overtaken"}


def test_the_second_can_be_overtaken_when_the_first_is_written(lakehouse: Lakehouse, waiting: list[Waiting]) -> None:
    record(lakehouse, "helper", waiting[0])
    moved(lakehouse, *promoted("d"))
    assert list(outcome(Channels(lakehouse, "helper").events(), waiting).values()) == ["recorded", "overtaken"]
