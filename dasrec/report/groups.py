"""Figures of results that are told apart by groups of users or items."""

from __future__ import annotations

import xarray as xr
from bokeh.models import FactorRange, HoverTool
from bokeh.plotting import figure

from dasrec.checks import check_choice
from dasrec.errors import InputError
from dasrec.report.base import (
    FRACTION,
    UNITS,
    Bars,
    draw_bars,
    draw_legend,
    make_figure,
    shorten,
)
from dasrec.schema import BY_GROUP, MODEL, N


def group_bars(
    evaluation: xr.Dataset, *, metric: str | None = None, n: int | None = None
) -> figure:
    """Draw one metric by groups of users or items, side by side for what else there is.

    Parameters
    ----------
    evaluation : xarray.Dataset
        What :func:`dasrec.evaluate` returns with ``groups=``, or several along a dim ``model``.
        Groups of users stand along the axis if there are some; bars of different colours are groups
        of items then, else models.
    metric : str, optional
        By default the first one.
    n : int, optional
        Length of the lists; by default the first there is.

    Raises
    ------
    InputError
        There are no groups, the metric or n was not measured, or there are groups of both sides
        and several models.
    """
    sides = [side for side in BY_GROUP if side in evaluation.dims]
    names = [str(key) for key, each in evaluation.data_vars.items() if {*sides} <= {*each.dims}]
    if not sides or not names:
        msg = f"evaluation has the dims {[*evaluation.dims]}; expected that of evaluate(groups=...)"
        raise InputError(msg)
    name = check_choice(names[0] if metric is None else metric, name="metric", choices=names)
    chosen = evaluation[name]
    title = name
    if N in chosen.dims:
        lengths = chosen[N].values.tolist()
        length = check_choice(lengths[0] if n is None else n, name="n", choices=lengths)
        chosen, title = chosen.sel({N: length}, drop=True), f"{name}@{length}"
    along, *others = [dim for dim in (*BY_GROUP, MODEL) if dim in chosen.dims]
    if len(others) > 1:
        msg = "evaluation has groups of both sides and several models; choose one model by sel"
        raise InputError(msg)
    labels = [shorten(each) for each in chosen[along].values]
    fig = make_figure(
        f"{title} by {along.replace('_', ' ')}",
        x_label=along.replace("_", " ").capitalize(),
        y_label=f"{title} ({UNITS.get(name, FRACTION)})",
        axes={"x_range": FactorRange(factors=labels, range_padding=0.05)},
    )
    if others:
        names = [str(each) for each in chosen[others[0]].values]
        series = [
            Bars(each, chosen.isel({others[0]: place}).values.tolist())
            for place, each in enumerate(names)
        ]
    else:
        series = [Bars(title, chosen.values.tolist())]
    glyphs = draw_bars(fig, labels, series)
    tips = [("group", "@place"), (others[0] if others else "metric", "$name")]
    fig.add_tools(HoverTool(tooltips=[*tips, ("value", "@value{0.0000}")]))
    if others:
        draw_legend(fig, glyphs)
    return fig
