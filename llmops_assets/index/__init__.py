"""Embeddings and the vector index."""
