"""Writes what of README and docs follows from the code: the parts between markers, and the schema of assistant.yaml.

`--check` changes nothing and fails if something is out of date, or if a link in README or docs leads nowhere.
"""

import ast
import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import get_args

PROJECT = Path(__file__).resolve().parent.parent
README, DOCS = PROJECT / "README.md", PROJECT / "docs"

PACKAGES = (
    "llmops_core",
    "llmops_assets",
    "resources",
    "jobs",
    "sensors",
    "llmops_gateway",
    "llmops_engine",
    "llmops_cli",
)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]*)#?([^)\s]*)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def first_line(file: Path) -> str:
    """First line of a module's docstring."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].rstrip(".")


def tree() -> str:
    """The packages, a line each, with what their docstrings say."""
    lines: list[tuple[str, str]] = []
    for package in PACKAGES:
        folder = PROJECT / package
        lines.append((f"{package}/", first_line(folder / "__init__.py")))
        if package in {"llmops_core", "llmops_assets"}:
            inner = sorted(p for p in folder.iterdir() if (p / "__init__.py").exists())
            lines.extend((f"  {p.name}/", first_line(p / "__init__.py")) for p in inner)
    width = max(len(name) for name, _ in lines)
    return "```\n" + "\n".join(f"{name.ljust(width)}  {text}" for name, text in lines) + "\n```"


def assets() -> str:
    """The assets of the sample, with their tables."""
    import dagster as dg

    from llmops_assets.definitions import build_definitions

    graph = build_definitions(PROJECT / "assistants" / "python_help").resolve_asset_graph()
    keys = sorted(graph.get_all_asset_keys(), key=dg.AssetKey.to_user_string)
    return table(("asset", "what it is"), [(code("/".join(key.path[1:])), graph.get(key).description) for key in keys])


def settings() -> str:
    """The environment variables of the platform."""
    from llmops_core.settings import Settings

    rows = []
    for name, text in attributes("llmops_core/settings.py", "Settings").items():
        field = Settings.model_fields[name]
        choices = get_args(field.annotation) or ((field.default,) if isinstance(field.default, str | int) else ())
        rows.append((code(f"LLMOPS_{name.upper()}"), ", ".join(map(code, choices)), text))
    return table(("variable", "default, and what else it may be", "what it is"), rows)


def fields(class_name: str) -> str:
    """The fields of a body that the gateway takes."""
    documented = attributes("llmops_gateway/protocol.py", class_name).items()
    return table(("field", "what it is"), [(code(name), text) for name, text in documented])


def log_row() -> str:
    """The fields of a request in the log."""
    from llmops_core.traffic.columns import REQUEST_COLUMNS
    from llmops_core.traffic.row import RequestRow

    # In the table, `code_version` is that of the ingest.
    columns = {**REQUEST_COLUMNS, "code_version": REQUEST_COLUMNS["gateway_code_version"]}
    names = [field.name for field in dataclasses.fields(RequestRow)]
    return table(("field", "what it is"), [(code(name), columns[name][1]) for name in names])


def limits() -> str:
    """The numbers at which the gateway refuses, waits or gives up."""
    from llmops_core.engines import client
    from llmops_core.traffic.open_segment import SealRule
    from llmops_core.traffic.spool import MAX_QUEUED_BYTES
    from llmops_engine.server import MOST_UNDER_WAY
    from llmops_gateway import channel_watch, gateway, local_copy, protocol, releases, server, shadows

    seal = SealRule()
    rows = [
        ("body of a request", f"{protocol.MAX_BODY_BYTES >> 20} MiB", "413"),
        ("answers under way or waiting at one local engine", MOST_UNDER_WAY, "503"),
        ("searches at the same time", gateway.RETRIEVAL_THREADS, "others wait"),
        ("log rows that wait for the disk, an assistant", f"{MAX_QUEUED_BYTES >> 20} MiB", "503"),
        ("connecting to an engine", f"{client.CONNECT_TIMEOUT_S:g} s", "503"),
        ("silence of an engine", f"{client.IDLE_TIMEOUT_S:g} s", "503, or the end of the stream with an error"),
        (
            "releases loaded that are not on `prod` and were not before",
            releases.LOADED_ON_DEMAND,
            "the one not used longest goes; 503 while answers hold them all",
        ),
        ("copies of requests that wait for a canary in shadow mode", shadows.WAITING_COPIES, "none is made"),
        ("releases that a rollback without the lakehouse can go back to", local_copy.KEPT_BEFORE, "404"),
        ("time from a change until what a rollback goes to is being loaded", f"{releases.WARM_AFTER_S:g} s", ""),
        ("time between two looks at the channels", f"{channel_watch.POLL_S:g} s", ""),
        ("time until a release that did not load is tried again", f"{releases.RETRY_S:g} s", "503 until then"),
        (
            "rows, size and age of a spool segment",
            f"{seal.max_rows:,}, {seal.max_bytes >> 20} MiB, {seal.max_age_seconds:g} s",
            "it is sealed and shipped",
        ),
        ("answers under way when the gateway is ended", f"{server.DRAIN_S} s", "then they are cut"),
    ]
    return table(("what", "limit", "beyond it"), rows)


def attributes(file: str, class_name: str) -> Mapping[str, str]:
    """The fields of a class with the text below each; raises `SystemExit` for one without."""
    tree = ast.parse((PROJECT / file).read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    found: dict[str, str] = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            match after:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    found[node.target.id] = " ".join(text.split())
                case _:
                    sys.exit(f"{file}: {class_name}.{node.target.id} has no text below it; the docs need one.")
    return found


def code(value: object) -> str:
    """A value in Markdown, as code."""
    return f"`{value}`" if value != "" else ""


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A table in Markdown."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in (head, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], "|---" * len(cells[0]) + "|", *lines[1:]])


def schema() -> str:
    """The JSON schema of assistant.yaml."""
    from llmops_core.assistant import json_schema

    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def filled(text: str, name: str, content: str) -> str:
    """Put content between the markers of a name."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n{content}\n{end}{tail}"


PARTS: Mapping[Path, Mapping[str, Callable[[], str]]] = {
    README: {"tree": tree, "assets": assets},
    DOCS / "gateway.md": {
        "chat": lambda: fields("ChatRequest"),
        "feedback": lambda: fields("FeedbackRequest"),
        "rollback": lambda: fields("RollbackRequest"),
        "log": log_row,
        "limits": limits,
    },
    DOCS / "install.md": {"settings": settings},
}


def wanted() -> dict[Path, str]:
    """Every generated file, as it should be."""
    files = {DOCS / "assistant.schema.json": schema()}
    for page, parts in PARTS.items():
        text = page.read_text(encoding="utf-8")
        for name, make in parts.items():
            text = filled(text, name, make())
        files[page] = text
    return files


def broken_links() -> list[str]:
    """Links to files or headings that are not there."""
    broken = []
    for page in (README, *sorted(DOCS.rglob("*.md"))):
        for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
            file = page.parent / target if target else page
            if "://" in target or (file.exists() and (not anchor or anchor in anchors(file))):
                continue
            broken.append(f"{page.relative_to(PROJECT)}: {target}{'#' * bool(anchor)}{anchor}")
    return broken


def anchors(page: Path) -> set[str]:
    """The names by which the headings of a page can be linked, as GitHub makes them."""
    headings = HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def main() -> int:
    """Write, or with `--check` compare."""
    stale = [file for file, text in wanted().items() if not file.exists() or file.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv:
        problems = [f"{file.relative_to(PROJECT)} is out of date: make docs" for file in stale]
        problems += [f"broken link in {link}" for link in broken_links()]
        sys.stderr.write("".join(f"{problem}\n" for problem in problems))
        return 1 if problems else 0
    for file, text in wanted().items():
        file.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
