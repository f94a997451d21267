"""How a document is cut into chunks: by its structure first, then by tokens of the embedder, with exact character
offsets into the document."""
