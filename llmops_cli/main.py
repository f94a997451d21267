"""The command `llmops`.

Each command lives in a module of its own, imported when it is called: `llmops --help` must not load a model library.
"""

import atexit
import gc
import importlib
from typing import Any

import click

# Command → module and one line of help.
COMMANDS = {
    "quickstart": ("llmops_cli.quickstart", "The whole way once: documents to a logged, evaluated answer."),
    "init": ("llmops_cli.init", "Make an assistant of a folder of documents."),
    "build": ("llmops_cli.build", "Documents to index and release."),
    "search": ("llmops_cli.search", "Find chunks for a question."),
    "index": ("llmops_cli.index", "The index of a past moment or release, from the lakehouse."),
    "ask": ("llmops_cli.ask", "Ask a question, logged like any other."),
    "serve": ("llmops_cli.serve", "Run the gateway."),
    "dev": ("llmops_cli.dev", "Dagster UI, daemon and gateway together."),
    "evaluate": ("llmops_cli.evaluate", "Score a release on the labelled cases."),
    "replay": ("llmops_cli.replay", "Run logged requests again and compare."),
    "lineage": ("llmops_cli.lineage", "What an answer came from; what a document went into."),
    "dataset": ("llmops_cli.dataset", "Tables with their snapshots, rows and differences."),
    "ingest": ("llmops_cli.ingest", "Move the request log into Iceberg now."),
    "release": ("llmops_cli.release", "Releases: list, compare, create; promote, approve, reject."),
    "prompt": ("llmops_cli.prompt", "The versions of prompts."),
    "models": ("llmops_cli.models", "The models that come built in."),
    "maintain": ("llmops_cli.maintain", "Apply the retention of assistant.yaml."),
    "upgrade": ("llmops_cli.upgrade", "Bring a home to this version of the code."),
    "doctor": ("llmops_cli.doctor", "Check that everything is in place."),
}

WANTS_JSON = "llmops.json"


class LazyGroup(click.Group):
    """Imports a command's module when the command is used."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Remember whether the caller wants JSON: a command line that cannot be read gets its error that way too."""
        ctx.meta[WANTS_JSON] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if ctx.meta[WANTS_JSON]:
                from llmops_cli.output import emit_error

                emit_error(type(error).__name__, error.format_message())
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of a first hour."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(cls=LazyGroup)
@click.version_option(package_name="llmops-assets")
def main() -> None:
    """Run the whole life of an LLM assistant: from documents to a logged, replayable answer."""


def run(*arguments: str) -> None:
    """Be the program `llmops` with these arguments, by default those of the process."""
    # Importing a model library makes a million objects, and each collection on the way, and at the end, looks at them all.
    gc.set_threshold(100_000, 50, 50)
    atexit.register(gc.freeze)
    main(arguments or None)


if __name__ == "__main__":
    run()
