"""What commands print with `--json`, on a built project: the keys that scripts rely on, and that they are right."""

import json
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from llmops_cli.main import main
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.diff import changes
from llmops_core.release.manifest import IndexPin, RerankerPin
from llmops_core.release.registry import Releases
from llmops_core.settings import load_settings


def said(*arguments: str) -> Any:
    """Run a command that works; its one JSON value."""
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def releases() -> Releases:
    return Releases(Lakehouse.open(load_settings()), "notes")


def test_search_finds_the_chunk_with_its_place(built: Path) -> None:
    found = said("search", "Where is the coffee machine?")
    assert found["index_version"] == releases().get("dev").manifest.index.version
    (hit,) = found["hits"]
    assert hit["document_id"] == "docs/coffee.md"
    assert "second floor" in hit["text"]
    assert hit["score"] > 0
    assert hit["chunk_id"]


@pytest.mark.parametrize(
    ("command", "default"),
    [("ask", "prod"), ("search", "dev"), ("evaluate", "dev"), ("release show", None), ("release promote", None)],
)
def test_every_help_text_names_a_release_alike_and_its_default(command: str, default: str | None) -> None:
    text = " ".join(CliRunner().invoke(main, [*command.split(), "--help"]).stdout.split())
    assert "a channel (dev, staging or prod), a number, an id, or the first 8 or more characters of an id" in text
    assert re.findall(r"Default: (\w+)", text) == ([default] if default else [])


def test_a_release_is_found_by_channel_number_id_and_the_beginning_of_its_id(built: Path) -> None:
    release = releases().get("dev")
    for reference in ("dev", str(release.number), release.release_id, release.release_id[:8]):
        assert said("release", "show", reference)["release_id"] == release.release_id
        assert said("search", "coffee", "--release", reference)["hits"]


def test_an_assistant_is_found_by_its_name_and_by_its_folder(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = said("release", "list")
    letters = built / "assistants" / "letters"
    letters.mkdir()
    (letters / "assistant.yaml").write_text("name: letters\nsources: [{type: python_topics}]\n", encoding="utf-8")
    try:
        for place, named in ((built, "notes"), (built, "assistants/notes"), (letters, "notes"), (letters, "../notes")):
            monkeypatch.chdir(place)
            assert said("release", "list", "--assistant", named) == listed
            monkeypatch.setenv("LLMOPS_ASSISTANT", named)
            assert said("release", "list") == listed
            monkeypatch.delenv("LLMOPS_ASSISTANT")
    finally:
        (letters / "assistant.yaml").unlink()
        letters.rmdir()


def test_a_build_again_embeds_nothing(built: Path) -> None:
    done = said("build")
    assert (done["documents"], done["rejected"], done["chunks"], done["embedded"]) == (1, 0, 1, 0)
    assert done["index_version"] == releases().get("prod").manifest.index.version
    assert done["release_id"] == releases().get("prod").release_id


def test_a_build_shows_each_asset_with_its_numbers_and_names_its_run(built: Path) -> None:
    result = CliRunner().invoke(main, ["build"])
    made = dict(re.findall(r"^  (\w+/\w+) +([^…\n]+)$", result.stderr, re.MULTILINE))
    assert set(made) == {
        *("corpus/documents", "corpus/rejected", "corpus/chunks", "index/embeddings", "index/vector_index"),
        *("prompts/versions", "release/manifests"),
    }
    assert made["corpus/documents"] == "rows 1, new 0, changed 0, deleted 0"
    assert made["release/manifests"].startswith("release number ")
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs(limit=1)
    assert f"{run.run_id}, under Runs in the Dagster UI" in result.stdout


def test_a_build_shows_which_check_did_not_pass(built: Path) -> None:
    unreadable = built / "assistants" / "notes" / "docs" / "tea.md"
    unreadable.write_bytes(b"caf\xe9")
    try:
        result = CliRunner().invoke(main, ["build"])
    finally:
        unreadable.unlink()
    assert result.exit_code == 0
    assert "corpus/rejected did not pass nothing_rejected: rejected 1\n" in result.stderr
    said("build")


def test_of_a_run_that_fails_the_reason_is_shown_and_not_what_did_not_begin(built: Path) -> None:
    notes = built / "assistants" / "notes"
    with (notes / "assistant.yaml").open("a", encoding="utf-8") as description:
        description.write("evaluation: {cases: cases.jsonl}\n")
    result = CliRunner().invoke(main, ["evaluate"])
    assert result.exit_code == 1
    assert f"{notes / 'cases.jsonl'} does not exist" in result.stderr
    assert "Its log is under Runs in the Dagster UI" in result.stderr
    assert "Not executing" not in result.stderr


def test_releases_are_listed_newest_first_with_their_channels(built: Path) -> None:
    prompt = built / "assistants" / "notes" / "prompts" / "answer.jinja"
    prompt.write_text(prompt.read_text(encoding="utf-8").replace("brief", "kind"), encoding="utf-8")
    created = said("release", "create")
    newest, oldest = said("release", "list")
    assert (newest["release_id"], newest["number"], newest["channels"]) == (created["release_id"], 2, ["dev"])
    assert oldest["channels"] == ["prod"]
    assert datetime.fromisoformat(newest["created_at"]).tzinfo
    assert datetime.fromisoformat(newest["created_at"]).microsecond == 0
    assert (newest["changed"], oldest["changed"]) == (["prompt.version 1 → 2"], [])
    lines = CliRunner().invoke(main, ["release", "list"]).stdout.splitlines()
    assert [re.split(" {2,}", line)[-1] for line in lines[1:]] == ["prompt.version 1 → 2", "the first one"]

    shown = said("release", "show", "2")
    assert shown["manifest"]["prompt"]["version"] == 2
    assert said("release", "promote", "2", "staging", "--message", "try it")["release_id"] == created["release_id"]
    assert releases().get("staging").release_id == created["release_id"]
    # As before, for the other tests of this file.
    said("release", "promote", "1", "dev")


def test_what_changed_between_two_releases_is_named_by_its_path(built: Path) -> None:
    before = releases().get("prod").manifest
    params = before.generator.params.model_copy(update={"max_tokens": 7})
    generator = before.generator.model_copy(update={"params": params, "revision": "other", "adapter": "tone"})
    retrieval = before.retrieval.model_copy(update={"reranker": RerankerPin(model="m", revision="r", pool=3)})
    index = IndexPin(version="other", snapshots={})
    after = before.model_copy(update={"generator": generator, "retrieval": retrieval, "index": index})
    assert changes(before, before) == []
    assert sorted(changes(before, after)) == [
        "generator.adapter",
        f"generator.params.max_tokens {before.generator.params.max_tokens} → 7",
        "generator.revision",
        "index",
        "retrieval.reranker.model none → m",
        "retrieval.reranker.pool none → 3",
        "retrieval.reranker.revision",
    ]


def test_a_promotion_names_the_user_also_where_it_has_no_name(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2_000_123_456)
    said("release", "promote", "1", "staging", "--message", "works")
    last = releases().channels.events().filter(channel="staging").row(-1, named=True)
    assert (last["author"], last["reason"]) == ("user 2000123456", "works")


def test_maintenance_says_what_would_go_and_what_went(built: Path) -> None:
    assert said("maintain", "--dry-run").keys() == said("maintain").keys()


def test_ingest_counts_new_rows(built: Path) -> None:
    assert said("ingest") == {"requests": 0, "feedback": 0}
