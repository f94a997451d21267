"""Iceberg: the catalog, the tables as code, reads at a snapshot and writes that say who wrote them."""
