"""Polite requests to one site: it alone is asked, one request at a time, as slowly and as seldom as it wishes."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from protego import Protego

USER_AGENT = "llmops-assets"
"""Also the name by which robots.txt may speak of us."""
TIMEOUT_S = 30
"""Without a byte."""
ANSWER_TIMEOUT_S = 300
"""For a whole answer."""
ATTEMPTS = 3
BACKOFF_S = 2.0
"""Doubles with each attempt; `Retry-After` may ask for more."""
LONGEST_WAIT_S = 120
REDIRECTS = 5
_PASSING = {429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Answer:
    """What the site said at last: status, headers (names in lower case), body, and the address that it came from."""

    status: int
    url: str
    headers: Mapping[str, str]
    body: bytes


Limit = Callable[[Answer], int]


class NoAnswerError(Exception):
    """The site did not answer (`reached` is false) or could not for now; the next try may be better."""

    def __init__(self, reason: str, *, reached: bool) -> None:
        super().__init__(reason)
        self.reached = reached


class WebClient:
    """Asks the host of an address; user and password in that go to this host alone, over its scheme alone."""

    def __init__(self, address: str, delay_seconds: float) -> None:
        self._home = httpx.URL(address)
        self.delay_seconds = delay_seconds
        self.robots: Protego | None = None
        self._http = httpx.Client(timeout=TIMEOUT_S, headers={"user-agent": USER_AGENT}, follow_redirects=False)
        self._next = 0.0

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def site_problem(self, url: str) -> str | None:
        """Say why an address must not be asked, or None if it may be."""
        try:
            asked = httpx.URL(url)
        except httpx.InvalidURL as error:
            return f"not an address: {error}"
        if asked.scheme not in ("http", "https"):
            return f"not an address of the web: {asked.scheme or 'no scheme'}"
        if (asked.host, asked.port) != (self._home.host, self._home.port):
            return f"on another host than the sitemap, {asked.host}: make it a source of its own"
        if self.robots is not None and not self.robots.can_fetch(url, USER_AGENT):
            return f"robots.txt forbids it to {USER_AGENT}"
        return None

    def get(self, url: str, limit: Limit, headers: Mapping[str, str] | None = None) -> Answer:
        """Ask for an address; redirects are followed on the site.

        `limit` sees what comes before the body and says how many bytes that may have. Raises `ValueError` with the reason
        if the address must not be asked, leads elsewhere or has too many bytes, `NoAnswerError` if that may pass, and
        whatever `limit` raises.
        """
        for _ in range(REDIRECTS + 1):
            if problem := self.site_problem(url):
                raise ValueError(problem)
            answer = self._patiently(url, limit, headers or {})
            if answer.status not in (301, 302, 303, 307, 308) or "location" not in answer.headers:
                return answer
            url = clean_url(answer.headers["location"], url)
        raise ValueError(f"redirected more than {REDIRECTS} times")

    def _patiently(self, url: str, limit: Limit, headers: Mapping[str, str]) -> Answer:
        """Try again what may pass."""
        for attempt in range(1, ATTEMPTS + 1):
            wait = BACKOFF_S * 2 ** (attempt - 1)
            try:
                answer = self._once(url, limit, headers)
                if answer.status not in _PASSING:
                    return answer
                failure = NoAnswerError(f"the server answers with status {answer.status}", reached=True)
                wait = max(wait, _retry_after_s(answer.headers.get("retry-after", "")))
            except httpx.HTTPError as error:
                failure = NoAnswerError(f"no answer ({type(error).__name__})", reached=False)
            if attempt == ATTEMPTS or wait > LONGEST_WAIT_S:
                break
            time.sleep(wait)
        raise failure

    def _once(self, url: str, limit: Limit, headers: Mapping[str, str]) -> Answer:
        time.sleep(max(0.0, self._next - time.monotonic()))
        user = self._home.username if httpx.URL(url).scheme == self._home.scheme else ""
        auth = httpx.BasicAuth(user, self._home.password) if user else httpx.USE_CLIENT_DEFAULT
        body = bytearray()
        end = time.monotonic() + ANSWER_TIMEOUT_S
        try:
            with self._http.stream("GET", url, headers=dict(headers), auth=auth) as response:
                head = Answer(response.status_code, url, dict(response.headers), b"")
                most = limit(head)
                for block in response.iter_bytes():
                    body += block
                    if len(body) > most:
                        raise ValueError(f"over {most:,} bytes, which is the limit; split it")
                    if time.monotonic() > end:
                        raise httpx.ReadTimeout("the answer does not end")
                return replace(head, body=bytes(body))
        finally:
            self._next = time.monotonic() + self.delay_seconds


def clean_url(url: str, base: str = "") -> str:
    """The one spelling of an address: absolute, without user, password and fragment; raises `ValueError` if it is none."""
    try:
        found = httpx.URL(base).join(url.strip()) if base else httpx.URL(url.strip())
        return str(found.copy_with(fragment=None, userinfo=b""))
    except httpx.InvalidURL as error:
        raise ValueError(f"not an address: {error}") from error


def _retry_after_s(value: str) -> float:
    """Seconds that a server asks to wait, as a number or as a date; 0 if it says nothing that can be understood."""
    if value.strip().isdigit():
        return float(value)
    with suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    return 0.0
