"""Writes `.env` and prepares Dagster's home, so that a bare `dagster dev -w workspace.yaml` runs as `llmops` does.

Dagster reads `.env` of the working folder. `LLMOPS_HOME` of the environment wins; `DAGSTER_HOME` follows it.
"""

import os
import sys
from pathlib import Path

from llmops_cli.instance import prepare_instance
from llmops_core.errors import LlmopsError
from llmops_core.settings import load_settings

PROJECT = Path(__file__).resolve().parent.parent

text = f"LLMOPS_HOME=${{LLMOPS_HOME:-{PROJECT / '.llmops'}}}\nDAGSTER_HOME=${{LLMOPS_HOME}}/dagster\n"
file = PROJECT / ".env"
if not file.exists() or file.read_text(encoding="utf-8") != text:
    file.write_text(text, encoding="utf-8")
try:
    prepare_instance(load_settings(home=os.environ.get("LLMOPS_HOME") or PROJECT / ".llmops"))
except LlmopsError as error:
    sys.exit(f"Error: {error}")
