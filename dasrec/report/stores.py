"""Figures of a store: when people were active, and what the matrix looks like."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from bokeh.models import BasicTicker, ColumnDataSource, DatetimeTicker, HoverTool, LogColorMapper
from bokeh.models.formatters import NumeralTickFormatter
from bokeh.palettes import Cividis256
from bokeh.plotting import figure

from dasrec.report.base import FEW_TICKS, PALETTE, check_holds, draw_legend, draw_scale, make_figure
from dasrec.schema import ITEM_BIN, TIME, USER_BIN

_STEPS = {
    1: "second",
    60: "minute",
    3600: "hour",
    86_400: "day",
    7 * 86_400: "week",
    30 * 86_400: "30 days",
    90 * 86_400: "90 days",
    365 * 86_400: "365 days",
}


def activity_curve(activity: xr.Dataset) -> figure:
    """Draw interactions and active users by time.

    Parameters
    ----------
    activity : xarray.Dataset
        What :func:`dasrec.count_in_time` returns.

    Raises
    ------
    InputError
        It is no such dataset.
    """
    check_holds(
        activity, ("interactions", "users", TIME), what="activity", where="dasrec.count_in_time"
    )
    seconds = float(activity.attrs.get("step_seconds", 0))
    step = _STEPS.get(int(seconds), f"{seconds / 3600:g} hours")
    fig = make_figure(
        "Activity in time",
        x_label="Time (UTC)",
        y_label=f"Count per {step}",
        axes={"x_axis_type": "datetime"},
    )
    begins = activity[TIME].values.astype("datetime64[ms]")
    columns = {name: activity[name].values for name in ("interactions", "users")}
    source = ColumnDataSource({"time": begins, **columns})
    glyphs = []
    for name, colour, dash in (
        ("interactions", PALETTE[0], "solid"),
        ("users", PALETTE[1], "dashed"),
    ):
        look: dict[str, Any] = {"source": source, "name": name, "color": colour}
        line = fig.line("time", name, line_width=2, line_dash=dash, **look)
        glyphs.append((line,))
    fig.varea("time", 0, "interactions", source=source, fill_color=PALETTE[0], fill_alpha=0.12)
    tips = [("from", "@time{%F %R}"), ("interactions", "@interactions{0,0}")]
    tips.append(("active users", "@users{0,0}"))
    hover = HoverTool(
        tooltips=tips, formatters={"@time": "datetime"}, mode="vline", renderers=[glyphs[0][0]]
    )
    fig.add_tools(hover)
    fig.xaxis.ticker = DatetimeTicker(desired_num_ticks=FEW_TICKS)
    fig.y_range.update(start=0)
    fig.yaxis.formatter = NumeralTickFormatter(format="0,0")
    draw_legend(fig, glyphs)
    return fig


def heat_map(grid: xr.Dataset) -> figure:
    """Draw the matrix as a picture: how dense each bin of users and items is.

    Parameters
    ----------
    grid : xarray.Dataset
        What :func:`dasrec.count_on_grid` returns. Colours go by the logarithm of the density; bins
        without interactions are blank.

    Raises
    ------
    InputError
        It is no such dataset.
    """
    check_holds(grid, ("interactions", "density"), what="grid", where="dasrec.count_on_grid")
    density = grid["density"].transpose(USER_BIN, ITEM_BIN).values
    n_users, n_items = (int(grid.attrs[name]) for name in ("n_users", "n_items"))
    ranked = grid.attrs.get("order") == "activity"
    by = "1 = most interactions" if ranked else "order of the store"
    fig = make_figure(
        "Interactions of users and items",
        x_label=f"{'Rank' if ranked else 'Number'} of the item ({by})",
        y_label=f"{'Rank' if ranked else 'Number'} of the user",
        axes={"x_range": (0, n_items), "y_range": (n_users, 0)},
    )
    stored = 100 * np.where(density > 0, density, np.nan)  # percent; what is NaN is blank
    low = float(np.nanmin(stored, initial=100.0))
    high = max(float(np.nanmax(stored, initial=0.0)), 1.01 * low)
    mapper = LogColorMapper(
        palette=Cividis256[::-1], low=low, high=high, nan_color="rgba(0, 0, 0, 0)"
    )
    counts = grid["interactions"].transpose(USER_BIN, ITEM_BIN).values.astype(np.float64)
    picture = ColumnDataSource({"share": [stored], "count": [counts]})
    look: dict[str, Any] = {"x": 0, "y": 0, "dw": n_items, "dh": n_users, "color_mapper": mapper}
    fig.image("share", source=picture, **look)
    tips = [("item", "$x{0,0}"), ("user", "$y{0,0}"), ("stored", "@share{0.00[00]} %")]
    fig.add_tools(HoverTool(tooltips=[*tips, ("interactions", "@count{0,0}")]))
    draw_scale(fig, mapper, "Stored cells of a bin (%; log scale)", decimals=True)
    fig.height = 460
    fig.xaxis.ticker = BasicTicker(desired_num_ticks=FEW_TICKS)
    fig.axis.formatter = NumeralTickFormatter(format="0,0")
    fig.grid.grid_line_color = None
    return fig
