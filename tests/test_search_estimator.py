"""Models go through the tools of scikit-learn and dask-ml: every one is an estimator."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from dask_ml.model_selection import GridSearchCV
from sklearn import model_selection
from sklearn.base import clone

import dasrec
from dasrec import (
    ALS,
    Biases,
    ImplicitALS,
    InputError,
    Interactions,
    RankingEstimator,
    cells_of,
    holdout,
)
from dasrec.models import MODELS
from dasrec.testing import planted_matrix, planted_ratings, some_ids

GRID = {"model__regularization": [0.1, 30.0], "model__factors": [2, 4]}
FOLDS = model_selection.KFold(3, shuffle=True, random_state=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    matrix = planted_matrix()
    user_ids, item_ids = some_ids(matrix.shape[0], str), some_ids(matrix.shape[1], int)
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 400):
        place = tmp_path_factory.mktemp("estimator") / "data"
        made = dasrec.interactions_from_scipy(matrix, place, user_ids=user_ids, item_ids=item_ids)
    assert len(made.cuts("user_items")) > 3
    return made


def estimator(data: Interactions, **options: Any) -> RankingEstimator:
    return RankingEstimator(ImplicitALS(iterations=3, rng=0), data, metric="ndcg@5", **options)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_speaks_scikit_learn(name: str) -> None:
    """Each parameter can be read, set, copied and told apart from what is learned."""
    model = MODELS[name]()
    parameters = model.get_params()
    for key, value in parameters.items():
        other = not value if isinstance(value, bool) else "other"
        assert model.set_params(**{key: other}) is model
        assert model.get_params() == {**parameters, key: other}
        assert clone(model).get_params() == model.get_params()
        assert MODELS[name](**model.get_params()).get_params() == model.get_params()
        model.set_params(**{key: value})
    assert model.get_params() == parameters
    assert repr(MODELS[name]()) == f"{MODELS[name].__name__}()"
    with pytest.raises(ValueError, match="no_such"):
        model.set_params(no_such=1)


def test_cells_are_those_of_the_matrix(data: Interactions) -> None:
    users, items = data.to_scipy().nonzero()
    cells = cells_of(data)
    assert cells.dtype == np.int64
    assert np.array_equal(cells, np.column_stack([users, items]))
    part = dasrec.split_random(data, 0.3, rng=0).test
    assert len(cells_of(part)) == part.counts("user_items").sum()


def test_a_fit_on_cells_is_that_of_a_split(data: Interactions) -> None:
    """And so is the score; what a fit sees is a mask, and the store stays as it is."""
    cells = cells_of(data)
    train, test = model_selection.train_test_split(cells, random_state=0)
    fitted = estimator(data).fit(train)
    expected = np.sort(data.user_ids.ids_of(train[:, 0]))
    view = fitted.train_
    assert view.counts("user_items").sum() == len(train)
    assert set(data.user_ids.ids[view.counts("user_items") > 0]) == set(expected)
    ids = {
        "user_ids": data.user_ids.ids_of(test[:, 0]),
        "item_ids": data.item_ids.ids_of(test[:, 1]),
    }
    split = dasrec.split_listed(data, **ids, name="same")
    model = ImplicitALS(iterations=3, rng=0).fit(split.train)
    for one, other in zip(model.scoring_vectors(), fitted.model_.scoring_vectors(), strict=True):
        assert np.array_equal(one, other)
    assert fitted.score(test) == holdout(split, "ndcg@5")(model)
    assert fitted.model.get_params() == fitted.model_.get_params()
    assert not hasattr(fitted.model, "trained_on_")


@pytest.mark.parametrize("scheduler", ["threads", "sync"])
def test_dask_ml_searches_it(data: Interactions, scheduler: str) -> None:
    """As scikit-learn does, but that it weighs folds by their size."""
    cells = cells_of(data)
    ours = GridSearchCV(estimator(data), GRID, cv=FOLDS, scheduler=scheduler).fit(cells)
    theirs = model_selection.GridSearchCV(estimator(data), GRID, cv=FOLDS).fit(cells)
    for fold in range(3):
        name = f"split{fold}_test_score"
        assert np.array_equal(ours.cv_results_[name], theirs.cv_results_[name])
    scores = ours.cv_results_["mean_test_score"]
    assert scores == pytest.approx(theirs.cv_results_["mean_test_score"], abs=1e-3)
    assert ours.best_params_ == theirs.best_params_
    assert ours.best_params_["model__regularization"] == 0.1
    best = ours.best_estimator_
    assert best.model_.regularization == 0.1
    assert best.train_.counts("user_items").sum() == len(cells)


@pytest.mark.slow
def test_dask_ml_searches_it_on_a_cluster(cluster_client: object, data: Interactions) -> None:
    """Each fit is a task that asks for no other worker."""
    cells = cells_of(data)
    search = GridSearchCV(estimator(data), GRID, cv=FOLDS, scheduler=cluster_client).fit(cells)
    theirs = model_selection.GridSearchCV(estimator(data), GRID, cv=FOLDS).fit(cells)
    for fold in range(3):
        name = f"split{fold}_test_score"
        assert np.array_equal(search.cv_results_[name], theirs.cv_results_[name])


@pytest.mark.parametrize("model", [ALS(factors=2, iterations=2, rng=0), Biases()])
def test_ratings_are_scored_by_their_error(tmp_path: Path, model: dasrec.Model) -> None:
    data = dasrec.interactions_from_scipy(planted_ratings(), tmp_path / "data")
    scored = RankingEstimator(model, data, metric="rmse")
    scores = model_selection.cross_val_score(scored, cells_of(data), cv=FOLDS)
    assert (scores < 0).all()  # the larger the better
    assert len(set(scores)) == 3


def test_it_is_copied_with_its_model(data: Interactions) -> None:
    one = estimator(data, tested=50).fit(cells_of(data))
    other = clone(one).set_params(model__factors=2, metric="recall@5")
    assert (one.model.factors, other.model.factors) == (64, 2)
    assert (other.tested, other.metric) == (50, "recall@5")
    assert not hasattr(other, "model_")
    assert other.interactions == data


@pytest.mark.parametrize(
    "cells", [np.zeros((3, 3), int), np.zeros(4, int), np.zeros((2, 2)), [["a", "b"]]]
)
def test_what_is_no_cell_is_refused(data: Interactions, cells: Any) -> None:
    with pytest.raises(InputError, match=r"X has shape .*; expected whole numbers of users and"):
        estimator(data).fit(cells)


def test_an_unfitted_one_says_so(data: Interactions) -> None:
    with pytest.raises(InputError, match=r"not fitted; call fit\(X\) first"):
        estimator(data).score(cells_of(data))
