"""The code location of the assistant in this folder."""

from pathlib import Path

from llmops_assets.definitions import build_definitions

defs = build_definitions(Path(__file__).parent)
