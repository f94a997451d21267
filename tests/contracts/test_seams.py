"""The two seams between gateway and assets, each with both sides real: the spool one way, manifest and channels the other."""

from typing import Any

from llmops_cli.runs import run_job
from llmops_core.assistant import Assistant
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release.registry import Releases
from llmops_core.traffic.ingested import find_request
from tests.moving import move
from tests.running_gateway import NAME, Running, until


def test_every_answer_and_feedback_is_ingested_exactly_once(gateway: Running, notes: Assistant) -> None:
    asked = [gateway.ask().id for _ in range(3)]
    row = gateway.logged(asked[0])
    said = gateway.feedback(request_id=asked[0], score=0.5).json()["feedback_id"]
    wanted = {*gateway.answered, said}

    def look() -> bool | None:
        there = {line["payload"].get("feedback_id", line["payload"]["request_id"]) for line in gateway.shipped()}
        return True if wanted <= there else None

    until(look)
    for _ in range(2):
        run_job(gateway.settings, notes, "traffic_ingest")
    lakehouse = Lakehouse.open(gateway.settings)
    request_ids = lakehouse.table(NAME, "traffic_requests").read()["request_id"].to_list()
    assert len(request_ids) == len(set(request_ids))
    assert set(gateway.answered) <= set(request_ids)
    ingested = find_request(lakehouse.table(NAME, "traffic_requests"), asked[0])
    assert ingested
    assert ingested.to_payload() == row
    feedback = lakehouse.table(NAME, "traffic_feedback").read()
    assert feedback["feedback_id"].to_list().count(said) == 1


def test_a_promoted_release_is_served_by_the_running_gateway(gateway: Running, notes: Assistant) -> None:
    releases = Releases(Lakehouse.open(gateway.settings), NAME)
    manifest = releases.get("prod").manifest
    retrieval = manifest.retrieval.model_copy(update={"top_k": 1})
    provenance = Provenance("test")
    release, new = releases.create(
        manifest.model_copy(update={"retrieval": retrieval}), author="test", message="one chunk", provenance=provenance
    )
    assert new
    move(releases.channels, "prod", release.release_id)

    def look() -> Any:
        completion, headers = gateway.raw()
        return completion if headers["x-llmops-release"] == release.release_id else None

    assert len(until(look).model_extra["llmops"]["chunks"]) == 1
