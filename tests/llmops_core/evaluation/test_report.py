"""Reports: what counts in which metric, and the ways to read one."""

import io
import json
import struct
import subprocess
import sys

import polars as pl
import pytest

from llmops_core.evaluation.intervals import wilson
from llmops_core.evaluation.report import METRICS, REPORT_SCHEMA, SCORES, Report, make_report
from llmops_core.evaluation.run import RESULT_SCHEMA


def row(number: int, split: str, **values: object) -> dict[str, object]:
    retrieved = {
        "retrieved_document_ids": ["a"],
        "recall_at_1": float(number % 2),
        "recall_at_5": 1.0,
        "ndcg_at_10": 1.0 if number % 2 else 0.5,
        "retrieval_ms": 10.0 + number,
    }
    return {"case_id": f"q{number}", "case_hash": f"{number:032x}", "split": split, **retrieved, **values}


SAID = {"answer": "yes", "exact_match": 1.0, "f1": 1.0, "empty": False, "answer_ms": 2_000.0}
BLANK = {"answer": "", "exact_match": 0.0, "f1": 0.0, "empty": True, "answer_ms": 1_000.0}
UNLABELLED = {**SAID, "exact_match": None, "f1": None}
FAILED = dict.fromkeys(("recall_at_1", "recall_at_5", "ndcg_at_10", "retrieval_ms", "retrieved_document_ids"))


@pytest.fixture
def rows() -> pl.DataFrame:
    return pl.DataFrame(
        [
            row(0, "held_out", **SAID),
            row(1, "held_out", **BLANK),
            row(2, "held_out", **UNLABELLED),
            row(3, "held_out"),
            row(4, "tune"),
            row(5, "tune", **FAILED, error="retrieval: EngineError: away"),
        ],
        schema=RESULT_SCHEMA,
    )


@pytest.fixture
def report(rows: pl.DataFrame) -> Report:
    return make_report("3f2a9bd10c7745e2a8f0b1c2d3e4f506", rows)


def test_a_metric_counts_the_cases_that_it_measures(report: Report) -> None:
    assert (report.cases, report.answered, report.failed) == (6, 3, 1)
    assert tuple(report.metrics) == METRICS
    counted = {name: found.n for name, found in report.metrics.items()}
    assert counted["recall_at_1"] == counted["retrieval_ms_p50"] == 5
    assert counted["exact_match"] == counted["f1"] == 2
    assert counted["empty_rate"] == counted["answer_ms_p50"] == 3


def test_values_and_intervals_are_those_of_the_cases(report: Report) -> None:
    found = report.metrics["recall_at_1"]
    assert found.value == pytest.approx(2 / 5)
    assert (found.low, found.high) == wilson(2, 5)
    assert report.metrics["empty_rate"].value == pytest.approx(1 / 3)
    assert report.metrics["exact_match"].value == 0.5
    assert report.metrics["retrieval_ms_p50"].value == 12
    assert report.metrics["answer_ms_p50"].value == 2_000


def test_each_split_has_its_own_metrics(report: Report) -> None:
    held_out, tune = report.by_split["held_out"], report.by_split["tune"]
    assert (held_out.cases, held_out.answered, held_out.failed) == (4, 3, 0)
    assert (tune.cases, tune.answered, tune.failed) == (2, 0, 1)
    assert tune.metrics["recall_at_1"].n == 1
    assert held_out.metrics["ndcg_at_10"].value == 0.75


def test_what_no_case_measures_is_absent(report: Report) -> None:
    assert "exact_match" not in report.by_split["tune"].metrics
    assert "answer_ms_p50" not in report.by_split["tune"].metrics


def test_a_report_of_no_cases_is_empty_and_can_be_read() -> None:
    report = make_report("r", pl.DataFrame(schema=RESULT_SCHEMA))
    assert (report.cases, report.metrics, report.by_split) == (0, {}, {})
    assert "0 cases" in report.table()
    assert report.frame().schema == REPORT_SCHEMA
    assert report.plot().startswith(b"\x89PNG")


def test_the_rows_may_come_in_any_order_and_with_more_columns(rows: pl.DataFrame, report: Report) -> None:
    shuffled = rows.sample(fraction=1, shuffle=True, seed=3).with_columns(run_id=pl.lit("r"))
    assert make_report(report.release_id, shuffled) == report


def test_alpha_widens_and_is_stated(rows: pl.DataFrame, report: Report) -> None:
    sure = make_report(report.release_id, rows, alpha=0.01)
    assert sure.metrics["recall_at_1"].high > report.metrics["recall_at_1"].high
    assert "99% intervals" in sure.headline()


def test_the_frame_has_a_row_for_each_metric_and_split(report: Report) -> None:
    frame = report.frame()
    assert frame.schema == REPORT_SCHEMA
    assert frame.null_count().sum_horizontal().item() == 0
    assert frame["split"].unique(maintain_order=True).to_list() == ["all", "held_out", "tune"]
    assert frame.filter(split="all")["metric"].to_list() == list(METRICS)
    assert frame.filter(split="tune")["metric"].to_list() == [*SCORES[:3], "retrieval_ms_p50"]


def test_the_summary_is_json_with_the_names_that_others_rely_on(report: Report) -> None:
    summary = json.loads(json.dumps(report.summary(), allow_nan=False))
    assert summary["release_id"] == report.release_id
    assert summary["cases"] == 6
    assert set(summary["metrics"]["recall_at_5"]) == {"value", "low", "high", "n"}
    assert set(SCORES) <= set(summary["metrics"])
    assert summary["by_split"]["tune"]["cases"] == 2


def test_the_text_table_is_aligned_and_says_what_is_missing(report: Report) -> None:
    lines = report.table().splitlines()
    assert lines[0].endswith("6 cases, 3 answered, 1 failed; 95% intervals in brackets")
    assert lines[2].split("  ")[0] == "metric"
    assert [line.split()[0] for line in lines[3:]] == list(METRICS)
    column = lines[2].index("tune (2)")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines[2:])
    assert lines[3 + METRICS.index("f1")].endswith(" -")
    assert report.table().isascii()


def test_the_markdown_table_has_as_many_cells_in_each_line(report: Report) -> None:
    lines = report.markdown().splitlines()[2:]
    assert {line.count("|") for line in lines} == {5}
    assert lines[2].startswith("| recall_at_1 | 0.400 [0.118, 0.769] n=5 |")


def test_the_plot_is_a_png_of_1400_pixels_for_700(report: Report) -> None:
    picture = report.plot()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", picture[16:24])
    assert (width, height) == (1_400, 980)
    assert len(picture) < 60_000


def test_both_splits_are_drawn_in_their_colours(report: Report) -> None:
    from matplotlib.image import imread

    pixels = imread(io.BytesIO(report.plot()))[..., :3]
    plotted = pixels[150:850, 360:1000]
    for colour in ((0x00, 0x72, 0xB2), (0xB8, 0x50, 0x00)):
        near = abs(plotted - [part / 255 for part in colour]).max(axis=-1) < 0.02
        assert near.sum() > 100


def test_the_same_report_gives_the_same_picture(report: Report) -> None:
    assert report.plot() == report.plot()


def test_matplotlib_is_loaded_to_draw_alone_and_pyplot_never() -> None:
    script = (
        "import sys, polars as pl\n"
        "from llmops_core.evaluation.report import make_report\n"
        "from llmops_core.evaluation.run import RESULT_SCHEMA\n"
        "report = make_report('r', pl.DataFrame(schema=RESULT_SCHEMA))\n"
        "assert 'matplotlib' not in sys.modules\n"
        "report.plot()\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
