"""The hub itself cannot be reached from a test; its own client talks to a small server that speaks the hub's HTTP."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from llmops_core.embedders.load import load_embedder
from llmops_core.errors import ModelError
from llmops_core.models.record import files_below
from llmops_core.models.revisions import embedder_revision
from llmops_core.models.store import model_folder
from llmops_core.settings import load_settings

COMMIT = "0123456789" * 4
NAME = f"hf:owner/embedder@{COMMIT}"
FILES = {
    "config.json": b'{"max_position_embeddings": 128}',
    "model.safetensors": b"weights" * 1000,
    "pytorch_model.bin": b"pickle",
    "onnx/model.onnx": b"graph",
    "1_Pooling/config.json": b"{}",
}
EMBED = """
import sys
from pathlib import Path
from llmops_core.embedders.load import load_embedder
from llmops_core.settings import load_settings
embedder = load_embedder(load_settings(home=Path(sys.argv[1]), device="cpu"), sys.argv[2], "query: ", "passage: ")
print(embedder.revision, embedder.dimension, embedder.embed_query("text") @ embedder.embed_documents(["text"])[0])
"""
CODE = """
import sys
from pathlib import Path
from llmops_core.errors import ModelError
from llmops_core.models.store import model_folder, pull
from llmops_core.settings import load_settings
settings = load_settings(home=Path(sys.argv[1]))
try:
    print(model_folder(settings, sys.argv[2], "embedder"))
    print(pull(settings, [sys.argv[2]])[0].already_there)
except ModelError as error:
    print(error)
"""


class HubStandIn(BaseHTTPRequestHandler):
    """Lists and serves the files of one repository at one commit."""

    files: ClassVar[Mapping[str, bytes]] = FILES

    def do_GET(self) -> None:
        tree = [{"type": "file", "path": name, "size": len(data), "oid": COMMIT} for name, data in self.files.items()]
        resolve = f"/owner/embedder/resolve/{COMMIT}/"
        name = self.path.removeprefix(resolve)
        if self.path.split("?")[0] == f"/api/models/owner/embedder/tree/{COMMIT}":
            self._answer(json.dumps(tree).encode())
        elif self.path.startswith(resolve) and name in self.files:
            data = self.files[name]
            self._answer(data, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'})
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(200)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    with serving(HubStandIn) as url:
        yield url


@contextmanager
def serving(handler: type[HubStandIn]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def ask(home: Path, name: str, code: str = CODE, **environment: str) -> tuple[str, str]:
    """Resolve a model in a process of its own, since the hub's client reads its environment at import."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(home), name],
        env={**inherited, "HF_HOME": str(home / "hf"), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, done.stderr


def test_a_hub_model_is_downloaded_once_without_other_runtimes(hub: str, tmp_path: Path) -> None:
    out, err = ask(tmp_path, NAME, HF_ENDPOINT=hub)
    folder = tmp_path / "models" / f"hf--owner--embedder--{COMMIT}"
    assert out.splitlines() == [str(folder), "True"]
    assert err == ""
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == [
        "1_Pooling",
        "config.json",
        "model.json",
        "model.safetensors",
    ]
    # From here on no network is needed: this process is offline.
    assert model_folder(load_settings(home=tmp_path), NAME, "embedder") == folder


@pytest.mark.models
def test_an_embedder_of_the_hub_runs_with_the_prefixes_of_its_card(models: Path, tmp_path: Path) -> None:
    class Embedder(HubStandIn):
        files: ClassVar[Mapping[str, bytes]] = {
            name: file.read_bytes() for name, file in files_below(models / "minilm").items()
        }

    with serving(Embedder) as url:
        out, err = ask(tmp_path, NAME, EMBED, HF_ENDPOINT=url)
    assert err == ""
    revision, dimension, similarity = out.split()
    same = load_embedder(load_settings(home=models.parent, device="cpu"), "minilm", "query: ", "passage: ")
    assert revision == embedder_revision(load_settings(home=tmp_path), NAME, "query: ", "passage: ")
    assert dimension == "384"
    expected = same.embed_query("text") @ same.embed_documents(["text"])[0]
    assert float(similarity) == pytest.approx(expected, abs=0.001)


def test_a_hub_model_that_does_not_exist_says_so(hub: str, tmp_path: Path) -> None:
    out, _ = ask(tmp_path, f"hf:owner/nothing@{COMMIT}", HF_ENDPOINT=hub)
    assert out.startswith(f"hf:owner/nothing@{COMMIT} cannot be downloaded: RepositoryNotFoundError")
    assert "path:<folder>" in out


def test_offline_a_hub_model_says_what_to_do(tmp_path: Path) -> None:
    out, _ = ask(tmp_path, NAME, HF_HUB_OFFLINE="1")
    assert "cannot be downloaded: OfflineModeIsEnabled" in out
    assert "HF_HUB_OFFLINE unset" in out
    assert not (tmp_path / "models" / f"hf--owner--embedder--{COMMIT}").exists()


def test_a_hub_model_without_commit_is_refused_before_any_download(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a release must pin a model"):
        model_folder(load_settings(home=tmp_path), "hf:owner/embedder@main", "embedder")
