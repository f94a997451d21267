import gzip

import pytest

from llmops_core.corpus.sources import sitemap
from llmops_core.corpus.sources.sitemap import Listed, parse_sitemap

NAMESPACE = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'
PAGES = f"""<?xml version="1.0" encoding="UTF-8"?><urlset {NAMESPACE}>
<url><loc> https://x.org/a?b=1&amp;c=2 </loc><lastmod>2026-01-02</lastmod></url><url><loc>https://x.org/ä</loc></url><url/>
</urlset>"""


def test_pages_come_with_their_dates() -> None:
    found = parse_sitemap(PAGES.encode())
    assert not found.is_index
    assert found.listed == [Listed("https://x.org/a?b=1&c=2", "2026-01-02"), Listed("https://x.org/ä", "")]


def test_an_index_lists_sitemaps_with_or_without_a_namespace() -> None:
    found = parse_sitemap(b"<sitemapindex><sitemap><loc>https://x.org/1.xml</loc></sitemap></sitemapindex>")
    assert found.is_index
    assert found.listed == [Listed("https://x.org/1.xml", "")]


def test_gzip_is_unpacked() -> None:
    assert parse_sitemap(gzip.compress(PAGES.encode())) == parse_sitemap(PAGES.encode())


def test_what_is_no_sitemap_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = "<!DOCTYPE d [<!ENTITY a 'xxxxxxxxxx'>" + "".join(
        f"<!ENTITY {name} '{f'&{before};' * 10}'>" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    monkeypatch.setattr(sitemap, "MAX_BYTES", 1000)
    for data, says in (
        (b"", "not XML"),
        (b"<html></html>", "its root is <html>"),
        (PAGES.encode()[:-20], "not XML"),
        (f"{bomb}]><urlset><url><loc>&i;</loc></url></urlset>".encode(), "not XML"),
        (gzip.compress(PAGES.encode())[:-9], "cut short"),
        (b"\x1f\x8bxxxxxxxxxxxx", "not gzip"),
        (gzip.compress(b" " * 5000), "over 1,000 bytes"),
    ):
        with pytest.raises(ValueError, match=says):
            parse_sitemap(data)
