"""The style that all figures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bokeh.models.annotations import Legend, LegendItem, Title
from bokeh.models.renderers import GlyphRenderer
from bokeh.plotting import figure

# Okabe and Ito 2008, for colour-blind readers too; without the yellow, too light for lines on white
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#000000")
HATCHES = (" ", "/", ".", "x")  # once the colours are used up
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


def draw_legend(fig: figure, glyphs: Sequence[tuple[GlyphRenderer[Any], ...]]) -> None:
    """Name what belongs together below the plot, where it fits on a phone; a click hides it."""
    items = [LegendItem(label={"value": each[0].name}, renderers=[*each]) for each in glyphs]
    text = {f"label_{name}": value for name, value in TEXT.items()}
    legend = Legend(orientation="horizontal", ncols=2, location="center", click_policy="hide")
    legend.update(items=items, border_line_color=None, **text)
    fig.add_layout(legend, "below")
