"""Biases that move in time: steps of plain loops, planted drifts, equal bits, missing times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import dask
import numpy as np
import pandas as pd
import pytest
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st

import dasrec
from dasrec import SGD, InputError, Interactions, SVDpp, Training
from dasrec.kernels.rule import Rule
from dasrec.kernels.stochastic import descend_timed
from dasrec.models.drift import read_times
from dasrec.testing import planted_ratings
from tests import references_gradient as references

N_BINS, DAY = 4, 86_400 * 10**6
START = 1_700_000_000 * 10**6


@pytest.fixture(autouse=True)
def many_strata() -> Iterator[None]:
    with mock.patch("dasrec.strata.TASK_CELLS", 300), mock.patch("dasrec.strata.LEAST_ITEMS", 8):
        yield


def planted_log() -> pd.DataFrame:
    """Draw ratings of items that are liked more in each quarter, or less, by turns."""
    draw = np.random.default_rng(0)
    users, items = np.nonzero(draw.random((120, 60)) < 0.5)
    days = draw.integers(0, 400, len(users))
    days[:2] = 0, 399
    moved = (days // 100 - 1.5) * np.where(items % 2, 1, -1)
    values = 3 + 0.5 * moved + draw.normal(size=len(users)) * 0.2
    stamps = pd.to_datetime(START + days * DAY, unit="us", utc=True)
    return pd.DataFrame({"user": users, "item": items, "value": values, "timestamp": stamps})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    names = {name: name for name in ("user", "item", "value", "timestamp")}
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 400):
        events = dasrec.read_events(planted_log(), **names)
        made = dasrec.write_interactions(events, tmp_path_factory.mktemp("drift") / "data")
    assert len(made.cuts("user_items")) > 4
    return made


def timed(**parameters: Any) -> SGD:
    settings = {"factors": 2, "iterations": 4, "time_bins": N_BINS, "rng": 1, **parameters}
    return SGD(**settings)


def learned(model: SGD) -> list[Any]:
    moving = (model.user_drifts_, model.item_time_biases_, model.history_["objective"])
    return [each.copy() for each in (*model.scoring_vectors(), *(each.values for each in moving))]


def same(one: list[Any], other: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@given(k=st.integers(1, 9), n=st.integers(0, 20), bins=st.integers(1, 5), seed=st.integers(0, 99))
def test_steps_are_those_of_plain_loops(k: int, n: int, bins: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    rule = Rule(k, np.float32(0.05), np.float32(0.1), offset=np.float32(0.5))
    cells = (
        draw.integers(7, size=n).astype(np.int32),
        draw.integers(5, size=n).astype(np.int32),
        draw.normal(size=n).astype(np.float32),
    )
    times = draw.choice([0.0, 0.25, 0.7, 1.0], n).astype(np.float32)
    users = draw.normal(size=(7, k + 3)).astype(np.float32) / 2
    items = draw.normal(size=(5, k + 1 + bins)).astype(np.float32) / 2
    users[:, k + 2] = draw.random(7)
    told = list(zip(*cells, times.tolist(), strict=True))
    twin = references.timed_descent(told, users.astype(float), items.astype(float), rule)
    total = descend_timed(cells, times, users, items, rule)
    assert total == pytest.approx(twin[2], rel=1e-3, abs=1e-4)
    np.testing.assert_allclose(users, twin[0], atol=1e-3)
    np.testing.assert_allclose(items, twin[1], atol=1e-3)


def test_times_are_told_however_blocks_are_cut(data: Interactions) -> None:
    log, times = planted_log(), read_times(data, N_BINS)
    assert times.span.tolist() == [START, START + 399 * DAY]
    stamps = log["timestamp"].astype("int64") / (1000 if log["timestamp"].dt.unit == "ns" else 1)
    shares = (stamps - START) / (399 * DAY)
    np.testing.assert_allclose(times.middles, shares.groupby(log["user"]).mean(), atol=1e-5)
    bins = np.minimum((shares * N_BINS).astype(int), N_BINS - 1)
    expected = pd.crosstab(log["item"], bins).to_numpy()
    assert np.array_equal(times.counts, expected)


def test_what_moves_in_time_is_found(data: Interactions) -> None:
    still = SGD(factors=2, iterations=40, rng=1).fit(data)
    model = timed(iterations=40, regularization=0.02).fit(data)
    errors = [float(each.history_["train_rmse"][-1]) for each in (still, model)]
    assert errors[1] < 0.5 * errors[0]
    log = planted_log()
    stamps = (log["timestamp"] - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(microseconds=1)
    scores = model.score(log["user"].to_numpy(), log["item"].to_numpy(), times=stamps.to_numpy())
    assert np.sqrt(np.mean((scores - log["value"]) ** 2)) < errors[1] * 1.05
    pair = log["user"].to_numpy()[:1], log["item"].to_numpy()[:1]
    end = np.array([START + 399 * DAY])
    for moment in (end, end + 99 * DAY):
        assert model.score(*pair, times=moment) == pytest.approx(model.score(*pair), abs=1e-5)
    users, items = model.scoring_vectors()
    assert model.score(*pair) == pytest.approx((users @ items.T)[pair[0], pair[1]], abs=1e-5)
    # those that are liked more and more are ahead at the end
    biases = items[:, -1]
    assert biases[1::2].min() > biases[::2].max()
    assert model.fold_in(data).shape == users.shape


def test_the_objective_counts_all_that_is_learned(data: Interactions) -> None:
    model = timed(iterations=20, regularization=0.05, learning_rate=0.01).fit(data)
    counts, times = data.counts("user_items"), read_times(data, N_BINS)
    own = np.square(model.user_factors_.values).sum(axis=1) + model.user_biases_.values**2
    own += model.user_drifts_.values**2
    penalty = counts @ own
    theirs = np.square(model.item_factors_.values).sum(axis=1) + model.item_biases_.values**2
    penalty += data.counts("item_users") @ theirs
    penalty += (times.counts * model.item_time_biases_.values**2).sum()
    last = model.history_.isel(iteration=-1)
    loss = float(last["train_rmse"]) ** 2 * data.n_stored
    assert float(last["objective"]) == pytest.approx(loss + 0.05 * penalty, rel=1e-4)


def test_a_stopped_fit_goes_on_with_the_same_bits(data: Interactions, tmp_path: Path) -> None:
    whole = timed().fit(data)
    place = tmp_path / "checkpoint"
    timed(iterations=2).fit(data, training=Training(checkpoint=place))
    again = timed().fit(data, training=Training(checkpoint=place, resume=True))
    assert same(learned(again), learned(whole))
    loaded = dasrec.load_model(whole.save(tmp_path / "model"))
    assert isinstance(loaded, SGD)
    assert same(learned(loaded), learned(whole))


def test_threads_and_blocks_that_are_not_kept_give_the_same_bits(data: Interactions) -> None:
    with dask.config.set(scheduler="synchronous"):
        alone = learned(timed().fit(data))
    with dask.config.set(scheduler="threads", num_workers=4):
        assert same(learned(timed().fit(data)), alone)
    with mock.patch("dasrec.medium.BlockCache.may_keep", return_value=False):
        assert same(learned(timed().fit(data)), alone)


@pytest.mark.slow
def test_processes_give_the_bits_of_threads(data: Interactions, cluster_client: Client) -> None:
    part = dasrec.split_by_time(data, 0.2).train
    with dask.config.set(scheduler="synchronous"):
        alone = learned(timed().fit(part))
    assert same(learned(timed().fit(part)), alone)


def test_plans_count_times(data: Interactions) -> None:
    still, moving = (dasrec.plan_fit(data, model=timed(time_bins=n)) for n in (0, 30))
    assert moving.factor_bytes == still.factor_bytes // 3 * 33
    assert moving.data_bytes - still.data_bytes == 12 * data.n_stored


def test_without_times_it_is_refused(tmp_path: Path) -> None:
    data = dasrec.interactions_from_scipy(planted_ratings(), tmp_path / "data")
    with pytest.raises(InputError, match="has no timestamps, and time_bins needs them; write it"):
        timed().fit(data)
    model = SGD(factors=2, iterations=1, rng=0).fit(data)
    with pytest.raises(InputError, match="1 times were given for 1 pairs, to a model with time_b"):
        model.score(np.array([0]), np.array([0]), times=np.array([START]))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (timed(time_bins=-1), "time_bins is -1; expected a whole number, at least 0"),
        (timed(optimizer="adam"), "time_bins is 4; expected 0, or optimizer='sgd', batch_size=1"),
        (timed(batch_size=2), "expected 0, or optimizer='sgd', batch_size=1 and biases=True"),
        (timed(biases=False), "expected 0, or optimizer='sgd', batch_size=1 and biases=True"),
        (SVDpp(time_bins=4), "time_bins is 4; expected 0, since only SGD moves in time"),
    ],
)
def test_what_cannot_move_is_refused(data: Interactions, model: SGD, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.fit(data)
