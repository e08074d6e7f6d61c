"""The style that all figures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import xarray as xr
from bokeh.models import ColumnDataSource, LogColorMapper, LogTicker
from bokeh.models.annotations import ColorBar, Legend, LegendItem, Title
from bokeh.models.formatters import NumeralTickFormatter
from bokeh.models.renderers import GlyphRenderer
from bokeh.plotting import figure
from bokeh.transform import dodge

from dasrec.errors import InputError

# Okabe and Ito 2008, for colour-blind readers too; without the yellow, too light for lines on white
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#000000")
FEW_TICKS = 4  # a phone has room for no more along an axis
HATCHES = (" ", "/", ".", "x")  # once the colours are used up
UNITS = {
    "calibration": "nats",
    "novelty": "bits",
    "popularity": "interactions",
    "popularity_ratio": "ratio",
}
FRACTION = "fraction"  # the unit of all other metrics
TEXT: dict[str, Any] = {
    "text_font": "system-ui, sans-serif",
    "text_font_size": "13px",
    "text_color": "#1d2733",
}


def make_figure(
    title: str, *, x_label: str, y_label: str, axes: dict[str, Any] | None = None
) -> figure:
    """Return an empty figure in this style; ``axes`` are options of Bokeh's figure."""
    house: dict[str, Any] = {
        "height": 360,
        "sizing_mode": "stretch_width",
        "tools": "pan,box_zoom,reset,save",
        "active_drag": None,  # a thumb that scrolls the page must not move the plot
        "output_backend": "svg",  # sharp on paper
        "outline_line_color": None,
        "min_border_right": 16,
    }
    heading = Title(text=title, **{**TEXT, "text_font_size": "16px"})
    fig = figure(title=heading, **house, **(axes or {}))
    fig.toolbar.update(logo=None, autohide=True)
    for axis, label in ((fig.xaxis, x_label), (fig.yaxis, y_label)):
        axis.axis_label = label
        axis.axis_label_text_font_style = "normal"
        axis.axis_line_color = axis.major_tick_line_color = "#aab4be"
        axis.minor_tick_line_color = None
        for name, value in TEXT.items():
            for part in ("axis_label", "major_label"):
                setattr(axis, f"{part}_{name}", value)
    fig.grid.grid_line_color = "#e6ebf0"
    return fig


def draw_scale(fig: figure, mapper: LogColorMapper, title: str, *, decimals: bool) -> None:
    """Say below the plot what the colours of a logarithmic scale stand for."""
    text = {f"{part}_{key}": TEXT[key] for part in ("title", "major_label") for key in TEXT}
    bar = ColorBar(
        color_mapper=mapper,
        orientation="horizontal",
        title=title,
        title_text_font_style="normal",
        height=10,
        ticker=LogTicker(desired_num_ticks=4, mantissas=[1, 3]),
        formatter=NumeralTickFormatter(format="0,0.[000]" if decimals else "0,0"),
        **text,
    )
    fig.add_layout(bar, "below")


def shorten(text: object, most: int = 28) -> str:
    """Return a name that an axis has room for."""
    name = str(text)
    return name if len(name) <= most else f"{name[: most - 1].rstrip()}\N{HORIZONTAL ELLIPSIS}"


def check_holds(given: xr.Dataset, names: Sequence[str], *, what: str, where: str) -> None:
    """Refuse a dataset without these variables or coordinates."""
    missing = [name for name in names if name not in given]
    if missing:
        msg = f"{what} lacks {', '.join(missing)}; expected what {where} returns"
        raise InputError(msg)


class Bars(NamedTuple):
    """One colour of grouped bars: a value for each place on the axis, and perhaps its interval."""

    name: str
    values: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def draw_bars(
    fig: figure, places: Sequence[str], series: Sequence[Bars]
) -> list[tuple[GlyphRenderer[Any], ...]]:
    """Draw bars side by side at each place of a categorical axis; columns ``place``, ``value``."""
    width = 0.84 / len(series)
    glyphs: list[tuple[GlyphRenderer[Any], ...]] = []
    for number, each in enumerate(series):
        columns: dict[str, Any] = {"place": list(places), "value": list(each.values)}
        if each.low is not None and each.high is not None:
            columns |= {"low": list(each.low), "high": list(each.high)}
        source = ColumnDataSource(columns)
        x = dodge("place", (number + 0.5) * width - 0.42, range=fig.x_range)
        bars = fig.vbar(
            x=x,
            top="value",
            width=0.9 * width,
            source=source,
            color=PALETTE[number % len(PALETTE)],
            hatch_pattern=HATCHES[number // len(PALETTE) % len(HATCHES)],
            hatch_color="white",
            name=each.name,
        )
        drawn: list[GlyphRenderer[Any]] = [bars]
        if "low" in columns:
            look: dict[str, Any] = {"source": source, "line_color": "#1d2733", "line_width": 1.5}
            drawn.append(fig.segment(x0=x, y0="low", x1=x, y1="high", **look))
        glyphs.append(tuple(drawn))
    fig.y_range.update(start=0)
    fig.height = 440  # the names of places and bars need some of it
    fig.xgrid.grid_line_color = None
    fig.xaxis.major_label_orientation = 0.7 if len(places) > 3 else "horizontal"
    return glyphs


def draw_legend(fig: figure, glyphs: Sequence[tuple[GlyphRenderer[Any], ...]]) -> None:
    """Name what belongs together below the plot, where it fits on a phone; a click hides it."""
    items = [LegendItem(label={"value": each[0].name}, renderers=[*each]) for each in glyphs]
    text = {f"label_{name}": value for name, value in TEXT.items()}
    legend = Legend(orientation="horizontal", ncols=2, location="center", click_policy="hide")
    legend.spacing = 14
    legend.update(items=items, border_line_color=None, **text)
    fig.add_layout(legend, "below")
