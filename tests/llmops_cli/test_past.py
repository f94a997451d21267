"""`index rebuild`, `search --as-of`, `replay`, `lineage` and `dataset`, on a home that two requests and an edit went through."""

import json
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from llmops_cli.build import build
from llmops_cli.main import main
from llmops_core.assistant import Assistant
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings
from tests.running_gateway import DOCUMENTS, NAME, QUESTION, Running, until

EDITED = "# Tea\n\nGreen tea is brewed at seventy degrees for three minutes.\n"
ALL_IDENTICAL = {"chunks": True, "scores": True, "prompt": True, "answer": True}


@dataclass
class Lived:
    """The home, and by state (`before` and `after` the edit) a request, a moment, what search found, and the release."""

    settings: Settings
    assistant: Assistant
    requests: dict[str, str] = field(default_factory=dict)
    moments: dict[str, datetime] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)
    releases: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, [*arguments, "--assistant", str(self.assistant.folder)])

    def said(self, *arguments: str) -> Any:
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def text(self, *arguments: str) -> str:
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    def refused(self, *arguments: str) -> str:
        result = self.run(*arguments, "--json")
        assert result.exit_code != 0, result.output
        return str(json.loads(result.stdout)["error"]["message"])

    def live(self, state: str, gateway: Running) -> None:
        """Ask, search and remember."""
        self.releases[state] = Releases(Lakehouse.open(self.settings), NAME).get("prod").release_id
        until(lambda: gateway.state()["serving"].get(NAME) == self.releases[state] or None)
        self.requests[state] = gateway.ask().id
        self.found[state] = self.said("search", QUESTION)
        self.moments[state] = datetime.now(UTC)


@pytest.fixture(scope="module")
def lived(shared_home: Settings, notes: Assistant, gateway: Running) -> Lived:
    lived = Lived(shared_home, notes)
    lived.live("before", gateway)
    gateway.feedback(request_id=lived.requests["before"], thumbs=1, comment="Right.")
    (notes.folder / "docs" / "tea.md").write_text(EDITED, encoding="utf-8")
    build(shared_home, notes)
    lived.live("after", gateway)
    until(lambda: len(gateway.shipped()) == 3 or None)
    lived.said("ingest")
    shutil.rmtree(Path(shared_home.lancedb) / NAME)
    return lived


@pytest.mark.parametrize("state", ["before", "after"])
def test_the_index_of_a_moment_is_the_one_that_was_searched_then(lived: Lived, state: str) -> None:
    as_of = lived.moments[state].isoformat()
    rebuilt = lived.said("index", "rebuild", "--as-of", as_of)
    found = lived.found[state]
    assert (rebuilt["index_version"], rebuilt["as_of"]) == (found["index_version"], as_of)
    pinned = Releases(Lakehouse.open(lived.settings), NAME).get(lived.releases[state]).manifest.index
    assert rebuilt["snapshots"] == pinned.snapshots
    assert rebuilt["made_anew"]
    assert not lived.said("index", "rebuild", "--release", lived.releases[state])["made_anew"]
    assert lived.said("search", QUESTION, "--as-of", as_of)["hits"] == found["hits"]
    assert lived.said("search", QUESTION, "--release", lived.releases[state])["hits"] == found["hits"]
    assert lived.said("search", QUESTION, "--as-of", as_of, "--release", "dev")["hits"] == found["hits"]


def test_search_makes_a_past_index_anew_by_itself(lived: Lived) -> None:
    shutil.rmtree(Path(lived.settings.lancedb) / NAME)
    found = lived.said("search", QUESTION, "--as-of", lived.moments["before"].isoformat())
    assert found["hits"] == lived.found["before"]["hits"]
    assert "eighty degrees" in found["hits"][0]["text"]


def test_a_moment_has_a_zone_and_a_release(lived: Lived) -> None:
    assert "has no time zone" in lived.refused("index", "rebuild", "--as-of", "2026-01-01T10:00:00")
    assert "is no time" in lived.refused("search", "tea", "--as-of", "yesterday")
    early = lived.refused("index", "rebuild", "--as-of", "2001-01-01T10:00:00Z")
    first = Releases(Lakehouse.open(lived.settings), NAME).channels.events().row(0, named=True)["at"]
    assert "no release was on prod" in early
    assert first.isoformat()[:16] in early
    assert "is no channel" in lived.refused("search", "tea", "--as-of", "2001-01-01T10:00:00Z", "--release", "1")
    assert "--as-of" in lived.refused("index", "rebuild")


@pytest.mark.parametrize("state", ["before", "after"])
def test_a_request_is_replayed(lived: Lived, state: str) -> None:
    done = lived.said("replay", lived.requests[state])
    assert (done["request_id"], done["release_id"]) == (lived.requests[state], lived.releases[state])
    assert (done["identical"], done["differences"]) == (ALL_IDENTICAL, [])
    assert done["query_vector"]["reproduced"] is True
    shown = lived.text("replay", lived.requests[state])
    assert "different" not in shown
    assert "does not promise the same" in shown


def test_what_another_release_says_is_shown_beside_it(lived: Lived) -> None:
    done = lived.said("replay", lived.requests["before"], "--release", lived.releases["after"])
    assert (done["logged_release_id"], done["release_id"]) == (lived.releases["before"], lived.releases["after"])
    assert [found["part"] for found in done["differences"]] == ["chunks", "scores", "prompt"]
    shown = lived.text("replay", lived.requests["before"], "--release", lived.releases["after"])
    assert "Then: Eighty degrees" in shown
    assert "Now:  Eighty degrees" in shown


def test_a_span_of_time_is_replayed_by_a_run_that_keeps_rows(lived: Lived) -> None:
    since = (lived.moments["before"] - timedelta(hours=1)).isoformat()
    done = lived.said("replay", "--since", since, "--until", lived.moments["before"].isoformat())
    assert done["requests"] == done["identical"]["answer"] == 1
    assert lived.said("replay", "--since", since, "--answers", "0")["compared"]["answer"] == 0
    shown = lived.text("replay", "--since", since, "--release", "prod")
    assert f"({lived.releases['before']}) | 0 of 1 |" in shown
    assert f"- {lived.requests['before']}, chunks: from rank 1 on" in shown
    rows = Lakehouse.open(lived.settings).table(NAME, "traffic_replays").read()
    assert rows.height == 5
    assert "is empty" in lived.run("replay", "--since", "2030-01-01T00:00:00Z", "--json").output


@pytest.mark.parametrize(
    "arguments", [(), ("x", "--since", "2026-01-01T00:00:00Z"), ("x", "--until", "2026-01-01T00:00:00Z")]
)
def test_a_replay_is_of_a_request_or_of_a_span_of_time(lived: Lived, arguments: tuple[str, ...]) -> None:
    assert "Name a request, or a span of time" in lived.refused("replay", *arguments)


def test_a_request_that_is_not_logged_is_told_so(lived: Lived) -> None:
    for command in ("replay", "lineage"):
        assert "There is no request 'x' in the log" in lived.refused(command, "x")


def test_the_chain_behind_an_answer_leads_to_runs_that_are_there(lived: Lived) -> None:
    chain = lived.said("lineage", lived.requests["before"])
    assert chain["release"]["release_id"] == lived.releases["before"]
    assert chain["release"]["moved"]["channel"] == "prod"
    assert chain["release"]["moved"]["reason"]
    assert chain["prompt"]["version"] == 1
    assert chain["index"]["version"] == lived.found["before"]["index_version"]
    assert {read["table"] for read in chain["index"]["snapshots"]} >= {"corpus_chunks", "index_embeddings"}
    assert [chunk["chunk_id"] for chunk in chain["chunks"]] == [
        hit["chunk_id"] for hit in lived.found["before"]["hits"][: len(chain["chunks"])]
    ]
    best = chain["chunks"][0]["document"]
    assert (best["document_id"], Path(best["uri"]).name) == ("docs/tea.md", "tea.md")
    assert best["document_hash"] == chain["chunks"][0]["document_hash"]
    assert [said["thumbs"] for said in chain["feedback"]] == [1]
    written = [chain["prompt"], chain["index"], chain["release"], *chain["index"]["snapshots"], *chain["chunks"], best]
    with dg.DagsterInstance.get() as instance:
        for thing in written:
            assert instance.has_run(thing["run_id"])
            assert thing["run_url"] == f"http://127.0.0.1:3000/runs/{thing['run_id']}"
    assert chain["index"]["snapshots"][0]["asset_url"].startswith(f"http://127.0.0.1:3000/assets/{NAME}/")
    shown = lived.text("lineage", lived.requests["before"])
    assert best["run_url"] in shown
    assert "Right." in shown


def test_a_document_leads_to_the_releases_and_requests_that_used_each_of_its_versions(lived: Lived) -> None:
    found = lived.said("lineage", "--document", "docs/tea.md")["versions"]
    before, after = found
    assert lived.releases["before"] in [release["release_id"] for release in before["releases"]]
    assert lived.releases["after"] not in [release["release_id"] for release in before["releases"]]
    assert [request["request_id"] for request in before["latest"]] == [lived.requests["before"]]
    assert [request["request_id"] for request in after["latest"]] == [lived.requests["after"]]
    (one,) = lived.said("lineage", "--document", "docs/tea.md", "--version", after["document_hash"][:8])["versions"]
    assert one == after
    assert after["run_url"] in lived.text("lineage", "--document", "docs/tea.md")
    (same,) = lived.said("lineage", "--document", "docs/bread.md")["versions"]
    assert {release["release_id"] for release in same["releases"]} >= set(lived.releases.values())
    assert "no release holds document 'x'" in lived.refused("lineage", "--document", "x")


def test_tables_are_listed_with_who_wrote_them(lived: Lived) -> None:
    listed = {entry["table"]: entry["snapshots"] for entry in lived.said("dataset", "list")}
    newest, *_, oldest = listed["corpus_documents"]
    assert (oldest["rows"], newest["rows"]) == (len(DOCUMENTS), len(DOCUMENTS))
    with dg.DagsterInstance.get() as instance:
        assert instance.has_run(newest["run_id"])
    assert newest["snapshot"] in lived.text("dataset", "list")
    assert oldest["snapshot"] in lived.text("dataset", "list", "corpus_documents")
    assert "There is no table 'x'" in lived.refused("dataset", "list", "x")


def test_rows_are_shown_at_a_snapshot_and_at_a_time(lived: Lived) -> None:
    *_, oldest = lived.said("dataset", "list", "corpus_documents")[0]["snapshots"]
    for at in (oldest["snapshot"], lived.moments["before"].isoformat()):
        shown = lived.said("dataset", "show", "corpus_documents", "--at", at)
        texts = {row["document_id"]: row["text"] for row in shown["rows"]}
        assert "eighty" in texts["docs/tea.md"]
    now = lived.said("dataset", "show", "corpus_documents", "--limit", "1")
    assert (now["count"], len(now["rows"])) == (len(DOCUMENTS), 1)
    # A table that is never changed tells its past by the times of its rows.
    log = lived.said("dataset", "show", "traffic_requests", "--at", lived.moments["before"].isoformat())
    assert [row["request_id"] for row in log["rows"]] == [lived.requests["before"]]
    assert lived.said("dataset", "show", "corpus_documents", "--at", "2001-01-01T10:00:00Z")["rows"] == []


def test_two_moments_are_compared_by_key(lived: Lived) -> None:
    before, after = (lived.moments[state].isoformat() for state in ("before", "after"))
    found = lived.said("dataset", "diff", "corpus_documents", before, after)
    assert (found["added"], found["removed"]) == ([], [])
    (changed,) = found["changed"]
    assert changed["document_id"] == "docs/tea.md"
    assert {"document_hash", "text"} <= set(changed["columns"])
    chunks = lived.said("dataset", "diff", "corpus_chunks", before)
    assert (len(chunks["added"]), len(chunks["removed"]), chunks["changed"]) == (1, 1, [])
    assert "removed: 1" in lived.text("dataset", "diff", "corpus_chunks", before, after)
    assert len(lived.said("dataset", "diff", "release_manifests", before)["added"]) == 1
