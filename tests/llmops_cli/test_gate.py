"""A release on its way to users, by commands: compared, refused, overruled, approved, and told afterwards."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from llmops_cli.build import build
from llmops_cli.main import main
from llmops_core.assistant import Assistant
from llmops_core.settings import Settings
from tests.running_gateway import write_assistant

# No word of them is in a document: who compares meanings puts every document somewhere, who looks for words finds nothing.
CASES = [
    {"case_id": f"q{n}", "question": f"xyzzy{n}", "gold_document_ids": ["docs/bikes.md"], "split": "held_out"}
    for n in range(12)
]
RULE = {"metric": "recall_at_5", "mode": "not_worse", "margin": 0.5}
GATE = {"min_cases": 10, "rules": [RULE]}
GENERATOR = {"engine": "openai", "model": "fake", "base_url": "http://127.0.0.1:9/v1"}

pytestmark = pytest.mark.models


def described(folder: Path, mode: str, top_k: int = 5, **more: Any) -> Assistant:
    evaluation = {"cases": "cases.jsonl", "answers": 0, "gate": GATE}
    retrieval = {"mode": mode, "top_k": top_k}
    return write_assistant(folder, retrieval=retrieval, generator=GENERATOR, evaluation=evaluation, **more)


@pytest.fixture(scope="module")
def notes(shared_home: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Assistant]:
    """Release 1, on prod, compares meanings; release 2, on dev, looks for words, and is worse."""
    folder = tmp_path_factory.mktemp("notes")
    first = described(folder, "dense")
    (folder / "cases.jsonl").write_text("\n".join(map(json.dumps, CASES)), encoding="utf-8")
    build(shared_home, first)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMOPS_ASSISTANT", str(folder))
        described(folder, "full_text")
        assert run("release", "create").exit_code == 0
        yield first


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--json"])


def said(*arguments: str) -> Any:
    """What a command says that works."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*arguments: str) -> tuple[str, str]:
    """Type and message of a command that is refused."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    error = json.loads(result.stdout)["error"]
    return error["type"], error["message"]


def on_prod() -> int:
    return int(next(release["number"] for release in said("release", "list") if "prod" in release["channels"]))


def test_a_pipeline_fails_on_a_regression_with_the_verdict_as_json(notes: Assistant) -> None:
    result = run("evaluate", "--against", "prod", "--fail-on-regression")
    assert result.exit_code == 1
    value = json.loads(result.stdout)
    gate, (rule,) = value["gate"], value["gate"]["rules"]
    assert (gate["outcome"], gate["release_id"]) == ("failed", value["release_id"])
    assert (rule["metric"], rule["candidate"], rule["incumbent"], rule["gain"], rule["cases"]) == (
        *("recall_at_5", 0.0, 1.0, -1.0),
        len(CASES),
    )
    assert value["held_out_uses"] == {"releases": 2, "decisions": 0}
    assert said("evaluate", "--against", "prod")["gate"]["outcome"] == "failed"
    same = said("evaluate", "--release", "prod", "--against", "prod", "--fail-on-regression")["gate"]
    assert (same["outcome"], same["kind"]) == ("passed", "the same")
    text = CliRunner().invoke(main, ["evaluate", "--against", "prod"]).stdout
    assert "Gate failed for release" in text
    assert "recall_at_5 not_worse, margin 0.5  failed" in text


def test_what_to_compare_with_has_to_be_named(notes: Assistant) -> None:
    result = CliRunner().invoke(main, ["evaluate", "--fail-on-regression"])
    assert result.exit_code == 2
    assert "--against prod" in result.stderr


def test_the_asset_check_says_the_same_with_a_table(notes: Assistant) -> None:
    assert run("evaluate", "--against", "prod").exit_code == 0
    key = dg.AssetCheckKey(dg.AssetKey([notes.name, "evaluation", "reports"]), "passes_gate")
    with dg.DagsterInstance.get() as instance:
        (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    evaluation = record.evaluation
    assert evaluation
    assert (evaluation.passed, evaluation.severity, evaluation.blocking) == (False, dg.AssetCheckSeverity.ERROR, False)
    table = evaluation.metadata["verdict"].value
    assert isinstance(table, str)
    assert "| recall_at_5 not_worse, margin 0.5 | failed | 0.000 | 1.000 | -1.000 |" in table


def test_a_release_that_is_worse_reaches_users_only_by_an_override_with_a_reason(notes: Assistant) -> None:
    kind, message = refused("release", "promote", "2", "prod", "--message", "trust me")
    assert kind == "GateError"
    assert "llmops release promote 2 prod --override --message WHY" in message
    assert refused("release", "promote", "2", "prod", "--override")[0] == "InvalidRequestError"
    assert on_prod() == 1
    moved = said("release", "promote", "2", "prod", "--override", "--message", "the models are away")
    assert (moved["action"], moved["gate"]["outcome"]) == ("override", "failed")
    event = said("release", "history")[-1]
    assert (event["action"], event["channel"], event["reason"]) == ("override", "prod", "the models are away")
    assert event["report_id"] == event["gate"]["report_id"]
    assert (on_prod(), said("release", "list")[0]["gate"]) == (2, "failed")
    # The way back is a gain, and passes.
    back = said("release", "promote", "1", "prod")
    assert (back["action"], back["gate"]["outcome"], on_prod()) == ("promote", "passed", 1)


def test_a_promotion_evaluates_what_was_not_evaluated(notes: Assistant) -> None:
    described(notes.folder, "dense", top_k=2)
    said("release", "create")
    moved = said("release", "promote", "3", "staging")
    assert moved["gate"]["outcome"] == "passed"
    assert moved["gate"]["rules"][0]["cases"] == len(CASES)
    assert said("evaluate", "--release", "3")["cases"] == len(CASES)


def test_a_rejected_release_says_so_in_the_list_and_in_its_history(notes: Assistant) -> None:
    described(notes.folder, "dense", top_k=3)
    said("release", "create")
    assert CliRunner().invoke(main, ["release", "reject", "4"]).exit_code == 2
    said("release", "reject", "4", "--message", "too slow")
    assert refused("release", "promote", "4", "prod")[1].count("too slow") == 1
    assert next(r["rejected"] for r in said("release", "list") if r["number"] == 4)
    history = said("release", "show", "4")["history"]
    assert [(entry["action"], entry["reason"]) for entry in history][-1] == ("reject", "too slow")
    line = CliRunner().invoke(main, ["release", "history", "4"]).stdout.splitlines()[-1]
    assert "reject" in line
    assert "too slow" in line


def test_two_releases_are_compared_with_their_prompts_as_a_text_diff(notes: Assistant) -> None:
    template = notes.folder / "prompts" / "answer.jinja"
    before = template.read_text(encoding="utf-8")
    described(notes.folder, "dense", top_k=4)
    template.write_text(f"{before}{{# kinder #}}\n", encoding="utf-8")
    number = len(said("release", "list")) + 1
    said("release", "create")
    found = said("release", "diff", "1", str(number))
    assert found["changed"] == {
        "prompt.version": {"a": 1, "b": 2},
        "retrieval.top_k": {"a": 5, "b": 4},
    }
    lines = found["prompt"].splitlines()
    assert lines[:2] == ["--- prompts:/answer/1", "+++ prompts:/answer/2"]
    assert "+{# kinder #}" in lines
    same = CliRunner().invoke(main, ["release", "diff", "1", "prod"]).stdout
    assert same == "Release 1 and release 1 are the same.\n"

    assert said("prompt", "show", "prompts:/answer/1")["text"] == before
    assert said("prompt", "show", "prompts:/answer@prod")["version"] == 1
    newest = said("prompt", "show", "prompts:/answer@dev")
    assert (newest["uri"], newest["message"]) == ("prompts:/answer/2", "from prompts/answer.jinja")
    assert [version["version"] for version in said("prompt", "list")] == [1, 2]


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("answer", "prompts:/NAME/NUMBER or prompts:/NAME@CHANNEL"),
        ("prompts:/answer/0", "prompts:/NAME/NUMBER or prompts:/NAME@CHANNEL"),
        ("prompts:/answer/99", "has versions 1 to "),
        ("prompts:/question/1", "Prompts are: answer"),
        ("prompts:/answer@production", "no release is on production. Channels with one: "),
    ],
)
def test_a_prompt_that_is_not_there_is_answered_with_those_there_are(notes: Assistant, uri: str, told: str) -> None:
    assert told in refused("prompt", "show", uri)[1]


def test_a_release_shows_the_licences_of_its_models(notes: Assistant) -> None:
    assert said("release", "show", "1")["licences"] == {"generator": None, "embedder": "Apache-2.0"}
