"""The report of a release: its metrics over all cases and by split, each with its interval, as tables and as a plot.

Only what was measured is in it: a metric without a single case is absent, never 0. Made of the rows of `run.combine`, so it
can be made again from stored rows at any time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from llmops_core.evaluation.cases import SPLITS, Split
from llmops_core.evaluation.intervals import Estimate, estimate, estimate_median

_SCORES = {
    "recall_at_1": pl.col("recall_at_1"),
    "recall_at_5": pl.col("recall_at_5"),
    "ndcg_at_10": pl.col("ndcg_at_10"),
    "exact_match": pl.col("exact_match"),
    "f1": pl.col("f1"),
    "empty_rate": pl.col("empty").cast(pl.Float64),
}
_MEDIANS = {"retrieval_ms_p50": pl.col("retrieval_ms"), "answer_ms_p50": pl.col("answer_ms")}

SCORES = tuple(_SCORES)
"""Names of the metrics within 0 and 1; of `empty_rate` less is better, of the others more."""
MEDIANS = tuple(_MEDIANS)
"""Names of the median times, in milliseconds."""
METRICS = (*SCORES, *MEDIANS)
RETRIEVAL_SCORES = ("recall_at_1", "recall_at_5", "ndcg_at_10")
"""Those of `SCORES` that need no answer."""

REPORT_SCHEMA = pl.Schema(
    {
        "release_id": pl.String(),
        "split": pl.String(),
        "metric": pl.String(),
        "value": pl.Float64(),
        "low": pl.Float64(),
        "high": pl.Float64(),
        "n": pl.Int64(),
    }
)
"""Columns of `Report.frame`, none null: a row a metric and split, where split is all, held_out or tune."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The metrics of a set of cases."""

    cases: int
    answered: int
    failed: int
    """Cases with an error in retrieval or answer; what they lack does not count in any metric."""
    metrics: Mapping[str, Estimate]
    """By name, in the order of `METRICS`, without those that no case measures."""


@dataclass(frozen=True, kw_only=True)
class Report(Scores):
    """The metrics of a release over all cases, and the same for each split that has cases."""

    release_id: str
    alpha: float
    """The intervals have confidence 1 − alpha."""
    by_split: Mapping[Split, Scores]

    def frame(self) -> pl.DataFrame:
        """Give every estimate as a row of `REPORT_SCHEMA`."""
        rows = [
            {"release_id": self.release_id, "split": split, "metric": metric, **vars(value)}
            for split, scores in self._columns()
            for metric, value in scores.metrics.items()
        ]
        return pl.DataFrame(rows, schema=REPORT_SCHEMA, orient="row")

    def summary(self) -> dict[str, Any]:
        """Give everything as JSON-able values, for `--json`."""
        splits = {split: _summary(scores) for split, scores in self.by_split.items()}
        return {"release_id": self.release_id, "alpha": self.alpha, **_summary(self), "by_split": splits}

    def markdown(self) -> str:
        """Write the metrics as a Markdown table, for the Dagster UI."""
        head, *rows = self._cells()
        lines = [head, ["---"] * len(head), *rows]
        return f"{self.headline()}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def table(self) -> str:
        """Write the metrics as a table of plain text, for a terminal."""
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
        ]
        return "\n".join([self.headline(), "", *lines])

    def plot(self) -> bytes:
        """Draw the metrics of both splits with their intervals, as a PNG of 1,400 pixels that reads well at 700."""
        from llmops_core.evaluation.plot import draw

        return draw(self)

    def headline(self) -> str:
        """Say in one line what was evaluated, and what the intervals are."""
        failed = f", {self.failed} failed" if self.failed else ""
        counts = f"{self.cases} cases, {self.answered} answered{failed}"
        return f"Release {self.release_id}: {counts}; {100 * (1 - self.alpha):g}% intervals in brackets"

    def _columns(self) -> Iterator[tuple[Literal["all"] | Split, Scores]]:
        yield "all", self
        yield from self.by_split.items()

    def _cells(self) -> list[list[str]]:
        """The table's cells: a column for all cases and each split, a row for each metric that is there at all."""
        columns = list(self._columns())
        head = ["metric", *(f"{split} ({scores.cases})" for split, scores in columns)]
        present = [metric for metric in METRICS if metric in self.metrics]
        return [head, *([name, *(_cell(name, scores.metrics) for _, scores in columns)] for name in present)]


def score_of(metric: str) -> pl.Expr:
    """The value of one of `SCORES` in a row of `run.RESULT_SCHEMA`, null where the case does not measure it."""
    return _SCORES[metric].alias(metric)


def make_report(release_id: str, results: pl.DataFrame, alpha: float = 0.05) -> Report:
    """Report on a release from its rows of `run.RESULT_SCHEMA` (more columns are welcome)."""
    by_split = {
        split: _scores(rows, alpha)
        for split in SPLITS
        if not (rows := results.filter(pl.col("split") == split)).is_empty()
    }
    return Report(release_id=release_id, alpha=alpha, by_split=by_split, **vars(_scores(results, alpha)))


def _scores(results: pl.DataFrame, alpha: float) -> Scores:
    estimates = {name: estimate(_values(results, column), alpha) for name, column in _SCORES.items()}
    estimates |= {name: estimate_median(_values(results, column), alpha) for name, column in _MEDIANS.items()}
    return Scores(
        cases=results.height,
        answered=results["answer"].count(),
        failed=results["error"].count(),
        metrics={name: value for name, value in estimates.items() if value is not None},
    )


def _values(results: pl.DataFrame, column: pl.Expr) -> Sequence[float]:
    values: list[float] = results.select(column).to_series().drop_nulls().to_list()
    return values


def _summary(scores: Scores) -> dict[str, Any]:
    return {
        "cases": scores.cases,
        "answered": scores.answered,
        "failed": scores.failed,
        "metrics": {name: dict(vars(value)) for name, value in scores.metrics.items()},
    }


def _cell(metric: str, metrics: Mapping[str, Estimate]) -> str:
    found = metrics.get(metric)
    if found is None:
        return "-"
    value, low, high = (show(metric, number) for number in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}] n={found.n}"


def show(metric: str, value: float) -> str:
    """Write a value with the digits that its metric deserves."""
    digits = 3 if metric in SCORES else 1 if value < 100 else 0
    return f"{value:.{digits}f}"
