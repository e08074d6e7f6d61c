"""Full-batch gradient descent is the textbook's, on stored cells; what diverges is halved, told."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import dasrec
from dasrec import BudgetError, GradientDescent, InputError, Interactions, Training
from dasrec.kernels.gradient import gradient_step, row_gradients, squared_error
from dasrec.testing import planted_ratings
from tests import references_models as references
from tests.strategies import sparse_matrices


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dasrec.memory.LEAST_BLOCK_CELLS", 400)
        place = tmp_path_factory.mktemp("descent") / "data"
        made = dasrec.interactions_from_scipy(planted_ratings(), place)
    assert len(made.cuts("user_items")) > 4
    return made


def descent(**parameters: Any) -> GradientDescent:
    return GradientDescent(**{"factors": 3, "iterations": 5, "rng": 1, **parameters})


def learned(model: Any) -> list[Any]:
    arrays = (*model.scoring_vectors(), model.history_["objective"].values)
    return [each.copy() for each in arrays]


def same(one: list[Any], other: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@given(matrix=sparse_matrices(rows=6, columns=12), k=st.integers(1, 9), seed=st.integers(0, 99))
def test_gradients_of_rows_are_those_of_the_stored_cells(matrix: Any, k: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    rows, columns = (draw.normal(size=(n, k)).astype(np.float32) for n in matrix.shape)
    block = (matrix.indptr.astype(np.int64), matrix.indices, matrix.data)
    gradient, loss = row_gradients(block, rows, columns)
    cells = references.Cells.of(matrix)
    errors = (cells.weights - rows @ columns.T.astype(np.float64)) * cells.stored
    assert loss == pytest.approx((errors**2).sum(), rel=1e-4, abs=1e-4)
    np.testing.assert_allclose(gradient, errors @ columns, rtol=1e-3, atol=1e-3)


def test_where_all_cells_are_stored_it_is_the_dense_one(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    dense = draw.normal(size=(9, 7)).astype(np.float32)
    full = dasrec.interactions_from_scipy(sparse.csr_array(dense), tmp_path / "full")
    none = descent(learning_rate=1e-30, iterations=1).fit(full)  # as it begins
    left, right = (each.astype(np.float64) for each in none.scoring_vectors())
    expected = []
    for _ in range(20):
        left, right = gradient_step(dense.astype(np.float64), left, right, 0.01)
        expected.append(squared_error(dense.astype(np.float64), left, right))
    model = descent(learning_rate=0.01, iterations=20).fit(full)
    assert model.history_["objective"].values == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(model.user_factors_, left, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(model.item_factors_, right, rtol=1e-3, atol=1e-4)
    assert (model.history_["learning_rate"].values == 0.01).all()


@pytest.mark.parametrize("regularization", [0.0, 2.0])
def test_a_step_goes_down_the_gradient_of_what_the_history_tells(
    data: Interactions, regularization: float
) -> None:
    cells = references.Cells.of(data.to_scipy())

    def objective(users: Any, items: Any) -> float:
        errors = (cells.weights - users @ items.T) * cells.stored
        return float((errors**2).sum() + regularization * ((users**2).sum() + (items**2).sum()))

    settings: dict[str, Any] = {"learning_rate": 1e-4, "regularization": regularization}
    one, two = (descent(iterations=n, **settings).fit(data) for n in (1, 2))
    users, items = (each.astype(np.float64) for each in one.scoring_vectors())
    told = one.history_["objective"].values[-1]
    assert told == pytest.approx(objective(users, items), rel=1e-4)
    loss = objective(users, items) - regularization * ((users**2).sum() + (items**2).sum())
    rmse = one.history_["train_rmse"].values[-1]
    assert rmse == pytest.approx(np.sqrt(loss / data.n_stored), rel=1e-4)
    rows = [0, 5, 50]
    for side, moved in enumerate(two.scoring_vectors()):
        at = (users, items)[side]

        def along(point: Any, side: int = side) -> float:
            return objective(*((point, items) if side == 0 else (users, point)))

        slopes = references.slopes(along, at, rows=rows)
        np.testing.assert_allclose(moved[rows], at[rows] - 1e-4 * slopes, atol=1e-4)


@pytest.mark.parametrize("learning_rate", [1.0, 1e20])
def test_a_step_that_is_too_long_is_halved_and_told(
    data: Interactions, caplog: pytest.LogCaptureFixture, learning_rate: float
) -> None:
    with caplog.at_level(logging.WARNING):
        model = descent(learning_rate=learning_rate, iterations=10).fit(data)
    told = [each.getMessage() for each in caplog.records]
    assert told[0].startswith(f"gd: a step of {learning_rate:g} takes the objective from ")
    assert told[0].endswith("trying half of it")
    history = model.history_
    assert learning_rate / history["learning_rate"].values[-1] == 2.0 ** len(told)
    assert (np.diff(history["objective"].values) <= 0).all()
    assert all(np.isfinite(each).all() for each in learned(model))


def test_at_the_minimum_it_stays(tmp_path: Path) -> None:
    one = sparse.csr_array(([2.0], ([0], [0])), shape=(2, 2), dtype=np.float32)
    data = dasrec.interactions_from_scipy(one, tmp_path / "one")
    model = descent(factors=1, iterations=300, learning_rate=0.05).fit(data)
    assert model.score(np.array([0]), np.array([0])) == pytest.approx([2.0])
    assert np.isfinite(model.history_["objective"].values).all()


def test_folding_in_solves_users_exactly(data: Interactions) -> None:
    model = descent(iterations=50, regularization=0.5).fit(data)
    items = model.item_factors_.values.astype(np.float64)
    folded = model.fold_in(data)
    cells = references.Cells.of(data.to_scipy())
    for user in (0, 17, 99):
        held = items[cells.stored[user]]
        system = held.T @ held + 0.5 * np.eye(3)
        expected = np.linalg.solve(system, held.T @ cells.weights[user, cells.stored[user]])
        np.testing.assert_allclose(folded[user], expected, rtol=1e-3, atol=1e-4)


def test_a_stopped_fit_goes_on_with_the_same_bits(data: Interactions, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"learning_rate": 0.1}  # which is halved on the way
    whole = descent(iterations=6, **settings).fit(data)
    place = tmp_path / "checkpoint"
    descent(iterations=3, **settings).fit(data, training=Training(checkpoint=place))
    training = Training(checkpoint=place, resume=True)
    again = descent(iterations=6, **settings).fit(data, training=training)
    assert whole.history_["learning_rate"].values[-1] < 0.1
    assert same(learned(again), learned(whole))


def test_any_number_of_threads_gives_the_same_bits(data: Interactions) -> None:
    with dask.config.set(scheduler="synchronous"):
        alone = learned(descent().fit(data))
    with dask.config.set(scheduler="threads", num_workers=4):
        assert same(learned(descent().fit(data)), alone)
    assert not same(learned(descent(rng=2).fit(data)), alone)


@pytest.mark.slow
def test_processes_give_the_bits_of_threads(data: Interactions, cluster_client: Client) -> None:
    with dask.config.set(scheduler="synchronous"):
        alone = learned(descent().fit(data))
    assert same(learned(descent().fit(data)), alone)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"factors": 0}, "factors is 0"),
        ({"learning_rate": 0}, "learning_rate is 0; expected a finite number greater than 0"),
        ({"regularization": -1}, "regularization is -1; expected a finite number of at least 0"),
        ({"iterations": 0}, "iterations is 0"),
        ({"init_scale": 0}, "init_scale is 0"),
    ],
)
def test_bad_parameters_are_refused(
    data: Interactions, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        descent(**parameters).fit(data)


def test_nothing_to_learn_from_is_refused(data: Interactions) -> None:
    with pytest.raises(InputError, match="no interactions to learn from"):
        descent().fit(dasrec.split_random(data, 1e-9, rng=1).test)


def test_what_does_not_fit_in_memory_is_refused(data: Interactions, tmp_path: Path) -> None:
    """With a checkpoint too: factors do not go to files."""
    training = Training(memory=10_000, checkpoint=tmp_path / "model")
    with pytest.raises(BudgetError, match=r"fitting vectors of 3 numbers .* use fewer factors"):
        descent().fit(data, training=training)
