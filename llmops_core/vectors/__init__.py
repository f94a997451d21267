"""The vector index in LanceDB: versions tied to Iceberg snapshots, and search that gives the same twice."""
