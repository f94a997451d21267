"""Pages of a site, which its sitemap lists: HTML, text, Markdown, PDF and DOCX, read as files of a folder are.

The site is asked only for what may have changed, and by conditional requests. What it fails to send for now is read from the
copy of the last time, so that a bad hour of the site deletes nothing.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from llmops_core.assistant import WebSource as WebSection
from llmops_core.corpus.document import Document, Rejected
from llmops_core.corpus.files import (
    FILE_TYPES,
    MAX_BYTES,
    MAX_HTML_BYTES,
    FileType,
    documents_of,
    file_type_of,
    read_file,
)
from llmops_core.corpus.sources import sitemap
from llmops_core.corpus.sources.paths import PathGlob
from llmops_core.corpus.sources.sitemap import Listed, Sitemap, parse_sitemap
from llmops_core.corpus.sources.web_cache import Copy, WebCache
from llmops_core.corpus.sources.web_client import USER_AGENT, Answer, NoAnswerError, WebClient, clean_url
from llmops_core.errors import SourceError
from llmops_core.ids import content_hash

ROBOTS_BYTES = 512 * 1024
DEEPEST_INDEX = 3
TRUST_S = 24 * 3600
"""How long a page is not asked for whose date in the sitemap is the same."""
UNREACHED_IN_A_ROW = 5
"""After so many pages without any answer the site counts as away."""
_CONTENT_TYPES: dict[str, FileType] = {
    **{kind: kind for kind in FILE_TYPES.values()},
    "application/xhtml+xml": "text/html",
    "text/x-markdown": "text/markdown",
}
_BY_SUFFIX = {"", "text/plain", "application/octet-stream", "binary/octet-stream"}
"""Content types that servers give to what they do not know."""


@dataclass(frozen=True)
class _Page:
    """A page of the sitemap after the site was asked: its copy, or why there is none."""

    url: str
    copy: Copy | None = None
    problem: str = ""


class WebSource:
    """Pages whose path a glob picks; a document's id is the page's canonical address."""

    def __init__(self, section: WebSection, cache: Path) -> None:
        self._sitemap = clean_url(section.sitemap)
        self._section = section
        self.name = f"web:{self._sitemap}" + (f"/{section.glob}" if section.glob != "**/*" else "")
        self._glob = PathGlob(section.glob)
        self._folder = cache / content_hash([self._sitemap, section.glob])
        self._pages = WebCache(self._folder / "pages")
        self._sitemaps = WebCache(self._folder / "sitemaps")

    def read(self) -> Iterator[Document | Rejected]:
        """Ask for what may have changed, then stream the documents; raises `SourceError` if the site is away."""
        for page in self._refreshed():
            if page.problem:
                yield Rejected(self.name, page.url, page.problem)
            elif page.copy:
                try:
                    yield from self._documents(page.url, page.copy)
                except FileNotFoundError:
                    continue  # Another process has seen since then that the page is gone.
                except ValueError as error:
                    yield Rejected(self.name, page.url, str(error))

    def stat_fingerprint(self) -> str:
        """Hash the sitemaps, for which alone the site is asked, and the date: once a day every page is looked at."""
        with closing(self._client()) as client, self._locked("sitemaps"):
            state = [[listed.address, listed.lastmod] for listed in self._listed(client)]
        return content_hash([self.name, _today(), state])

    def content_fingerprint(self) -> str:
        """The same: to ask for every page would take longer than a sensor may, and be no courtesy."""
        return self.stat_fingerprint()

    def _documents(self, url: str, copy: Copy) -> Iterator[Document]:
        body = self._pages.body(url)
        kind, charset = _kind(copy)
        address = (_canonical(body, copy.url) if kind == "text/html" else None) or copy.url
        stem = PurePosixPath(unquote(urlsplit(address).path)).stem or urlsplit(address).hostname or ""
        yield from documents_of(read_file(body, kind, stem, charset), address, address, self.name)

    def _refreshed(self) -> list[_Page]:
        """Bring the copies up to date."""
        pages: list[_Page] = []
        unreached = 0
        with closing(self._client()) as client:
            with self._locked("sitemaps"):
                listed = list(self._listed(client))
            self._obey_robots(client)
            with self._locked("pages"):
                for entry in listed:
                    try:
                        pages.append(self._asked(client, entry))
                        unreached = 0
                    except NoAnswerError as error:
                        unreached = 0 if error.reached else unreached + 1
                        if unreached == UNREACHED_IN_A_ROW:
                            raise self._away(f"has stopped to answer at {entry.address}: {error}") from error
                        copy = self._pages.find(entry.address)
                        problem = "" if copy else f"{error}; it is tried again at the next build"
                        pages.append(_Page(entry.address, copy, problem))
                self._pages.keep_only(page.url for page in pages if page.copy)
        return pages

    def _asked(self, client: WebClient, entry: Listed) -> _Page:
        """Ask for a page if it may have changed; raises `NoAnswerError`."""
        url = entry.address
        try:
            copy = self._pages.find(url)
            if problem := client.site_problem(url):
                raise ValueError(problem)
            if copy and entry.lastmod and copy.lastmod == entry.lastmod and self._pages.age_s(url) < TRUST_S:
                return _Page(url, copy)
            answer = client.get(url, _page_limit, copy.conditions if copy else None)
            if answer.status == 304 and copy:
                if copy.lastmod == entry.lastmod:
                    self._pages.asked_now(url)
                    return _Page(url, copy)
                return _Page(url, self._pages.put(url, replace(copy, lastmod=entry.lastmod), self._pages.body(url)))
            if answer.status in (404, 410):
                return _Page(url)
            if answer.status != 200:
                raise ValueError(f"the server answers with status {answer.status}: look at what it demands")
            return _Page(url, self._pages.put(url, _copy(answer, entry.lastmod), answer.body))
        except ValueError as error:
            return _Page(url, problem=str(error))

    def _listed(self, client: WebClient) -> Iterator[Listed]:
        """The pages of all sitemaps that the glob picks, each address once; the copies of sitemaps come up to date."""
        seen = {self._sitemap}
        waiting = [(self._sitemap, 1)]
        while waiting:
            url, depth = waiting.pop(0)
            found = self._sitemap_at(client, url)
            if found.is_index and depth == DEEPEST_INDEX:
                raise self._away(f"has indexes of sitemaps below each other, more than {DEEPEST_INDEX} deep ({url})")
            for entry in found.listed:
                try:
                    address = clean_url(entry.address, url)
                except ValueError:
                    yield entry  # It is rejected when it is asked for.
                    continue
                if address in seen:
                    continue
                seen.add(address)
                if found.is_index and client.site_problem(address):
                    yield Listed(address, entry.lastmod)
                elif found.is_index:
                    waiting.append((address, depth + 1))
                elif self._glob.picks(unquote(urlsplit(address).path).removeprefix("/")):
                    yield Listed(address, entry.lastmod)
        self._sitemaps.keep_only(seen)

    def _sitemap_at(self, client: WebClient, url: str) -> Sitemap:
        copy = self._sitemaps.find(url)
        try:
            answer = client.get(url, lambda _: sitemap.MAX_BYTES, copy.conditions if copy else None)
            if answer.status == 304 and copy:
                return parse_sitemap(self._sitemaps.body(url))
            if answer.status != 200:
                raise ValueError(f"the server answers with status {answer.status}")
            found = parse_sitemap(answer.body)
        except (ValueError, NoAnswerError) as error:
            raise self._away(f"has no sitemap at {url}: {error}") from error
        self._sitemaps.put(url, _copy(answer, ""), answer.body)
        return found

    def _obey_robots(self, client: WebClient) -> None:
        from protego import Protego

        url = clean_url("/robots.txt", self._sitemap)
        try:
            answer = client.get(url, lambda _: ROBOTS_BYTES)
        except ValueError:
            return
        except NoAnswerError as error:  # A site that cannot say what it forbids forbids everything.
            raise self._away(f"does not give its robots.txt: {error}") from error
        if answer.status == 200:
            client.robots = Protego.parse(answer.body.decode("utf-8", "replace"))
            client.delay_seconds = max(client.delay_seconds, client.robots.crawl_delay(USER_AGENT) or 0)

    def _client(self) -> WebClient:
        return WebClient(self._section.sitemap, self._section.delay_seconds)

    @contextmanager
    def _locked(self, what: str) -> Iterator[None]:
        """One process at a time writes the copies; raises `SourceError` if they cannot be written."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / f"{what}.lock"):
                yield
        except OSError as error:
            raise SourceError(
                f"Source {self.name}: {self._folder} cannot be written: {error.strerror}. Look at its rights and the space on"
                " its disk, or set LLMOPS_HOME to another folder"
            ) from error

    def _away(self, what: str) -> SourceError:
        return SourceError(
            f"Source {self.name}: the site {what}. Nothing was deleted; try again later, or correct sources.sitemap in"
            " assistant.yaml"
        )


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _copy(answer: Answer, lastmod: str) -> Copy:
    said = {name: answer.headers.get(name, "") for name in ("content-type", "etag", "last-modified")}
    return Copy(answer.url, said["content-type"], said["etag"], said["last-modified"], lastmod)


def _page_limit(head: Answer) -> int:
    """Bytes that a page may have; raises `ValueError` for what would not be read, before it is brought."""
    if head.status != 200:
        return MAX_BYTES
    kind, _ = _kind(_copy(head, ""))
    return MAX_HTML_BYTES if kind == "text/html" else MAX_BYTES


def _kind(copy: Copy) -> tuple[FileType, str | None]:
    """Kind and declared encoding of a body; raises `ValueError` with the kinds that there are."""
    media_type, *parameters = (part.strip() for part in copy.content_type.split(";"))
    charset = next((p.partition("=")[2].strip("\"' ") for p in parameters if p.lower().startswith("charset=")), None)
    if media_type.lower() in _BY_SUFFIX:
        path = urlsplit(copy.url).path
        if media_type.lower() == "text/plain" and PurePosixPath(path).suffix.lower() not in FILE_TYPES:
            return "text/plain", charset
        return file_type_of(path), charset
    if kind := _CONTENT_TYPES.get(media_type.lower()):
        return kind, charset
    raise ValueError(f"content type not supported: {media_type}; supported: {' '.join(_CONTENT_TYPES)}")


def _canonical(page: bytes, url: str) -> str | None:
    """The address that a page names as its own, if that is on the same host."""
    from bs4 import BeautifulSoup
    from bs4.filter import SoupStrainer

    with suppress(Exception):  # Whatever is wrong with the page is found when it is read.
        for link in BeautifulSoup(page, "html.parser", parse_only=SoupStrainer("link")).find_all("link", href=True):
            if "canonical" in [str(value).lower() for value in link.get_attribute_list("rel")]:
                address = clean_url(str(link["href"]), url)
                return address if urlsplit(address).netloc == urlsplit(url).netloc else None
    return None
