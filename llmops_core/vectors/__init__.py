"""The vector index: LanceDB tables with tagged versions, and search that gives the same hits and scores every time."""
