"""Answers only calls that name this machine as their host.

The gateway asks for no key, so a web page must not read what it says. Its origin keeps a page from that, but for one whose own
name is made to point to loopback: then the browser takes the gateway for the page's server, and sends the page's name as Host.
"""

import ipaddress

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from llmops_gateway.protocol import error_body


class LoopbackHosts:
    """Middleware: 421 unless Host is `localhost` or a loopback address, with any port."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        if scope["type"] != "http" or is_loopback(_without_port(host := Headers(scope=scope).get("host", ""))):
            await self._app(scope, receive, send)
            return
        message = (
            f"The gateway answers for localhost and loopback addresses alone, and Host is {host!r}. Ask http://127.0.0.1:PORT;"
            " a proxy in front has to send a Host of that kind, as nginx does by itself."
        )
        await JSONResponse(error_body(message, "invalid_request_error"), status_code=421)(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Whether a host, without port and brackets, is this machine alone."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
