"""Sitemaps: which pages a site has, and when it says that each of them changed."""

import zlib
from dataclasses import dataclass
from xml.etree import ElementTree

MAX_BYTES = 50 * 1024 * 1024
"""By the protocol of sitemaps, unpacked."""


@dataclass(frozen=True)
class Listed:
    """An address as it is written in a sitemap, and its date (empty if it has none)."""

    address: str
    lastmod: str


@dataclass(frozen=True)
class Sitemap:
    """What one file lists: further sitemaps (an index), or pages."""

    is_index: bool
    listed: list[Listed]


def parse_sitemap(data: bytes) -> Sitemap:
    """Read a sitemap or an index of sitemaps, plain or in gzip; raises `ValueError` with the reason if it is neither."""
    if data.startswith(b"\x1f\x8b"):
        data = _unpacked(data)
    try:
        # Expat, below, ends entities that multiply, and fetches none.
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise ValueError(f"not XML: {error}") from error
    kind = _name(root)
    if kind not in ("urlset", "sitemapindex"):
        raise ValueError(f"not a sitemap: its root is <{kind}>, not <urlset> or <sitemapindex>")
    found = []
    for entry in root:
        facts = {_name(child): (child.text or "").strip() for child in entry}
        if facts.get("loc"):
            found.append(Listed(facts["loc"], facts.get("lastmod", "")))
    return Sitemap(kind == "sitemapindex", found)


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _unpacked(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        found = unpacker.decompress(data, MAX_BYTES)
    except zlib.error as error:
        raise ValueError(f"not gzip: {error}") from error
    if unpacker.unconsumed_tail:
        raise ValueError(f"unpacks to over {MAX_BYTES:,} bytes, which is the limit; split it")
    if not unpacker.eof:
        raise ValueError("not gzip: cut short")
    return found
