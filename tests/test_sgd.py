"""Stochastic gradient descent over strata: minimum, schedules, guard, equal bits anywhere."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import dask
import numpy as np
import pytest
from distributed import Client, get_task_stream
from scipy import sparse

import dasrec
from dasrec import ALS, SGD, BudgetError, InputError, Interactions, Training, blocks
from dasrec.models import stratified
from dasrec.strata import count_groups, cut_strata
from dasrec.testing import planted_ratings
from tests import references_models as references


@pytest.fixture(autouse=True)
def many_strata() -> Iterator[None]:
    with mock.patch("dasrec.strata.TASK_CELLS", 300), mock.patch("dasrec.strata.LEAST_ITEMS", 8):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    matrix = planted_ratings()
    matrix.data[7] = 0
    return dasrec.interactions_from_scipy(matrix, tmp_path_factory.mktemp("sgd") / "data")


def sgd(**parameters: Any) -> SGD:
    return SGD(**{"factors": 4, "iterations": 3, "rng": 1, **parameters})


def learned(model: Any) -> list[Any]:
    arrays = (*model.scoring_vectors(), model.history_["objective"].values)
    return [each.copy() for each in arrays]


def same(one: list[Any], other: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# -- strata ----------------------------------------------------------------------------------------


def test_data_alone_say_how_they_are_cut(data: Interactions) -> None:
    strata = cut_strata(data, seed=1, cache_bytes=0)
    assert strata.n_groups == count_groups(data.n_stored, 59, 120) == 4
    cuts = strata.user_cuts
    assert (cuts[0], cuts[-1]) == (0, data.n_users)
    cells = [strata.user_counts[a:b].sum() for a, b in pairwise(cuts)]
    assert max(cells) < 1.5 * min(cells)
    assert strata.known.tolist() == list(range(59))  # the last item has none


@pytest.mark.parametrize(
    ("cells", "items", "users", "n"),
    [
        (0, 100, 100, 1),
        (1, 100, 100, 2),
        (1200, 100, 100, 2),
        (4800, 100, 100, 4),
        (4801, 100, 100, 6),
        (4800, 20, 100, 2),
        (4800, 7, 100, 1),
        (4800, 100, 1, 1),
        (10**12, 10**9, 10**9, 256),
    ],
)
def test_groups_are_as_many_as_data_allow(cells: int, items: int, users: int, n: int) -> None:
    assert count_groups(cells, items, users) == n


def test_strata_that_run_at_a_time_share_nothing_and_all_are_met(data: Interactions) -> None:
    met: list[tuple[int, int, Any]] = []
    busy: set[tuple[str, int]] = set()
    lock, stratum = threading.Lock(), dasrec.strata._stratum

    def watched(view: Any, users_of: Any, group: int, epoch: Any) -> Any:
        with lock:
            met.append((users_of[0], group, epoch))
        return stratum(view, users_of, group, epoch)

    def step(cells: Any, users: Any, items: Any, rule: Any) -> float:
        claims = {("users", users.ctypes.data), ("items", items.ctypes.data)}
        with lock:
            assert not claims & busy
            busy.update(claims)
        found = SGD._step(cells, users, items, rule)
        time.sleep(1e-3)
        with lock:
            busy.difference_update(claims)
        return found

    class Watched(SGD):
        _step = staticmethod(step)

    with (
        mock.patch("dasrec.strata._stratum", watched),
        dask.config.set(scheduler="threads", num_workers=4),
    ):
        Watched(factors=4, iterations=2, rng=1).fit(data)
    assert len(met) == 32
    for epoch in (0, 1):
        assert len({pair[:2] for pair in met if pair[2].number == epoch}) == 16
    names = [next(e.names for _, _, e in met if e.number == epoch).tolist() for epoch in (0, 1)]
    assert sorted(names[0]) == sorted(names[1]) == list(range(59))
    assert names[0] != names[1]


# -- what is minimised -----------------------------------------------------------------------------


@pytest.mark.parametrize("biases", [True, False])
def test_it_goes_to_the_minimum_that_als_finds(data: Interactions, *, biases: bool) -> None:
    settings: dict[str, Any] = {"factors": 3, "regularization": 0.1, "biases": biases, "rng": 0}
    theirs = ALS(iterations=40, **settings).fit(data)
    ours = SGD(iterations=80, learning_rate=0.05, decay=0.1, **settings).fit(data)
    cells = references.Cells.of(data.to_scipy())
    found, least = (
        references.explicit_objective(cells, references.Explicit.of(each), each.get_params())
        for each in (ours, theirs)
    )
    assert found == pytest.approx(least, rel=0.02)
    assert ours.history_["objective"].values[-1] == pytest.approx(found, rel=0.02)
    for one in (ours.user_biases_, ours.item_biases_):
        assert one.values.any() == biases


def test_without_step_or_factors_the_history_is_the_variance(data: Interactions) -> None:
    model = sgd(learning_rate=1e-12, iterations=1, regularization=0.0).fit(data)
    values = data.to_scipy().data.astype(np.float64)
    loss = float(model.history_["objective"].item())
    assert loss == pytest.approx(((values - values.mean()) ** 2).sum(), rel=0.01)
    assert float(model.history_["train_rmse"].item()) == pytest.approx(np.sqrt(loss / len(values)))
    assert float(model.mean_) == pytest.approx(values.mean())


def test_folding_in_solves_users_exactly(data: Interactions) -> None:
    model = sgd(iterations=20).fit(data)
    cells, at = references.Cells.of(data.to_scipy()), references.Explicit.of(model)
    folded = model.fold_in(data)[:, :-1].astype(float)
    folded[:, -1] -= float(model.mean_)

    def objective(users: Any) -> float:
        moved = at._replace(users=users)
        return references.explicit_objective(cells, moved, model.get_params())

    rows = range(0, 119, 9)
    there = references.slopes(objective, folded, rows=rows)
    before = references.slopes(objective, 0 * folded, rows=rows)
    assert np.abs(there).max() < 1e-3 * np.abs(before).max()
    assert objective(folded) < objective(at.users)


# -- steps -----------------------------------------------------------------------------------------


def rates(data: Interactions, **parameters: Any) -> tuple[list[float], list[float]]:
    history = sgd(learning_rate=0.02, **parameters).fit(data).history_
    return history["learning_rate"].values.tolist(), history["objective"].values.tolist()


def test_schedules_of_the_learning_rate(data: Interactions) -> None:
    assert rates(data, schedule="constant")[0] == [0.02] * 3
    found, _ = rates(data, schedule="inverse", decay=0.5, iterations=4)
    assert found == pytest.approx([0.02 / (1 + 0.5 * t) for t in range(4)])
    found, objective = rates(data, schedule="bold", iterations=40, regularization=0.0)
    expected = [0.02, 0.02 * 1.05]
    for one, two in pairwise(objective[:-1]):
        expected.append(expected[-1] * (1.05 if two < one else 0.5))
    assert found == pytest.approx(expected)


def test_a_step_that_diverges_is_halved_and_told(
    data: Interactions, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model = sgd(learning_rate=64.0, schedule="constant", iterations=30).fit(data)
    told = [each.getMessage() for each in caplog.records]
    assert told[0] == "sgd diverges in iteration 1 at a learning rate of 64; trying half of it"
    found = model.history_["learning_rate"].values
    assert 64.0 / found[-1] == 2.0 ** len(told)
    assert all(np.isfinite(each).all() for each in learned(model))
    assert model.history_["train_rmse"].values[-1] < 0.8 * data.to_scipy().data.std()


def test_values_that_no_step_can_follow_are_refused(tmp_path: Path) -> None:
    matrix = planted_ratings()
    matrix.data[3:9] = 1e30
    huge = dasrec.interactions_from_scipy(matrix, tmp_path / "huge")
    with pytest.raises(InputError, match="diverges however short the steps are; scale the values"):
        sgd().fit(huge)


# -- equal bits ------------------------------------------------------------------------------------


def test_any_number_of_threads_gives_the_same_bits(data: Interactions) -> None:
    with dask.config.set(scheduler="synchronous"):
        alone = learned(sgd().fit(data))
    for workers in (1, 4):
        with dask.config.set(scheduler="threads", num_workers=workers):
            assert same(learned(sgd().fit(data)), alone)
    assert same(learned(sgd().fit(data)), alone)
    with blocks.alone():
        assert same(learned(sgd().fit(data)), alone)
    assert not same(learned(sgd(rng=2).fit(data)), alone)


@pytest.mark.slow
def test_processes_give_the_bits_of_threads(data: Interactions, cluster_client: Client) -> None:
    part = dasrec.split_random(data, 0.2, rng=1).train
    with dask.config.set(scheduler="synchronous"):
        alone = [each for view in (data, part) for each in learned(sgd().fit(view))]
    with get_task_stream(cluster_client) as stream:
        found = [each for view in (data, part) for each in learned(sgd().fit(view))]
    tasks = [task for task in stream.data if task["key"].startswith("gradient-stratum")]
    assert len({task["worker"] for task in tasks}) == 2
    assert same(found, alone)


def test_blocks_that_are_not_kept_give_the_same_bits(data: Interactions) -> None:
    one = learned(sgd().fit(data))
    with mock.patch("dasrec.medium.BlockCache.get", lambda _, key, make, **__: make()):
        assert same(learned(sgd().fit(data)), one)
    with mock.patch("dasrec.strata.deal", wraps=dasrec.strata.deal) as whole:
        sgd(iterations=1).fit(data)
    with (
        mock.patch("dasrec.medium.BlockCache.may_keep", return_value=False),
        mock.patch("dasrec.strata.deal", wraps=dasrec.strata.deal) as parts,
    ):
        assert same(learned(sgd().fit(data)), one)
    # each block once, or each of its groups alone
    assert {call.args[5] for call in whole.call_args_list} == {-1}
    assert {call.args[5] for call in parts.call_args_list} == {0, 1, 2, 3}


def test_what_is_dealt_is_kept_as_far_as_it_fits() -> None:
    cache = dasrec.strata.BlockCache()
    assert cache.may_keep("a", 80, fit="one", limit=80)
    assert not cache.may_keep("a", 81, fit="one", limit=80)
    cache.get("a", lambda: (np.zeros(10),), fit="one", limit=100)
    assert cache.may_keep("a", 80, fit="one", limit=100)
    assert not cache.may_keep("b", 80, fit="one", limit=100)
    assert cache.may_keep("b", 20, fit="one", limit=100)
    assert cache.may_keep("b", 80, fit="two", limit=100)


@pytest.mark.parametrize("schedule", ["constant", "inverse", "bold"])
def test_a_stopped_fit_goes_on_with_the_same_bits(
    data: Interactions, tmp_path: Path, schedule: Any
) -> None:
    whole = sgd(iterations=4, schedule=schedule).fit(data)
    place = tmp_path / "checkpoint"
    sgd(iterations=2, schedule=schedule).fit(data, training=Training(checkpoint=place))
    training = Training(checkpoint=place, resume=True)
    again = sgd(iterations=4, schedule=schedule).fit(data, training=training)
    assert same(learned(again), learned(whole))
    found, expected = (each.history_["learning_rate"].values for each in (again, whole))
    assert np.array_equal(found, expected)


def test_the_best_iteration_is_kept(data: Interactions) -> None:
    figures = iter([0.1, 0.3, 0.2, 0.1])
    training = Training(monitor=lambda _: next(figures), patience=2)
    model = sgd(iterations=9).fit(data, training=training)
    assert model.history_.sizes["iteration"] == 4
    assert same(learned(model)[:2], learned(sgd(iterations=2).fit(data))[:2])


# -- what is not right -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"factors": 0}, "factors is 0; expected a whole number, at least 1"),
        ({"iterations": 0}, "iterations is 0; expected a whole number"),
        ({"regularization": -1}, "regularization is -1; expected a finite number of at least 0"),
        ({"learning_rate": 0}, "learning_rate is 0; expected a finite number greater than 0"),
        ({"schedule": "wild"}, "schedule is 'wild'; expected one of: constant, inverse, bold"),
        ({"decay": -1}, "decay is -1; expected a finite number of at least 0"),
        ({"biases": "no"}, "biases is 'no'; expected one of: True, False"),
        ({"rng": -3}, "rng is -3"),
    ],
)
def test_bad_parameters_are_refused(
    data: Interactions, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        sgd(**parameters).fit(data)


def test_nothing_to_learn_from_is_refused(data: Interactions) -> None:
    with pytest.raises(InputError, match="no interactions to learn from"):
        sgd().fit(dasrec.split_random(data, 1e-9, rng=1).test)


def test_what_does_not_fit_in_memory_is_refused_before_it_starts(data: Interactions) -> None:
    with (
        mock.patch("dasrec.plan.limit", return_value=10_000),
        mock.patch.object(stratified, "run_epoch", side_effect=AssertionError),
        pytest.raises(BudgetError, match=r"fitting vectors of 5 numbers .* use fewer factors"),
    ):
        sgd().fit(data)


def test_one_cell_is_enough(tmp_path: Path) -> None:
    matrix = sparse.csr_array(([4.0], ([1], [2])), shape=(3, 4), dtype=np.float32)
    one = dasrec.interactions_from_scipy(matrix, tmp_path / "one")
    model = sgd().fit(one)
    assert model.score(np.array([1, 0]), np.array([2, 0])) == pytest.approx([4.0, 4.0], abs=0.1)
