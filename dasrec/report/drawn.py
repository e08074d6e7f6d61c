"""Figures of logs, of fits and of what was measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from bokeh.models import BasicTicker, ColumnDataSource, FactorRange, HoverTool
from bokeh.models.annotations import BoxAnnotation, Label
from bokeh.models.formatters import NumeralTickFormatter
from bokeh.plotting import figure
from numpy.typing import NDArray

from dasrec.checks import check_choice
from dasrec.errors import InputError
from dasrec.report.base import (
    FRACTION,
    PALETTE,
    TEXT,
    UNITS,
    Bars,
    draw_bars,
    draw_legend,
    make_figure,
)
from dasrec.schema import ITERATION, METRIC, MODEL, N
from dasrec.tables import names_of, with_models

_DASHES = ("solid", "dashed", "dotted", "dotdash")
_MOST_POINTS = 2000


def long_tail(counts: xr.DataArray, *, title: str | None = None) -> figure:
    """Draw how unevenly interactions fall on users or items: counts by rank, both logarithmic.

    The tenth that has most is shaded, and its share of all interactions written beside. At most
    2,000 points are drawn, spread evenly over the logarithm of the rank.

    Parameters
    ----------
    counts : xarray.DataArray of shape (n,), whole numbers of 0 or more
        Interactions of each user or item; the name of its dim labels the axes. Computed now.
    title : str, optional
        By default of whom the interactions are.

    Raises
    ------
    InputError
        ``counts`` has more than one dim, is empty, negative, not finite, or zero throughout.
    """
    ranked = np.sort(counts.values)[::-1]
    if ranked.ndim != 1 or not (np.isfinite(ranked).all() and (ranked >= 0).all() and ranked.any()):
        msg = f"counts is {dict(counts.sizes)}; expected one dim, counts of 0 or more, one above 0"
        raise InputError(msg)
    entity = str(counts.dims[0])
    n_used = int(np.count_nonzero(ranked))
    ranks = np.unique(np.geomspace(1, n_used, _MOST_POINTS).round().astype(np.int64))
    fig = make_figure(
        f"Interactions of each {entity}" if title is None else title,
        x_label=f"Rank of the {entity} (1 = most; log scale)",
        y_label=f"Interactions per {entity} (count; log scale)",
        axes={"x_axis_type": "log", "y_axis_type": "log"},
    )
    source = ColumnDataSource({"rank": ranks, "count": ranked[ranks - 1]})
    fig.line("rank", "count", source=source, color=PALETTE[0], line_width=2.5)
    ticks = _decades(ranked[:n_used])
    fig.y_range.update(start=ticks[0], end=ticks[-1])
    fig.xaxis.ticker, fig.yaxis.ticker = _decades(ranks), ticks
    fig.axis.formatter = NumeralTickFormatter(format="0,0")
    fig.add_tools(HoverTool(tooltips=[("rank", "@rank{0,0}"), ("interactions", "@count{0,0}")]))
    _note_top_tenth(fig, ranked, entity)
    return fig


def _decades(values: NDArray[Any]) -> list[float]:
    """Return ticks over whole decades around positive values, too few to crowd an axis."""
    low, high = int(np.floor(np.log10(values.min()))), int(np.ceil(np.log10(values.max())))
    high = max(high, low + 1)
    steps = (1, 2, 5) if high - low <= 2 else (1,)
    return [step * 10.0**power for power in range(low, high) for step in steps] + [10.0**high]


def _note_top_tenth(fig: figure, ranked: NDArray[Any], entity: str) -> None:
    tenth = -(-ranked.size // 10)
    share = ranked[:tenth].sum(dtype=np.float64) / ranked.sum(dtype=np.float64)
    note = f"Top 10 % of {entity}s (shaded):\n{100 * share:.1f} % of interactions"
    n_unused = int(np.count_nonzero(ranked == 0))
    if n_unused:
        note += f"\n{n_unused:,} without any: not drawn"
    box = BoxAnnotation(right=tenth, fill_color=PALETTE[1], fill_alpha=0.12, level="underlay")
    fig.add_layout(box)
    # below the falling curve there is always room
    fig.add_layout(Label(x=12, y=10, x_units="screen", y_units="screen", text=note, **TEXT))


def learning_curve(history: xr.Dataset) -> figure:
    """Draw the objective by iteration, one line a model.

    Parameters
    ----------
    history : xarray.Dataset
        Variable ``objective`` of dims (iteration,) or (iteration, model); NaN after a model has
        stopped. Several models have different scales, so each is divided by its first value.

    Raises
    ------
    InputError
        There is no such variable, or a first value that must divide is missing or 0.
    """
    if "objective" not in history or not set(history["objective"].dims) <= {ITERATION, MODEL}:
        msg = f"history holds {dict(history.sizes)}; expected 'objective' by iteration and model"
        raise InputError(msg)
    lines = with_models(history)["objective"].transpose(MODEL, ITERATION)
    relative = lines.sizes[MODEL] > 1
    if relative:
        first = lines.isel({ITERATION: 0})
        if not (np.isfinite(first) & (first != 0)).all():
            msg = f"first objectives are {first.values.tolist()}; expected finite numbers, none 0"
            raise InputError(msg)
        lines = lines / first
    fig = make_figure(
        "Learning curve",
        x_label="Iteration (count)",
        y_label="Objective / its first value (ratio)" if relative else "Objective (no unit)",
    )
    steps = lines[ITERATION].values
    glyphs = []
    for place, (name, values) in enumerate(zip(names_of(lines), lines.values, strict=True)):
        kept = np.isfinite(values)
        source = ColumnDataSource({"iteration": steps[kept], "objective": values[kept]})
        line = fig.line("iteration", "objective", source=source, line_width=2.5, name=name)
        line.glyph.line_color = PALETTE[place % len(PALETTE)]
        line.glyph.line_dash = _DASHES[place % len(_DASHES)]
        glyphs.append((line,))
    tips = [("model", "$name"), ("iteration", "@iteration"), ("objective", "@objective{0.[0000]}")]
    fig.add_tools(HoverTool(tooltips=tips))
    fig.xaxis.ticker = BasicTicker(min_interval=1)
    fig.yaxis.formatter = NumeralTickFormatter(format="0,0.[0000]")
    if relative:
        draw_legend(fig, glyphs)
    return fig


def metric_bars(evaluation: xr.Dataset, *, n: int | None = None) -> figure:
    """Draw the ranking metrics at one list length as grouped bars, one colour a model.

    Parameters
    ----------
    evaluation : xarray.Dataset
        What :func:`dasrec.evaluate` returns, or several of them along a dim ``model``; or what
        :func:`dasrec.compare` or :func:`dasrec.intervals` returns: then bars have intervals.
        Metrics with a dim ``n`` are drawn on one axis: choose those of one unit, as
        :func:`by_unit` does.
    n : int, optional
        Length of the lists; by default the first there is.

    Raises
    ------
    InputError
        No metric has a dim ``n``, or none was measured at this one.
    """
    measured = with_models(evaluation)
    certain = METRIC in measured.dims and {"value", "low", "high"} <= {*measured.data_vars}
    if certain:
        names = [str(name) for name in measured[METRIC].values]
    else:
        names = [str(name) for name, each in measured.data_vars.items() if N in each.dims]
    if not names:
        msg = f"evaluation holds {list(measured.data_vars)}; expected a metric with the dim 'n'"
        raise InputError(msg)
    lengths = measured[N].values.tolist()
    length = check_choice(lengths[0] if n is None else n, name="n", choices=lengths)
    chosen = measured.sel({N: length})
    units = dict.fromkeys(UNITS.get(name, FRACTION) for name in names)
    level = f", with {100 * measured.attrs['level']:g} % intervals" if certain else ""
    fig = make_figure(
        f"Ranking metrics at n = {length}{level}",
        x_label="Metric",
        y_label=f"Value ({' or '.join(units)})",
        axes={"x_range": FactorRange(factors=names, range_padding=0.05)},
    )
    series = []
    for place, model in enumerate(names_of(chosen)):
        at = chosen.isel({MODEL: place})
        if certain:
            ends = (at[key].values.tolist() for key in ("value", "low", "high"))
            series.append(Bars(model, *ends))
        else:
            series.append(Bars(model, [float(at[name]) for name in names]))
    glyphs = draw_bars(fig, names, series)
    tips = [("model", "$name"), ("metric", "@place"), ("value", "@value{0.0000}")]
    if certain:
        tips.append(("interval", "@low{0.0000} to @high{0.0000}"))
    fig.add_tools(HoverTool(tooltips=tips, renderers=[bars for bars, *_ in glyphs]))
    draw_legend(fig, glyphs)
    return fig
