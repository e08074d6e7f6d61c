"""Figures of what a model has learned of items."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from bokeh.models import ColumnDataSource, HoverTool, LogColorMapper
from bokeh.palettes import Cividis256
from bokeh.plotting import figure

from dasrec.report.base import PALETTE, check_holds, draw_scale, make_figure, shorten
from dasrec.schema import ITEM_ID

_LIGHT = 216  # entries of the palette; the last ones are too light on white


def item_map(items: xr.Dataset) -> figure:
    """Draw items as points in the plane where their vectors differ most; what is near is alike.

    Parameters
    ----------
    items : xarray.Dataset
        What :func:`dasrec.place_items` returns; a variable ``title`` is shown too, if there is one.
        With counts above 0 the darkest and largest points are the items that most people use.

    Raises
    ------
    InputError
        It is no such dataset.
    """
    check_holds(items, ("x", "y", "count", ITEM_ID), what="items", where="dasrec.place_items")
    shares = [100 * float(items.attrs[f"share_{axis}"]) for axis in "xy"]
    fig = make_figure(
        f"Items as {items.attrs.get('model', 'the model')} sees them",
        x_label=f"First direction (no unit; {shares[0]:.0f} % of variance)",
        y_label=f"Second direction (no unit; {shares[1]:.0f} % of variance)",
    )
    source, tips = _source(items)
    counts = items["count"].values
    known = counts[counts > 0]
    colour: Any = PALETTE[0]
    if known.size:
        palette = Cividis256[:_LIGHT][::-1]
        low, high = float(known.min()), float(known.max())
        mapper = LogColorMapper(palette=palette, low=low, high=max(high, 1.01 * low))
        colour = {"field": "count", "transform": mapper}
        draw_scale(fig, mapper, "Interactions of the item (count; log scale)", decimals=False)
        tips.append(("interactions", "@count{0,0}"))
    fig.scatter(
        "x",
        "y",
        size="size",
        source=source,
        fill_color=colour,
        fill_alpha=0.7,
        line_color="white",
        line_width=0.5,
    )
    fig.add_tools(HoverTool(tooltips=tips))
    fig.height = 460
    return fig


def _source(items: xr.Dataset) -> tuple[ColumnDataSource, list[tuple[str, str]]]:
    """Return the points, those of few interactions last, on top; and what is told of each."""
    counts = items["count"].values
    order = np.argsort(-counts, kind="stable")
    level = np.log1p(counts[order])
    columns: dict[str, Any] = {
        "x": items["x"].values[order],
        "y": items["y"].values[order],
        "count": counts[order],
        "size": 5 + 9 * level / max(level.max(initial=0), 1),
        "name": [str(each) for each in items[ITEM_ID].values[order]],
    }
    tips = [("item", "@name")]
    if "title" in items:
        columns["title"] = [shorten(each, 60) for each in items["title"].values[order]]
        tips.append(("title", "@title"))
    return ColumnDataSource(columns), tips
