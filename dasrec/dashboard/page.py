"""The page itself: six figures, and a few words above them, that follow the state of the jobs."""

from __future__ import annotations

import time
from importlib import resources
from typing import Any

from bokeh.document import Document
from bokeh.models import AdaptiveTicker, BasicTicker, ColumnDataSource, FactorRange, HoverTool
from bokeh.models.annotations import ColorBar
from bokeh.models.css import InlineStyleSheet
from bokeh.models.formatters import NumeralTickFormatter
from bokeh.models.mappers import LinearColorMapper
from bokeh.models.widgets import Div, Select
from bokeh.palettes import Cividis256
from bokeh.plotting import figure
from distributed.dashboard.components.scheduler import env

from dasrec.dashboard.state import Job, Sample, State
from dasrec.dashboard.words import NOTHING, describe
from dasrec.report.base import PALETTE, TEXT, draw_legend, make_figure

_EVERY = 1000  # milliseconds; samples come no faster
_NEWEST: Any = ("", "newest job")
_TIME = "Time since the job began (h:mm:ss)"
_FLOWS = {
    "read": "files read",
    "written": "files written",
    "received": "network in",
    "sent": "network out",
}
_STRIPS = 3
_DASHES = ("solid", "solid", "solid", "dashed")
_GREY = "#75828f"  # to be read on white and on black, where style sheets do not reach
_MEGA = ("read", "written", "received", "sent", "memory")


def show_page(
    state: State, server: Any, extra: dict[str, Any], doc: Document, *, alone: bool = False
) -> None:
    """Fill a Bokeh document; ``server`` and ``extra`` are what Dask gives to each of its pages.

    ``alone`` leaves out Dask's navigation.
    """
    del server
    page = Page(state)
    for name, root in page.roots.items():
        root.name = name
        doc.add_root(root)
    doc.template = env.from_string(_template("dashboard.html"))
    layout = env.from_string(_template("dashboard_alone.html")) if alone else "base.html"
    doc.template_variables.update({**extra, "layout": layout})
    doc.title = "Dask: dasrec"
    doc.add_periodic_callback(page.update, _EVERY)


def _template(name: str) -> str:
    return resources.files("dasrec").joinpath("templates", name).read_text("utf-8")


class Page:
    """What one browser sees."""

    def __init__(self, state: State) -> None:
        self.state = state
        style = InlineStyleSheet(css=_template("dashboard.css"))
        self.words = Div(stylesheets=[style], sizing_mode="stretch_width", margin=0)
        look: dict[str, Any] = {"width": 320, "margin": 0, "stylesheets": [style]}
        self.choice = Select(title="Job", options=[_NEWEST], **look)
        self.choice.on_change("value", lambda attr, old, new: self.update())
        nothing = _columns(Job("", "", "", 0.0))
        self.sources = {name: ColumnDataSource(found) for name, found in nothing.items()}
        self.objective = self._draw_curve("Objective", "objective", "Objective (no unit)", 0)
        self.monitor = self._draw_curve("Holdout metric", "monitor", "Metric (larger is better)", 2)
        self.stages = FactorRange(range_padding=0.1)
        self.strip = self._draw_strip()
        self.rows = self._draw_rows()
        self.flows = self._draw_flows()
        self.memory = self._draw_memory()
        self.update()

    @property
    def roots(self) -> dict[str, Any]:
        """What the template places, by name."""
        names = ("choice", "words", "objective", "monitor", "strip", "rows", "flows", "memory")
        return {name: getattr(self, name) for name in names}

    def update(self) -> None:
        """Show what the state holds now."""
        with self.state.lock:
            job = self.state.find(self.choice.value)
            if job is None:
                self.words.text = NOTHING
                return
            options: list[Any] = [
                _NEWEST,
                *((each.key, _named(each)) for each in self.state.jobs.values()),
            ]
            columns = _columns(job)
            self.words.text = describe(job, time.time())
            title = f"Holdout: {job.monitor}" if job.monitor else "Holdout metric"
            _heading(self.monitor).text = title
        if self.choice.options != options:
            self.choice.options = options
        for name, found in columns.items():
            if self.sources[name].data != found:
                self.sources[name].data = found
        stages = list(dict.fromkeys(columns["strip"]["stage"]))
        if self.stages.factors != stages:
            self.stages.factors = stages

    def _draw_curve(self, title: str, name: str, label: str, colour: int) -> figure:
        fig = _figure(title, x_label="Iteration (count)", y_label=label)
        look: dict[str, Any] = {"source": self.sources["curve"], "color": PALETTE[colour]}
        fig.line("iteration", name, line_width=2.5, **look)
        fig.scatter("iteration", name, size=5, **look)
        fig.xaxis.ticker = BasicTicker(min_interval=1)
        fig.yaxis.formatter = NumeralTickFormatter(format="0,0.[0000]")
        tips = [("iteration", "@iteration"), (title.lower(), f"@{name}{{0.[0000]}}")]
        fig.add_tools(HoverTool(tooltips=tips, mode="vline"))
        return fig

    def _draw_strip(self) -> figure:
        fig = _figure(
            "Block times of the last stages",
            x_label="Block, in order (% of the stage)",
            y_label="",
            axes={"y_range": self.stages, "x_range": (0, 100)},
        )
        mapper = LinearColorMapper(palette=Cividis256, low=0, high=2)
        fig.hbar(
            y="stage",
            left="left",
            right="right",
            height=0.8,
            source=self.sources["strip"],
            fill_color={"field": "ratio", "transform": mapper},
            line_color=None,
        )
        bar = ColorBar(
            color_mapper=mapper,
            title="Time of a block / mean of its stage",
            height=8,
            background_fill_color=None,
            ticker=BasicTicker(desired_num_ticks=4),
            title_text_font_style="normal",
        )
        for part in ("title", "major_label"):
            look = {**TEXT, "text_font_size": "12px", "text_color": _GREY}
            bar.update(**{f"{part}_{name}": value for name, value in look.items()})
        fig.add_layout(bar, "below")
        tips = [("stage", "@stage"), ("time", "@seconds{0.000} s"), ("/ mean", "@ratio{0.00}")]
        fig.add_tools(HoverTool(tooltips=tips))
        fig.ygrid.grid_line_color = None
        return fig

    def _draw_rows(self) -> figure:
        fig = _over_time("Rows a second", "Rows (1/s)", "0,0.[0] a")
        self._add_line(fig, "rows", colour=0, filled=True)
        return fig

    def _draw_flows(self) -> figure:
        fig = _over_time("What workers read and write", "Bytes (MB/s)", "0,0.[00]")
        lines = [
            self._add_line(fig, column, colour=place, name=name, dash=_DASHES[place])
            for place, (column, name) in enumerate(_FLOWS.items())
        ]
        # what comes in over the network of one host often went out there: it must be seen below
        lines[list(_FLOWS).index("received")].glyph.update(line_width=6, line_alpha=0.35)
        _draw_legend(fig, lines)
        return fig

    def _draw_memory(self) -> figure:
        fig = _over_time("Memory of the largest worker", "Memory (MB)", "0,0")
        lines = [
            self._add_line(fig, "memory", colour=3, name="used", filled=True),
            self._add_line(fig, "budget", colour=4, name="budget", dash="dashed"),
        ]
        _draw_legend(fig, lines)
        return fig

    def _add_line(
        self,
        fig: figure,
        column: str,
        *,
        colour: int,
        name: str = "",
        dash: str = "solid",
        filled: bool = False,
    ) -> Any:
        source = self.sources["samples"]
        if filled:
            look: dict[str, Any] = {"fill_color": PALETTE[colour], "fill_alpha": 0.25}
            fig.varea("time", 0, column, source=source, **look)
        line = fig.line("time", column, source=source, line_width=2, name=name or column)
        line.glyph.update(line_color=PALETTE[colour], line_dash=dash)
        tips = [("time", "@time{00:00:00}"), (name or column, f"@{column}{{0,0.[00]}}")]
        fig.add_tools(HoverTool(tooltips=tips, mode="vline", renderers=[line]))
        return line


def _figure(
    title: str, *, x_label: str, y_label: str, axes: dict[str, Any] | None = None
) -> figure:
    fig = make_figure(title, x_label=x_label, y_label=y_label, axes=axes)
    fig.update(
        height=270, output_backend="canvas", background_fill_color=None, border_fill_color=None
    )
    _heading(fig).text_font_size = "14px"
    for axis in fig.axis:
        axis.update(axis_label_text_font_size="12px", major_label_text_font_size="12px")
    return fig


def _heading(fig: figure) -> Any:
    return fig.title


def _over_time(title: str, label: str, form: str) -> figure:
    fig = _figure(title, x_label=_TIME, y_label=label)
    fig.xaxis.formatter = NumeralTickFormatter(format="00:00:00")
    steps = [1, 2, 5, 10, 15, 20, 30]
    fig.xaxis.ticker = AdaptiveTicker(base=60, mantissas=steps, min_interval=1, desired_num_ticks=4)
    fig.yaxis.formatter = NumeralTickFormatter(format=form)
    fig.x_range.update(start=0)
    fig.y_range.update(start=0)
    return fig


def _draw_legend(fig: figure, lines: list[Any]) -> None:
    draw_legend(fig, [(line,) for line in lines])
    style = InlineStyleSheet(css=".bk-label { color: var(--ink) !important; }")
    fig.legend.update(background_fill_color=None, padding=0, margin=0, spacing=6)
    fig.legend.stylesheets = [style]


def _named(job: Job) -> str:
    began = time.strftime("%H:%M:%S", time.localtime(job.begun))
    return f"{began} {job.name} ({job.status})"


def _columns(job: Job) -> dict[str, dict[str, Any]]:
    return {"curve": _curve(job), "strip": _strip(job), "samples": _samples(job)}


def _curve(job: Job) -> dict[str, list[float]]:
    names = ("iteration", "objective", "monitor")
    return {name: [each.get(name, float("nan")) for each in job.records] for name in names}


def _strip(job: Job) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        name: [] for name in ("stage", "left", "right", "seconds", "ratio")
    }
    for run in sorted(job.spread[-_STRIPS:], key=lambda run: run.name):
        n = len(run.slowest)
        for place, seconds in enumerate(run.slowest):
            if seconds:
                found = (
                    f"{run.name}\nmax / mean {run.balance:.2f}",
                    100 * place / n,
                    100 * (place + 1) / n,
                    seconds,
                    seconds / run.mean,
                )
                for column, value in zip(columns.values(), found, strict=True):
                    column.append(value)
    return columns


def _samples(job: Job) -> dict[str, list[float]]:
    columns = zip(*job.samples, strict=True) if job.samples else ([] for _ in Sample._fields)
    found = dict(zip(Sample._fields, map(list, columns), strict=True))
    for name in _MEGA:
        found[name] = [value / 1e6 for value in found[name]]
    budget = job.memory / 1e6 if job.memory else float("nan")
    return {"time": found.pop("seconds"), **found, "budget": [budget] * len(job.samples)}
