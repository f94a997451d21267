"""`llmops quickstart` on an empty home: the main job, from documents to logged answers and scores, with the real models."""

import json
import os
import subprocess
import sys
from pathlib import Path

from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.settings import load_settings

PROJECT = Path(__file__).parents[2]
DOCUMENTS = 79


def test_the_main_job_from_documents_to_scores(tmp_path: Path, models: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(models)
    done = subprocess.run(
        [sys.executable, "-m", "llmops_cli.main", "quickstart", "--assistant", "assistants/python_help", "--json"],
        cwd=PROJECT,
        env={**os.environ, "LLMOPS_HOME": str(home), "DAGSTER_HOME": str(home / "dagster"), "LLMOPS_PORT": "0"},
        stdout=subprocess.PIPE,
        check=True,
    )
    said = json.loads(done.stdout)

    built, asked = said["build"], said["questions"]
    assert (built["documents"], built["rejected"], built["embedded"]) == (DOCUMENTS, 0, built["chunks"])
    assert len(asked) == 5
    assert all(question["answer"].strip() for question in asked)
    assert any(question["streamed"] for question in asked)
    assert said["logged"] == {"requests": 5, "feedback": 2}
    cases = (PROJECT / "assistants" / "python_help" / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    scores = said["evaluation"]
    assert scores["release_id"] == said["release"]["release_id"]
    assert (scores["cases"], scores["answered"], scores["failed"]) == (len(cases), 12, 0)
    # Chance has 0.06: so little would mean that vectors and chunks do not belong together.
    assert scores["metrics"]["recall_at_5"]["value"] > 0.5

    rows = Lakehouse.open(load_settings(home=home)).table("python_help", "traffic_requests").read().sort("request_id")
    assert rows["request_id"].to_list() == sorted(question["request_id"] for question in asked)
    assert rows["answer"].to_list() == [question["answer"] for question in sorted(asked, key=lambda q: q["request_id"])]
    assert set(rows["release_id"]) == {said["release"]["release_id"]}
    assert [len(json.loads(messages)) for messages in rows["messages"]].count(3) == 1
