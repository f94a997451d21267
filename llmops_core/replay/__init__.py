"""Replay: a logged request run again on exactly what it ran on, or on another release, and compared."""
