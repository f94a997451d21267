"""Which HTTP answer an error becomes: OpenAI's form, a status, and the way out."""

import logging
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from llmops_core.errors import (
    ContextOverflowError,
    InvalidRequestError,
    LlmopsError,
    ModelError,
    NotFoundError,
    RetryableError,
)
from llmops_core.traffic.row import CLIENT_CLOSED_REQUEST
from llmops_gateway.protocol import error_body
from llmops_gateway.request_ids import HEADER

log = logging.getLogger("llmops.gateway")


def status_of(error: Exception) -> int:
    """The HTTP status of an error; 500 for a fault of the gateway itself or of a release's prompt."""
    if isinstance(error, NotFoundError):
        return 404
    if isinstance(error, (InvalidRequestError, ContextOverflowError)):
        return 400
    # What a person mends of a model answers the same request later. A prompt never changes within its release.
    if isinstance(error, (RetryableError, ModelError)):
        return 503
    return 500


def error_of(error: Exception) -> dict[str, Any]:
    """The body of an error; a fault of the gateway itself goes to its log and not to the client."""
    if not isinstance(error, LlmopsError):
        return error_body("The gateway failed on this request; its log says why.", "server_error")
    status = status_of(error)
    code = "context_length_exceeded" if isinstance(error, ContextOverflowError) else None
    return error_body(str(error), "invalid_request_error" if status < 500 else "server_error", code)


async def on_error(_: Request, error: Exception) -> Response:
    """Answer an error of the platform."""
    assert isinstance(error, LlmopsError)
    status = status_of(error)
    headers = {"retry-after": "1"} if status == 503 else None
    return JSONResponse(error_of(error), status_code=status, headers=headers)


async def on_http_error(_: Request, error: Exception) -> Response:
    """Answer what Starlette refuses: unknown addresses, wrong methods, bodies that are too long."""
    assert isinstance(error, HTTPException)
    message = error.detail if error.status_code != 404 else "There is nothing at this address. See /v1/models."
    return JSONResponse(error_body(message, "invalid_request_error"), status_code=error.status_code)


async def on_disconnect(_: Request, error: Exception) -> Response:
    """Answer a client that is gone."""
    assert isinstance(error, ClientDisconnect)
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def on_crash(http: Request, error: Exception) -> Response:
    """Answer a fault of the gateway itself."""
    request_id = http.state.request_id
    log.exception("%s: %s %s failed", request_id, http.method, http.url.path, exc_info=error)
    # This answer is made outside the middleware that sets the header on all others.
    return JSONResponse(error_of(error), status_code=500, headers={HEADER: request_id})
