"""Figures of a search show every trial, how it ended, and what was best."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from bokeh.models import HoverTool, MultiLine
from bokeh.models.annotations import Label, Legend, Span
from bokeh.models.renderers import GlyphRenderer
from bokeh.plotting import figure

from dasrec import InputError
from dasrec.report import write_page
from dasrec.search.base import Measure, Trial
from dasrec.search.result import as_dataset
from dasrec.search_report import describe_search, parallel_coordinates, rung_curves


def trials(*, metric: str = "ndcg@10", last: bool = True) -> xr.Dataset:
    """Return four trials of two rungs: two go on, and the third is best."""
    runs = [
        Trial(0, 0, {"regularization": 0.01, "solver": "cg", "factors": 4}),
        Trial(1, 0, {"regularization": 1.0, "solver": "exact", "factors": 4}),
        Trial(2, 0, {"regularization": 0.1, "solver": "auto", "factors": 4}),
        Trial(3, 0, {"regularization": 0.1, "solver": "cg", "factors": 4}),
    ]
    for run, first in zip(runs, [0.1, 0.2, 0.3, 0.15], strict=True):
        run.measures[1] = Measure(first, 1.0)
    runs[1].measures[3], runs[2].measures[3] = Measure(0.25, 3.0), Measure(0.4, 3.0)
    if not last:
        runs[3].measures.clear()
    facts = {"metric": metric, "model": "implicit-als", "strategy": "halving", "split": "time:0.2"}
    return as_dataset(runs, best=2, facts=facts)


def lines(fig: figure) -> dict[str, GlyphRenderer]:
    found = [each for each in fig.renderers if isinstance(getattr(each, "glyph", None), MultiLine)]
    return {each.name: each for each in found}


def test_each_kind_of_trial_has_a_colour_and_a_dash_of_its_own() -> None:
    for fig in (parallel_coordinates(trials()), rung_curves(trials())):
        kinds = lines(fig)
        assert list(kinds) == ["dropped", "to the end", "best"]
        numbers = {name: each.data_source.data["trial"].tolist() for name, each in kinds.items()}
        assert numbers == {"dropped": [0, 3], "to the end": [1], "best": [2]}
        looks = {
            (each.glyph.line_color, each.glyph.line_dash == "dotted", each.glyph.line_width)
            for each in kinds.values()
        }
        assert len(looks) == 3
        (legend,) = [each for each in fig.below if isinstance(each, Legend)]
        assert [item.label.value for item in legend.items] == list(kinds)
        assert len(fig.select(HoverTool)) == 1


def test_coordinates_run_from_the_least_to_the_largest() -> None:
    fig = parallel_coordinates(trials())
    names = ["regularization (log)", "solver", "factors", "ndcg@10"]
    assert list(fig.xaxis[0].major_label_overrides.values()) == names
    assert fig.xaxis[0].axis_label == "Parameters, then ndcg@10 (fraction)"
    assert [each.location for each in fig.center if isinstance(each, Span)] == [0, 1, 2, 3]
    kinds = lines(fig)
    assert kinds["best"].data_source.data["xs"] == [[0, 1, 2, 3]]
    assert kinds["best"].data_source.data["ys"][0] == pytest.approx([0.5, 0, 0.5, 1])
    assert kinds["to the end"].data_source.data["ys"][0] == pytest.approx([1, 1, 0.5, 0.5])
    first, fourth = kinds["dropped"].data_source.data["ys"]
    assert first == pytest.approx([0, 0.5, 0.5, 0])
    assert fourth == pytest.approx([0.5, 0.5, 0.5, 0.05 / 0.3])
    marks = [(each.x, each.y, each.text) for each in fig.center if isinstance(each, Label)]
    assert {(0, 0.0, "0.01"), (0, 1.0, "1"), (2, 0.5, "4"), (3, 0.0, "0.1"), (3, 1.0, "0.4")} < {
        *marks
    }
    assert {(1, 0.0, "auto"), (1, 0.5, "cg"), (1, 1.0, "exact")} < {*marks}
    tips = dict(fig.select(HoverTool)[0].tooltips)
    assert tips["regularization"] == "@param_regularization"
    assert kinds["dropped"].data_source.data["param_solver"].tolist() == ["cg", "cg"]
    assert kinds["dropped"].data_source.data["done"].tolist() == [1, 1]


def test_curves_end_where_trials_were_dropped() -> None:
    fig = rung_curves(trials())
    kinds = {name: each.data_source.data for name, each in lines(fig).items()}
    assert kinds["dropped"]["xs"] == [[1], [1]]
    assert kinds["dropped"]["ys"] == [[0.1], [0.15]]
    assert kinds["best"]["xs"] == [[1, 3]]
    assert kinds["best"]["ys"] == [[0.3, 0.4]]
    assert kinds["best"]["best"].tolist() == [0.4]
    points = [each for each in fig.renderers if each.name not in kinds]
    assert sum(len(each.data_source.data["x"]) for each in points) == 6
    assert fig.xaxis[0].axis_label == "Iterations done (count; log scale)"
    assert fig.yaxis[0].axis_label == "ndcg@10 (fraction)"
    assert fig.xaxis[0].ticker.ticks == [1, 3]


def test_errors_are_told_with_their_sign_and_unit() -> None:
    label = rung_curves(trials(metric="rmse")).yaxis[0].axis_label
    assert label == "\N{MINUS SIGN}rmse (in the unit of the weights)"


def test_what_was_never_measured_has_no_line() -> None:
    """After a time limit."""
    part = trials(last=False)
    first, fourth = lines(parallel_coordinates(part))["dropped"].data_source.data["ys"]
    assert np.isfinite(first).all()
    assert np.isnan(fourth[-1])
    assert lines(rung_curves(part))["dropped"].data_source.data["xs"] == [[1], []]


def test_the_page_says_what_was_searched(tmp_path: Path) -> None:
    section = describe_search(trials().assign_attrs(users=0.2))
    assert section.text == (
        "4 configurations of implicit-als on the split time:0.2, on 20 % of the users, by halving: "
        "8 iterations in all. Best: regularization 0.1, solver auto, factors 4."
    )
    assert "of the users" not in describe_search(trials()).text
    page = Path(write_page(tmp_path / "page.html", title="Search", sections=[section])).read_text()
    assert "Metric at each rung" in page
    assert "Parameters and what they came to" in page


@pytest.mark.parametrize("draw", [parallel_coordinates, rung_curves, describe_search])
def test_other_data_are_refused(draw: object) -> None:
    with pytest.raises(InputError, match="expected those of a SearchResult"):
        draw(xr.Dataset({"metric": ("trial", [1.0])}))  # type: ignore[operator]
