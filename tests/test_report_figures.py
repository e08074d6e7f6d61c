"""Figures of stores, items, groups and reasons hold the numbers that they were given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from bokeh.models import ColorBar, GlyphRenderer, Legend
from bokeh.models.glyphs import HBar, Image, Line, Scatter, Segment, VBar
from bokeh.plotting import figure

from dasrec import report
from dasrec.errors import InputError
from tests.test_report import EVIL, _glyphs, _labels, _Tags


def legend_of(fig: figure) -> list[str]:
    (legend,) = fig.select({"type": Legend})
    return [item.label.value for item in legend.items]


class TestActivity:
    @pytest.fixture
    def activity(self) -> xr.Dataset:
        days = np.array(["2024-02-29", "2024-03-01"], "datetime64[us]")
        return xr.Dataset(
            {"interactions": ("time", [5, 3]), "users": ("time", [2, 1])},
            coords={"time": days},
            attrs={"step_seconds": 86400.0},
        )

    def test_draws_interactions_and_users(self, activity: xr.Dataset) -> None:
        fig = report.activity_curve(activity)
        lines = {each.name: each for each in _glyphs(fig, Line)}
        assert lines["interactions"].data_source.data["interactions"].tolist() == [5, 3]
        assert lines["users"].data_source.data["users"].tolist() == [2, 1]
        times = lines["users"].data_source.data["time"]
        assert times.astype("datetime64[D]").astype(str).tolist() == ["2024-02-29", "2024-03-01"]
        assert _labels(fig) == ("Time (UTC)", "Count per day")
        assert legend_of(fig) == ["interactions", "users"]
        # they differ in print too
        assert len({str(each.glyph.line_dash) for each in lines.values()}) == 2

    @pytest.mark.parametrize(
        ("seconds", "unit"), [(3600, "hour"), (7 * 86400, "week"), (21600, "6 hours")]
    )
    def test_says_what_a_step_is(self, activity: xr.Dataset, seconds: int, unit: str) -> None:
        fig = report.activity_curve(activity.assign_attrs(step_seconds=float(seconds)))
        assert _labels(fig)[1] == f"Count per {unit}"

    def test_refuses_other_data(self, activity: xr.Dataset) -> None:
        words = "activity lacks users; expected what dasrec.count_in_time returns"
        with pytest.raises(InputError, match=words):
            report.activity_curve(activity.drop_vars("users"))


class TestHeatMap:
    def grid(self, counts: Any, order: str = "activity") -> xr.Dataset:
        counts = np.asarray(counts)
        dims = ("user_bin", "item_bin")
        return xr.Dataset(
            {"interactions": (dims, counts), "density": (dims, counts / 50)},
            attrs={"n_users": 20, "n_items": 15, "order": order},
        )

    def test_draws_percent_and_leaves_blank_what_is_empty(self) -> None:
        fig = report.heat_map(self.grid([[50, 5], [1, 0]]))
        (image,) = _glyphs(fig, Image)
        (shares,) = image.data_source.data["share"]
        np.testing.assert_allclose(shares, [[100, 10], [2, np.nan]])
        mapper = image.glyph.color_mapper
        assert (mapper.low, mapper.high) == (2, 100)
        assert mapper.nan_color == "rgba(0, 0, 0, 0)"
        assert (image.glyph.dw, image.glyph.dh) == (15, 20)
        # the first user is at the top, as in a matrix
        assert (fig.y_range.start, fig.y_range.end) == (20, 0)
        assert _labels(fig) == ("Rank of the item (1 = most interactions)", "Rank of the user")
        (bar,) = fig.select({"type": ColorBar})
        assert bar.title == "Stored cells of a bin (%; log scale)"

    def test_says_when_it_is_by_number(self) -> None:
        fig = report.heat_map(self.grid([[1]], order="number"))
        assert _labels(fig)[0] == "Number of the item (order of the store)"

    @pytest.mark.parametrize("counts", [[[0, 0]], [[3, 3]]])
    def test_a_scale_has_two_ends(self, counts: list[list[int]]) -> None:
        (image,) = _glyphs(report.heat_map(self.grid(counts)), Image)
        assert 0 < image.glyph.color_mapper.low < image.glyph.color_mapper.high

    def test_refuses_other_data(self) -> None:
        with pytest.raises(
            InputError, match=r"grid lacks density; expected what dasrec.count_on_g"
        ):
            report.heat_map(self.grid([[1]]).drop_vars("density"))


class TestItemMap:
    @pytest.fixture
    def items(self) -> xr.Dataset:
        return xr.Dataset(
            {
                "x": ("item", [0.5, -1.0, 2.0]),
                "y": ("item", [1.0, 0.0, -2.0]),
                "count": ("item", [3, 100, 10]),
            },
            coords={"item_id": ("item", ["a", "b", EVIL])},
            attrs={"model": "als", "share_x": 0.5, "share_y": 0.25},
        )

    def test_the_least_used_are_on_top_and_small(self, items: xr.Dataset) -> None:
        fig = report.item_map(items)
        (points,) = _glyphs(fig, Scatter)
        drawn = points.data_source.data
        assert drawn["count"].tolist() == [100, 10, 3]
        assert drawn["x"].tolist() == [-1, 2, 0.5]
        assert drawn["name"] == ["b", EVIL, "a"]
        assert (np.diff(drawn["size"]) < 0).all()
        assert _labels(fig) == (
            "First direction (no unit; 50 % of variance)",
            "Second direction (no unit; 25 % of variance)",
        )
        assert fig.title.text == "Items as als sees them"

    def test_shows_titles_and_does_without_counts(self, items: xr.Dataset) -> None:
        titled = items.assign(title=("item", ["A", "B" * 80, "C"]), count=items["count"] * 0)
        fig = report.item_map(titled)
        (points,) = _glyphs(fig, Scatter)
        assert [len(each) for each in points.data_source.data["title"]] == [1, 60, 1]
        assert not fig.select({"type": ColorBar})
        with pytest.raises(
            InputError, match=r"items lacks count; expected what dasrec.place_items"
        ):
            report.item_map(items.drop_vars("count"))


class TestGroups:
    @pytest.fixture
    def grouped(self) -> xr.Dataset:
        values = np.arange(12).reshape(2, 3, 2) / 12
        return xr.Dataset(
            {"recall": (("user_group", "item_group", "n"), values), "novelty": ("n", [1.0, 2.0])},
            coords={
                "user_group": ["new", "old"],
                "item_group": ["head", "middle", "tail"],
                "n": [5, 10],
            },
        )

    def test_users_stand_along_and_items_side_by_side(self, grouped: xr.Dataset) -> None:
        fig = report.group_bars(grouped, metric="recall", n=10)
        bars = {each.name: each.data_source.data for each in _glyphs(fig, VBar)}
        assert list(bars) == legend_of(fig) == ["head", "middle", "tail"]
        assert bars["tail"]["place"] == ["new", "old"]
        np.testing.assert_allclose(bars["tail"]["value"], [5 / 12, 11 / 12])
        assert fig.title.text == "recall@10 by user group"
        assert _labels(fig) == ("User group", "recall@10 (fraction)")

    def test_one_side_has_one_colour_or_one_a_model(self, grouped: xr.Dataset) -> None:
        alone = grouped.isel(user_group=0)
        (bars,) = _glyphs(report.group_bars(alone), VBar)
        np.testing.assert_allclose(bars.data_source.data["value"], [0, 2 / 12, 4 / 12])
        models = xr.concat([alone, alone + 1], dim="model").assign_coords(model=["a", "b"])
        assert legend_of(report.group_bars(models, metric="recall")) == ["a", "b"]

    def test_refuses_what_it_cannot_draw(self, grouped: xr.Dataset) -> None:
        with pytest.raises(InputError, match="metric is 'novelty'; expected one of: recall"):
            report.group_bars(grouped, metric="novelty")
        with pytest.raises(InputError, match="n is 7; expected one of: 5, 10"):
            report.group_bars(grouped, n=7)
        with pytest.raises(InputError, match=r"expected that of evaluate\(groups=...\)"):
            report.group_bars(grouped[["novelty"]])
        models = grouped[["recall"]].expand_dims(model=["a", "b"])
        with pytest.raises(InputError, match="groups of both sides and several models"):
            report.group_bars(models)


def test_bars_of_a_comparison_have_intervals() -> None:
    dims = ("model", "metric", "n")
    value = np.array([[[0.2], [0.4]], [[0.3], [0.5]]])
    comparison = xr.Dataset(
        {"value": (dims, value), "low": (dims, value - 0.1), "high": (dims, value + 0.05)},
        coords={"model": ["a", "b"], "metric": ["recall", "ndcg"], "n": [10]},
        attrs={"level": 0.9},
    )
    fig = report.metric_bars(comparison)
    assert fig.title.text == "Ranking metrics at n = 10, with 90 % intervals"
    bars, spans = _glyphs(fig, VBar), _glyphs(fig, Segment)
    assert [each.name for each in bars] == ["a", "b"]
    assert bars[1].data_source.data["value"] == [0.3, 0.5]
    np.testing.assert_allclose(spans[1].data_source.data["low"], [0.2, 0.4])
    np.testing.assert_allclose(spans[1].data_source.data["high"], [0.35, 0.55])
    alone = report.metric_bars(comparison.isel(model=0, drop=True))
    assert len(_glyphs(alone, Segment)) == 1


class TestReasons:
    @pytest.fixture
    def explanation(self) -> xr.Dataset:
        return xr.Dataset(
            {
                "item_id": ("rank", ["x", EVIL]),
                "score": ("rank", [0.9, 0.5]),
                "reason_id": (("rank", "reason"), [["p", "q"], ["q", None]]),
                "contribution": (("rank", "reason"), [[0.4, 0.2], [0.3, np.nan]]),
                "total": ("rank", [0.5, 0.3]),
                "offset": ("rank", [0.1, -0.2]),
            },
            coords={"rank": [1, 2], "reason": [1, 2]},
            attrs={"model": "als", "user_id": EVIL, "how": "contributions"},
        )

    def bars(self, fig: figure) -> dict[str, GlyphRenderer]:
        return {each.name: each for each in _glyphs(fig, HBar)}

    def test_bars_are_stacked_up_to_the_score(self, explanation: xr.Dataset) -> None:
        fig = report.reason_bars(explanation)
        bars = self.bars(fig)
        assert list(bars) == legend_of(fig) == ["offset", "1st", "2nd", "others"]
        data = {name: each.data_source.data for name, each in bars.items()}
        np.testing.assert_allclose(data["offset"]["left"], [0, 0])
        np.testing.assert_allclose(data["offset"]["right"], [0.1, -0.2])
        np.testing.assert_allclose(data["1st"]["left"], [0.1, 0])
        np.testing.assert_allclose(data["1st"]["right"], [0.5, 0.3])
        # what takes away goes to the left of what took away before
        np.testing.assert_allclose(data["others"]["left"], [0, 0.3])
        np.testing.assert_allclose(data["others"]["right"], [-0.1, 0.3])
        whole = sum(each["value"] for each in data.values())
        np.testing.assert_allclose(whole, explanation["total"] + explanation["offset"])
        assert data["1st"]["reason"] == ["p", "q"]
        assert list(fig.y_range.factors)[-1] == "1. x"
        assert _labels(fig)[0] == "What adds to the score (in the unit of the weights)"

    def test_nothing_is_drawn_of_no_offset(self, explanation: xr.Dataset) -> None:
        explanation["offset"][:] = 0
        assert list(self.bars(report.reason_bars(explanation))) == ["1st", "2nd", "others"]

    def test_titles_are_shown_instead(self, explanation: xr.Dataset) -> None:
        explanation["title"] = ("rank", ["The long title of a film", "Y"])
        explanation["reason_title"] = (("rank", "reason"), [["P", "Q"], ["Q", "-"]])
        fig = report.reason_bars(explanation)
        assert list(fig.y_range.factors) == ["2. Y", "1. The long title of\N{HORIZONTAL ELLIPSIS}"]
        assert self.bars(fig)["1st"].data_source.data["reason"] == ["P", "Q"]
        table = _Tags(report.reason_table(explanation))
        assert table.text_of("th")[-2:] == ["The long title of a film", "Y"]
        assert "P (0.4); Q (0.2)" in table.text_of("td")

    def test_cosines_are_points(self, explanation: xr.Dataset) -> None:
        fig = report.reason_bars(explanation.assign_attrs(how="cosine"))
        points = {each.name: each.data_source.data for each in _glyphs(fig, Scatter)}
        assert list(points) == ["1st", "2nd"]
        assert points["1st"]["value"].tolist() == [0.4, 0.3]
        assert _labels(fig)[0] == "Cosine of item vectors (no unit)"

    def test_the_table_is_escaped(self, explanation: xr.Dataset) -> None:
        table = _Tags(report.reason_table(explanation))
        heads = ["Rank", "Item", "Score", "Offset", "Because of"]
        assert table.text_of("th") == [*heads, "x", EVIL]
        rows = [["1", "0.9", "0.1", "p (0.4); q (0.2)"], ["2", "0.5", "-0.2", "q (0.3)"]]
        assert table.text_of("td") == [text for row in rows for text in row]
        assert {tag for tag, _ in table.tags} == {"table", "thead", "tbody", "tr", "th", "td"}
        explanation["offset"][:] = 0
        assert "Offset" not in report.reason_table(explanation)

    def test_refuses_other_data(self, explanation: xr.Dataset) -> None:
        with pytest.raises(InputError, match="explanation lacks total, offset; expected what"):
            report.reason_bars(explanation.drop_vars(["total", "offset"]))


def test_figures_may_stand_on_a_page_by_themselves(tmp_path: Any) -> None:
    fig = report.long_tail(xr.DataArray([3, 1], dims="user"))
    out = tmp_path / "page.html"
    report.write_page(out, title="Page", sections=[fig, report.Section("Words", "Text")])
    tags = _Tags(out.read_text("utf-8"))
    assert tags.text_of("a") == ["Interactions of each user", "Words"]
    assert tags.text_of("h2") == ["Contents", "Words"]
    assert fig.title.text == "Interactions of each user"


def test_facts_are_escaped() -> None:
    tags = _Tags(report.fact_list({EVIL: EVIL, "n": 3}))
    assert tags.text_of("dt") == [EVIL, "n"]
    assert tags.text_of("dd") == [EVIL, "3"]
    assert {tag for tag, _ in tags.tags} == {"dl", "dt", "dd"}
