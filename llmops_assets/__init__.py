"""What is materialised: one folder an asset group, one file an asset.

Each file has one function from an `Assistant` to its definition; `definitions.py` collects them. A body reads its
upstreams at their recorded snapshots, calls one function of llmops_core, and reports what it did.
"""
