"""The code location of the assistant in this folder."""

from llmops_assets.definitions import build_definitions

defs = build_definitions(__file__.rpartition("/")[0])
