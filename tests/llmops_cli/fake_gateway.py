"""A gateway that answers questions and does with feedback as it is told."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@contextmanager
def fake_gateway(
    home: Path, assistant: str, *, chunks: Sequence[dict[str, Any]] = (), feedback: tuple[int, Any] = (200, {})
) -> Iterator[int]:
    """Answers on a port of its own as the gateway of this home does, from these chunks.

    `feedback` is the status and the body that feedback is answered with.
    """

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._json(200, {"home": str(home), "serving": {assistant: "0" * 16}, "behind": {}})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path == "/v1/feedback":
                self._json(*feedback)
            elif asked.get("stream"):
                self._stream(_completion("chat.completion.chunk", "delta", chunks))
            else:
                self._json(200, _completion("chat.completion", "message", chunks))

        def _json(self, status: int, body: Any) -> None:
            self._send(status, "application/json", json.dumps(body))

        def _stream(self, chunk: Any) -> None:
            self._send(200, "text/event-stream", f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n")

        def _send(self, status: int, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Answer) as port:
        yield port


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """A server on a free port that answers with this handler."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def _completion(kind: str, part: str, chunks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    choice = {"index": 0, part: {"role": "assistant", "content": "On the second floor."}, "finish_reason": "stop"}
    extension = {"request_id": "r1", "release_id": "0" * 16, "chunks": [*chunks]}
    return {"id": "r1", "object": kind, "created": 0, "model": "m", "choices": [choice], "llmops": extension}
