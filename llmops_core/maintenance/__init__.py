"""Maintenance: what nothing needs any more goes, by the retention of assistant.yaml; small files become large ones."""
