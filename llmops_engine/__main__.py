"""`python -m llmops_engine`: serves one model on loopback for as long as its standard input stays open."""

import argparse
import json
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from llmops_core.parent import when_parent_ends
from llmops_engine.decoder import Decoder
from llmops_engine.server import EngineServer


def main() -> None:
    """Bind, say the port on standard output as one JSON line, load, serve."""
    parser = argparse.ArgumentParser(prog="llmops_engine", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--model-name", required=True, help="name that requests use")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 picks a free one")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    arguments = parser.parse_args()

    when_parent_ends(lambda: os._exit(0))
    # Ctrl-C reaches the whole terminal; the parent decides when its engine ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A thread of OpenMP that waits for the others spins for milliseconds, and a token has hundreds of such waits. Where
    # something else wants the cores too (an embedder, another engine), that costs most of the speed. Measured with two
    # busy processes on two cores: 3 tokens a second, 8 with this limit; alone 19 and 17. Read when torch is imported,
    # which is later.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", arguments.port))
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    # Nobody reads on: what a library prints belongs into the log, and must not fill the pipe.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    decoder = Decoder(arguments.model, arguments.model_name, arguments.device)
    decoder.loaded.add_done_callback(lambda loaded: _end_if_failed(loaded.exception()))
    decoder.broken.add_done_callback(lambda broken: _end(f"The model computes no more: {broken.result()}"))
    config = uvicorn.Config(EngineServer(decoder).app(), log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


def _end_if_failed(error: BaseException | None) -> None:
    if error is not None:
        _end(f"The model cannot be loaded: {error}")


def _end(reason: str) -> None:
    """End the process at once; the parent starts another when it needs one."""
    print(reason, file=sys.stderr, flush=True)
    os._exit(1)


if __name__ == "__main__":
    main()
