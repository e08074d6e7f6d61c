"""On a sample of users parameters mean what they mean on all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone

import dasrec
from dasrec import (
    ALS,
    Biases,
    ImplicitALS,
    Interactions,
    Model,
    Popular,
    Trials,
    blocks,
    for_sample,
)
from dasrec.search.sample import UserSample, sample_users, scaled_parameters
from dasrec.typing import Bools, Ints, Longs

N_USERS, N_ITEMS, COPIES = 40, 20, 5


@dataclass(frozen=True)
class First:
    """The interactions of the first users."""

    n: int
    needs_timestamp = False

    def __call__(self, users: Ints, items: Ints, timestamps: Longs | None) -> Bools:
        return np.asarray(users < self.n)

    def describe(self) -> dict[str, Any]:
        return {"mask": "First", "n": self.n}


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    """Return users who are there five times; all items have as many interactions."""
    draw = np.random.default_rng(0)
    users = np.repeat(np.arange(N_USERS), 5)
    items = (users + np.tile([0, 1, 3, 7, 12], N_USERS)) % N_ITEMS
    weights = draw.uniform(1, 4, len(users))
    one = sparse.csr_array((weights, (users, items)), shape=(N_USERS, N_ITEMS))
    matrix = sparse.vstack([one] * COPIES, format="csr")
    return dasrec.interactions_from_scipy(matrix, tmp_path_factory.mktemp("copies") / "data")


@pytest.mark.parametrize(
    "model",
    [
        ImplicitALS(regularization_exponent=0.0),
        ImplicitALS(regularization_exponent=0.5),
        ImplicitALS(regularization_exponent=0.5, unobserved_weight=0.02),
        ImplicitALS(regularization_exponent=1.0),
    ],
    ids=lambda model: f"{model.regularization_exponent:g}, {model.unobserved_weight:g}",
)
def test_one_copy_of_all_users_gives_the_scores_of_all_copies(
    copies: Interactions, model: ImplicitALS
) -> None:
    """The exact case of the rule: items are used alike."""
    model.set_params(factors=3, regularization=0.3, iterations=200, solver="exact", rng=0)
    counts = copies.counts("item_users")
    assert len(set(counts)) == 1
    scaled = for_sample(model, share=1 / COPIES, item_counts=counts, n_users=copies.n_users)
    assert scaled.get_params().keys() == model.get_params().keys()
    sample = copies.where(First(N_USERS))
    with blocks.alone():  # many small iterations
        expected, found, unscaled = (
            scores(each.fit(data))
            for each, data in ((model, copies), (scaled, sample), (clone(model), sample))
        )
    assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()
    if scaled.regularization < 0.9 * model.regularization:
        assert np.abs(unscaled - expected).max() > 0.02 * np.abs(expected).max()


def scores(model: Model) -> np.ndarray[Any, Any]:
    users, items = model.scoring_vectors()
    return users[:N_USERS] @ items.T


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_the_rule_has_the_limits_that_it_states(share: float) -> None:
    counts, n_users = np.array([0, 1, 5, 30]), 1000

    def factor(**parameters: float) -> float:
        model = ImplicitALS(regularization=2.0, **parameters)  # type: ignore[arg-type]
        scaled = for_sample(model, share=share, item_counts=counts, n_users=n_users)
        assert model.regularization == 2.0
        return scaled.regularization / 2.0

    assert factor(regularization_exponent=0.0) == pytest.approx(share**0.5)
    assert factor(regularization_exponent=0.5) == pytest.approx(share**0.5, rel=0.02)
    for exponent in (0.5, 1.0):
        small = factor(regularization_exponent=exponent, unobserved_weight=1e-9)
        assert small == pytest.approx(share ** ((1 - exponent) / 2), rel=1e-3)
    nobody = ImplicitALS(regularization=2.0)
    none = for_sample(nobody, share=share, item_counts=counts[:1], n_users=n_users)
    assert none.regularization == pytest.approx(2.0 * share**0.5)


def test_other_models_have_rules_of_their_own(copies: Interactions) -> None:
    facts = {"share": 0.2, "item_counts": copies.counts("item_users"), "n_users": 9}
    als, biases = ALS(regularization=0.3), Biases(user_damping=4.0, item_damping=3.0)
    assert for_sample(als, **facts).get_params() == als.get_params()
    assert for_sample(als, **facts) is not als
    scaled = for_sample(biases, **facts)
    assert (scaled.user_damping, scaled.item_damping) == (4.0, pytest.approx(0.6))
    assert isinstance(for_sample(Popular(), **facts), Popular)

    class Stronger(ImplicitALS):
        """A model that somebody else has made."""

    scaled_parameters.register(Stronger, lambda model, **_: {"factors": 5})
    assert for_sample(Stronger(), **facts).factors == 5


@pytest.mark.parametrize("kind", [ALS, Biases])
def test_models_of_ratings_transfer_exactly(copies: Interactions, kind: Any) -> None:
    model = kind(iterations=60)
    model.set_params(**({"factors": 2, "rng": 0} if kind is ALS else {}))
    facts = {"item_counts": copies.counts("item_users"), "n_users": copies.n_users}
    scaled = for_sample(model, share=1 / COPIES, **facts)
    with blocks.alone():
        expected = scores(model.fit(copies))
        found = scores(scaled.fit(copies.where(First(N_USERS))))
    assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()


def test_a_sample_is_of_whole_users_and_keyed_by_the_seed(tmp_path: Path) -> None:
    data = planted(tmp_path / "data", n_users=1500)
    split = dasrec.split_users(data, 0.3, rng=7)
    part = sample_users(split, 0.25, seed=7)
    mask = part.train.masks[-1]
    assert isinstance(mask, UserSample)
    everybody = np.arange(1500, dtype=np.int32)
    chosen = mask(everybody, everybody, None)
    assert 0.2 < chosen.mean() < 0.3
    for name in ("train", "seen", "test"):
        before, after = getattr(split, name), getattr(part, name)
        assert np.array_equal(
            after.counts("user_items"), np.where(chosen, before.counts("user_items"), 0)
        )
    # users held out by the same seed are no more frequent in it than others
    held_out = split.train.counts("user_items") == 0
    assert 0.2 < chosen[held_out].mean() < 0.3
    assert sample_users(split, 0.25, seed=7).train == part.train
    assert sample_users(split, 0.25, seed=8).train != part.train


def planted(place: Path, *, n_users: int) -> Interactions:
    """Return users with tastes of four dimensions, and much noise."""
    draw = np.random.default_rng(1)
    users, items = draw.standard_normal((n_users, 4)), draw.standard_normal((120, 4))
    liking = 0.9 * users @ items.T + draw.standard_normal(120) - 3.5
    used = draw.random(liking.shape) < 1 / (1 + np.exp(-liking))
    return dasrec.interactions_from_scipy(sparse.csr_array(used.astype(np.float32)), place)


def test_what_is_best_on_a_sample_is_near_what_is_best_on_all(tmp_path: Path) -> None:
    data = planted(tmp_path / "data", n_users=4000)
    split = dasrec.split_random(data, 0.2, rng=0)
    values = [float(each) for each in np.geomspace(0.03, 100, 9)]
    model = ImplicitALS(factors=24, iterations=4, regularization_exponent=0.0, rng=0)
    whole, sample = (
        dasrec.search(
            model,
            space={"regularization": values},
            split=split,
            metric="ndcg@10",
            strategy="grid",
            trials=Trials(rng=0, users=users, tested=4000),
        )
        for users in (None, 0.15)
    )
    best = [values.index(found.best_params["regularization"]) for found in (whole, sample)]
    assert 0 < best[0] < len(values) - 1
    assert abs(best[0] - best[1]) <= 1
    metric = whole.trials["metric"].values[:, 0]
    assert metric.min() < 0.9 * metric.max()
    assert metric[best[1]] > 0.98 * metric.max()
    assert sample.trials.attrs["users"] == 0.15
    assert sample.model.regularization == sample.best_params["regularization"]
