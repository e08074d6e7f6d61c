"""Evaluations show themselves as tables, stay datasets, and come back from their records."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import dasrec
from dasrec import InputError
from dasrec.evaluate import evaluate_all, evaluate_both
from dasrec.models import Model
from dasrec.results import Comparison, Evaluation, as_record, as_records, from_record
from dasrec.split import Split
from dasrec.testing import planted_matrix
from tests.test_cards import page_of


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    place = tmp_path_factory.mktemp("results") / "data"
    return dasrec.split_random(dasrec.interactions_from_scipy(planted_matrix(), place), 0.3, rng=0)


@pytest.fixture(scope="module")
def models(split: Split) -> list[Model]:
    first: Model = dasrec.Popular().fit(split.train)
    return [first, dasrec.ImplicitALS(factors=3, iterations=2, rng=0).fit(split.train)]


def test_an_evaluation_is_a_table_of_its_metrics(split: Split, models: list[Model]) -> None:
    found = dasrec.evaluate(models[1], split, n=(3, 5))
    assert isinstance(found, xr.Dataset)
    lines = repr(found).splitlines()
    assert lines[0] == f"<Evaluation of implicit-als on random:0.3, {found.n_users} users>"
    assert lines[1].split() == ["implicit-als"]
    (shown,) = [line.split()[1] for line in lines if line.startswith("ndcg@5")]
    assert shown == f"{float(found['ndcg'].sel(n=5)):.4f}"
    page = page_of(found)
    assert shown in page.text
    assert "as xarray" in page.text
    assert "details" in page.kinds


def test_models_stand_side_by_side_and_groups_too(split: Split, models: list[Model]) -> None:
    both = evaluate_all(models, split, n=5)
    assert isinstance(both, Evaluation)
    assert repr(both).splitlines()[1].split() == ["popular", "implicit-als"]
    assert "popular" in page_of(both).text
    labels = np.arange(split.train.n_users) % 2
    groups = {"item": "popularity", "user": labels}
    grouped = dasrec.evaluate(models[1], split, n=5, metrics=["ndcg", "recall"], groups=groups)
    text = repr(grouped)
    for words in ("user_group", "head", "tail"):
        assert words in text
        assert words in page_of(grouped).text
    value = float(grouped["recall"].sel(user_group=1, item_group="tail", n=5))
    assert text.splitlines()[-1].split()[-1] == f"{value:.4f}"


def test_comparisons_and_intervals(split: Split, models: list[Model]) -> None:
    compared = dasrec.compare(models, split, n=5, metrics=["ndcg"])
    assert isinstance(compared, Comparison)
    assert repr(compared).startswith("<Comparison of popular, implicit-als on random:0.3")
    assert f"{float(compared['p'][1, 0, 0]):.4f}" in repr(compared)
    assert "p (Holm)" in page_of(compared).text
    alone = dasrec.intervals(dasrec.evaluate_users(models[1], split, n=5, metrics=["ndcg"]))
    assert repr(alone).startswith("<Intervals of implicit-als")
    assert "95 % interval" in page_of(alone).text


def test_what_is_no_table_shows_itself_as_xarray_does(split: Split, models: list[Model]) -> None:
    found = dasrec.evaluate(models[1], split, n=5)
    for odd in (
        found.expand_dims("fold"),
        found.assign(words="x"),
        found[[]],
        found.chunk(),
        dasrec.compare(models, split, n=5).drop_vars("low"),
    ):
        assert "xarray" in repr(odd).splitlines()[0] or "Dimensions" in repr(odd)
        assert "dasrec-card" not in odd._repr_html_()
    assert repr(found.drop_attrs()).startswith("<Evaluation>")


def test_results_stay_results(split: Split, models: list[Model]) -> None:
    found = dasrec.evaluate(models[1], split, n=(3, 5))
    for kept in (found.sel(n=3), found[["ndcg"]], pickle.loads(pickle.dumps(found))):
        assert isinstance(kept, Evaluation)
    assert pickle.loads(pickle.dumps(found)).identical(found)


def test_one_pass_gives_both(split: Split, models: list[Model]) -> None:
    names = ["recall", "gini", "ndcg"]
    sums, values = evaluate_both(models[1], split, n=(3, 5), metrics=names)
    assert sums.identical(dasrec.evaluate(models[1], split, n=(3, 5), metrics=names))
    alone = dasrec.evaluate_users(models[1], split, n=(3, 5), metrics=["recall", "ndcg"])
    assert values.identical(alone)
    np.testing.assert_allclose(values["ndcg"].mean("user"), sums["ndcg"])
    _, none = evaluate_both(models[1], split, n=3, metrics=["gini"])
    assert not none.data_vars


def test_records_come_back(split: Split, models: list[Model]) -> None:
    found = dasrec.evaluate(models[1], split, n=(3, 5), metrics=["auc", "ndcg", "recall"])
    again = from_record(json.loads(json.dumps(as_record(found))), where="x")
    assert isinstance(again, Evaluation)
    xr.testing.assert_identical(again, found.drop_attrs().assign_attrs(found.attrs))
    compared = dasrec.compare(models, split, n=(3, 5), metrics=["ndcg", "recall"])
    again = from_record(json.loads(json.dumps(as_records(compared))), where="x")
    assert isinstance(again, Comparison)
    xr.testing.assert_equal(again.astype(float), compared.astype(float))
    assert again.attrs == compared.attrs


def test_records_by_groups_come_back(split: Split, models: list[Model]) -> None:
    users = np.arange(split.train.n_users) % 2
    labels = np.array(["a/b@3", "c"], object)[np.arange(split.train.n_items) % 2]
    names = ["auc", "calibration", "ndcg"]
    for groups in (
        {"user": users, "item": labels},
        {"item": "popularity"},
        {"user": users.astype(str)},
    ):
        found = dasrec.evaluate(models[1], split, n=(3, 5), metrics=names, groups=groups)
        again = from_record(json.loads(json.dumps(as_record(found))), where="x")
        xr.testing.assert_equal(again, found)
        assert again.attrs == found.attrs
        assert repr(again) == repr(found)


def test_several_models_are_told_apart_by_groups(split: Split, models: list[Model]) -> None:
    how: dict[str, Any] = {"n": 5, "metrics": ["recall"], "groups": {"item": "popularity"}}
    both = evaluate_all(models, split, **how)
    for place, model in enumerate(models):
        alone = dasrec.evaluate(model, split, **how)
        xr.testing.assert_equal(both["recall"].isel(model=place, drop=True), alone["recall"])
    theirs = evaluate_all(models, split, n=5, metrics=["ndcg"], compat="implicit")
    assert theirs.attrs["compat"] == "implicit"
    assert float(theirs["ndcg"][1, 0]) == float(
        dasrec.evaluate(models[1], split, n=5, metrics=["ndcg"], compat="implicit")["ndcg"][0]
    )


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({}, "x is no evaluation; expected what dasrec evaluate or compare print with --json"),
        ({"metrics": {}}, "x is no evaluation"),
        ({"metrics": {"recall/tail@5": 1}}, "x is damaged: KeyError '/tail@5'"),
        ({"metrics": {"recall@five": 1}}, "x is damaged: KeyError '@five'"),
        ({"figures": [{"model": "a"}]}, "x is damaged: KeyError"),
        ({"figures": [{"model": "a", "metric": "ndcg"}]}, "x is damaged"),
    ],
)
def test_other_records_are_refused(record: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        from_record(record, where="x")


def test_records_are_read_from_files(tmp_path: Path) -> None:
    place = tmp_path / "record.json"
    place.write_text(json.dumps({"model": "m", "split": "s", "metrics": {"ndcg@5": 0.5}}))
    found = from_record(json.loads(place.read_text()), where=str(place))
    assert repr(found).startswith("<Evaluation of m on s>")
