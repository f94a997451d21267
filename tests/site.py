"""A real site on a port of its own: what it answers is set by path, and what it was asked is remembered."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Reply:
    """One answer; `length` other than that of the body cuts the answer short."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None


@dataclass(frozen=True)
class Asked:
    """One request."""

    path: str
    headers: Mapping[str, str]
    at: float


class Site:
    """The paths that a site has (others are 404), and its address."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.replies: dict[str, Reply | Callable[[Asked], Reply]] = {}
        self.asked: list[Asked] = []

    def page(
        self, path: str, body: str | bytes, content_type: str = "text/html; charset=utf-8", **headers: str
    ) -> None:
        """Set a page that answers conditional requests by ETag, which follows its content."""
        data = body.encode() if isinstance(body, str) else body
        etag = f'"{hash(data)}"'
        given = {"Content-Type": content_type, "ETag": etag, **{k.replace("_", "-"): v for k, v in headers.items()}}

        def reply(asked: Asked) -> Reply:
            unchanged = asked.headers.get("If-None-Match") == etag
            return Reply(b"" if unchanged else data, 304 if unchanged else 200, given)

        self.replies[path] = reply

    def sitemap(self, *pages: str, path: str = "/sitemap.xml", kind: str = "urlset", **lastmod: str) -> bytes:
        """Set (and return) a sitemap of paths or addresses; `lastmod` is by the path without its slash."""
        root = "sitemap" if kind == "sitemapindex" else "url"
        rows = "".join(
            f"<{root}><loc>{page if '://' in page else self.url + page}</loc>"
            + (f"<lastmod>{lastmod[page[1:]]}</lastmod>" if page[1:] in lastmod else "")
            + f"</{root}>"
            for page in pages
        )
        text = f'<?xml version="1.0"?><{kind} xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{rows}</{kind}>'
        self.page(path, text, "application/xml")
        return text.encode()

    def paths(self) -> list[str]:
        """What was asked since the last call."""
        asked, self.asked = self.asked, []
        return [request.path for request in asked]


@contextmanager
def running_site() -> Iterator[Site]:
    """A site that runs until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = Asked(self.path, self.headers, time.monotonic())  # type: ignore[arg-type]
            site.asked.append(asked)
            reply = site.replies.get(self.path, Reply(b"gone", 404))
            reply = reply(asked) if callable(reply) else reply
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body) if reply.length is None else reply.length))
            self.end_headers()
            self.wfile.write(reply.body)
            self.close_connection = reply.length is not None

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site = Site(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
