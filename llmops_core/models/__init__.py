"""Model files: which models come built in, where their files come from, where they lie, and what pins them.

Nothing here runs a model; that is the job of `embedders` and of the engines. Loading a definition or computing the
revision of a built-in model needs neither network nor model files.
"""
