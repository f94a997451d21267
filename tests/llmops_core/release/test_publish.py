"""Which channels a build moves by itself, and which wait for a person."""

import pytest

from llmops_core.assistant import Assistant
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release.manifest import IndexPin, Manifest
from llmops_core.release.publish import Published, publish
from llmops_core.release.registry import Releases
from tests.llmops_core.release.test_manifest import manifest
from tests.moving import move

RUN = Provenance("test")
OWN = manifest().embedder.revision


def assistant(index_only: str = "automatic") -> Assistant:
    return Assistant.model_validate(
        {"name": "helper", "sources": [{"type": "python_topics"}], "release": {"index_only": index_only}}
    )


def published(lakehouse: Lakehouse, candidate: Manifest, index_only: str = "automatic", **newest: str) -> Published:
    """Publish a candidate; `newest` are index versions of embedders beside its own, by revision."""
    pins = {name: IndexPin(version=version, snapshots={}) for name, version in newest.items()}
    indexes = {candidate.embedder.revision: candidate.index, **pins}
    return publish(lakehouse, assistant(index_only), candidate, indexes, author="me", message="built", provenance=RUN)


def on(lakehouse: Lakehouse) -> dict[str, Manifest]:
    """Channel → the manifest that it points to."""
    releases = Releases(lakehouse, "helper")
    return {channel: releases.get(channel).manifest for channel in releases.channels.state()}


def promote(lakehouse: Lakehouse, release: str, channel: str) -> None:
    releases = Releases(lakehouse, "helper")
    release_id = releases.get(release).release_id
    move(releases.channels, channel, release_id)


def test_the_first_release_serves(lakehouse: Lakehouse) -> None:
    first = published(lakehouse, manifest())
    assert first.is_new
    assert {move.channel for move in first.moves} == {"dev", "prod"}
    assert on(lakehouse) == {"dev": manifest(), "prod": manifest()}


def test_the_same_build_again_moves_nothing(lakehouse: Lakehouse) -> None:
    published(lakehouse, manifest())
    again = published(lakehouse, manifest())
    assert (again.is_new, again.moves) == (False, ())


def test_a_changed_prompt_waits_on_dev(lakehouse: Lakehouse) -> None:
    published(lakehouse, manifest())
    published(lakehouse, manifest(prompt=2))
    assert on(lakehouse) == {"dev": manifest(prompt=2), "prod": manifest()}


def test_what_is_changed_back_is_on_dev_again(lakehouse: Lakehouse) -> None:
    published(lakehouse, manifest())
    published(lakehouse, manifest(prompt=2))
    back = published(lakehouse, manifest())
    assert not back.is_new
    assert on(lakehouse)["dev"] == manifest()


def test_fresh_documents_reach_what_serves_with_the_prompt_that_it_has(lakehouse: Lakehouse) -> None:
    published(lakehouse, manifest())
    promote(lakehouse, "prod", "staging")
    published(lakehouse, manifest("i2", prompt=2))
    assert on(lakehouse) == {"dev": manifest("i2", prompt=2), "staging": manifest("i2"), "prod": manifest("i2")}


def test_documents_that_are_as_they_were_serve_again(lakehouse: Lakehouse) -> None:
    for index in ("i1", "i2", "i1"):
        published(lakehouse, manifest(index))
    assert on(lakehouse) == {"dev": manifest("i1"), "prod": manifest("i1")}
    assert len(Releases(lakehouse, "helper").all()) == 2


def test_fresh_documents_wait_where_a_person_decides(lakehouse: Lakehouse) -> None:
    published(lakehouse, manifest(), "manual")
    published(lakehouse, manifest("i2"), "manual")
    assert on(lakehouse) == {"dev": manifest("i2"), "prod": manifest("i1")}


@pytest.mark.parametrize(("newest", "serves"), [({OWN: "i2"}, "i2"), ({}, "i1")])
def test_what_serves_is_refreshed_with_the_newest_index_of_its_own_embedder(
    lakehouse: Lakehouse, newest: dict[str, str], serves: str
) -> None:
    published(lakehouse, manifest())
    other = manifest("j1").model_copy(
        update={"embedder": manifest().embedder.model_copy(update={"revision": "other-1"})}
    )
    published(lakehouse, other, **newest)
    assert on(lakehouse)["dev"] == other
    assert on(lakehouse)["prod"].index.version == serves
    assert on(lakehouse)["prod"].embedder.revision == OWN
