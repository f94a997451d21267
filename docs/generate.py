"""Writes what of the docs follows from the code: the README's tree and asset table, and the schema of assistant.yaml.

`--check` changes nothing and fails if something is out of date, or if a link in README or docs leads nowhere.
"""

import ast
import json
import re
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent

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
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")


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
    rows = [
        f"| `{'/'.join(key.path[1:])}` | {graph.get(key).description} |"
        for key in sorted(graph.get_all_asset_keys(), key=dg.AssetKey.to_user_string)
    ]
    return "\n".join(["| asset | what it is |", "|---|---|", *rows])


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


def wanted() -> dict[Path, str]:
    """Every generated file, as it should be."""
    readme = PROJECT / "README.md"
    text = filled(readme.read_text(encoding="utf-8"), "tree", tree())
    return {readme: filled(text, "assets", assets()), PROJECT / "docs" / "assistant.schema.json": schema()}


def broken_links() -> list[str]:
    """Links to files that are not there."""
    pages = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
    return [
        f"{page.relative_to(PROJECT)}: {target}"
        for page in pages
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]


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
