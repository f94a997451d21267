"""The serving process: OpenAI's HTTP in front of releases, every answer logged before it is out.

Imports llmops_core alone. It meets the asset side in three places only: it reads release manifests and channels, and it
writes the request spool.
"""
