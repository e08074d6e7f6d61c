"""Comparing models: the figures of evaluate, pair by pair; their figure, table and page."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import xarray as xr
from bokeh.models import GlyphRenderer, Legend
from bokeh.models.annotations import Span
from bokeh.models.glyphs import Scatter, Segment
from bokeh.plotting import figure
from distributed import Client
from scipy import stats

import dasrec
from dasrec import (
    ALS,
    ImplicitALS,
    InputError,
    Interactions,
    MismatchError,
    Model,
    Popular,
    Split,
    pages,
    report,
)
from dasrec.results import as_records
from dasrec.testing import planted_matrix
from tests.snippets import python_blocks, run_page

NAMES = ["popular", "implicit-als", "implicit-als-2"]
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 60):
        place = tmp_path_factory.mktemp("compare") / "data"
        made = dasrec.interactions_from_scipy(planted_matrix(), place)
    assert len(made.cuts("user_items")) > 20
    return made


@pytest.fixture(scope="module")
def split(cut: Interactions) -> Split:
    return dasrec.split_random(cut, 0.25, rng=2)


@pytest.fixture(scope="module")
def models(split: Split) -> list[Model]:
    kinds = (ImplicitALS(factors=k, iterations=3, rng=0).fit(split.train) for k in (4, 5))
    return [Popular().fit(split.train), *kinds]


@pytest.fixture(scope="module")
def compared(models: list[Model], split: Split) -> xr.Dataset:
    return dasrec.compare(models, split, n=(5, 10), metrics=["recall", "ndcg", "auc"])


def test_figures_are_those_of_each_model_alone(
    compared: xr.Dataset, models: list[Model], split: Split
) -> None:
    assert compared["model"].values.tolist() == NAMES
    for name, model in zip(NAMES, models, strict=True):
        figures = dasrec.evaluate(model, split, n=(5, 10), metrics=["recall", "ndcg", "auc"])
        values = dasrec.evaluate_users(model, split, n=(5, 10), metrics=["recall", "ndcg", "auc"])
        alone = dasrec.intervals(values)
        found = compared.sel(model=name)
        for metric in ("recall", "ndcg", "auc"):
            shown = found["value"].sel(metric=metric)
            np.testing.assert_allclose(shown, np.broadcast_to(figures[metric], 2), rtol=1e-12)
        for each in ("value", "low", "high"):
            np.testing.assert_array_equal(found[each], alone[each])


def test_differences_are_paired(compared: xr.Dataset, models: list[Model], split: Split) -> None:
    base, other = (dasrec.evaluate_users(each, split, n=5)["ndcg"][:, 0] for each in models[:2])
    at = {"metric": "ndcg", "n": 5}
    found = compared.sel(**at, model="implicit-als")
    assert found["difference"].item() == pytest.approx((other - base).mean().item(), rel=1e-12)
    assert found["difference_low"] < found["difference"] < found["difference_high"]
    t = dasrec.compare(models[:2], split, n=5, test="t").sel(**at, model="implicit-als")
    assert t["p"].item() == pytest.approx(stats.ttest_rel(other, base).pvalue, rel=1e-9)
    ranks = dasrec.compare(models[:2], split, n=5, test="wilcoxon").sel(**at, model="implicit-als")
    assert 0 < ranks["p"] < 0.001
    assert compared["difference"].sel(model="popular").isnull().all()
    assert compared["p_holm"].sel(model="popular").isnull().all()


def test_planted_structure_is_found_and_copies_are_not_told_apart(
    models: list[Model], split: Split
) -> None:
    named = {"als": models[1], "popular": models[0], "again": models[1]}
    found = dasrec.compare(named, split, n=5, metrics=["recall"], rng=4).squeeze()
    assert found["p"].sel(model="popular") < 0.001
    assert found["p_holm"].sel(model="popular") == 2 * found["p"].sel(model="popular")
    assert found["difference_high"].sel(model="popular") < 0
    again = found.sel(model="again")
    assert [again[name].item() for name in ("difference", "difference_low", "p")] == [0, 0, 1]
    assert found.attrs == {
        **{"split": "random:0.25", "seed": 2, "baseline": "als", "test": "randomisation"},
        **{"n_users": 112, "level": 0.95, "replicates": 1000, "rng": 4},
    }


def test_models_learned_from_other_kinds_compare(models: list[Model], split: Split) -> None:
    """The usual metrics of explicit models include errors, which are no means over users."""
    explicit = ALS(factors=3, iterations=2, rng=0).fit(split.train)
    found = dasrec.compare([models[0], explicit], split)
    expected = ["precision", "recall", "ndcg", "map", "mrr", "hit_rate"]
    assert found["metric"].values.tolist() == expected


def test_a_comparison_is_the_same_on_processes(
    compared: xr.Dataset, models: list[Model], split: Split, cluster_client: Client
) -> None:
    with mock.patch("dasrec.certainty._TASK_USERS", 50):
        there = dasrec.compare(models, split, n=(5, 10), metrics=["recall", "ndcg", "auc"])
        with mock.patch("dasrec.blocks.active_client", return_value=None):
            here = dasrec.compare(models, split, n=(5, 10), metrics=["recall", "ndcg", "auc"])
    assert there.identical(here)
    xr.testing.assert_allclose(there, compared, rtol=1e-12)


def test_comparisons_that_make_no_sense_are_refused(
    models: list[Model], split: Split, cut: Interactions
) -> None:
    with pytest.raises(InputError, match="1 models are given; expected two or more, the baseline"):
        dasrec.compare(models[:1], split)
    with pytest.raises(InputError, match="test is 'f'; expected one of: randomisation, wilcoxon"):
        dasrec.compare(models, split, test="f")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="item_coverage is no mean over users; leave it out"):
        dasrec.compare(models, split, metrics=["item_coverage"])
    whole = Popular().fit(cut)
    with (
        mock.patch("dasrec.compare.evaluate_users", side_effect=AssertionError),
        pytest.raises(MismatchError, match="it may know what is tested"),
    ):
        dasrec.compare([*models, whole], split)


def test_a_record_is_json_without_what_is_unknown(compared: xr.Dataset) -> None:
    record = as_records(compared)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert (record["baseline"], len(record["figures"])) == ("popular", 3 * 3 * 2)
    assert record["figures"][0].keys() == {"model", "metric", "value", "low", "high"}
    last = record["figures"][-1]
    assert (last["model"], last["metric"]) == ("implicit-als-2", "auc@10")
    assert last["p_holm"] == compared["p_holm"].values[-1, -1, -1]


# -- what is drawn ---------------------------------------------------------------------------------


def glyphs(fig: figure, kind: type) -> list[GlyphRenderer]:
    return [each for each in fig.renderers if isinstance(each.glyph, kind)]


def test_points_and_intervals_are_those_of_the_comparison(compared: xr.Dataset) -> None:
    fig = report.interval_points(compared, n=10)
    points, lines = glyphs(fig, Scatter), glyphs(fig, Segment)
    assert [each.name for each in points] == NAMES == [each.name for each in lines]
    at = compared.sel(model="implicit-als", n=10)
    for each in (points[1], lines[1]):
        data = each.data_source.data
        assert data["metric"] == ["recall", "ndcg", "auc"]
        for name in ("value", "low", "high"):
            np.testing.assert_array_equal(data[name], at[name])
    assert (lines[1].glyph.y0, lines[1].glyph.y1, points[1].glyph.y) == ("low", "high", "value")
    assert fig.title.text == "Means at n = 10, with 95 % intervals"
    assert (fig.xaxis[0].axis_label, fig.yaxis[0].axis_label) == (
        "Metric",
        "Mean over users (fraction)",
    )
    (legend,) = fig.select({"type": Legend})
    assert [item.renderers for item in legend.items] == [
        list(pair) for pair in zip(points, lines, strict=True)
    ]


def test_differences_are_drawn_around_a_line_at_0(compared: xr.Dataset) -> None:
    fig = report.difference_points(compared)
    points = glyphs(fig, Scatter)
    assert [each.name for each in points] == NAMES[1:]
    at = compared.sel(model="implicit-als-2", n=5)
    np.testing.assert_array_equal(points[1].data_source.data["low"], at["difference_low"])
    means = glyphs(report.interval_points(compared), Scatter)
    for mean, difference in zip(means[1:], points, strict=True):  # a model looks alike in both
        assert mean.glyph.fill_color == difference.glyph.fill_color
        assert mean.glyph.marker == difference.glyph.marker
    assert [each.location for each in fig.center if isinstance(each, Span)] == [0]
    assert (at["difference_low"] > 0).all()
    assert fig.y_range.start == 0
    worse = report.difference_points(
        -compared.rename(
            difference_low="difference_high", difference_high="difference_low"
        ).assign_attrs(compared.attrs)
    )
    assert worse.y_range.end == 0
    assert fig.yaxis[0].axis_label == "Difference to popular (fraction)"


def test_marks_differ_without_colour_and_units_are_named(compared: xr.Dataset) -> None:
    many = xr.concat([compared.isel(model=[0])] * 9, dim="model")
    drawn = [each.glyph for each in glyphs(report.interval_points(many), Scatter)]
    assert len({(each.fill_color, str(each.marker)) for each in drawn}) == 9
    assert len({str(each.marker) for each in drawn[:7]}) == 7
    named = compared.assign_coords(metric=["recall", "novelty", "popularity"])
    labels = [
        report.interval_points(named.sel(metric=metrics)).yaxis[0].axis_label
        for metrics in (["recall", "novelty"], ["novelty"], ["novelty", "popularity"])
    ]
    assert labels == [
        "Mean over users (fraction or bits)",
        "Mean over users (bits)",
        "Mean over users (bits or interactions)",
    ]
    parts = [each["metric"].values.tolist() for each in report.by_unit(named)]
    assert parts == [["recall"], ["novelty"], ["popularity"]]
    assert [each.sizes["metric"] for each in report.by_unit(compared)] == [3]


def test_a_figure_of_what_is_no_comparison_is_refused(compared: xr.Dataset) -> None:
    with pytest.raises(InputError, match="measured lacks low, high, metric; expected what compare"):
        report.interval_points(xr.Dataset({"value": ("n", [1.0])}, coords={"n": [10]}))
    with pytest.raises(InputError, match="lacks difference, difference_low, difference_high; exp"):
        report.difference_points(compared[["value", "low", "high"]])
    with pytest.raises(InputError, match="n is 7; expected one of: 5, 10"):
        report.difference_points(compared, n=7)


def test_the_table_has_every_figure_and_no_markup_of_names(compared: xr.Dataset) -> None:
    chosen = compared.sel(metric=["recall"], n=[5]).isel(model=[0, 1]).copy(deep=True)
    values = {
        **{"value": [0.1, 0.5], "low": [0.05, 0.4], "high": [0.2, 0.6]},
        **{"difference": [np.nan, 0.4], "difference_low": [np.nan, 0.3]},
        **{"difference_high": [np.nan, 0.45], "p": [np.nan, 1e-9], "p_holm": [np.nan, 0.05]},
    }
    for name, each in values.items():
        chosen[name][:, 0, 0] = each
    page = report.certainty_table(chosen.assign_coords(model=["popular", EVIL]))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    for text in ("recall@5", "0.4000 to 0.6000", "<strong>+0.4000</strong>", "+0.3000 to +0.4500"):
        assert page.count(f">{text}<" if "<" not in text else text) == 1
    assert page.count("&lt; 0.0001") == 1
    assert "95 % interval" in page
    alone = report.certainty_table(chosen.isel(model=0)[["value", "low", "high"]])
    assert "Difference" not in alone
    assert "0.0500 to 0.2000" in alone


def test_pages_are_whole(
    compared: xr.Dataset, models: list[Model], split: Split, tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    report.write_page(out, title="Models", sections=pages.describe_comparison(compared))
    page = out.read_text("utf-8")
    assert 'name="viewport" content="width=device-width' in page
    assert "compared with popular, user by user" in page
    assert "Means over 112 users" in page
    assert page.count("data-root-id") == 4  # means and differences at two lengths
    assert '<div class="scroll">\n<table' in page
    assert "https://" not in page.split("<script")[0]
    measured = dasrec.evaluate(models[0], split)
    certainty = dasrec.intervals(dasrec.evaluate_users(models[0], split))
    both, alone = (pages.describe_evaluation(measured, each) for each in (certainty, None))
    assert [section.heading for section in both] == ["Evaluation", "Means"]
    assert [section.heading for section in alone] == ["Evaluation"]
    assert "95 % of such intervals" in both[1].text


def test_the_example_of_comparing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dasrec.interactions_from_scipy(planted_matrix(), "my-store")
    (block,) = python_blocks(Path(__file__).parents[1] / "docs" / "certainty.md")
    assert len([line for line in block.splitlines() if line]) <= 12
    names = run_page("certainty.md")
    found = names["compared"].sel(model="implicit-als", metric="ndcg", n=10)
    assert found["p_holm"] < 0.05
