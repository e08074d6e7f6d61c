"""Figures of a search: which parameters are good, and when trials were told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from bokeh.models import ColumnDataSource, FixedTicker, HoverTool
from bokeh.models.annotations import Label, Span
from bokeh.models.formatters import NumeralTickFormatter
from bokeh.models.renderers import GlyphRenderer
from bokeh.plotting import figure
from numpy.typing import NDArray

from dasrec.errors import InputError
from dasrec.metrics import METRICS
from dasrec.report import PALETTE, Section
from dasrec.report.base import TEXT, draw_legend, make_figure
from dasrec.schema import ITERATION
from dasrec.search.result import PARAMETER, TRIAL, last_metric, searched

_KINDS = {
    # how a trial ended: colour, dash, width
    "dropped": ("#8a949e", "dotted", 1.5),
    "to the end": (PALETTE[0], "solid", 1.5),
    "best": (PALETTE[4], "solid", 4.0),
}
_WIDE = 20  # the largest value by the least, from which an axis is logarithmic


class _Axis(NamedTuple):
    """One vertical line of parallel coordinates."""

    name: str
    heights: NDArray[np.float64]  # of each trial, from 0 to 1
    ticks: dict[float, str]


def parallel_coordinates(trials: xr.Dataset) -> figure:
    """Draw each trial as a line through its parameters to its metric after its last rung.

    The best one is thick; trials that were dropped are dotted, and their metric is that of fewer
    iterations. Positive numbers that differ twentyfold have a logarithmic axis.

    Parameters
    ----------
    trials : xarray.Dataset
        ``trials`` of a :class:`dasrec.SearchResult`.

    Raises
    ------
    InputError
        It is no such dataset.
    """
    _check(trials)
    kinds = _kinds(trials)
    last = last_metric(trials)
    axes = [_axis(name.removeprefix(PARAMETER), trials[name].values) for name in searched(trials)]
    axes.append(_axis(str(trials.attrs["metric"]), last))
    fig = make_figure(
        "Parameters and what they came to",
        x_label=f"Parameters, then {_unit(trials)}",
        y_label="From the least to the largest of each",
        axes={"x_range": (-0.3, len(axes) - 0.5), "y_range": (-0.12, 1.12)},
    )
    _draw_axes(fig, axes)
    heights = np.column_stack([axis.heights for axis in axes])
    glyphs = []
    for kind in _present(kinds):
        chosen = kinds == kind
        shown = trials.isel({TRIAL: chosen})
        columns = {name: shown[name].values for name in searched(trials)}
        lines = {
            "xs": [list(range(len(axes)))] * int(chosen.sum()),
            "ys": heights[chosen].tolist(),
            TRIAL: shown[TRIAL].values,
            "metric": last[chosen],
            "done": shown["iterations"].values,
        }
        source = ColumnDataSource({**lines, **columns})
        glyphs.append(_styled(fig.multi_line("xs", "ys", source=source, name=kind), kind))
    tips = [("trial", f"@{TRIAL}"), ("metric", "@metric{0.0000}"), ("iterations", "@done")]
    tips += [(name.removeprefix(PARAMETER), f"@{name}") for name in searched(trials)]
    fig.add_tools(HoverTool(tooltips=tips))
    draw_legend(fig, [(each,) for each in glyphs])
    return fig


def _draw_axes(fig: figure, axes: Sequence[_Axis]) -> None:
    for place, axis in enumerate(axes):
        fig.add_layout(Span(location=place, dimension="height", line_color="#aab4be"))
        for height, text in axis.ticks.items():
            small = {**TEXT, "text_font_size": "11px"}
            fig.add_layout(Label(x=place, y=height, x_offset=4, text=text, **small))
    fig.xaxis.ticker = FixedTicker(ticks=list(range(len(axes))))
    fig.xaxis.major_label_overrides = {place: axis.name for place, axis in enumerate(axes)}
    fig.yaxis.ticker = FixedTicker(ticks=[])
    fig.grid.grid_line_color = None


def rung_curves(trials: xr.Dataset) -> figure:
    """Draw the metric of each trial at its rungs, by the iterations that it had done.

    ``trials`` is as for :func:`parallel_coordinates`, and so is what is raised.
    """
    _check(trials)
    fig = make_figure(
        "Metric at each rung",
        x_label="Iterations done (count; log scale)",
        y_label=_unit(trials),
        axes={"x_axis_type": "log"},
    )
    steps, kinds, metric = trials[ITERATION].values, _kinds(trials), trials["metric"].values
    glyphs = []
    for kind in _present(kinds):
        rows = np.flatnonzero(kinds == kind)
        kept = [np.isfinite(metric[row]) for row in rows]
        source = ColumnDataSource(
            {
                "xs": [steps[each].tolist() for each in kept],
                "ys": [metric[row][each].tolist() for row, each in zip(rows, kept, strict=True)],
                TRIAL: trials[TRIAL].values[rows],
                "best": np.nanmax(metric[rows], axis=1, initial=-np.inf),
            }
        )
        glyphs.append(_styled(fig.multi_line("xs", "ys", source=source, name=kind), kind))
        # a trial of a single rung has no line
        at, column = np.nonzero(np.isfinite(metric[rows]))
        fig.scatter(steps[column], metric[rows][at, column], color=_KINDS[kind][0], size=6)
    fig.xaxis.ticker = FixedTicker(ticks=steps.tolist())
    fig.xaxis.formatter = NumeralTickFormatter(format="0,0")
    tips = [("trial", f"@{TRIAL}"), ("best metric", "@best{0.0000}")]
    fig.add_tools(HoverTool(tooltips=tips, renderers=[*glyphs]))
    draw_legend(fig, [(each,) for each in glyphs])
    return fig


def describe_search(trials: xr.Dataset) -> Section:
    """Return the section of a page about a search; raises as :func:`parallel_coordinates`."""
    _check(trials)
    facts = trials.attrs
    best = trials.sel({TRIAL: facts["best"]})
    found = ", ".join(_told(name, best[name].item()) for name in searched(trials))
    share = f", on {100 * facts['users']:g} % of the users" if "users" in facts else ""
    text = (
        f"{trials.sizes[TRIAL]} configurations of {facts['model']} on the split {facts['split']}"
        f"{share}, by {facts['strategy']}: {facts['spent']} iterations in all. Best: {found}."
    )
    return Section("Search", text=text, figures=(rung_curves(trials), parallel_coordinates(trials)))


def _told(name: str, value: Any) -> str:
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"{name.removeprefix(PARAMETER)} {shown}"


def _check(trials: xr.Dataset) -> None:
    lacking = {"metric", "iterations", "is_best"} - set(map(str, trials.data_vars))
    if lacking or not searched(trials):
        msg = f"trials holds {list(trials.data_vars)}; expected those of a SearchResult"
        raise InputError(msg)


def _kinds(trials: xr.Dataset) -> NDArray[Any]:
    """Return how each trial ended."""
    done = trials["iterations"].values
    kinds = np.where(done == done.max(), "to the end", "dropped").astype(object)
    kinds[trials["is_best"].values] = "best"
    return kinds


def _present(kinds: NDArray[Any]) -> list[str]:
    return [kind for kind in _KINDS if (kinds == kind).any()]


def _unit(trials: xr.Dataset) -> str:
    metric = str(trials.attrs["metric"])
    if METRICS[metric.partition("@")[0]].kind == "values":
        return f"\N{MINUS SIGN}{metric} (in the unit of the weights)"
    return f"{metric} (fraction)"


def _axis(name: str, values: NDArray[Any]) -> _Axis:
    """Place values between 0 and 1: numbers by size, others in the order of their names."""
    kinds = {type(value) for value in values.tolist()}
    if kinds <= {int, float}:
        numbers = values.astype(np.float64)
        known = numbers[np.isfinite(numbers)]
        low, high = known.min(initial=np.inf), known.max(initial=-np.inf)
        wide = low > 0 and high / low >= _WIDE
        scaled, ends = (np.log(numbers), np.log([low, high])) if wide else (numbers, (low, high))
        span = ends[1] - ends[0]
        # what is the same for all stands in the middle
        heights = (scaled - ends[0]) / span if span > 0 else scaled - ends[0] + 0.5
        marks = {0.0: f"{low:.4g}", 1.0: f"{high:.4g}"} if span > 0 else {0.5: f"{low:.4g}"}
        return _Axis(f"{name} (log)" if wide else name, heights, marks)
    texts = [str(value) for value in values.tolist()]
    names = sorted(set(texts))
    at = {text: place / max(1, len(names) - 1) for place, text in enumerate(names)}
    return _Axis(name, np.array([at[text] for text in texts]), {v: k for k, v in at.items()})


def _styled(glyph: GlyphRenderer[Any], kind: str) -> GlyphRenderer[Any]:
    color, dash, width = _KINDS[kind]
    glyph.glyph.update(line_color=color, line_dash=dash, line_width=width)
    return glyph
