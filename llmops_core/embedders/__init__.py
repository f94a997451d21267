"""Embedders and rerankers: texts to vectors, and pairs of question and text to scores.

They load model files that `llmops_core.models` finds, and know nothing of chunks, tables or indexes (`sync` is what puts
their vectors into the lakehouse).
"""
