"""What must hold of documents and chunks, as Great Expectations suites over polars frames.

Great Expectations reports its own crash as data that failed. Here a crash raises, so that nobody hunts for bad documents
where a column is missing. It reads no polars, hence Arrow-backed pandas, and only of the columns that a suite names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from llmops_core.errors import PermanentError

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 5
"""Offending values that a report quotes; `_LONGEST_VALUE` characters of each."""
_LONGEST_VALUE = 60
_COLUMN_ARGUMENTS = ("column", "column_A", "column_B")


@dataclass(frozen=True)
class Rule:
    """One expectation: what it means, in words, and Great Expectations' name and arguments for it."""

    meaning: str
    expectation: str
    arguments: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""
        return tuple(str(self.arguments[name]) for name in _COLUMN_ARGUMENTS if name in self.arguments)


@dataclass(frozen=True)
class Suite:
    """Rules that a frame is held against together."""

    name: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class RuleResult:
    """How one rule fared: `found` says in words what broke it, and is empty if nothing did."""

    rule: Rule
    passed: bool
    found: str


@dataclass(frozen=True)
class QualityReport:
    """How a frame of `rows` rows fared."""

    suite: str
    rows: int
    results: tuple[RuleResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every rule holds."""
        return all(result.passed for result in self.results)

    def markdown(self) -> str:
        """The report as a table, what failed first."""
        ordered = sorted(self.results, key=lambda result: result.passed)
        lines = [f"| {'✓' if r.passed else '✗'} | {r.rule.meaning} | {_cell(r.found)} |" for r in ordered]
        return "\n".join([f"{self.suite}, {self.rows} rows", "", "| | rule | found |", "|---|---|---|", *lines])


def documents_suite() -> Suite:
    """What must hold of `corpus_documents`."""
    return Suite(
        "documents",
        (
            Rule("there is at least one document", "expect_table_row_count_to_be_between", {"min_value": 1}),
            _present("document_id"),
            _unique("document_id"),
            _present("document_hash"),
            _present("text"),
            Rule("text is not blank", "expect_column_values_to_match_regex", {"column": "text", "regex": r"\S"}),
        ),
    )


def chunks_suite(size: int) -> Suite:
    """What must hold of `corpus_chunks`, where a chunk may have at most `size` tokens."""
    tokens: dict[str, str | int] = {"column": "tokens", "min_value": 1, "max_value": size}
    span: dict[str, str | int] = {
        "column_A": "char_end",
        "column_B": "char_start",
        # Nulls have rules of their own, and Great Expectations cannot compare them in Arrow columns.
        "ignore_row_if": "either_value_is_missing",
    }
    return Suite(
        "chunks",
        (
            _present("chunk_id"),
            _unique("chunk_id"),
            _present("document_id"),
            _present("char_start"),
            _present("char_end"),
            Rule("char_end lies after char_start", "expect_column_pair_values_a_to_be_greater_than_b", span),
            _present("tokens"),
            Rule(f"tokens lie between 1 and {size}", "expect_column_values_to_be_between", tokens),
        ),
    )


def validate(frame: pl.DataFrame, suite: Suite) -> QualityReport:
    """Hold a frame against a suite.

    Raises `PermanentError` if Great Expectations could not judge a rule, for example because a column is missing.
    """
    if missing := sorted({column for rule in suite.rules for column in rule.columns} - set(frame.columns)):
        raise PermanentError(
            f"Quality suite {suite.name}: the table has no column {', '.join(missing)}, only {', '.join(frame.columns)}. "
            "Run llmops upgrade, or give the suite the table that it is for"
        )
    judged = {str(result.expectation_config.meta["rule"]): result for result in _judge(_to_pandas(frame, suite), suite)}
    results = []
    for number, rule in enumerate(suite.rules):
        result = judged.get(str(number))
        if result is None or (crash := _crash(result.exception_info)):
            raise PermanentError(
                f"Quality suite {suite.name}: Great Expectations could not judge whether {rule.meaning}: "
                f"{crash if result else 'no result'}. This says nothing about the data"
            )
        passed = bool(result.success)
        results.append(RuleResult(rule, passed, "" if passed else _found(result.result)))
    return QualityReport(suite.name, frame.height, tuple(results))


def _present(column: str) -> Rule:
    return Rule(f"{column} is never null", "expect_column_values_to_not_be_null", {"column": column})


def _unique(column: str) -> Rule:
    return Rule(f"{column} is unique", "expect_column_values_to_be_unique", {"column": column})


def _to_pandas(frame: pl.DataFrame, suite: Suite) -> "pd.DataFrame":
    columns = dict.fromkeys(column for rule in suite.rules for column in rule.columns)
    return frame.select(*columns).to_pandas(use_pyarrow_extension_array=True)


def _judge(frame: "pd.DataFrame", suite: Suite) -> list[Any]:
    """Let Great Expectations judge; rules are told apart by their number in `meta`, since results come in its own order."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    try:
        context = gx.get_context(mode="ephemeral")
        context.enable_analytics(False)
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        expectations = [
            ExpectationConfiguration(
                type=rule.expectation, kwargs=dict(rule.arguments), meta={"rule": str(number)}
            ).to_domain_obj()
            for number, rule in enumerate(suite.rules)
        ]
        asset = context.data_sources.add_pandas("frames").add_dataframe_asset(suite.name)
        batch = asset.add_batch_definition_whole_dataframe("whole").get_batch(batch_parameters={"dataframe": frame})
        return list(batch.validate(gx.ExpectationSuite(name=suite.name, expectations=expectations)).results)
    except Exception as error:  # It raises types of its own, pydantic's and pandas'.
        raise PermanentError(
            f"Quality suite {suite.name}: Great Expectations failed with {type(error).__name__}: {error}. This says nothing "
            "about the data"
        ) from error


def _crash(information: Mapping[str, Any]) -> str:
    """What was raised inside, or nothing; either flat or by metric, depending on where."""
    entries = [information, *(value for value in information.values() if isinstance(value, Mapping))]
    messages = [str(entry.get("exception_message")) for entry in entries if entry.get("raised_exception")]
    return "; ".join(dict.fromkeys(messages))


def _found(result: Mapping[str, Any]) -> str:
    """What broke a rule: how many rows, and the first of their values."""
    if "unexpected_count" not in result:
        return f"{result.get('observed_value')}"
    values = [_short(value) for value in result.get("partial_unexpected_list", [])[:_SHOWN]]
    return f"{result['unexpected_count']} of {result['element_count']} rows, such as {', '.join(values)}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"


def _cell(text: str) -> str:
    """A text that may hold ids of anybody's making, as one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
