"""Figures of what was measured, and one HTML page that holds them; the door to Bokeh."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from bokeh.embed import file_html
from bokeh.models import BasicTicker, BasicTickFormatter, ColumnDataSource, FactorRange, HoverTool
from bokeh.models.annotations import BoxAnnotation, Label, Legend, LegendItem, Title
from bokeh.models.formatters import NumeralTickFormatter
from bokeh.models.renderers import GlyphRenderer
from bokeh.plotting import figure
from bokeh.resources import INLINE
from bokeh.transform import dodge
from jinja2 import Environment
from numpy.typing import NDArray

from dasrec import files
from dasrec.checks import check_choice, check_columns
from dasrec.errors import InputError
from dasrec.schema import ITEM_ID, ITERATION, RANK, USER_ID, N

MODEL = "model"
# Okabe and Ito 2008, for colour-blind readers too; without the yellow, too light for lines on white
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#000000")
_DASHES = ("solid", "dashed", "dotted", "dotdash")
_HATCHES = (" ", "/", ".", "x")  # once the colours are used up
TEXT: dict[str, Any] = {
    "text_font": "system-ui, sans-serif",
    "text_font_size": "13px",
    "text_color": "#1d2733",
}
_MOST_POINTS = 2000
_LOWER_IS_BETTER = frozenset({"rmse", "mae"})
_NOT_MEASURED = "\N{EN DASH}"


@dataclass(frozen=True)
class Section:
    """A part of a page: a heading, then text, figures and fragments in this order.

    Attributes
    ----------
    heading, text : str
        Plain; escaped when written. An empty line begins a paragraph.
    figures : tuple of bokeh.plotting.figure
    html : tuple of str
        Fragments that are safe already, as :func:`metric_table` and :func:`list_table` return.
    """

    heading: str
    text: str = ""
    figures: tuple[figure, ...] = ()
    html: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a bare figure or string where a tuple is expected."""
        kinds = [type(each).__name__ for each in (self.figures, self.html)]
        if kinds != ["tuple", "tuple"]:
            msg = f"figures and html are {' and '.join(kinds)}; expected tuples, even of one"
            raise InputError(msg)

    @property
    def paragraphs(self) -> tuple[str, ...]:
        """The text, cut at empty lines."""
        return tuple(part.strip() for part in self.text.split("\n\n") if part.strip())


def blank_figure(
    title: str, *, x_label: str, y_label: str, axes: dict[str, Any] | None = None
) -> figure:
    """Return an empty figure in the style of the house; ``axes`` are options of Bokeh's figure."""
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


def draw_legend(fig: figure, glyphs: list[GlyphRenderer[Any]]) -> None:
    """Name the glyphs below the plot, where they fit on a phone; a click hides one."""
    items = [LegendItem(label={"value": each.name}, renderers=[each]) for each in glyphs]
    text = {f"label_{name}": value for name, value in TEXT.items()}
    legend = Legend(orientation="horizontal", ncols=2, location="center", click_policy="hide")
    legend.update(items=items, border_line_color=None, **text)
    fig.add_layout(legend, "below")


def long_tail(counts: xr.DataArray, *, title: str) -> figure:
    """Draw how unevenly interactions fall on users or items: counts by rank, both logarithmic.

    The tenth that has most is shaded, and its share of all interactions written beside. At most
    2,000 points are drawn, spread evenly over the logarithm of the rank.

    Parameters
    ----------
    counts : xarray.DataArray of shape (n,), whole numbers of 0 or more
        Interactions of each user or item; the name of its dim labels the axes. Computed now.
    title : str

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
    fig = blank_figure(
        title,
        x_label=f"Rank of the {entity} (1 = most interactions; log scale)",
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
    lines = _with_models(history)["objective"].transpose(MODEL, ITERATION)
    relative = lines.sizes[MODEL] > 1
    if relative:
        first = lines.isel({ITERATION: 0})
        if not (np.isfinite(first) & (first != 0)).all():
            msg = f"first objectives are {first.values.tolist()}; expected finite numbers, none 0"
            raise InputError(msg)
        lines = lines / first
    fig = blank_figure(
        "Learning curve",
        x_label="Iteration (count)",
        y_label="Objective / its first value (ratio)" if relative else "Objective (no unit)",
    )
    steps = lines[ITERATION].values
    glyphs = []
    for place, (name, values) in enumerate(zip(_names(lines), lines.values, strict=True)):
        kept = np.isfinite(values)
        source = ColumnDataSource({"iteration": steps[kept], "objective": values[kept]})
        line = fig.line("iteration", "objective", source=source, line_width=2.5, name=name)
        line.glyph.line_color = PALETTE[place % len(PALETTE)]
        line.glyph.line_dash = _DASHES[place % len(_DASHES)]
        glyphs.append(line)
    tips = [("model", "$name"), ("iteration", "@iteration"), ("objective", "@objective{0.[0000]}")]
    fig.add_tools(HoverTool(tooltips=tips))
    fig.xaxis.ticker = BasicTicker(min_interval=1)
    fig.yaxis.formatter = BasicTickFormatter(power_limit_high=8)
    if relative:
        draw_legend(fig, glyphs)
    return fig


def metric_bars(evaluation: xr.Dataset, *, n: int | None = None) -> figure:
    """Draw the ranking metrics at one list length as grouped bars, one colour a model.

    Parameters
    ----------
    evaluation : xarray.Dataset
        What :func:`dasrec.evaluate` returns, or several of them along a dim ``model``. Metrics with
        a dim ``n`` are drawn on one axis: choose those of one scale.
    n : int, optional
        Length of the lists; by default the first there is.

    Raises
    ------
    InputError
        No metric has a dim ``n``, or none was measured at this one.
    """
    measured = _with_models(evaluation)
    names = [str(name) for name, each in measured.data_vars.items() if N in each.dims]
    if not names:
        msg = f"evaluation holds {list(measured.data_vars)}; expected a metric with the dim 'n'"
        raise InputError(msg)
    lengths = measured[N].values.tolist()
    length = check_choice(lengths[0] if n is None else n, name="n", choices=lengths)
    chosen = measured[names].sel({N: length})
    models = _names(chosen)
    fig = blank_figure(
        f"Ranking metrics at n = {length}",
        x_label="Metric",
        y_label="Value (fraction)",
        axes={"x_range": FactorRange(factors=names, range_padding=0.05)},
    )
    glyphs = []
    width = 0.84 / len(models)
    for place, model in enumerate(models):
        values = [float(chosen[name].isel({MODEL: place})) for name in names]
        source = ColumnDataSource({"metric": names, "value": values})
        bars = fig.vbar(
            x=dodge("metric", (place + 0.5) * width - 0.42, range=fig.x_range),
            top="value",
            width=0.9 * width,
            source=source,
            color=PALETTE[place % len(PALETTE)],
            hatch_pattern=_HATCHES[place // len(PALETTE) % len(_HATCHES)],
            hatch_color="white",
            name=model,
        )
        glyphs.append(bars)
    tips = [("model", "$name"), ("metric", "@metric"), ("value", "@value{0.0000}")]
    fig.add_tools(HoverTool(tooltips=tips))
    fig.y_range.update(start=0)
    fig.height = 440  # the names of metrics and models need some of it
    fig.xgrid.grid_line_color = None
    fig.xaxis.major_label_orientation = 0.7 if len(names) > 3 else "horizontal"
    draw_legend(fig, glyphs)
    return fig


def _with_models(measured: xr.Dataset) -> xr.Dataset:
    """Give the measures of a single model the dim that those of several have."""
    if MODEL in measured.dims:
        return measured
    name = np.asarray(measured.coords.get(MODEL, measured.attrs.get(MODEL, MODEL)))
    return measured.drop_vars(MODEL, errors="ignore").expand_dims({MODEL: [str(name)]})


def _names(measured: xr.Dataset | xr.DataArray) -> list[str]:
    return [str(name) for name in measured[MODEL].values]


def metric_table(evaluation: xr.Dataset) -> str:
    """Return an escaped HTML table: a row a model, a column a metric (``ndcg@10``: lists of 10).

    ``evaluation`` is as for :func:`metric_bars`; metrics without the dim ``n`` come first. The best
    of a column is bold (the lowest for ``rmse`` and ``mae``); a dash is what was not measured.
    """
    measured = _with_models(evaluation)
    columns = {name: each for name, each in measured.data_vars.items() if set(each.dims) == {MODEL}}
    for name, each in measured.data_vars.items():
        if N in each.dims:
            columns |= {f"{name}@{int(at[N])}": at for at in each.transpose(N, MODEL)}
    head = "".join(
        f'<th scope="col" class="number" title="{escape(str(each.attrs.get("formula", "")))}">'
        f"{escape(str(name))}</th>"
        for name, each in columns.items()
    )
    cells = [_column(str(name), each.values) for name, each in columns.items()]
    rows = "".join(
        f'<tr><th scope="row">{escape(model)}</th>{"".join(row)}</tr>\n'
        for model, *row in zip(_names(measured), *cells, strict=True)
    )
    return (
        f'<table class="metrics">\n<thead><tr><th scope="col">Model</th>{head}</tr></thead>\n'
        f"<tbody>\n{rows}</tbody>\n</table>"
    )


def _column(name: str, values: NDArray[np.floating]) -> list[str]:
    """Return the cells of one metric; what prints like the best is as good as the best."""
    texts = [f"{value:.4f}" if np.isfinite(value) else _NOT_MEASURED for value in values]
    found = [text for text in texts if text != _NOT_MEASURED]
    choose = min if name in _LOWER_IS_BETTER else max
    best = choose(found, key=float) if len(found) > 1 else None
    bold = [f"<strong>{text}</strong>" if text == best else text for text in texts]
    return [f'<td class="number">{text}</td>' for text in bold]


def list_table(lists: pd.DataFrame) -> str:
    """Return an escaped HTML table of recommendation lists, grouped by user.

    ``lists`` has the columns ``user_id``, ``rank`` (from 1), ``item_id``, ``score`` and perhaps
    ``title``; every row is printed, users in their order. Raises :class:`InputError` if one lacks.
    """
    check_columns(list(lists.columns), (USER_ID, RANK, ITEM_ID, "score"), where="lists")
    titled = '<th scope="col">Title</th>' if "title" in lists else ""
    head = (
        '<th scope="col">User</th><th scope="col" class="number">Rank</th>'
        f'<th scope="col">Item</th>{titled}<th scope="col" class="number">Score</th>'
    )
    groups = "".join(
        f"<tbody>\n{_list_rows(user, group.sort_values(RANK))}</tbody>\n"
        for user, group in lists.groupby(USER_ID, sort=False, dropna=False)
    )
    return f'<table class="lists">\n<thead><tr>{head}</tr></thead>\n{groups}</table>'


def _list_rows(user: Hashable, group: pd.DataFrame) -> str:
    names = [ITEM_ID, "title"] if "title" in group else [ITEM_ID]
    texts = group[names].astype("object").where(group[names].notna(), _NOT_MEASURED)
    start = f'<th scope="rowgroup" rowspan="{len(group)}">{escape(str(user))}</th>'
    rows = ""
    columns = [group[RANK], group["score"], *(texts[name] for name in names)]
    for rank, score, *shown in zip(*columns, strict=True):
        cells = "".join(f"<td>{escape(str(text))}</td>" for text in shown)
        rows += f'<tr>{start}<td class="number">{rank}</td>{cells}'
        rows += f'<td class="number">{score:.4g}</td></tr>\n'
        start = ""  # the user's cell spans all rows
    return rows


def write_page(out: str | os.PathLike[str], *, title: str, sections: Sequence[Section]) -> str:
    """Write one HTML file that needs nothing else, at once; return its place.

    Parameters
    ----------
    out : path or fsspec URL
        An older page there stays until the new one is whole.
    title : str
    sections : sequence of Section
        With two or more there is a table of contents.

    Returns
    -------
    str
        ``out``: needs no network; 1.4 MB of it are Bokeh's script, if there are figures.

    Raises
    ------
    InputError
        A figure occurs twice.
    DiskError
        The place is full or may not be written.
    """
    figures = [each for section in sections for each in section.figures]
    if len({each.id for each in figures}) < len(figures):
        msg = "a figure occurs twice on the page; draw it again for its second place"
        raise InputError(msg)
    source = resources.files("dasrec").joinpath("templates/report.html").read_text("utf-8")
    template = Environment(autoescape=True, trim_blocks=True).from_string(source)
    parts = {"sections": sections}
    if figures:
        page = file_html(figures, INLINE, title, template=template, template_variables=parts)
    else:
        page = template.render(title=title, **parts)
    place = os.fspath(out)
    with files.writing(place):
        files.replace(place, page.encode())
    return place
