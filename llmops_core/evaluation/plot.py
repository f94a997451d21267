"""The picture of a report: a dot and its interval for each metric and split.

Apart from `report.py`, since it alone knows matplotlib, which is imported when a picture is drawn. The figure is an object
of its own: no pyplot, so no global state, no display, and threads do not meet.
"""

import io
from typing import TYPE_CHECKING

from llmops_core.evaluation.cases import Split
from llmops_core.evaluation.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from llmops_core.evaluation.report import Report

# From top to bottom: metric and label, or a heading.
_ROWS = (
    (None, "Documents found"),
    ("recall_at_1", "Recall@1"),
    ("recall_at_5", "Recall@5"),
    ("ndcg_at_10", "nDCG@10"),
    (None, "Answers"),
    ("exact_match", "Exact match"),
    ("f1", "F1"),
    ("empty_rate", "Empty (less is better)"),
)
# Two of Okabe & Ito's colours, which every kind of colour vision tells apart; the markers differ too.
_STYLES: dict[Split, tuple[str, str, str]] = {
    "held_out": ("held out", "#0072B2", "o"),
    "tune": ("tune", "#B85000", "D"),
}
_INK, _FAINT, _GRID = "#222222", "#6b6b6b", "#dcdcdc"
_WIDTH, _HEIGHT, _DPI = 7.0, 4.9, 200  # inches; 1,400 pixels, for type that is right at 700


def draw(report: "Report") -> bytes:
    """Draw a report as PNG, 1,400 pixels wide."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)  # the figure keeps it, and so is drawn by Agg whatever the backend
    axes = figure.add_axes((0.255, 0.145, 0.47, 0.715))
    _prepare(axes)
    for row, (metric, label) in enumerate(_ROWS):
        if metric is None:
            axes.text(-0.54, row + 0.1, label, color=_INK, weight="bold", va="center", fontsize=10)
            continue
        axes.text(-0.04, row, label, color=_INK, ha="right", va="center", fontsize=9.5)
        found = {split: scores.metrics.get(metric) for split, scores in report.by_split.items()}
        if not any(found.values()):
            _write_number(axes, row, "not measured", _FAINT)
            continue
        for split, value in found.items():
            offset = 0.0 if len(found) == 1 else -0.2 if split == "held_out" else 0.2
            _draw_estimate(axes, row + offset, split, value)
    _write_around(figure, report)
    drawn, picture = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI)
    # A palette of 64 looks the same and is a third of the size, and reports are kept in Dagster's event log.
    Image.open(drawn).convert("RGB").quantize(64).save(picture, format="PNG", optimize=True)
    return picture.getvalue()


def _prepare(axes: "Axes") -> None:
    """Set up the scale from 0 to 1 and take away what is only decoration."""
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(len(_ROWS) - 0.4, -0.4)
    axes.set_yticks([])
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"], fontsize=9, color=_FAINT)
    axes.tick_params(length=0)
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)


def _draw_estimate(axes: "Axes", height: float, split: Split, found: Estimate | None) -> None:
    """Draw one interval with its dot, and the numbers at the right edge."""
    _, colour, marker = _STYLES[split]
    if found is None:
        _write_number(axes, height, "no case", _FAINT)
        return
    axes.plot([found.low, found.high], [height, height], color=colour, linewidth=2.4, alpha=0.55, solid_capstyle="butt")
    axes.plot(
        [found.value], [height], marker=marker, color=colour, markersize=6, markeredgecolor="white", clip_on=False
    )
    _write_number(axes, height, f"{found.value:.2f}  [{found.low:.2f}, {found.high:.2f}]", colour)
    axes.text(1.585, height, f"n={found.n}", color=_FAINT, ha="right", va="center", fontsize=8.5)


def _write_number(axes: "Axes", height: float, text: str, colour: str) -> None:
    axes.text(1.07, height, text, color=colour, va="center", fontsize=8.5)


def _write_around(figure: "Figure", report: "Report") -> None:
    """Write what was evaluated above, and the legend, the intervals' meaning and the times below."""
    from matplotlib.lines import Line2D

    failed = f", {report.failed} failed" if report.failed else ""
    figure.text(0.02, 0.945, f"Release {report.release_id[:12]}", color=_INK, weight="bold", fontsize=12)
    figure.text(0.02, 0.9, f"{report.cases} cases, {report.answered} answered{failed}", color=_FAINT, fontsize=9.5)
    marks = [
        Line2D([], [], color=colour, marker=marker, markersize=6, markeredgecolor="white", linewidth=2.2, label=label)
        for label, colour, marker in (_STYLES[split] for split in report.by_split)
    ]
    if marks:
        figure.legend(
            handles=marks, loc="upper right", ncols=2, frameon=False, fontsize=9.5, bbox_to_anchor=(0.985, 0.99)
        )
    medians = {"retrieval": "retrieval_ms_p50", "answer": "answer_ms_p50"}
    times = [
        f"{name} {_time(report.metrics[metric].value)}" for name, metric in medians.items() if metric in report.metrics
    ]
    notes = [f"Bars: {100 * (1 - report.alpha):g}% intervals", *(["Median time: " + ", ".join(times)] if times else [])]
    figure.text(0.02, 0.035, "   ·   ".join(notes), color=_FAINT, fontsize=9)


def _time(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.1f} s" if milliseconds >= 1000 else f"{milliseconds:.3g} ms"
