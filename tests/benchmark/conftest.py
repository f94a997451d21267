"""What benchmarks share: the table of results, which is printed and kept in docs/benchmarks.md."""

import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- results -->\n", "<!-- /results -->"
HEADER = "| benchmark | ours | beside it | ratio | wanted | measured on |\n|---|---|---|---|---|---|\n"

Report = Callable[..., None]


@pytest.fixture
def report() -> Report:
    """Print a result and put it into docs/benchmarks.md, in place of the one that stood there under its name."""

    def write(name: str, ours: str, beside: str, ratio: float, wanted: str) -> None:
        print(f"\n{name}: {ours}   beside it {beside}   ratio {ratio:.3f}   wanted {wanted}")
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        table, after = rest.split(END)
        rows = dict(_named(line) for line in table.splitlines()[2:])
        rows |= [_named(f"| {name} | {ours} | {beside} | {ratio:.3f} | {wanted} | {_machine()} |")]
        body = "".join(f"{rows[key]}\n" for key in sorted(rows))
        PAGE.write_text(before + BEGIN + HEADER + body + END + after, encoding="utf-8")

    return write


def _named(row: str) -> tuple[str, str]:
    return row.split("|")[1].strip(), row


def _machine() -> str:
    import torch

    cpu = torch.cpu.get_capabilities()
    widest = next(
        unit for unit in ("amx_bf16", "avx512_bf16", "avx512_f", "avx2", "neon", "architecture") if cpu.get(unit)
    )
    kind = f"{cpu['cpu_name']} with {widest}" if "cpu_name" in cpu else platform.machine()
    return f"{cpu['num_logical_cores']} cores, {kind}, {datetime.now(UTC):%Y-%m-%d}"
