"""Copies of what a site sent, so that it need not send it again.

One file an address: a line of JSON that says what the body is, then the body. It is made aside and moved into place, so a
killed process leaves no half copy; its modification time is when the site was last asked.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from llmops_core.ids import content_hash


@dataclass(frozen=True)
class Copy:
    """What is known of a body: the address that it came from in the end, and what was said of it."""

    url: str
    content_type: str
    etag: str
    last_modified: str
    lastmod: str
    """What the sitemap said when the site was asked."""
    size: int = 0

    @property
    def conditions(self) -> dict[str, str]:
        """Headers that ask for the body only if it is another one."""
        found = {"if-none-match": self.etag, "if-modified-since": self.last_modified}
        return {name: value for name, value in found.items() if value}


class WebCache:
    """The copies of one source, in a folder that may be deleted at any time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, url: str) -> Copy | None:
        """What is known of an address; None if there is no whole copy of it."""
        try:
            with self._file(url).open("rb") as file:
                head = file.readline()
                copy = Copy(**json.loads(head))
                return copy if os.fstat(file.fileno()).st_size == len(head) + copy.size else None
        except (OSError, ValueError, TypeError):
            return None

    def body(self, url: str) -> bytes:
        """The bytes of an address that was found; raises `OSError` if it is there no more."""
        return self._file(url).read_bytes().partition(b"\n")[2]

    def put(self, url: str, copy: Copy, body: bytes) -> Copy:
        """Keep a body; raises `OSError` if that cannot be written."""
        whole = replace(copy, size=len(body))
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".", delete=False) as file:
            file.write(json.dumps(asdict(whole)).encode() + b"\n" + body)
        Path(file.name).replace(self._file(url))
        return whole

    def drop(self, url: str) -> None:
        """Forget an address."""
        self._file(url).unlink(missing_ok=True)

    def asked_now(self, url: str) -> None:
        """Remember that the site was asked and had nothing new."""
        os.utime(self._file(url))

    def age_s(self, url: str) -> float:
        """Seconds since the site was asked for an address that was found."""
        return time.time() - self._file(url).stat().st_mtime

    def keep_only(self, urls: Iterable[str]) -> None:
        """Drop all other copies, and what killed processes left; the caller lets nobody else write."""
        kept = {self._file(url).name for url in urls}
        for file in self._folder.glob("*") if self._folder.exists() else ():
            if file.name not in kept:
                file.unlink()
        for file in self._folder.glob(".*"):
            file.unlink()

    def _file(self, url: str) -> Path:
        return self._folder / content_hash(url)
