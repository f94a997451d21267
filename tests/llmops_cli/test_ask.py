"""`llmops ask` where the gateway cannot answer at once."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from click.testing import CliRunner

from llmops_cli.gateway_process import gateway
from llmops_cli.main import main
from llmops_core.release.manifest import IndexPin
from llmops_core.settings import load_settings
from tests.llmops_cli.fake_gateway import fake_gateway
from tests.running_gateway import NAME, promote


def _refused(*arguments: str) -> str:
    """Run a command that cannot work; its message."""
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 1, result.output
    return str(json.loads(result.stdout)["error"]["message"])


@pytest.fixture
def broken(built: Path) -> Iterator[str]:
    """The release on prod, which cannot be loaded while the one on dev can."""
    yield promote(load_settings(), index=IndexPin(version="gone", snapshots={}))
    promote(load_settings())


@pytest.fixture(params=["its own gateway", "a running gateway"])
def _any_gateway(broken: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LLMOPS_PORT", "0")
    if request.param == "its own gateway":
        yield
        return
    with gateway(load_settings(), NAME, "dev") as url:
        monkeypatch.setenv("LLMOPS_PORT", str(httpx.URL(url).port))
        yield


@pytest.mark.usefixtures("_any_gateway")
def test_ask_ends_with_the_reason_why_the_release_on_prod_does_not_load(broken: str) -> None:
    message = _refused("ask", "Where is it?")
    assert broken in message
    assert "There is no version gone" in message


@pytest.mark.usefixtures("_any_gateway")
def test_another_release_can_be_asked_while_the_one_on_prod_does_not_load() -> None:
    message = _refused("ask", "Where is it?", "--release", "dev")
    assert "http://127.0.0.1:9/v1" in message
    assert "Is it running?" in message


def test_the_log_of_a_gateway_begins_with_its_start_and_the_one_before_stays(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_PORT", "0")
    logs = load_settings().home / "logs"
    logs.mkdir(exist_ok=True)
    (logs / "gateway.log").write_text("of the gateway before\n")
    with gateway(load_settings(), NAME, "dev"):
        pass
    assert "of the gateway before" not in (logs / "gateway.log").read_text()
    assert (logs / "gateway.previous.log").read_text() == "of the gateway before\n"


def test_ask_names_a_release_that_is_not_there_before_it_starts_a_gateway(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_PORT", "0")
    assert "there is no release 'staging'" in _refused("ask", "Where is it?", "--release", "staging")


def test_ask_says_what_it_waits_for_and_keeps_it_from_the_answer(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_PORT", "0")
    result = CliRunner().invoke(main, ["ask", "Where is it?"])
    assert result.stdout == ""
    *steps, waiting, error = result.stderr.splitlines()
    assert "No gateway of this home runs" in steps[0]
    assert "`llmops dev` keeps one running" in steps[0]
    assert steps[1] == "Starting the gateway"
    assert waiting == "Waiting for the answer of notes"
    assert error.startswith("Error: ")


def test_people_are_told_what_the_answer_was_made_from_in_words(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = [
        {"number": number, "document_id": f"docs/{name}.md", "char_start": 10, "char_end": 58, "cited": cited}
        for number, (name, cited) in enumerate((("coffee", "marker"), ("tea", None), ("milk", "overlap")), start=1)
    ]
    with fake_gateway(load_settings().home, NAME, chunks=chunks) as port:
        monkeypatch.setenv("LLMOPS_PORT", str(port))
        result = CliRunner().invoke(main, ["ask", "Where is it?"])
    assert result.stdout.splitlines() == [
        "On the second floor.",
        "",
        "Chunks that the generator was given:",
        "  [1] docs/coffee.md, characters 10–58  (cited)",
        "  [2] docs/tea.md, characters 10–58",
        "  [3] docs/milk.md, characters 10–58  (its words are in the answer)",
        "Request r1, release 0000000000000000",
    ]


def test_a_gateway_that_runs_is_found_whatever_its_address_looks_like(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_HOST", "::1")
    with gateway(load_settings(port=0), NAME) as url:
        monkeypatch.setenv("LLMOPS_PORT", str(httpx.URL(url).port))
        with gateway(load_settings(), NAME) as found:
            assert found == url


def test_ask_says_why_its_gateway_does_not_start(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_HOST", "0.0.0.0")
    monkeypatch.setenv("LLMOPS_PORT", "0")
    assert "does not bind 0.0.0.0" in _refused("ask", "Where is it?")


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_PORT", "0")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:7")
    assert "http://127.0.0.1:9/v1/chat/completions does not answer" in _refused("ask", "Where is it?")


def test_the_gateway_of_a_command_ends_with_it_even_when_it_is_killed(built: Path) -> None:
    holding = (
        "import sys; from llmops_cli.gateway_process import gateway; from llmops_core.settings import load_settings"
    )
    holding += f"\nwith gateway(load_settings(port=0), {NAME!r}): print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", holding], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as command:
        assert command.stdout
        assert command.stdout.readline()
        (child,) = psutil.Process(command.pid).children()
        command.kill()
    try:
        child.wait(60)
    except psutil.NoSuchProcess:
        return
