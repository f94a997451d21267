"""Lineage: what an answer came from, and what a document went into."""
