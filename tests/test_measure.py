"""All metrics of whole models against brute force: by group, by user, and on a cluster."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from distributed import Client

import dasrec
from dasrec import ALS, InputError, Interactions, Popular
from dasrec.evaluate import evaluate_users
from dasrec.metrics import METRICS, USUAL
from dasrec.results import as_record
from dasrec.testing import planted_matrix
from tests import references
from tests import references_metrics as twins
from tests.snippets import python_blocks

# all but the one for chances
NAMES = [name for name in METRICS if name != "log_loss"]
LISTS = [name for name in NAMES if METRICS[name].kind != "values"]
N = 4


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    """A store in many blocks."""
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 60):
        made = dasrec.interactions_from_scipy(
            planted_matrix(), tmp_path_factory.mktemp("measure") / "cut"
        )
    assert len(made.cuts("user_items")) > 20
    return made


@pytest.fixture(scope="module")
def split(cut: Interactions) -> dasrec.Split:
    return dasrec.split_random(cut, 0.25, rng=2)


@pytest.fixture(scope="module")
def model(split: dasrec.Split) -> ALS:
    return ALS(factors=3, iterations=2, rng=0).fit(split.train)


def brute_force(
    model: ALS, split: dasrec.Split, groups: np.ndarray
) -> tuple[list[twins.Person], twins.Catalogue]:
    """Rank everything for everybody with something to find."""
    users, items = model.scoring_vectors()
    scores = users @ items.T
    seen = references.rows_as_sets(split.seen.to_scipy())
    lists, _ = references.top_n(scores, N, seen)
    test = split.test.to_scipy()
    people = []
    for user, listed in enumerate(lists):
        row = test[[user]].tocoo()
        truth = dict(zip(row.col.tolist(), row.data.tolist(), strict=True))
        people.append(
            twins.Person(listed, truth, frozenset(seen[user]), tuple(scores[user].tolist()))
        )
    counts = np.bincount(split.train.to_scipy().indices, minlength=len(items)).tolist()
    n_trained = int((np.diff(split.train.to_scipy().indptr) > 0).sum())
    factors = model.item_factors_.values.astype(float)
    return people, twins.Catalogue(counts, n_trained, groups.tolist(), factors)


def thirds_of(counts: list[int]) -> np.ndarray:
    order = sorted(range(len(counts)), key=lambda item: (-counts[item], item))
    before, codes = 0, np.full(len(counts), 2)
    for item in order:
        if counts[item]:
            codes[item] = 3 * before // sum(counts)
        before += counts[item]
    return codes


def test_all_metrics_are_what_brute_force_finds(split: dasrec.Split, model: ALS) -> None:
    people, known = brute_force(model, split, np.zeros(60, int))
    known.groups[:] = thirds_of(known.counts).tolist()
    assert set(known.groups) == {0, 1, 2}
    expected = twins.measure(people, n=N, catalogue=known)
    measured = dasrec.evaluate(model, split, n=[N, 2], metrics=NAMES)
    for name, value in expected.items():
        found = measured[name]
        assert found.dims == (("n",) if METRICS[name].kind == "ranking" else ())
        found = found.sel(n=N) if "n" in found.dims else found
        assert found.item() == pytest.approx(value, rel=1e-5), name
    assert set(measured.data_vars) == {*expected, "rmse", "mae"}
    assert 0.5 < measured["auc"] < 1


def test_groups_are_what_brute_force_finds(split: dasrec.Split, model: ALS) -> None:
    countries = np.array(["se", "de", None], object)[np.arange(120) % 3]
    genres = np.arange(60) % 4
    people, known = brute_force(model, split, genres)
    measured = dasrec.evaluate(
        model, split, n=[2, N], metrics=NAMES, groups={"user": countries, "item": genres}
    )
    assert measured["recall"].dims == ("user_group", "item_group", "n")
    assert measured["rmse"].dims == ("user_group", "item_group")
    assert measured["calibration"].dims == ("user_group", "n")
    assert measured["user_group"].values.tolist() == ["de", "se"]
    assert measured["item_group"].values.tolist() == [0, 1, 2, 3]
    for country in ("de", "se"):
        some = [one for one, label in zip(people, countries, strict=True) if label == country]
        whole = twins.measure(some, n=N, catalogue=known)
        for genre in range(4):
            inside = set(np.flatnonzero(genres == genre).tolist())
            expected = twins.measure(some, n=N, catalogue=known, inside=inside)
            expected["calibration"] = whole["calibration"]
            for name in LISTS:
                here = {"user_group": country, "item_group": genre, "n": N}
                dims = {dim: at for dim, at in here.items() if dim in measured[name].dims}
                found = measured[name].sel(dims).item()
                assert found == pytest.approx(expected[name], rel=1e-5, nan_ok=True), name


def test_errors_by_group_are_those_of_their_cells(split: dasrec.Split, model: ALS) -> None:
    genres = np.arange(60) % 2
    measured = dasrec.evaluate(model, split, metrics=["mae"], groups={"item": genres})
    test = split.test.to_scipy().tocoo()
    users, items = model.scoring_vectors()
    errors = np.abs(test.data - (users @ items.T)[test.row, test.col])
    for genre in (0, 1):
        expected = errors[genres[test.col] == genre].mean()
        assert measured["mae"].sel(item_group=genre).item() == pytest.approx(expected, rel=1e-5)


def test_groups_of_popularity_are_thirds_of_the_training_part(
    split: dasrec.Split, model: ALS
) -> None:
    found = dasrec.evaluate(model, split, metrics=["recall"], groups={"item": "popularity"})
    assert found["item_group"].values.tolist() == ["head", "middle", "tail"]
    counts = np.bincount(split.train.to_scipy().indices, minlength=60).tolist()
    labels = np.array(["head", "middle", "tail"])[thirds_of(counts)]
    same = dasrec.evaluate(model, split, metrics=["recall"], groups={"item": labels})
    xr.testing.assert_equal(found, same)


def test_a_record_names_groups(split: dasrec.Split, model: ALS) -> None:
    groups = {"item": "popularity", "user": np.arange(120) % 2}
    metrics = ["recall", "mae", "calibration"]
    measured = dasrec.evaluate(model, split, n=[2, 4], metrics=metrics, groups=groups)
    figures = as_record(measured)["metrics"]
    assert len(figures) == 12 + 6 + 4
    tail = measured["recall"].sel(user_group=1, item_group="tail", n=4).item()
    assert figures["recall/1/tail@4"] == tail
    assert figures["mae/0/head"] == measured["mae"].sel(user_group=0, item_group="head").item()
    assert figures["calibration/1@2"] == measured["calibration"].sel(user_group=1, n=2).item()


def test_values_of_users_have_the_means_of_the_evaluation(split: dasrec.Split, model: ALS) -> None:
    names = [name for name in NAMES if METRICS[name].values is not None]
    each = evaluate_users(model, split, n=[2, N], metrics=names)
    whole = dasrec.evaluate(model, split, n=[2, N], metrics=names)
    n_truth = np.diff(split.test.to_scipy().indptr)
    assert each["user_id"].values.tolist() == np.flatnonzero(n_truth).tolist()
    for name in names:
        assert each[name].dims[0] == "user"
        assert each[name].dtype == np.float64
        xr.testing.assert_allclose(each[name].mean("user"), whole[name].drop_attrs(), rtol=1e-12)
    precision = each["precision"].sel(n=N).values
    assert set((precision * N).round().tolist()) <= set(range(N + 1))
    assert precision.std() > 0.1


def test_values_of_users_leave_out_what_is_no_mean(split: dasrec.Split, model: ALS) -> None:
    usual = {metric.name for metric in USUAL} - {"rmse", "mae", "item_coverage"}
    assert set(evaluate_users(model, split).data_vars) == usual
    with pytest.raises(InputError, match="gini, mae is no mean over users; leave it out, or call"):
        evaluate_users(model, split, metrics=["gini", "recall", "mae"])
    theirs = evaluate_users(model, split, n=2, compat="vae")
    assert set(theirs.data_vars) == {"recall", "ndcg"}
    assert theirs["recall"].mean() > evaluate_users(model, split, n=2)["recall"].mean()


def test_results_are_the_same_on_a_cluster(
    split: dasrec.Split, model: ALS, cluster_client: Client
) -> None:
    options = {"metrics": NAMES, "groups": {"item": "popularity", "user": np.arange(120) % 2}}
    there = dasrec.evaluate(model, split, **options)
    users_there = evaluate_users(model, split, metrics=["auc", "recall"])
    theirs = dasrec.evaluate(model, split, compat="lenskit")
    with cluster_client.as_current(), mock.patch("dasrec.blocks.active_client", return_value=None):
        xr.testing.assert_identical(dasrec.evaluate(model, split, **options), there)
        here = evaluate_users(model, split, metrics=["auc", "recall"])
        xr.testing.assert_identical(here, users_there)
        xr.testing.assert_identical(dasrec.evaluate(model, split, compat="lenskit"), theirs)


def test_users_are_scored_a_few_at_a_time(split: dasrec.Split, model: ALS) -> None:
    whole = dasrec.evaluate(model, split, metrics=["auc"])["auc"].item()
    with mock.patch("dasrec.measure.SCORE_CELLS", 130):
        assert dasrec.evaluate(model, split, metrics=["auc"])["auc"].item() == pytest.approx(whole)


def test_what_makes_no_sense_is_refused(split: dasrec.Split, model: ALS) -> None:
    def refused(message: str, **options: object) -> None:
        with pytest.raises(InputError, match=message):
            dasrec.evaluate(model, split, **options)

    refused("groups has the key 'items'; expected user or item", groups={"items": np.arange(60)})
    few = {"item": ["a", "b"]}
    refused(r"groups\['item'\] has the shape \(2,\); expected one label for each of 60", groups=few)
    refused(r"groups\['item'\] has no label that is not missing", groups={"item": [None] * 60})
    both = {"compat": "vae", "groups": {"item": "popularity"}}
    refused("groups of items go with our own formulas", **both)
    refused(r"groups\['user'\] has the shape \(\)", groups={"user": "popularity"})
    refused("compat is 'spark'; expected one of: implicit", compat="spark")
    refused("metric 'mrr' is unknown to compat='implicit'", compat="implicit", metrics=["mrr"])
    refused("log_loss is for values from 0 to 1", metrics=["log_loss"])
    popular = Popular().fit(split.train)
    with pytest.raises(InputError, match="diversity needs item factors, and what is measured has"):
        dasrec.evaluate(popular, split, metrics=["diversity"])


def test_the_example_of_groups_runs(split: dasrec.Split, model: ALS) -> None:
    (block,) = python_blocks(Path(__file__).parents[1] / "docs" / "metrics.md")
    countries = pd.Series(["se", "de"] * 60)
    names = {"dasrec": dasrec, "model": model, "split": split, "countries": countries}
    exec(compile(block, "metrics.md", "exec"), names)
    assert names["measured"]["recall"].sizes == {"user_group": 2, "item_group": 3, "n": 1}
