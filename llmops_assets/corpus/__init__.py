"""Documents, chunks and what could not be read."""
