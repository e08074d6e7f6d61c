"""Figures hold the numbers they were given; pages are whole, inert and need no network."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from bokeh.models import BoxAnnotation, GlyphRenderer, Label, Legend
from bokeh.models.glyphs import Line, VBar
from bokeh.plotting import figure

from dasrec import files, report
from dasrec.errors import DiskError, InputError
from dasrec.report import Section

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


class _Tags(HTMLParser):
    """Collects elements with attributes, and the text of those asked for."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open and data.strip():
            self.texts.append((self._open[-1], data.strip()))

    def text_of(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


@pytest.fixture
def evaluation() -> xr.Dataset:
    return xr.Dataset(
        {
            "recall": (("model", "n"), [[0.2, 0.3], [0.1, 0.4]], {"formula": "|hits| / |truth|"}),
            "ndcg": (("n", "model"), [[0.5, 0.6], [0.55, 0.65]]),
            "rmse": ("model", [0.9, np.nan]),
            "mae": ("model", [0.7, 0.8]),
        },
        coords={"model": ["als", "<popular>"], "n": [10, 20]},
    )


@pytest.fixture
def history() -> xr.Dataset:
    return xr.Dataset(
        {"objective": (("iteration", "model"), [[100.0, 8.0], [50.0, 6.0], [40.0, np.nan]])},
        coords={"iteration": [1, 2, 3], "model": ["als", "bpr"]},
    )


def _glyphs(fig: figure, kind: type) -> list[GlyphRenderer]:
    return [each for each in fig.renderers if isinstance(each.glyph, kind)]


def _labels(fig: figure) -> tuple[str, str]:
    return fig.xaxis[0].axis_label, fig.yaxis[0].axis_label


class TestLongTail:
    def test_ranks_counts_and_says_what_the_top_tenth_holds(self) -> None:
        counts = xr.DataArray([0, 5, 1, 60, 2, 3, 4, 5, 10, 10], dims="item")
        fig = report.long_tail(counts, title="Items")
        (line,) = _glyphs(fig, Line)
        assert line.data_source.data["rank"].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
        assert line.data_source.data["count"].tolist() == [60, 10, 10, 5, 5, 4, 3, 2, 1]
        (note,) = fig.select({"type": Label})
        assert note.text == (
            "Top 10 % of items (shaded):\n60.0 % of interactions\n1 without any: not drawn"
        )
        assert [each.right for each in fig.center if isinstance(each, BoxAnnotation)] == [1]
        assert fig.title.text == "Items"

    def test_axes_are_logarithmic_with_units(self) -> None:
        fig = report.long_tail(xr.DataArray([3, 1], dims="user"), title="Users")
        assert {type(fig.x_scale).__name__, type(fig.y_scale).__name__} == {"LogScale"}
        assert _labels(fig) == (
            "Rank of the user (1 = most; log scale)",
            "Interactions per user (count; log scale)",
        )
        assert fig.sizing_mode == "stretch_width"

    def test_draws_few_points_of_many(self) -> None:
        counts = xr.DataArray(np.arange(1, 1_000_001), dims="item")
        fig = report.long_tail(counts, title="Items")
        (line,) = _glyphs(fig, Line)
        ranks, drawn = line.data_source.data["rank"], line.data_source.data["count"]
        assert 1000 < len(ranks) <= 2000
        assert (ranks[0], ranks[-1]) == (1, 1_000_000)
        np.testing.assert_array_equal(drawn, 1_000_001 - ranks)

    @pytest.mark.parametrize(
        ("most", "least", "ticks"),
        [
            (840, 38, [10, 20, 50, 100, 200, 500, 1000]),
            (5000, 2, [1, 10, 100, 1000, 10000]),
            (1, 1, [1, 2, 5, 10]),
        ],
    )
    def test_ticks_are_round_and_few(self, most: int, least: int, ticks: list[int]) -> None:
        fig = report.long_tail(xr.DataArray([most, least], dims="item"), title="Items")
        assert list(fig.yaxis[0].ticker.ticks) == ticks
        assert (fig.y_range.start, fig.y_range.end) == (ticks[0], ticks[-1])

    @pytest.mark.parametrize(
        "counts",
        [np.zeros(3), np.array([1, -1]), np.array([]), np.array([1, np.nan]), np.ones((2, 2))],
    )
    def test_refuses_what_are_not_counts(self, counts: np.ndarray) -> None:
        dims = ["item", "other"][: counts.ndim]
        with pytest.raises(InputError, match="expected one dim, counts of 0 or more, one above 0"):
            report.long_tail(xr.DataArray(counts, dims=dims), title="x")


class TestLearningCurve:
    def test_several_models_are_relative_to_their_first_value(self, history: xr.Dataset) -> None:
        fig = report.learning_curve(history)
        drawn = {each.name: each.data_source.data for each in _glyphs(fig, Line)}
        np.testing.assert_allclose(drawn["als"]["objective"], [1, 0.5, 0.4])
        np.testing.assert_allclose(drawn["bpr"]["objective"], [1, 0.75])
        assert drawn["bpr"]["iteration"].tolist() == [1, 2]
        assert _labels(fig) == ("Iteration (count)", "Objective / its first value (ratio)")

    def test_lines_differ_without_colour(self, history: xr.Dataset) -> None:
        lines = [each.glyph for each in _glyphs(report.learning_curve(history), Line)]
        assert len({each.line_color for each in lines}) == 2
        assert len({str(each.line_dash) for each in lines}) == 2

    def test_one_model_keeps_its_scale(self, history: xr.Dataset) -> None:
        alone = history.isel(model=0)
        for given in (alone, alone.drop_vars("model"), history.isel(model=[0])):
            fig = report.learning_curve(given)
            (line,) = _glyphs(fig, Line)
            assert line.data_source.data["objective"].tolist() == [100, 50, 40]
            assert _labels(fig)[1] == "Objective (no unit)"
            assert not fig.select({"type": Legend})

    def test_refuses_a_history_it_cannot_scale(self, history: xr.Dataset) -> None:
        history["objective"][0, 1] = 0
        with pytest.raises(InputError, match=r"first objectives are \[100.0, 0.0\]; expected fin"):
            report.learning_curve(history)
        with pytest.raises(InputError, match="expected 'objective' by iteration and model"):
            report.learning_curve(history.rename(objective="loss"))


class TestMetricBars:
    def test_draws_the_ranking_metrics_at_one_length(self, evaluation: xr.Dataset) -> None:
        fig = report.metric_bars(evaluation, n=20)
        bars = {each.name: each.data_source.data for each in _glyphs(fig, VBar)}
        assert bars["als"] == {"place": ["recall", "ndcg"], "value": [0.3, 0.55]}
        assert bars["<popular>"]["value"] == [0.4, 0.65]
        assert fig.title.text == "Ranking metrics at n = 20"
        assert fig.y_range.start == 0
        assert list(fig.x_range.factors) == ["recall", "ndcg"]
        (legend,) = fig.select({"type": Legend})
        assert [item.label.value for item in legend.items] == ["als", "<popular>"]

    def test_takes_the_first_length_unless_told(self, evaluation: xr.Dataset) -> None:
        assert report.metric_bars(evaluation).title.text == "Ranking metrics at n = 10"

    def test_bars_of_a_group_stand_side_by_side(self, evaluation: xr.Dataset) -> None:
        first, second = (each.glyph for each in _glyphs(report.metric_bars(evaluation), VBar))
        gap = second.x.transform.value - first.x.transform.value
        assert gap >= first.width
        assert first.fill_color != second.fill_color

    def test_models_of_one_name_are_all_named(self, evaluation: xr.Dataset) -> None:
        twins = evaluation.assign_coords(model=["als", "als"])
        fig = report.metric_bars(twins)
        assert len(_glyphs(fig, VBar)) == len(fig.select_one({"type": Legend}).items) == 2

    def test_more_models_than_colours_differ_by_hatch(self) -> None:
        many = xr.Dataset({"recall": (("model", "n"), np.full((9, 1), 0.5))}, coords={"n": [10]})
        glyphs = [each.glyph for each in _glyphs(report.metric_bars(many), VBar)]
        assert len({(each.fill_color, each.hatch_pattern) for each in glyphs}) == 9

    def test_takes_the_evaluation_of_a_single_model(self) -> None:
        alone = xr.Dataset({"recall": ("n", [0.5])}, coords={"n": [10]}, attrs={"model": "als"})
        (bars,) = _glyphs(report.metric_bars(alone), VBar)
        assert bars.name == "als"
        assert bars.data_source.data["value"] == [0.5]

    def test_refuses_what_was_not_measured(self, evaluation: xr.Dataset) -> None:
        with pytest.raises(InputError, match="n is 5; expected one of: 10, 20"):
            report.metric_bars(evaluation, n=5)
        with pytest.raises(InputError, match=r"holds \['rmse'\]; expected a metric with the dim"):
            report.metric_bars(evaluation[["rmse"]])


class TestTables:
    def test_metrics_by_model(self, evaluation: xr.Dataset) -> None:
        tags = _Tags(report.metric_table(evaluation))
        names = ["recall@10", "recall@20", "ndcg@10", "ndcg@20", "rmse", "mae"]
        assert tags.text_of("th") == ["Metric", "als", "<popular>", *names]
        cells = [text for tag, text in tags.texts if tag in ("td", "strong")]
        als = ("0.2000", "0.3000", "0.5000", "0.5500", "0.9000", "0.7000")
        popular = ("0.1000", "0.4000", "0.6000", "0.6500", "\N{EN DASH}", "0.8000")
        assert cells == [text for pair in zip(als, popular, strict=True) for text in pair]
        assert ("th", "|hits| / |truth|") in [(tag, a.get("title")) for tag, a in tags.tags]

    def test_best_is_lowest_error_or_highest_rank(self, evaluation: xr.Dataset) -> None:
        bold = _Tags(report.metric_table(evaluation)).text_of("strong")
        # rmse has one value only: nothing to be better than
        assert bold == ["0.2000", "0.4000", "0.6000", "0.6500", "0.7000"]

    def test_what_prints_alike_is_equally_good(self) -> None:
        tied = xr.Dataset({"mae": ("model", [0.70001, 0.70002])}, coords={"model": ["a", "b"]})
        assert report.metric_table(tied).count("<strong>0.7000</strong>") == 2

    def test_groups_have_a_column_each(self) -> None:
        values = np.array([[[0.1], [0.2]], [[0.3], [0.1]]])
        measured = xr.Dataset(
            {"recall": (("model", "item_group", "n"), values)},
            coords={"model": ["a", "b"], "item_group": ["head", EVIL], "n": [5]},
        )
        tags = _Tags(report.metric_table(measured))
        assert tags.text_of("th")[1:] == [
            *("a / head", f"a / {EVIL}", "b / head", f"b / {EVIL}", "recall@5")
        ]
        # the best model of a group
        assert tags.text_of("strong") == ["0.2000", "0.3000"]
        alone = _Tags(report.metric_table(measured.isel(model=[0])))
        assert alone.text_of("th")[1:3] == ["head", EVIL]
        assert not alone.text_of("strong")

    def test_lists_are_grouped_ranked_and_escaped(self) -> None:
        lists = pd.DataFrame(
            {
                "user_id": ["zoe", "zoe", EVIL],
                "rank": [2, 1, 1],
                "item_id": [7, 8, 9],
                "score": [0.5, 0.987654, 1e-7],
                "title": ["Seven", None, EVIL],
            }
        )
        page = report.list_table(lists)
        tags = _Tags(page)
        assert tags.text_of("th") == ["User", "Rank", "Item", "Title", "Score", "zoe", EVIL]
        assert tags.text_of("td") == [
            *("1", "8", "\N{EN DASH}", "0.9877"),
            *("2", "7", "Seven", "0.5"),
            *("1", "9", EVIL, "1e-07"),
        ]
        assert ("th", "2") in [(tag, attrs.get("rowspan")) for tag, attrs in tags.tags]
        assert {tag for tag, _ in tags.tags} == {"table", "thead", "tbody", "tr", "th", "td"}

    def test_titles_are_optional_and_columns_are_not(self) -> None:
        lists = pd.DataFrame({"user_id": [1], "rank": [1], "item_id": ["x"], "score": [2.0]})
        assert "Title" not in report.list_table(lists)
        with pytest.raises(InputError, match="lists has no column 'rank'"):
            report.list_table(lists.drop(columns="rank"))


class TestPage:
    def _sections(
        self, history: xr.Dataset, evaluation: xr.Dataset, *, name: str = EVIL
    ) -> list[Section]:
        counts = xr.DataArray([3, 2, 1], dims="item")
        return [
            Section(f"Log {name}", f"A.\n\nB {name}", (report.long_tail(counts, title=name),)),
            Section(
                "Model",
                figures=(report.learning_curve(history), report.metric_bars(evaluation)),
                html=(report.metric_table(evaluation),),
            ),
        ]

    def test_is_self_contained_and_inert(
        self, tmp_path: Path, history: xr.Dataset, evaluation: xr.Dataset
    ) -> None:
        out = tmp_path / "new" / "page.html"
        sections = self._sections(history, evaluation)
        assert report.write_page(out, title=f"Page {EVIL}", sections=sections) == str(out)
        tags = _Tags(out.read_text("utf-8"))
        links = [
            attrs.get(key) for _, attrs in tags.tags for key in ("src", "href") if key in attrs
        ]
        assert links == ["#section-1", "#section-2"]
        kinds = [tag for tag, _ in tags.tags]
        assert not {"img", "link", "iframe", "object", "embed", "base", "form"} & set(kinds)
        assert not [key for _, attrs in tags.tags for key in attrs if key.startswith("on")]
        # the same elements as a page with harmless names
        sections = self._sections(history, evaluation, name="harmless")
        report.write_page(out, title="Page", sections=sections)
        assert kinds == [tag for tag, _ in _Tags(out.read_text("utf-8")).tags]

    def test_shows_titles_text_and_contents(
        self, tmp_path: Path, history: xr.Dataset, evaluation: xr.Dataset
    ) -> None:
        out = tmp_path / "page.html"
        report.write_page(out, title=f"Page {EVIL}", sections=self._sections(history, evaluation))
        tags = _Tags(out.read_text("utf-8"))
        assert tags.text_of("title") == tags.text_of("h1") == [f"Page {EVIL}"]
        assert tags.text_of("a") == [f"Log {EVIL}", "Model"]
        assert tags.text_of("h2") == ["Contents", f"Log {EVIL}", "Model"]
        assert tags.text_of("p") == ["A.", f"B {EVIL}"]
        assert [a["aria-label"] for tag, a in tags.tags if tag == "figure"] == [
            EVIL,
            "Learning curve",
            "Ranking metrics at n = 10",
        ]
        metas = {attrs.get("name") or attrs.get("http-equiv"): attrs for _, attrs in tags.tags}
        assert metas["viewport"]["content"] == "width=device-width, initial-scale=1"
        assert "default-src 'none'" in str(metas["Content-Security-Policy"]["content"])

    def test_every_figure_has_its_place(
        self, tmp_path: Path, history: xr.Dataset, evaluation: xr.Dataset
    ) -> None:
        sections = self._sections(history, evaluation)
        out = tmp_path / "page.html"
        report.write_page(out, title="Page", sections=sections)
        places = re.findall(r'data-root-id="([^"]+)"', out.read_text("utf-8"))
        assert places == [fig.id for section in sections for fig in section.figures]

    def test_without_figures_there_is_no_script(self, tmp_path: Path) -> None:
        out = tmp_path / "page.html"
        report.write_page(out, title="Page", sections=[Section("One", "Text")])
        page = out.read_text("utf-8")
        assert "<script" not in page
        assert "<nav" not in page
        assert len(page) < 10_000

    def test_goes_to_a_url(self) -> None:
        url = "memory://report/page.html"
        assert report.write_page(url, title="Page", sections=[Section("One")]) == url
        with fsspec.open(url, "rb") as file:
            assert b"<h1>Page</h1>" in file.read()

    def test_a_failed_write_leaves_the_old_page(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "page.html"
        report.write_page(out, title="Old", sections=[])
        old = out.read_bytes()

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(files.os, "fsync", full)
        with pytest.raises(DiskError, match=r"cannot write to .*page\.html: No space left"):
            report.write_page(out, title="New", sections=[])
        assert out.read_bytes() == old
        assert list(tmp_path.iterdir()) == [out]

    def test_refuses_a_figure_that_occurs_twice(self, tmp_path: Path) -> None:
        fig = report.long_tail(xr.DataArray([1], dims="item"), title="Items")
        with pytest.raises(InputError, match="a figure occurs twice"):
            report.write_page(tmp_path / "x", title="P", sections=[Section("A", "", (fig, fig))])

    def test_refuses_a_string_for_fragments(self) -> None:
        with pytest.raises(InputError, match="figures and html are tuple and str; expected tuples"):
            Section("A", html="<p>")  # type: ignore[arg-type]
