"""Two builds of one assistant that are started at the same moment: both end well, and nothing is there twice."""

import json
import subprocess
import sys
from pathlib import Path

from llmops_cli.build import build
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings
from tests.running_gateway import DOCUMENTS, NAME, write_assistant

UNIQUE = {
    "corpus_documents": "document_id",
    "corpus_chunks": "chunk_id",
    "index_embeddings": "chunk_id",
    "index_vector_index": "index_version",
    "prompts_versions": "version",
    "release_manifests": "release_id",
}


def test_two_builds_at_once_make_one_of_everything(home_with_models: Settings, tmp_path: Path) -> None:
    assistant = write_assistant(tmp_path / "notes")
    command = [sys.executable, "-m", "llmops_cli.main", "build", "--assistant", str(assistant.folder), "--json"]
    with (tmp_path / "log").open("wb") as log:
        builds = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) for _ in range(2)]
        said = [json.loads(build.communicate()[0]) for build in builds]
    print((tmp_path / "log").read_text(), said)
    assert [build.returncode for build in builds] == [0, 0], said

    lakehouse = Lakehouse.open(home_with_models)
    tables = {name: lakehouse.table(NAME, name).read() for name in UNIQUE}
    assert {name: tables[name][key].is_duplicated().sum() for name, key in UNIQUE.items()} == dict.fromkeys(UNIQUE, 0)
    assert tables["corpus_documents"].height == len(DOCUMENTS)
    assert sum(result["embedded"] for result in said) == tables["corpus_chunks"].height
    assert {result["release_id"] for result in said} == {Releases(lakehouse, NAME).get("prod").release_id}
    again = build(home_with_models, assistant)
    assert (again["embedded"], again["release_id"]) == (0, said[0]["release_id"])
