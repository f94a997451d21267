"""The domain of an LLM assistant and plain classes over the outside world.

Knows nothing of Dagster and of web frameworks, so that the asset side and the gateway can share it. Heavy libraries
(torch, transformers, lancedb, great_expectations) are imported inside the functions that need them.
"""
