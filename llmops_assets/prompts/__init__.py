"""Prompts and their versions."""
