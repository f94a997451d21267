"""Prompts: templates in a sandbox, versions by content, and the token budget of the generator's window."""
