"""Runs the gateway: binds, serves, drains on SIGTERM."""

import logging
import socket

import uvicorn

from llmops_core.errors import ConfigError
from llmops_core.settings import Settings
from llmops_gateway.gateway import Gateway
from llmops_gateway.hosts import is_loopback

# Answers under way at SIGTERM get this long to finish.
DRAIN_S = 30


def bind(host: str, port: int) -> socket.socket:
    """Bind the gateway's address; raises `ConfigError` if it is taken or not a loopback one."""
    if not is_loopback(host):
        raise ConfigError(
            f"The gateway does not bind {host}: it knows no API keys yet, so whoever reaches it is its admin. Bind"
            " 127.0.0.1 and put a proxy with authentication in front."
        )
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # Only from now on is it taken for others, who may set the same option.
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"Port {port} on {host} cannot be bound: {error.strerror}. Something else listens there: end it, or choose"
            " another port with --port or LLMOPS_PORT."
        ) from error
    return listener


def serve(settings: Settings, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; answers under way are finished first."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "pyiceberg", "sentence_transformers"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    config = uvicorn.Config(
        Gateway(settings).app(),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=DRAIN_S,
        log_config=None,
    )
    uvicorn.Server(config).run(sockets=[listener])
