"""Figures of why a user is recommended what."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from bokeh.models import BasicTicker, ColumnDataSource, FactorRange, HoverTool
from bokeh.models.annotations import Span
from bokeh.plotting import figure

from dasrec.report.base import FEW_TICKS, PALETTE, check_holds, draw_legend, make_figure, shorten
from dasrec.schema import ITEM_ID, RANK, REASON, REASON_ID

_SHADES = ("#004c7a", "#0072b2", "#3d95c9", "#7fb9dd", "#b5d7ec")  # the first reasons, then lighter
_RATED = ("als", "gd", "sgd", "svdpp")  # what predicts weights
_OTHERS, _OFFSET = "#c8ced5", PALETTE[1]


def reason_bars(explanation: xr.Dataset) -> figure:
    """Draw what the items of a user add to the score of each that they are recommended.

    Parameters
    ----------
    explanation : xarray.Dataset
        What :func:`dasrec.explain` returns. Variables ``title``, dims (rank,), and
        ``reason_title``, dims (rank, reason), are shown instead of ids, if there are any. Exact
        contributions are stacked, those below zero to the left; cosines are points.

    Raises
    ------
    InputError
        It is no such dataset.
    """
    needed = (ITEM_ID, REASON_ID, "contribution", "total", "offset")
    check_holds(explanation, needed, what="explanation", where="dasrec.explain")
    exact = explanation.attrs.get("how") == "contributions"
    titles = explanation["title" if "title" in explanation else ITEM_ID].values
    ranks = explanation[RANK].values
    items = [f"{rank}. {shorten(each, 18)}" for rank, each in zip(ranks, titles, strict=True)]
    unit = "in the unit of the weights" if explanation.attrs.get("model") in _RATED else "no unit"
    fig = make_figure(
        f"Reasons for user {shorten(explanation.attrs.get('user_id', ''), 16)}",
        x_label=f"What adds to the score ({unit})" if exact else "Cosine of item vectors (no unit)",
        y_label="",
        axes={"y_range": FactorRange(factors=items[::-1], range_padding=0.02)},
    )
    fig.xaxis.ticker = BasicTicker(desired_num_ticks=FEW_TICKS)
    fig.height = 150 + 30 * len(items)
    fig.ygrid.grid_line_color = None
    glyphs = (_stacked if exact else _points)(fig, explanation, items)
    tips = [("item", "@item"), ("because of", "@reason"), ("adds", "@value{0.0000}")]
    fig.add_tools(HoverTool(tooltips=tips, renderers=[each[0] for each in glyphs]))
    draw_legend(fig, glyphs)
    return fig


def _names(explanation: xr.Dataset) -> Any:
    told = "reason_title" if "reason_title" in explanation else REASON_ID
    return explanation[told].transpose(RANK, REASON).values


def _stacked(fig: figure, explanation: xr.Dataset, items: list[str]) -> list[Any]:
    by_reason = explanation["contribution"].transpose(RANK, REASON).fillna(0).values
    names, offset = _names(explanation), explanation["offset"].values
    others = explanation["total"].values - by_reason.sum(axis=1)
    parts = [
        (_nth(place), by_reason[:, place], names[:, place], _shade(place))
        for place in range(by_reason.shape[1])
    ]
    rest = np.full(len(items), "their other items", object)
    parts.append(("others", others, rest, _OTHERS))
    if np.abs(offset).max(initial=0) > 0:
        said = np.full(len(items), "mean, biases, features", object)
        parts.insert(0, ("offset", offset, said, _OFFSET))
    ends = np.zeros((2, len(items)))  # how far the bars go, to the right and to the left
    glyphs = []
    for name, values, reasons, colour in parts:
        start = np.where(values >= 0, ends[0], ends[1])
        stop = start + values
        ends = np.stack([np.maximum(ends[0], stop), np.minimum(ends[1], stop)])
        columns = {"item": items, "left": start, "right": stop, "value": values}
        source = ColumnDataSource({**columns, "reason": [shorten(each, 60) for each in reasons]})
        bars = fig.hbar(
            y="item",
            left="left",
            right="right",
            height=0.72,
            source=source,
            name=name,
            fill_color=colour,
            line_color="white",
            line_width=0.75,
        )
        glyphs.append((bars,))
    fig.add_layout(Span(location=0, dimension="height", line_color="#57636f", line_width=1.5))
    return glyphs


def _points(fig: figure, explanation: xr.Dataset, items: list[str]) -> list[Any]:
    by_reason, names = (
        explanation["contribution"].transpose(RANK, REASON).values,
        _names(explanation),
    )
    glyphs = []
    for place in range(by_reason.shape[1]):
        columns: dict[str, Any] = {"item": items, "value": by_reason[:, place]}
        source = ColumnDataSource({**columns, "reason": [shorten(e, 60) for e in names[:, place]]})
        points = fig.scatter(
            "value",
            "item",
            size=11,
            source=source,
            name=_nth(place),
            fill_color=_shade(place),
            line_color="white",
        )
        glyphs.append((points,))
    return glyphs


def _nth(place: int) -> str:
    return {0: "1st", 1: "2nd", 2: "3rd"}.get(place, f"{place + 1}th")


def _shade(place: int) -> str:
    return _SHADES[min(place, len(_SHADES) - 1)]
