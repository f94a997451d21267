"""What commands share: which assistant, which settings, JSON or text, and how errors end a command."""

import errno
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any

import click

from llmops_cli.output import emit_error
from llmops_core.assistant import FILE_NAME, Assistant
from llmops_core.errors import ConfigError, InvalidRequestError, LlmopsError, NotFoundError
from llmops_core.models.named import open_assistant
from llmops_core.settings import load_settings, project_root
from llmops_core.times import parse_time


def assistant_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--assistant DIR`, or the name of one in `assistants/`: passes a function that loads the assistant."""
    return click.option(
        "--assistant",
        "assistant",
        metavar="DIR|NAME",
        envvar="LLMOPS_ASSISTANT",
        callback=lambda _context, _option, value: lambda: chosen_assistant(value),
        help="The assistant: its folder, or its name in assistants/ (or LLMOPS_ASSISTANT); not needed where there is"
        " only one.",
    )(command)


# The one way to name a release, in every option, argument and message.
RELEASE = "a channel (dev, staging or prod), a number, an id, or the first 8 or more characters of an id"


def release_option(what: str, default: str, meaning: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--release RELEASE`: passes what was typed; `what` it is for, the `default` channel, and what that channel means."""
    return click.option(
        "--release", default=default, metavar="RELEASE", help=f"{what}: {RELEASE}. Default: {default}, {meaning}."
    )


class Moment(click.ParamType[datetime]):
    """A time with its zone."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read it; what has no zone is refused."""
        try:
            return value if isinstance(value, datetime) else parse_time(value)
        except InvalidRequestError as error:
            self.fail(str(error), param, ctx)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--json`: one object on standard output."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def reports_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn the platform's errors into a message and exit code 1."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> Any:
        try:
            with _mapped_errors():
                return command(*arguments, **options)
        except LlmopsError as error:
            message = str(error)
            if isinstance(error, NotFoundError):
                # What is not there may be in another home: the commonest reason is a terminal without LLMOPS_HOME.
                message = f"{message.removesuffix('.')}. Looked in {load_settings().home} (LLMOPS_HOME)."
            if options.get("as_json"):
                emit_error(type(error).__name__, message)
            click.echo(f"Error: {message}", err=True)
            sys.exit(1)

    return run


@contextmanager
def _mapped_errors() -> Iterator[None]:
    """Tell what Dagster's storage and a volume that takes no bytes raise in the middle of anything."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OSError, SQLAlchemyError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            raise
        from llmops_core.lakehouse.catalog_errors import explain

        raise ConfigError(f"LLMOPS_HOME: {load_settings().home} cannot be used: {explain(error)}") from error


def chosen_assistant(value: str | None) -> Assistant:
    """The assistant that the option names, or the only one of the project; raises `ConfigError`."""
    known = {folder.name: folder for folder in assistant_folders()}
    if value:
        return open_assistant(_named(value, known))
    if (Path.cwd() / FILE_NAME).exists():
        return open_assistant(Path.cwd())
    if len(known) == 1:
        return open_assistant(*known.values())
    if not known:
        raise ConfigError(_none())
    raise ConfigError(f"Which assistant? Choose with --assistant NAME (or LLMOPS_ASSISTANT): {', '.join(known)}")


def assistant_folders() -> list[Path]:
    """The folders of the project's assistants, by name."""
    return sorted(file.parent for file in (project_root() / "assistants").glob(f"*/{FILE_NAME}"))


def _named(value: str, known: Mapping[str, Path]) -> Path:
    """A folder as it was given, or that of the assistant with this name; raises `ConfigError` with what there is."""
    folder = Path(value).expanduser()
    if (folder / FILE_NAME).exists():
        return folder
    if value in known:
        return known[value]
    there = f"The project has: {', '.join(known)}. Another is made with: llmops init NAME --docs DIR"
    raise ConfigError(f"--assistant {value}: {folder / FILE_NAME} does not exist. {there if known else _none()}")


def _none() -> str:
    return f"There is no assistant in {project_root() / 'assistants'}. Make one: llmops init NAME --docs DIR"
