"""Writes `.env`, so that a bare `dagster dev -w workspace.yaml` uses the same home as `llmops`.

Dagster reads `.env` of the working folder. `LLMOPS_HOME` of the environment wins; `DAGSTER_HOME` follows it.
"""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent

home = Path(os.environ.get("LLMOPS_HOME") or PROJECT / ".llmops").expanduser().resolve()
(home / "dagster").mkdir(parents=True, exist_ok=True)
text = f"LLMOPS_HOME=${{LLMOPS_HOME:-{PROJECT / '.llmops'}}}\nDAGSTER_HOME=${{LLMOPS_HOME}}/dagster\n"
file = PROJECT / ".env"
if not file.exists() or file.read_text(encoding="utf-8") != text:
    file.write_text(text, encoding="utf-8")
