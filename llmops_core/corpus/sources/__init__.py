"""The kinds of sources, one file each: they stream documents, and say cheaply whether anything changed."""
