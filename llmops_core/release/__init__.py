"""Releases: the manifest that pins everything an answer depends on, and the channels that point to one."""
