"""`llmops serve`."""

import click

from llmops_cli.context import json_option, reports_errors
from llmops_cli.output import emit, url_of
from llmops_core.home import open_home
from llmops_core.settings import load_settings


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Default: LLMOPS_PORT or 8400; 0 picks one.")
@click.option("--host", default=None, help="Default: LLMOPS_HOST or 127.0.0.1.")
@json_option
@reports_errors
def command(port: int | None, host: str | None, as_json: bool) -> None:
    """Run the gateway for all assistants of this home, until SIGINT or SIGTERM."""
    from llmops_gateway.server import bind, serve

    settings = load_settings()
    open_home(settings)
    listener = bind(host or settings.host, settings.port if port is None else port)
    address, bound = listener.getsockname()[:2]
    url = url_of(address, bound)
    emit({"url": url}, f"Gateway on {url} (POST {url}/v1/chat/completions)", as_json=as_json)
    serve(settings, listener)
