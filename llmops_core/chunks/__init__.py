"""How documents are cut into chunks: by structure, then by tokens of the embedder."""
