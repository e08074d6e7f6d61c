"""Optimizers of stochastic models: what they keep goes along with rows, checkpoints and plans."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import dask
import numpy as np
import pytest
from distributed import Client

import dasrec
from dasrec import BPR, SGD, BudgetError, InputError, Interactions, Softmax, SVDpp, Training
from dasrec.kernels.batches import kept_width
from dasrec.models import stratified
from dasrec.testing import planted_ratings

KINDS: dict[str, Any] = {"sgd": SGD, "svdpp": SVDpp, "bpr": BPR, "softmax": Softmax}
RATES = {"sgd": 0.02, "momentum": 0.005, "adagrad": 0.1, "adam": 0.02}
OPTIMIZERS = pytest.mark.parametrize("optimizer", ["momentum", "adagrad", "adam"])


@pytest.fixture(autouse=True)
def many_strata() -> Iterator[None]:
    with mock.patch("dasrec.strata.TASK_CELLS", 300), mock.patch("dasrec.strata.LEAST_ITEMS", 8):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    place = tmp_path_factory.mktemp("optimizers") / "data"
    return dasrec.interactions_from_scipy(planted_ratings(), place)


def small(kind: str, optimizer: str, **parameters: Any) -> Any:
    settings = {"factors": 3, "iterations": 4, "batch_size": 8, "rng": 1} | parameters
    return KINDS[kind](optimizer=optimizer, learning_rate=RATES[optimizer], **settings)


def learned(model: Any) -> list[Any]:
    arrays = (*model.scoring_vectors(), model.history_["objective"].values)
    return [each.copy() for each in arrays]


def same(one: list[Any], other: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("optimizer", list(RATES))
def test_ratings_are_learned_whichever_way(data: Interactions, optimizer: str) -> None:
    model = small("sgd", optimizer, iterations=30).fit(data)
    errors = model.history_["train_rmse"].values
    assert errors[-1] < 0.7 * data.to_scipy().data.std()
    assert np.isfinite(model.item_factors_.values).all()


def test_batches_of_one_cell_are_plain_steps(data: Interactions) -> None:
    """Another kernel takes them, in other roundings."""
    plain = learned(small("sgd", "sgd", batch_size=1).fit(data))
    with mock.patch.object(SGD, "_stepping", return_value=stratified.step_batches):
        others = learned(small("sgd", "sgd", batch_size=1).fit(data))
    for one, other in zip(plain, others, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@OPTIMIZERS
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_stopped_fit_goes_on_with_the_same_bits(
    data: Interactions, tmp_path: Path, kind: str, optimizer: str
) -> None:
    whole = small(kind, optimizer).fit(data)
    place = tmp_path / "checkpoint"
    small(kind, optimizer, iterations=2).fit(data, training=Training(checkpoint=place))
    kept = dasrec.load_model(place)
    width = {"momentum": 4, "adagrad": 4, "adam": 9}[optimizer]
    assert kept.item_moments_.shape == (data.n_items, width)
    assert kept.user_moments_.values.any()
    training = Training(checkpoint=place, resume=True)
    again = small(kind, optimizer).fit(data, training=training)
    assert same(learned(again), learned(whole))
    for model in (whole, again):
        assert not hasattr(model, "user_moments_")


def test_any_number_of_threads_gives_the_same_bits(data: Interactions) -> None:
    for kind in KINDS:
        with dask.config.set(scheduler="synchronous"):
            alone = learned(small(kind, "adam").fit(data))
        with dask.config.set(scheduler="threads", num_workers=4):
            assert same(learned(small(kind, "adam").fit(data)), alone)


@pytest.mark.slow
def test_processes_give_the_bits_of_threads(data: Interactions, cluster_client: Client) -> None:
    for kind, optimizer in (("sgd", "momentum"), ("softmax", "adagrad"), ("bpr", "adam")):
        with dask.config.set(scheduler="synchronous"):
            alone = learned(small(kind, optimizer).fit(data))
        assert same(learned(small(kind, optimizer).fit(data)), alone)


def test_who_is_folded_in_gets_a_list_by_the_same_optimizer(data: Interactions) -> None:
    model = small("bpr", "adagrad", iterations=20).fit(data)
    users = model.fold_in(data)
    assert users.shape == (data.n_users, 4)
    assert np.array_equal(model.fold_in(data), users)
    assert not users[-1, :-1].any()


def test_plans_count_what_optimizers_keep(data: Interactions) -> None:
    plans = {
        (kind, optimizer): dasrec.plan_fit(data, model=small(kind, optimizer))
        for kind in KINDS
        for optimizer in RATES
    }
    for (kind, optimizer), plan in plans.items():
        own = 7 if kind == "svdpp" else 4
        number = list(RATES).index(optimizer)
        assert plan.factors == own + kept_width(number, 3)
        assert plan.factor_bytes == 4 * plan.factors * (3 * data.n_users + 4 * data.n_items)
        assert plan.n_tasks == 16
    limit = plans["sgd", "sgd"].peak_bytes - plans["sgd", "sgd"].cache_bytes
    with (
        mock.patch("dasrec.strata.room", return_value=(0, plans["sgd", "adam"].factor_bytes, 1)),
        pytest.raises(BudgetError, match="fitting vectors of 13 numbers"),
    ):
        dasrec.plan_fit(data, model=small("sgd", "adam"), memory=limit)


def test_a_hundred_million_cells_fit_in_two_gigabytes(data: Interactions) -> None:
    """Of a million users and 64 factors, in a process that holds what it does after imports."""
    large = replace(data, n_users=10**6, n_items=10**5, n_stored=10**8)
    with mock.patch("dasrec.strata.room", return_value=(430 * 10**6, 2 * 10**9, 2)):
        with mock.patch("dasrec.strata.TASK_CELLS", 2**19):
            plan = dasrec.plan_fit(large, model=SGD(factors=64), memory="2GB")
    assert plan.peak_bytes <= 2 * 10**9
    assert plan.cells_at_once < 10**7


def test_a_plan_is_of_factors_or_of_a_model(data: Interactions) -> None:
    model = dasrec.ImplicitALS(factors=8)
    assert dasrec.plan_fit(data, model=model).factor_bytes == (
        dasrec.plan_fit(data, factors=8).factor_bytes
    )
    for given in ({}, {"factors": 8, "model": model}, {"model": dasrec.Popular()}):
        with pytest.raises(InputError, match="expected factors of least squares, or a model that"):
            dasrec.plan_fit(data, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"optimizer": "lbfgs"}, "'lbfgs'; expected one of: sgd, momentum, adagrad, adam"),
        ({"batch_size": 0}, "batch_size is 0; expected a whole number, at least 1"),
    ],
)
def test_bad_parameters_are_refused(
    data: Interactions, parameters: dict[str, Any], message: str
) -> None:
    for kind in KINDS.values():
        with pytest.raises(InputError, match=message):
            kind(**parameters).fit(data)
