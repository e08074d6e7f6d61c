"""Figures and tables of intervals, and of what two models differ by."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from bokeh.models import ColumnDataSource, FactorRange, HoverTool
from bokeh.models.annotations import Span
from bokeh.plotting import figure
from bokeh.transform import dodge

from dasrec.checks import check_choice
from dasrec.errors import InputError
from dasrec.report.base import FRACTION, PALETTE, UNITS, draw_legend, make_figure
from dasrec.schema import METRIC, MODEL, N
from dasrec.tables import names_of, with_models

_MARKERS = ("circle", "square", "triangle", "diamond", "inverted_triangle", "hex", "star")
_VALUE = ("value", "low", "high")
_DIFFERENCE = ("difference", "difference_low", "difference_high")


def interval_points(measured: xr.Dataset, *, n: int | None = None) -> figure:
    """Draw means over users as points with their intervals, a colour and a mark a model.

    Parameters
    ----------
    measured : xarray.Dataset
        What :func:`dasrec.compare` or :func:`dasrec.intervals` returns. Its metrics are drawn on
        one axis: choose those of one unit, as :func:`by_unit` does.
    n : int, optional
        Length of the lists; by default the first there is.

    Raises
    ------
    InputError
        There are no intervals, or nothing was measured at this n.
    """
    chosen = _at_length(measured, n, _VALUE)
    return _draw(chosen, _VALUE, title="Means", label="Mean over users")


def difference_points(comparison: xr.Dataset, *, n: int | None = None) -> figure:
    """Draw differences to the baseline as points with their intervals, and a line at 0.

    ``comparison`` is what :func:`dasrec.compare` returns, ``n`` as for :func:`interval_points`.
    An interval that does not reach the line is a difference that is hardly chance.
    """
    chosen = _at_length(comparison, n, _DIFFERENCE)
    label = f"Difference to {comparison.attrs['baseline']}"
    fig = _draw(chosen, _DIFFERENCE, title="Differences", label=label)
    if (chosen["difference_low"].fillna(1) > 0).all():
        fig.y_range.update(start=0)
    elif (chosen["difference_high"].fillna(-1) < 0).all():
        fig.y_range.update(end=0)
    fig.add_layout(Span(location=0, dimension="width", line_color="#57636f", line_width=1.5))
    return fig


def _at_length(measured: xr.Dataset, n: int | None, names: tuple[str, ...]) -> xr.Dataset:
    missing = [name for name in (*names, METRIC, N) if name not in measured]
    if missing:
        msg = (
            f"measured lacks {', '.join(missing)}; expected what compare returns"
            f"{' or intervals' if names == _VALUE else ''}"
        )
        raise InputError(msg)
    lengths = measured[N].values.tolist()
    length = check_choice(lengths[0] if n is None else n, name="n", choices=lengths)
    return with_models(measured).sel({N: length}).transpose(MODEL, METRIC)


def _draw(chosen: xr.Dataset, names: tuple[str, ...], *, title: str, label: str) -> figure:
    metrics = [str(name) for name in chosen[METRIC].values]
    units = dict.fromkeys(UNITS.get(name, FRACTION) for name in metrics)
    level = 100 * chosen.attrs["level"]
    fig = make_figure(
        f"{title} at n = {chosen[N].item()}, with {level:g} % intervals",
        x_label="Metric",
        y_label=f"{label} ({' or '.join(units)})",
        axes={"x_range": FactorRange(factors=metrics, range_padding=0.05)},
    )
    drawn = np.flatnonzero(chosen[names[0]].notnull().any(METRIC))  # the baseline has no difference
    width = 0.7 / max(len(drawn), 1)
    glyphs = []
    for step, place in enumerate(drawn.tolist()):
        at = chosen.isel({MODEL: place})
        columns = dict(zip(_VALUE, (at[name].values for name in names), strict=True))
        source = ColumnDataSource({"metric": metrics, **columns})
        x = dodge("metric", (step + 0.5) * width - 0.35, range=fig.x_range)
        colour = PALETTE[place % len(PALETTE)]
        mark = _MARKERS[(place + place // len(PALETTE)) % len(_MARKERS)]
        look: dict[str, Any] = {"source": source, "color": colour, "name": names_of(chosen)[place]}
        points = fig.scatter(x, "value", size=7, marker=mark, **look)
        lines = fig.segment(x0=x, y0="low", x1=x, y1="high", line_width=2, **look)
        glyphs.append((points, lines))
    tips = [("model", "$name"), ("metric", "@metric"), ("value", "@value{0.0000}")]
    tips.append(("interval", "@low{0.0000} to @high{0.0000}"))
    fig.add_tools(HoverTool(tooltips=tips, renderers=[points for points, _ in glyphs]))
    fig.height = 440  # the names of metrics and models need some of it
    fig.xgrid.grid_line_color = None
    fig.xaxis.major_label_orientation = 0.7 if len(metrics) > 3 else "horizontal"
    draw_legend(fig, glyphs)
    return fig


def by_unit(measured: xr.Dataset) -> list[xr.Dataset]:
    """Return the metrics of each unit by themselves, since they do not go on one axis.

    ``measured`` is for :func:`interval_points`, or for :func:`metric_bars`: then without metrics
    that have no lists.
    """
    if METRIC not in measured.dims:
        listed = {
            str(name): UNITS.get(str(name), FRACTION)
            for name, each in measured.data_vars.items()
            if N in each.dims
        }
        return [
            measured[[name for name, each in listed.items() if each == unit]]
            for unit in dict.fromkeys(listed.values())
        ]
    units = [UNITS.get(str(name), FRACTION) for name in measured[METRIC].values]
    return [
        measured.isel({METRIC: [place for place, each in enumerate(units) if each == unit]})
        for unit in dict.fromkeys(units)
    ]
