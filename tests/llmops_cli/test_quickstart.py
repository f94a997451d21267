"""`llmops quickstart` where the gateway does not do what it should."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from llmops_cli.main import main
from llmops_core.settings import load_settings
from tests.llmops_cli.fake_gateway import fake_gateway


def test_feedback_that_is_refused_ends_with_the_gateways_own_words_past_every_proxy(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:7")
    refusal = {"error": {"message": "The request log cannot be written: no space left", "type": "spool_error"}}
    with fake_gateway(load_settings().home, "notes", feedback=(503, refusal)) as port:
        monkeypatch.setenv("LLMOPS_PORT", str(port))
        result = CliRunner().invoke(main, ["quickstart", "--json"])
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    message = json.loads(result.stdout)["error"]["message"]
    assert message == "The request log cannot be written: no space left"
