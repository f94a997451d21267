"""Cases: the labelled questions that a release is scored on.

A case file has one JSON object a line: `case_id`, `question`, `gold_document_ids`, optional `answers`, optional `split`. It is
written by hand, so everything that is wrong with it is said at once, each with its line. Knows nothing of releases.
"""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from llmops_core.errors import ConfigError
from llmops_core.ids import content_hash

Split = Literal["held_out", "tune"]
SPLITS: tuple[Split, ...] = ("held_out", "tune")

CASE_SCHEMA = pl.Schema(
    {
        "case_id": pl.String(),
        "case_hash": pl.String(),
        "question": pl.String(),
        "gold_document_ids": pl.List(pl.String()),
        "answers": pl.List(pl.String()),
        "split": pl.String(),
    }
)
"""Columns of a frame of cases, a row each; none is null."""

_SHOWN_PROBLEMS = 20
_SHOWN_IDS = 3
_COMPARED_IDS = 50_000  # difflib compares about this many in two seconds


@dataclass(frozen=True)
class Case:
    """One labelled question: the documents that answer it and, where short, the answers that count as right."""

    case_id: str
    question: str
    gold_document_ids: tuple[str, ...]
    answers: tuple[str, ...]
    split: Split
    case_hash: str
    """Hash of question, gold documents and answers; equal hash and release: equal scores."""


def make_case(
    case_id: str,
    question: str,
    gold_document_ids: Sequence[str],
    answers: Sequence[str] = (),
    split: Split | None = None,
) -> Case:
    """Make a case. Without a `split` its id decides; the order of gold documents and of answers is not part of its hash."""
    scored = {"question": question, "gold": sorted(gold_document_ids), "answers": sorted(answers)}
    return Case(
        case_id=case_id,
        question=question,
        gold_document_ids=tuple(gold_document_ids),
        answers=tuple(answers),
        split=split or split_of(case_id),
        case_hash=content_hash(scored),
    )


def split_of(case_id: str) -> Split:
    """Say which side a case falls on: `held_out` where the content hash of its id is even (half of all ids), else `tune`.

    It depends on the id alone, so a case stays on its side when others come and go or when it is reworded. This rule must
    never change: what had been tuned on would turn into evidence.
    """
    return "held_out" if int(content_hash(case_id), 16) % 2 == 0 else "tune"


def load_cases(file: Path, known_documents: Set[str] | None = None) -> list[Case]:
    """Read a case file, in its order.

    Raises `ConfigError` that lists every problem as `file:line: what` (20 of them, then how many more). With
    `known_documents`, the ids of the corpus, a gold document that is not among them is such a problem.
    """
    cases: dict[str, tuple[int, Case]] = {}
    problems: list[tuple[int, str]] = []
    # Not splitlines(): a JSON string may hold U+2028 and the like as they are.
    for number, line in enumerate(_read(file).split(b"\n"), start=1):
        parsed = _parse(line) if line.strip() else []
        if isinstance(parsed, list):
            problems += [(number, problem) for problem in parsed]
        elif parsed.case_id in cases:
            first = cases[parsed.case_id][0]
            problems.append((number, f"case_id: {_short(parsed.case_id)} is taken by line {first}; ids must be unique"))
        else:
            cases[parsed.case_id] = (number, parsed)
    unknown = {} if known_documents is None else _unknown_documents(cases.values(), known_documents)
    if problems or unknown:
        raise ConfigError(_problem_report(file, problems, unknown))
    if not cases:
        raise ConfigError(
            f"{file} holds no case. Write one JSON object a line, for example"
            ' {"case_id": "q1", "question": "…", "gold_document_ids": ["…"]}, or take evaluation.cases out of assistant.yaml'
        )
    return [case for _, case in cases.values()]


def cases_frame(cases: Iterable[Case]) -> pl.DataFrame:
    """Put cases into a frame of `CASE_SCHEMA`, a row each."""
    rows = [{name: getattr(case, name) for name in CASE_SCHEMA} for case in cases]
    return pl.DataFrame(rows, schema=CASE_SCHEMA)


def cases_from(frame: pl.DataFrame) -> list[Case]:
    """Take the cases out of a frame that has the columns of `CASE_SCHEMA`, for example one that was read back."""
    return [
        Case(**{**row, "gold_document_ids": tuple(row["gold_document_ids"]), "answers": tuple(row["answers"])})
        for row in frame.select(CASE_SCHEMA.names()).iter_rows(named=True)
    ]


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("holds half of a surrogate pair, which is no text")
    return value


def _without_repeats(values: list[str]) -> list[str]:
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"names {_listed(repeated)} more than once")
    return values


_Text = Annotated[str, AfterValidator(_not_blank)]
_Texts = Annotated[list[_Text], AfterValidator(_without_repeats)]


class _Line(BaseModel):
    """One line of a case file, as it is written."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    case_id: _Text
    question: _Text
    gold_document_ids: _Texts = Field(min_length=1)
    answers: _Texts | None = None
    split: Split | None = None


def _read(file: Path) -> bytes:
    """Read the bytes of a case file, without the byte order mark that some editors write."""
    try:
        return file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except FileNotFoundError as error:
        raise ConfigError(
            f"{file} does not exist. Write it with one case a line, or correct evaluation.cases in assistant.yaml"
        ) from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error}). Correct evaluation.cases in assistant.yaml") from error


def _parse(line: bytes) -> Case | list[str]:
    """Make a case of one line, or say everything that is wrong with it."""
    try:
        data = json.loads(line.decode("utf-8"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        return [f"is not UTF-8: {error.reason} at byte {error.start + 1}"]
    except json.JSONDecodeError as error:
        return [f"is not valid JSON: {error.msg} at column {error.colno}"]
    except (ValueError, RecursionError) as error:
        return [f"is not valid JSON: {error}"]
    if not isinstance(data, dict):
        return [f"must be a JSON object with case_id, question and gold_document_ids (it is {_short(data)})"]
    try:
        parsed = _Line.model_validate(data)
    except ValidationError as error:
        return [_explain(e) for e in error.errors()]
    return make_case(parsed.case_id, parsed.question, parsed.gold_document_ids, parsed.answers or (), parsed.split)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object, but not of one that names a key twice: one of the two values would vanish unseen."""
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"it has {_listed(sorted({key for key in keys if keys.count(key) > 1}))} twice")
    return made


def _explain(error: Any) -> str:
    """One validation error: the key, what is wrong, what is allowed."""
    key = "".join(f"[{part}]" if isinstance(part, int) else str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key. Allowed: {', '.join(_Line.model_fields)}"
    if error["type"] == "missing":
        return f"{key}: is required"
    return f"{key}: {error['msg'].removeprefix('Value error, ')} (it is {_short(error['input'])})"


def _unknown_documents(cases: Iterable[tuple[int, Case]], known: Set[str]) -> dict[int, str]:
    """Name the gold documents that the corpus does not have, by line, with what was perhaps meant."""
    ids = sorted(known)
    hints = _COMPARED_IDS // max(len(ids), 1)
    problems: dict[int, str] = {}
    for number, case in cases:
        unknown = [document_id for document_id in case.gold_document_ids if document_id not in known]
        meant: list[str] = []
        for document_id in unknown[: min(hints, _SHOWN_IDS)] if len(problems) < _SHOWN_PROBLEMS else []:
            meant += difflib.get_close_matches(document_id, ids, n=1)
            hints -= 1
        if unknown:
            question = f"; did you mean {_listed(list(dict.fromkeys(meant)))}?" if meant else ""
            problems[number] = (
                f"case {_short(case.case_id)}: gold_document_ids: not in the corpus: {_listed(unknown)}{question}"
            )
    return problems


def _problem_report(file: Path, problems: Iterable[tuple[int, str]], unknown: Mapping[int, str]) -> str:
    """Write the message of a bad case file: what is wrong, line by line, and the way out."""
    lines = [f"  {file}:{number}: {what}" for number, what in sorted([*problems, *unknown.items()], key=lambda p: p[0])]
    shown = [f"{file} has {len(lines)} problem(s):", *lines[:_SHOWN_PROBLEMS]]
    if len(lines) > _SHOWN_PROBLEMS:
        shown.append(f"  and {len(lines) - _SHOWN_PROBLEMS} more")
    if unknown:
        shown.append(
            "Document ids come from the sources (`llmops search` shows them): correct them in the case file, or bring the"
            " missing documents into the sources and run `llmops build`."
        )
    return "\n".join(shown)


def _listed(values: Sequence[str]) -> str:
    more = f" and {len(values) - _SHOWN_IDS} more" if len(values) > _SHOWN_IDS else ""
    return ", ".join(_short(value) for value in values[:_SHOWN_IDS]) + more


def _short(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
    shown = shown.encode("utf-8", "backslashreplace").decode("utf-8")
    return shown if len(shown) <= 80 else f"{shown[:79]}…"
