"""Generators: always another process that speaks OpenAI's HTTP, on this machine or elsewhere."""
