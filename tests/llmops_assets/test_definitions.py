"""The asset graph, as it was last agreed on: a change shows here first."""

import json
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy

from llmops_assets.definitions import build_definitions
from llmops_core.errors import ConfigError

PROJECT = Path(__file__).parents[2]
GOLDEN = PROJECT / "tests" / "snapshots" / "asset_graph.json"


def graph() -> dict[str, object]:
    """Assets with upstreams, groups, freshness, and checks with whether they block; jobs, schedules with crons, sensors."""
    definitions = build_definitions(PROJECT / "assistants" / "python_help")
    assets = definitions.resolve_asset_graph()
    repository = definitions.get_repository_def()
    return {
        "assets": {
            key.to_user_string(): {
                "group": assets.get(key).group_name,
                "upstream": sorted(parent.to_user_string() for parent in assets.get(key).parent_keys),
                "partitioned": assets.get(key).is_partitioned,
                "freshness": _windows(assets.get(key).freshness_policy),
                "checks": {
                    check.name: "blocking" if assets.get(check).blocking else "warning"
                    for check in sorted(assets.get(key).check_keys)
                },
            }
            for key in sorted(assets.get_all_asset_keys(), key=dg.AssetKey.to_user_string)
        },
        "jobs": sorted(name for name in repository.job_names if not name.startswith("__")),
        "schedules": {s.name: s.cron_schedule for s in repository.schedule_defs},
        "sensors": sorted(s.name for s in repository.sensor_defs),
    }


def _windows(policy: object) -> dict[str, str]:
    """After how long without a materialisation an asset warns and fails."""
    if policy is None:
        return {}
    assert isinstance(policy, TimeWindowFreshnessPolicy)
    return {
        "warns": str(policy.warn_window and policy.warn_window.to_timedelta()),
        "fails": str(policy.fail_window.to_timedelta()),
    }


def test_the_asset_graph_is_the_recorded_one() -> None:
    """To accept a change, run this file as a script and look at the diff."""
    assert graph() == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_every_asset_explains_itself() -> None:
    definitions = build_definitions(PROJECT / "assistants" / "python_help")
    assets, repository = definitions.resolve_asset_graph(), definitions.get_repository_def()
    scheduled = {
        key
        for schedule in repository.schedule_defs
        for key in repository.get_job(schedule.job.name).asset_layer.selected_asset_keys
    }
    for key in assets.get_all_asset_keys():
        node = assets.get(key)
        assert node.description, key
        assert node.owners, key
        assert node.kinds, key
        # Due by time is what a schedule makes; of the others a quiet day says nothing.
        assert (node.freshness_policy is not None) == (key in scheduled), key


def test_an_unknown_model_is_named_with_file_and_key_when_a_code_location_is_loaded(tmp_path: Path) -> None:
    """A bare `dagster dev` shows what is raised here."""
    file = tmp_path / "assistant.yaml"
    file.write_text("name: notes\nsources: [{type: python_topics}]\nembedder: {model: m}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        build_definitions(tmp_path)
    assert str(file) in str(caught.value)
    assert "embedder.model: Unknown embedder 'm'" in str(caught.value)


def test_loading_a_code_location_imports_no_more_than_dagster_does() -> None:
    """Every process of every run loads it: what a step needs is imported in the step."""
    models = "torch transformers sentence_transformers lancedb lance great_expectations onnxruntime matplotlib peft trl"
    heavy = f"{models} polars pyarrow pyiceberg numpy sqlalchemy httpx aiohttp jinja2"
    code = (
        "import sys; from pathlib import Path; from llmops_assets.definitions import build_definitions;"
        f"build_definitions(Path('assistants/python_help'));"
        f"print([m for m in '{heavy}'.split() if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(graph(), indent=2) + "\n", encoding="utf-8")
