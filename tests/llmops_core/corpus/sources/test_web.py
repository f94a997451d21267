"""Against a real site, see tests/site.py."""

import os
import shutil
import threading
from collections.abc import Iterator
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmops_core.assistant import WebSource as WebSection
from llmops_core.assistant import load_assistant
from llmops_core.corpus import files
from llmops_core.corpus.document import Document, Rejected
from llmops_core.corpus.sources import web as web_module
from llmops_core.corpus.sources import web_client
from llmops_core.corpus.sources.web import WebSource
from llmops_core.corpus.sync import sync_corpus
from llmops_core.errors import ConfigError, EmptyCorpusError, SourceError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from tests.office_files import docx, paragraph, pdf
from tests.site import Asked, Reply, Site, running_site


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(web_client, "BACKOFF_S", 0.01)
    with running_site() as site:
        yield site


def source(site: Site, cache: Path, **options: Any) -> WebSource:
    return WebSource(
        WebSection(type="web", **{"sitemap": f"{site.url}/sitemap.xml", "delay_seconds": 0, **options}), cache
    )


def documents(pages: WebSource) -> dict[str, Document]:
    return {item.document_id: item for item in pages.read() if isinstance(item, Document)}


def reasons(pages: WebSource) -> dict[str, str]:
    return {item.uri: item.reason for item in pages.read() if isinstance(item, Rejected)}


def small_site(site: Site) -> None:
    site.sitemap("/", "/a", "/b")
    site.page("/", "<title>Home</title><p>home")
    site.page("/a", "<h1>Alpha</h1><p>text")
    site.page("/b", "<p>beta")


def test_the_pages_of_the_sitemap_are_documents(site: Site, tmp_path: Path) -> None:
    small_site(site)
    found = documents(source(site, tmp_path))
    assert found.keys() == {f"{site.url}/", f"{site.url}/a", f"{site.url}/b"}
    name = f"web:{site.url}/sitemap.xml"
    url = f"{site.url}/a"
    assert found[url] == Document(url, "Alpha", "# Alpha\n\ntext\n", url, "text/markdown", name)
    assert (found[f"{site.url}/"].title, found[f"{site.url}/b"].title) == ("Home", "b")


def test_every_kind_is_read_as_the_server_names_it(site: Site, tmp_path: Path) -> None:
    kinds: dict[str, tuple[str | bytes, str]] = {
        "/md": ("# Md", "text/markdown"),
        "/x.md": ("# Suffix", "text/plain"),
        "/plain": ("# words", "text/plain; charset=iso-8859-1"),
        "/pdf": (pdf("Pages"), "application/pdf"),
        "/x.docx": (docx(paragraph("Word", "heading 1")), "application/octet-stream"),
        "/xhtml": ("<title>X</title><p>x", "application/xhtml+xml"),
    }
    for path, (body, kind) in kinds.items():
        site.page(path, body, kind)
    site.sitemap(*kinds)
    found = documents(source(site, tmp_path))
    assert {key.removeprefix(site.url): (d.title, d.media_type) for key, d in found.items()} == {
        "/md": ("Md", "text/markdown"),
        "/x.md": ("Suffix", "text/markdown"),
        "/plain": ("plain", "text/plain"),
        "/pdf": ("Pages", "text/plain"),
        "/x.docx": ("Word", "text/markdown"),
        "/xhtml": ("X", "text/markdown"),
    }


def test_the_encoding_is_that_of_the_header_else_of_the_page(site: Site, tmp_path: Path) -> None:
    site.sitemap("/header", "/meta")
    site.page("/header", "<meta charset=utf-8><p>Привет".encode("cp1251"), "text/html; charset=windows-1251")
    site.page("/meta", "<meta charset=windows-1251><p>Привет".encode("cp1251"), "text/html")
    assert {d.text for d in documents(source(site, tmp_path)).values()} == {"Привет\n"}


def test_indexes_and_gzip_are_followed_and_each_page_is_asked_once(site: Site, tmp_path: Path) -> None:
    import gzip

    small_site(site)
    packed = gzip.compress(site.sitemap("/a", "/a#part"))
    site.page("/one.xml.gz", packed, "application/gzip")
    site.sitemap("/b", "/a", path="/two.xml")
    site.sitemap("/one.xml.gz", "/two.xml", "/sitemap.xml", kind="sitemapindex")
    assert documents(source(site, tmp_path)).keys() == {f"{site.url}/a", f"{site.url}/b"}
    assert sorted(site.paths()) == ["/a", "/b", "/one.xml.gz", "/robots.txt", "/sitemap.xml", "/two.xml"]


def test_indexes_below_each_other_without_end_are_an_error(site: Site, tmp_path: Path) -> None:
    def deeper(asked: Asked) -> Reply:
        return Reply(
            f"<sitemapindex><sitemap><loc>{site.url}{asked.path}x</loc></sitemap></sitemapindex>".encode(), 200
        )

    site.replies = {f"/sitemap.xml{'x' * n}": deeper for n in range(10)}
    with pytest.raises(SourceError, match="more than 3 deep"):
        list(source(site, tmp_path).read())


def test_a_glob_picks_pages_by_their_path(site: Site, tmp_path: Path) -> None:
    for path in ("/docs/", "/docs/a", "/docs/%C3%A4/b", "/blog/c"):
        site.page(path, f"<p>{path}")
    site.sitemap("/docs/", "/docs/a", "/docs/ä/b", "/blog/c")
    pages = source(site, tmp_path, glob="docs/**")
    assert {key.removeprefix(site.url) for key in documents(pages)} == {"/docs/", "/docs/a", "/docs/%C3%A4/b"}
    assert documents(source(site, tmp_path, glob="docs/ä/*")).keys() == {f"{site.url}/docs/%C3%A4/b"}
    assert pages.name.endswith("/sitemap.xml/docs/**")


def test_unchanged_pages_are_not_sent_again(site: Site, tmp_path: Path) -> None:
    small_site(site)
    dated = Reply(b"<p>dated", 200, {"Content-Type": "text/html", "Last-Modified": formatdate(0, usegmt=True)})
    site.replies["/b"] = lambda asked: Reply(status=304) if asked.headers.get("If-Modified-Since") else dated
    first = documents(source(site, tmp_path))
    site.paths()
    sent: list[int] = []
    for path, reply in list(site.replies.items()):
        assert callable(reply)

        def counted(asked: Asked, reply: Any = reply) -> Reply:
            answer: Reply = reply(asked)
            sent.append(answer.status)
            return answer

        site.replies[path] = counted
    assert documents(source(site, tmp_path)) == first
    assert sent == [304] * 4


def test_a_changed_page_is_a_changed_document(site: Site, tmp_path: Path) -> None:
    small_site(site)
    documents(source(site, tmp_path))
    site.page("/a", "<h1>Other</h1>")
    assert documents(source(site, tmp_path))[f"{site.url}/a"].title == "Other"


def test_a_page_with_the_same_date_is_not_asked_for_within_a_day(site: Site, tmp_path: Path) -> None:
    small_site(site)
    site.sitemap("/a", "/b", a="2026-01-01", b="2026-01-01")
    documents(source(site, tmp_path))
    site.paths()
    site.sitemap("/a", "/b", a="2026-01-01", b="2026-01-02")
    site.page("/b", "<h1>Other</h1>")
    assert documents(source(site, tmp_path))[f"{site.url}/b"].title == "Other"
    assert site.paths() == ["/sitemap.xml", "/robots.txt", "/b"]
    for file in tmp_path.glob("*/pages/*"):
        os.utime(file, (1, 1))
    documents(source(site, tmp_path))
    assert site.paths() == ["/sitemap.xml", "/robots.txt", "/a", "/b"]


def test_robots_txt_is_obeyed(site: Site, tmp_path: Path) -> None:
    small_site(site)
    site.page("/b/open", "<p>open")
    site.page("/loop", "<p>x")
    site.replies["/a"] = Reply(status=302, headers={"Location": "/b/closed"})
    site.sitemap("/a", "/b", "/b/open", "/b/closed")
    rules = "User-agent: *\nAllow: /\n\nUser-agent: llmops-assets\nDisallow: /b/*\nDisallow: /b$\nAllow: /b/open\n"
    site.page("/robots.txt", rules, "text/plain")
    assert documents(source(site, tmp_path)).keys() == {f"{site.url}/b/open"}
    assert "/b" not in (paths := site.paths())
    assert "/b/closed" not in paths
    assert reasons(source(site, tmp_path)) == dict.fromkeys(
        [f"{site.url}{path}" for path in ("/a", "/b", "/b/closed")], "robots.txt forbids it to llmops-assets"
    )


def test_requests_name_us_and_keep_their_distance(site: Site, tmp_path: Path) -> None:
    small_site(site)
    site.page("/robots.txt", "User-agent: *\nCrawl-delay: 0.2\n", "text/plain")
    documents(source(site, tmp_path, delay_seconds=0.1))
    assert {asked.headers["User-Agent"] for asked in site.asked} == {"llmops-assets"}
    times = [asked.at for asked in site.asked]
    assert times[1] - times[0] >= 0.1
    assert all(later - before >= 0.2 for before, later in pairwise(times[2:]))


def test_a_page_that_fails_for_now_is_tried_again_after_the_time_that_is_asked(site: Site, tmp_path: Path) -> None:
    small_site(site)
    tries = []

    def busy_at_first(asked: Asked) -> Reply:
        tries.append(asked.at)
        if len(tries) == 1:
            return Reply(status=429, headers={"Retry-After": "1"})
        return Reply(b"<p>at last", 200, {"Content-Type": "text/html"})

    site.replies["/a"] = busy_at_first
    assert documents(source(site, tmp_path))[f"{site.url}/a"].text == "at last\n"
    assert tries[1] - tries[0] >= 1


@pytest.mark.parametrize(
    "failure",
    [
        Reply(status=503),
        Reply(status=500),
        Reply(status=429, headers={"Retry-After": "86400"}),
        Reply(b"<p>half", headers={"Content-Type": "text/html"}, length=1000),
        Reply(b"no gzip", headers={"Content-Type": "text/html", "Content-Encoding": "gzip"}),
    ],
    ids=["503", "500", "come back tomorrow", "cut short", "bad coding"],
)
def test_a_failure_that_may_pass_deletes_no_document(site: Site, tmp_path: Path, failure: Reply) -> None:
    small_site(site)
    before = documents(source(site, tmp_path))
    site.replies["/a"] = failure
    assert documents(source(site, tmp_path)) == before
    assert reasons(source(site, tmp_path)) == {}
    shutil.rmtree(tmp_path)
    found = reasons(source(site, tmp_path))
    assert found.keys() == {f"{site.url}/a"}
    assert found[f"{site.url}/a"].endswith("; it is tried again at the next build")


@pytest.mark.parametrize("status", [404, 410])
def test_a_page_that_is_gone_is_deleted(site: Site, tmp_path: Path, status: int) -> None:
    small_site(site)
    documents(source(site, tmp_path))
    site.replies["/a"] = Reply(status=status)
    assert documents(source(site, tmp_path)).keys() == {f"{site.url}/", f"{site.url}/b"}
    assert reasons(source(site, tmp_path)) == {}
    site.replies["/a"] = Reply(status=503)
    assert f"{site.url}/a" not in documents(source(site, tmp_path))


def test_a_page_that_left_the_sitemap_leaves_the_corpus_and_the_disk(site: Site, tmp_path: Path) -> None:
    small_site(site)
    documents(source(site, tmp_path))
    site.sitemap("/a")
    assert documents(source(site, tmp_path)).keys() == {f"{site.url}/a"}
    assert len(list(tmp_path.glob("*/pages/*"))) == 1


def test_bad_pages_are_rejected_each_with_its_reason(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_module, "MAX_HTML_BYTES", 1000)
    site.page("/image", b"\x89PNG", "image/png")
    site.page("/large", "<p>" + "x" * 2000)
    site.page("/empty", "<script>x</script>")
    site.page("/scan", pdf(""), "application/pdf")
    site.page("/latin", b"<p>caf\xe9", "text/html")
    site.page("/binary", "x", "application/octet-stream")
    site.page("/good", "<p>good")
    site.replies["/locked"] = Reply(status=403)
    site.replies["/round"] = Reply(status=301, headers={"Location": "/round"})
    paths = ["/image", "/large", "/empty", "/scan", "/latin", "/binary", "/locked", "/round"]
    site.sitemap(*paths, "/good", "ftp://127.0.0.1/x", "http://other.example/x", "http://x:y/")
    found = reasons(source(site, tmp_path))
    assert reasons(source(site, tmp_path)) == found
    assert documents(source(site, tmp_path)).keys() == {f"{site.url}/good"}
    assert {uri.removeprefix(site.url): reason[:24] for uri, reason in found.items()} == {
        "/image": "content type not support",
        "/large": "over 1,000 bytes, which ",
        "/empty": "nothing to read in the p",
        "/scan": "no text in its 1 page(s)",
        "/latin": "not UTF-8: byte 0xe9 at ",
        "/binary": "suffix not supported: (n",
        "/locked": "the server answers with ",
        "/round": "redirected more than 5 t",
        "ftp://127.0.0.1/x": "not an address of the we",
        "http://other.example/x": "on another host than the",
        "http://x:y/": "not an address: Invalid ",
    }


def test_redirects_stay_on_the_site(site: Site, tmp_path: Path) -> None:
    with running_site() as other:
        other.page("/secret", "<p>inner")
        small_site(site)
        site.replies["/"] = Reply(status=301, headers={"Location": "/a"})
        site.replies["/b"] = Reply(status=302, headers={"Location": f"{other.url}/secret"})
        site.replies["/c"] = Reply(status=302, headers={"Location": "file:///etc/passwd"})
        site.sitemap("/", "/b", "/c", f"{other.url}/secret")
        assert documents(source(site, tmp_path)).keys() == {f"{site.url}/a"}
        assert reasons(source(site, tmp_path)).keys() == {f"{site.url}/b", f"{site.url}/c", f"{other.url}/secret"}
        assert other.asked == []


def test_the_canonical_address_is_the_id(site: Site, tmp_path: Path) -> None:
    site.sitemap("/a?utm=1", "/b")
    site.page("/a?utm=1", "<link rel=canonical href='/a#top'><p>a")
    site.page("/b", "<link rel=canonical href='https://other.example/b'><p>b")
    assert documents(source(site, tmp_path)).keys() == {f"{site.url}/a", f"{site.url}/b"}


@pytest.mark.parametrize(
    "reply", [Reply(status=503), Reply(status=404), Reply(b"<html>"), Reply(b"<html></html>")], ids=str
)
def test_a_site_without_its_sitemap_is_away(site: Site, tmp_path: Path, reply: Reply) -> None:
    site.replies["/sitemap.xml"] = reply
    for call in (lambda: list(source(site, tmp_path).read()), source(site, tmp_path).stat_fingerprint):
        with pytest.raises(SourceError, match=r"has no sitemap at .*Nothing was deleted; try again later"):
            call()


def test_a_site_that_cannot_say_what_it_forbids_is_away(site: Site, tmp_path: Path) -> None:
    small_site(site)
    site.replies["/robots.txt"] = Reply(status=503)
    with pytest.raises(SourceError, match=r"does not give its robots\.txt"):
        list(source(site, tmp_path).read())


def test_a_site_that_stops_to_answer_is_away(site: Site, tmp_path: Path) -> None:
    paths = [f"/{n}" for n in range(9)]
    site.sitemap(*paths)
    for path in paths:
        site.page(path, "<p>x")
    documents(source(site, tmp_path))
    for path in paths[2:]:
        site.replies[path] = Reply(b"<p>", headers={"Content-Type": "text/html"}, length=100)
    site.paths()
    with pytest.raises(SourceError, match="has stopped to answer at"):
        list(source(site, tmp_path).read())
    assert "/7" not in site.paths()


def test_the_fingerprint_asks_for_the_sitemaps_alone(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = iter(["Monday"] * 5 + ["Tuesday"])
    monkeypatch.setattr(web_module, "_today", lambda: next(days))
    small_site(site)
    site.sitemap("/a", a="2026-01-01")
    pages = source(site, tmp_path)
    before = pages.stat_fingerprint()
    assert (pages.stat_fingerprint(), pages.content_fingerprint()) == (before, before)
    assert site.paths() == ["/sitemap.xml"] * 3
    site.sitemap("/a", a="2026-01-02")
    changed = pages.stat_fingerprint()
    assert changed != before
    site.sitemap("/a", "/b", a="2026-01-02")
    more = pages.stat_fingerprint()
    assert more not in (before, changed)
    assert pages.stat_fingerprint() not in (before, changed, more)


def test_half_a_copy_is_not_taken_for_a_whole_one(site: Site, tmp_path: Path) -> None:
    small_site(site)
    before = documents(source(site, tmp_path))
    for file in [*tmp_path.glob("*/pages/*"), *tmp_path.glob("*/sitemaps/*")]:
        file.write_bytes(file.read_bytes()[:-4])
    (next(tmp_path.glob("*/pages")) / ".left").touch()
    assert documents(source(site, tmp_path)) == before
    assert not list(tmp_path.glob("*/pages/.*"))


def test_two_at_once_read_the_same(site: Site, tmp_path: Path) -> None:
    small_site(site)
    found: list[dict[str, Document]] = []
    threads = [threading.Thread(target=lambda: found.append(documents(source(site, tmp_path)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(documents) for documents in found] == [3, 3, 3]


def test_user_and_password_go_to_the_site_and_nowhere_else(site: Site, tmp_path: Path) -> None:
    small_site(site)
    address = site.url.replace("://", "://me:hunter2@") + "/sitemap.xml"
    pages = source(site, tmp_path, sitemap=address)
    items = list(pages.read())
    assert len(items) == 3
    assert "hunter2" not in pages.name + repr(items)
    assert {asked.headers["Authorization"] for asked in site.asked} == {"Basic bWU6aHVudGVyMg=="}
    for file in (file for file in tmp_path.rglob("*") if file.is_file()):
        assert b"hunter2" not in file.read_bytes()
    site.replies.clear()
    with pytest.raises(SourceError) as caught:
        pages.stat_fingerprint()
    assert "hunter2" not in str(caught.value)


def test_a_long_page_has_parts_with_addresses_of_their_own(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PART_CHARACTERS", 50)
    site.sitemap("/a")
    site.page("/a", "<p>words and words</p>" * 6)
    assert list(documents(source(site, tmp_path))) == [f"{site.url}/a", f"{site.url}/a#part2", f"{site.url}/a#part3"]


def test_builds_follow_the_site_and_delete_nothing_while_it_is_away(
    site: Site, tmp_path: Path, lakehouse: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_site(site)
    site.page("/b", b"<p>\xff", "text/html")
    section = {"type": "web", "sitemap": f"{site.url}/sitemap.xml", "delay_seconds": 0}
    (tmp_path / "assistant.yaml").write_text(yaml.safe_dump({"name": "helper", "sources": [section]}))
    assistant = load_assistant(tmp_path)
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    stored = lakehouse.table("helper", "corpus_documents")
    for _ in range(2):
        sync_corpus(lakehouse, assistant, Provenance("run"), log=lambda line: None)
        assert lakehouse.table("helper", "corpus_rejected").read()["uri"].to_list() == [f"{site.url}/b"]
        assert stored.read().height == 2
    site.page("/b", "<p>mended")
    site.replies["/a"] = Reply(status=503)
    sync_corpus(lakehouse, assistant, Provenance("run"), log=lambda line: None)
    assert lakehouse.table("helper", "corpus_rejected").read().is_empty()
    assert stored.read().height == 3
    site.replies.clear()
    with pytest.raises(SourceError):
        sync_corpus(lakehouse, assistant, Provenance("run"), log=lambda line: None)
    site.sitemap()
    with pytest.raises(EmptyCorpusError):
        sync_corpus(lakehouse, assistant, Provenance("run"), log=lambda line: None)
    assert stored.read().height == 3


@pytest.mark.parametrize(
    "address", ["example.org/sitemap.xml", "ftp://example.org/s.xml", "https:///s.xml", "file:///etc"]
)
def test_an_address_that_is_none_is_refused(tmp_path: Path, address: str) -> None:
    section = {"type": "web", "sitemap": address}
    (tmp_path / "assistant.yaml").write_text(yaml.safe_dump({"name": "helper", "sources": [section]}))
    with pytest.raises(ConfigError, match=r"give the whole address, such as https://example\.org/sitemap\.xml"):
        load_assistant(tmp_path)
