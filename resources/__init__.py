"""Dagster's face of llmops_core's classes, and how settings choose them."""
