"""SVD++: what users have rated counts; y moves down its gradient as far as the objective falls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import dask
import numpy as np
import pytest
from distributed import Client

import dasrec
from dasrec import Interactions, SVDpp, Training
from dasrec.strata import Strata, cut_strata
from dasrec.testing import planted_ratings
from tests import references_models as references


@pytest.fixture(autouse=True)
def many_strata() -> Iterator[None]:
    with mock.patch("dasrec.strata.TASK_CELLS", 300), mock.patch("dasrec.strata.LEAST_ITEMS", 8):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 400):
        place = tmp_path_factory.mktemp("svdpp") / "data"
        made = dasrec.interactions_from_scipy(planted_ratings(), place)
    assert len(made.cuts("user_items")) > 4
    return made


def svdpp(**parameters: Any) -> SVDpp:
    return SVDpp(**{"factors": 3, "iterations": 3, "rng": 1, **parameters})


def learned(model: Any) -> list[Any]:
    arrays = (*model.scoring_vectors(), model.history_["objective"].values)
    return [each.copy() for each in arrays]


def same(one: list[Any], other: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def pooled(stored: Any, implicit: Any) -> Any:
    return stored @ implicit / np.sqrt(np.maximum(stored.sum(axis=1), 1))[:, None]


def objective_of(data: Interactions, mean: float, state: Any, k: int) -> Any:
    """Return the objective as a function of y, the rest as in a state; plain and in float64."""
    cells = references.Cells.of(data.to_scipy())
    users, items = (each.astype(np.float64) for each in state)
    stored = cells.stored.astype(np.float64)
    counts = (stored.sum(axis=1), stored.sum(axis=0), stored.T @ stored.sum(axis=1))
    own = users[:, :k] - users[:, k + 1 :]

    def objective(implicit: Any) -> float:
        scores = (own + pooled(stored, implicit)) @ items[:, :k].T
        scores += mean + users[:, k, None] + items[:, k]
        total = ((cells.weights - scores)[cells.stored] ** 2).sum()
        penalty = counts[0] @ ((own**2).sum(axis=1) + users[:, k] ** 2)
        penalty += counts[1] @ (items[:, : k + 1] ** 2).sum(axis=1)
        return float(total + 0.08 * (penalty + counts[2] @ (implicit**2).sum(axis=1)))

    return objective


@pytest.fixture
def closed(data: Interactions) -> tuple[SVDpp, Strata, Any, Any]:
    """Return a model, and its state before and after the step of y of one more epoch."""
    model = svdpp().fit(data)
    strata = cut_strata(data, seed=1, cache_bytes=0)
    users, items = before = model._state()
    users = users.copy()
    return model, strata, before, (users, model._close(data, strata, users, items))


def test_the_step_of_y_is_as_long_as_the_objective_falls(
    data: Interactions, closed: tuple[SVDpp, Strata, Any, Any]
) -> None:
    model, _, before, after = closed
    objective = objective_of(data, float(model.mean_), before, 3)
    start, end = (each[1][:, 4:].astype(np.float64) for each in (before, after))
    way = end - start
    assert np.abs(way).max() > 1e-5
    figures = [objective(start + length * way) for length in (0.0, 0.9, 1.0, 1.1)]
    assert min(figures) == figures[2] < figures[0]
    slopes = references.slopes(objective, start, rows=range(59))
    cells = references.Cells.of(data.to_scipy()).stored.astype(np.float64)
    counts = (cells.T @ cells.sum(axis=1))[:59, None]
    expected = -slopes / counts
    assert (way[:59] / np.linalg.norm(way)) == pytest.approx(
        expected / np.linalg.norm(expected), abs=1e-3
    )


def test_users_follow_what_they_have_rated(
    data: Interactions, closed: tuple[SVDpp, Strata, Any, Any]
) -> None:
    _, _, before, (users, items) = closed
    stored = references.Cells.of(data.to_scipy()).stored.astype(np.float64)
    np.testing.assert_allclose(users[:, 4:], pooled(stored, items[:, 4:]), atol=1e-6)
    own = [each[:, :3] - each[:, 4:] for each in (before[0], users)]
    np.testing.assert_allclose(*own, atol=1e-6)
    assert np.array_equal(before[0][:, 3], users[:, 3])
    assert np.array_equal(before[1][:, :4], items[:, :4])


def test_the_history_holds_the_objective(data: Interactions) -> None:
    model = svdpp(iterations=60, learning_rate=0.02, decay=0.2).fit(data)
    users, items = model._state()
    objective = objective_of(data, float(model.mean_), (users, items), 3)
    # y is in the objective of the model, and not in what stochastic steps have met
    told = model.history_["objective"].values[-1]
    assert told == pytest.approx(objective(items[:, 4:].astype(np.float64)), rel=0.03)
    assert model.implicit_factors_.values.any()


def test_folding_in_solves_users_exactly(data: Interactions) -> None:
    model = svdpp(iterations=10).fit(data)
    folded = model.fold_in(data)
    cells = references.Cells.of(data.to_scipy())
    items = np.column_stack([model.item_factors_.values, np.ones(60)]).astype(np.float64)
    z = pooled(cells.stored.astype(np.float64), model.implicit_factors_.values)
    for user in (0, 17, 99):
        held = cells.stored[user]
        left = cells.weights[user, held] - float(model.mean_) - model.item_biases_.values[held]
        left -= items[held, :3] @ z[user]
        system = items[held].T @ items[held] + 0.08 * held.sum() * np.eye(4)
        expected = np.linalg.solve(system, items[held].T @ left)
        np.testing.assert_allclose(folded[user, :3], expected[:3] + z[user], atol=1e-3)
        assert folded[user, 3] == pytest.approx(expected[3] + float(model.mean_), abs=1e-3)


def test_a_stopped_fit_goes_on_with_the_same_bits(data: Interactions, tmp_path: Path) -> None:
    whole = svdpp(iterations=4).fit(data)
    place = tmp_path / "checkpoint"
    svdpp(iterations=2).fit(data, training=Training(checkpoint=place))
    again = svdpp(iterations=4).fit(data, training=Training(checkpoint=place, resume=True))
    assert same(learned(again), learned(whole))


def test_any_number_of_threads_gives_the_same_bits(data: Interactions) -> None:
    with dask.config.set(scheduler="synchronous"):
        alone = learned(svdpp().fit(data))
    with dask.config.set(scheduler="threads", num_workers=4):
        assert same(learned(svdpp().fit(data)), alone)


@pytest.mark.slow
def test_processes_give_the_bits_of_threads(data: Interactions, cluster_client: Client) -> None:
    with dask.config.set(scheduler="synchronous"):
        alone = learned(svdpp().fit(data))
    assert same(learned(svdpp().fit(data)), alone)
