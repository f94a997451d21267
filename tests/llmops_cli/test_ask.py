"""`llmops ask` where the gateway cannot answer at once."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from llmops_cli.gateway_process import gateway
from llmops_cli.main import main
from llmops_core.release.manifest import IndexPin
from llmops_core.settings import load_settings
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


def test_ask_names_a_release_that_is_not_there_before_it_starts_a_gateway(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_PORT", "0")
    assert "there is no release 'staging'" in _refused("ask", "Where is it?", "--release", "staging")
