"""The objectives, recomputed densely in float64; bad parameters; clusters."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import dask
import numpy as np
import pytest

import dasrec
from dasrec import ALS, ImplicitALS, InputError, Interactions
from dasrec.testing import planted_matrix


@pytest.fixture
def data(tmp_path: Path) -> Interactions:
    return dasrec.interactions_from_scipy(planted_matrix(), tmp_path / "data")


def implicit_objective(matrix: np.ndarray, model: ImplicitALS) -> float:
    x, y = (f.values.astype(float) for f in (model.user_factors_, model.item_factors_))
    scores, there, a = x @ y.T, matrix != 0, model.unobserved_weight
    loss = (matrix * (1 - scores) ** 2).sum() + a * (scores**2).sum()
    for vectors, counts, other in ((x, there.sum(1), len(y)), (y, there.sum(0), len(x))):
        ridge = model.regularization * (counts + a * other) ** model.regularization_exponent
        loss += (ridge * (vectors**2).sum(axis=1)).sum()
    return float(loss)


def explicit_objective(matrix: np.ndarray, model: ALS) -> tuple[float, float]:
    p, q = (f.values.astype(float) for f in (model.user_factors_, model.item_factors_))
    b, c = (f.values.astype(float) for f in (model.user_biases_, model.item_biases_))
    there = matrix != 0
    errors = (matrix - (float(model.mean_) + b[:, None] + c[None, :] + p @ q.T))[there]
    penalty = (there.sum(1) * ((p**2).sum(1) + b**2)).sum()
    penalty += (there.sum(0) * ((q**2).sum(1) + c**2)).sum()
    return float((errors**2).sum() + model.regularization * penalty), float(
        np.sqrt((errors**2).mean())
    )


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("weight", [0.1, 1.0])
def test_implicit_history_is_the_objective_and_falls(
    data: Interactions, exponent: float, weight: float
) -> None:
    model = ImplicitALS(
        factors=6,
        iterations=8,
        regularization=0.3,
        unobserved_weight=weight,
        regularization_exponent=exponent,
        rng=0,
    ).fit(data)
    history = model.history_["objective"].values
    assert (np.diff(history) < 0).all()
    expected = implicit_objective(data.to_scipy().toarray().astype(float), model)
    assert history[-1] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("biases", [True, False])
def test_explicit_history_is_the_objective_and_falls(data: Interactions, *, biases: bool) -> None:
    model = ALS(factors=5, iterations=8, biases=biases, rng=0).fit(data)
    history = model.history_["objective"].values
    assert (np.diff(history) < 0).all()
    objective, rmse = explicit_objective(data.to_scipy().toarray().astype(float), model)
    assert history[-1] == pytest.approx(objective, rel=1e-4)
    assert model.history_["train_rmse"].values[-1] == pytest.approx(rmse, rel=1e-4)
    assert (model.user_biases_.values != 0).any() == biases


def test_items_are_at_the_minimum_that_users_leave(data: Interactions) -> None:
    """After its half-sweep the gradient of the objective by each item's vector is zero."""
    model = ImplicitALS(factors=4, iterations=3, rng=0).fit(data)
    matrix = data.to_scipy().toarray().astype(float)
    base = implicit_objective(matrix, model)
    draw = np.random.default_rng(0)
    for _ in range(5):
        moved = ImplicitALS(**model.get_params())
        moved.user_factors_ = model.user_factors_
        step = 1e-2 * draw.standard_normal(model.item_factors_.shape)
        moved.item_factors_ = model.item_factors_ + step
        up = implicit_objective(matrix, moved)
        moved.item_factors_ = model.item_factors_ - step
        down = implicit_objective(matrix, moved)
        assert min(up, down) > base
        assert abs(up - down) < 0.02 * (up + down - 2 * base)


@pytest.mark.parametrize(
    "model", [ALS(factors=3, iterations=2), ImplicitALS(factors=3, iterations=2)]
)
def test_rows_without_interactions_get_zeros(data: Interactions, model: Any) -> None:
    model.fit(data)
    assert not model.user_factors_.values[-1].any()
    assert not model.item_factors_.values[-1].any()
    assert np.isfinite(model.user_factors_.values).all()


def test_users_without_interactions_are_ranked_by_popularity(data: Interactions) -> None:
    model = ImplicitALS(factors=3, iterations=2, rng=0).fit(data)
    popular = dasrec.Popular().fit(data)
    stranger = data.user_ids.ids[-1:]
    ours, theirs = (each.recommend(stranger, n=9)["item_id"].values for each in (model, popular))
    assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"factors": 0}, "factors is 0; expected a whole number, at least 1"),
        ({"factors": 2.5}, "factors is 2.5; expected a whole number"),
        ({"iterations": 0}, "iterations is 0"),
        ({"regularization": 0}, "regularization is 0; expected a finite number greater than 0"),
        ({"regularization": float("nan")}, "regularization is nan"),
        ({"unobserved_weight": -1}, "unobserved_weight is -1"),
        ({"rng": -3}, "rng is -3"),
    ],
)
def test_bad_parameters_are_refused(
    data: Interactions, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        ImplicitALS(**parameters).fit(data)


def test_negative_weights_are_refused(tmp_path: Path) -> None:
    matrix = planted_matrix()
    matrix.data[3] = -1
    data = dasrec.interactions_from_scipy(matrix, tmp_path / "data")
    with pytest.raises(InputError, match="negative weights"):
        ImplicitALS(factors=2).fit(data)
    ALS(factors=2, iterations=1).fit(data)


def test_folding_in_gives_the_vectors_of_a_user_sweep(data: Interactions) -> None:
    model = ImplicitALS(factors=4, iterations=30, rng=0).fit(data)
    folded = model.fold_in(data)
    assert np.allclose(folded, model.scoring_vectors()[0], atol=2e-2)


def test_an_interrupted_fit_leaves_the_model_unfitted(data: Interactions) -> None:
    model = ImplicitALS(factors=4, rng=0)
    with (
        mock.patch("dasrec.models.als.solve_rows", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        model.fit(data)
    with pytest.raises(InputError, match="not fitted"):
        model.recommend(np.array([0]))


@pytest.mark.parametrize(
    "model", [ALS(factors=4, iterations=3, rng=1), ImplicitALS(factors=4, iterations=3, rng=1)]
)
def test_processes_and_threads_give_the_same_bits(
    tmp_path: Path, cluster_client: Any, model: Any
) -> None:
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 100):
        data = dasrec.interactions_from_scipy(planted_matrix(), tmp_path / "data")
    assert len(data.cuts("user_items")) > 5
    on_processes = model.fit(data).user_factors_.values.copy()
    with dask.config.set(scheduler="synchronous"):
        alone = model.fit(data).user_factors_.values.copy()
    with dask.config.set(scheduler="threads"):
        in_threads = model.fit(data).user_factors_.values.copy()
    assert np.array_equal(on_processes, alone)
    assert np.array_equal(in_threads, alone)
