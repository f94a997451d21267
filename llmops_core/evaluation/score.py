"""Scores a release on the stored cases: the work behind `evaluation/results` and `evaluation/reports`.

Work is proportional to change: a case that was scored for this release, in this version of the case, is not scored again.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
import polars as pl

from llmops_core.answering.conversation import Conversation
from llmops_core.answering.loaded import LoadedRelease, ModelPool, load_release
from llmops_core.engines.chat import GenerationParams
from llmops_core.engines.client import EngineClient
from llmops_core.engines.pool import Endpoint
from llmops_core.evaluation.cases import Case, cases_from
from llmops_core.evaluation.report import Report, make_report
from llmops_core.evaluation.run import (
    RESULT_SCHEMA,
    AnsweredCase,
    answer_sample,
    combine,
    deep_enough,
    evaluate_answers,
    evaluate_retrieval,
)
from llmops_core.ids import content_hash
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import LakeTable, Provenance
from llmops_core.release.channels import CHANNELS
from llmops_core.release.manifest import GeneratorPin, Release
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings

Progress = Callable[[str], object]
Keep = Callable[[pl.DataFrame], object]


@dataclass(frozen=True)
class Outstanding:
    """The cases of a release that still have to be retrieved for, and those that have to be answered."""

    retrieve: tuple[Case, ...]
    answer: tuple[Case, ...]


@dataclass(frozen=True)
class ScoredCases:
    """What scoring a release came to."""

    snapshot: int | None
    """Of the results: what this made last."""
    retrieved: int
    answered: int


def outstanding(results: pl.LazyFrame, release_id: str, cases: Sequence[Case], answers: int) -> Outstanding:
    """Compare cases with the results of a release that are stored, of which `answers` should have an answer.

    A case that an engine failed on is outstanding again; one that can never be answered (an invalid request) is done.
    """
    of_release = pl.col("release_id") == release_id
    engine_failed = pl.col("error").str.contains("EngineError", literal=True).fill_null(value=False)
    good = results.filter(of_release & ~engine_failed).collect()
    done = set(good.select("case_id", "case_hash").iter_rows())
    answered = set(
        good.filter(pl.col("answer").is_not_null() | pl.col("error").is_not_null())
        .select("case_id", "case_hash")
        .iter_rows()
    )
    to_answer = [c for c in answer_sample(cases, answers) if (c.case_id, c.case_hash) not in answered]
    to_retrieve = [c for c in cases if (c.case_id, c.case_hash) not in done or c in to_answer]
    return Outstanding(tuple(to_retrieve), tuple(to_answer))


def sides(releases: Releases, release: str, against: str) -> list[Release]:
    """The releases to score: first the one to compare with, if `against` names one and it is not the same, then `release`.

    A channel without a release is nothing to compare with.
    """
    found = releases.get(release)
    empty = against in ("", *CHANNELS) and against not in releases.channels.state()
    other = found if empty else releases.get(against)
    return [found] if other == found else [other, found]


def score_release(
    lakehouse: Lakehouse,
    settings: Settings,
    release: Release,
    cases: Sequence[Case],
    stored: int | None,
    answers: int,
    endpoint: Callable[[GeneratorPin], Endpoint] | None,
    progress: Progress,
    provenance: Provenance,
) -> ScoredCases:
    """Score a release on what is outstanding in the results at snapshot `stored`; nothing is loaded if nothing is.

    `answers` cases are answered in full, by the generator at `endpoint`; None: no case is.
    """
    manifest = release.manifest
    table = lakehouse.table(manifest.assistant, "evaluation_results")
    work = outstanding(table.scan(stored), release.release_id, cases, answers if endpoint else 0)
    if work.retrieve:
        text = Releases(lakehouse, manifest.assistant).prompt_text(release)
        loaded = load_release(settings, ModelPool(settings), manifest, text)

        def keep(rows: pl.DataFrame) -> None:
            nonlocal stored
            stored = store_results(table, release.release_id, rows, provenance)

        answering = endpoint(manifest.generator) if endpoint and work.answer else None
        score(loaded, answering, work, progress, keep)
    return ScoredCases(stored, len(work.retrieve), len(work.answer))


def score_retrieval(
    lakehouse: Lakehouse, settings: Settings, release: Release, progress: Progress, provenance: Provenance
) -> ScoredCases:
    """Score what a release finds for the cases that are stored, as far as that is outstanding."""
    assistant = release.manifest.assistant
    cases = cases_from(lakehouse.table(assistant, "evaluation_cases").read())
    stored = lakehouse.table(assistant, "evaluation_results").snapshot_id()
    return score_release(lakehouse, settings, release, cases, stored, 0, None, progress, provenance)


def score(release: LoadedRelease, endpoint: Endpoint | None, work: Outstanding, progress: Progress, keep: Keep) -> None:
    """Retrieve for and answer the outstanding cases; `keep` gets frames of `RESULT_SCHEMA`, none empty, each case in one.

    They come while the work goes on, so that what is killed is not lost. `endpoint` may be None if nothing has to be answered.
    """
    retrieval = evaluate_retrieval(
        work.retrieve,
        deep_enough(lambda question, chunks: release.retrieve(question, chunks).hits),
        progress=lambda done, of: progress(f"Retrieved for {done} of {of} cases") if done % 50 == 0 else None,
    )
    to_answer = [case.case_id for case in work.answer] if endpoint else []
    retrieved = retrieval.filter(~pl.col("case_id").is_in(to_answer))
    if not retrieved.is_empty():
        keep(combine(retrieved))
    if endpoint is None or not to_answer:
        return

    def keep_answers(answers: pl.DataFrame) -> None:
        keep(combine(retrieval.filter(pl.col("case_id").is_in(answers["case_id"].to_list())), answers))

    async def answer_all() -> None:
        async with aiohttp.ClientSession() as session:
            client = EngineClient(endpoint.base_url, endpoint.model, endpoint.api_key, session)
            await evaluate_answers(
                work.answer,
                lambda question: _answer(release, client, question),
                progress=lambda done, of: progress(f"Answered {done} of {of} cases"),
                keep=keep_answers,
            )

    asyncio.run(answer_all())


async def _answer(release: LoadedRelease, client: EngineClient, question: str) -> AnsweredCase:
    found = await asyncio.to_thread(release.retrieve, question)
    rendered = release.render(Conversation(question, ()), found.hits, {})
    params = release.manifest.generator.params
    completion = await client.complete(
        rendered.messages, GenerationParams(params.max_tokens, params.temperature, params.top_p)
    )
    return AnsweredCase(completion.text)


def store_results(table: LakeTable, release_id: str, results: pl.DataFrame, provenance: Provenance) -> int | None:
    """Write results of a release in place of older ones of the same cases; returns the snapshot that this made."""
    from pyiceberg.expressions import And, EqualTo, In, Reference

    frame = results.with_columns(release_id=pl.lit(release_id), evaluated_at=pl.lit(datetime.now(UTC)))
    same_cases = And(
        EqualTo(term=Reference("release_id"), value=release_id),
        In(term=Reference("case_id"), literals=set(results["case_id"])),
    )
    return table.overwrite(frame, provenance, where=same_cases)


def report_of(release_id: str, results: pl.DataFrame, cases: Sequence[Case], alpha: float) -> Report:
    """The report of a release over the present cases alone."""
    current = pl.DataFrame(
        [(c.case_id, c.case_hash, c.split) for c in cases], schema=["case_id", "case_hash", "split"], orient="row"
    ).cast(pl.String)
    rows = results.filter(pl.col("release_id") == release_id).drop("split").join(current, on=["case_id", "case_hash"])
    return make_report(release_id, rows.select(RESULT_SCHEMA.names()), alpha)


def store_report(table: LakeTable, report: Report, provenance: Provenance) -> str:
    """Keep a report under the hash of its numbers; the same report is kept once. Returns its id."""
    frame = report.frame()
    report_id = content_hash(frame.to_dicts())
    made = frame.with_columns(report_id=pl.lit(report_id), evaluated_at=pl.lit(datetime.now(UTC))).to_dicts()

    def decide(present: pl.DataFrame) -> tuple[str, list[dict[str, Any]]]:
        return report_id, [] if report_id in set(present["report_id"]) else made

    return table.append_decided(decide, provenance)
