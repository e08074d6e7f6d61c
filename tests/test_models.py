"""Every model and every kind of place passes the public suites; and the suites can fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dasrec
from dasrec import (
    ALS,
    BPR,
    SGD,
    WARP,
    Biases,
    GradientDescent,
    ImplicitALS,
    InputError,
    Interactions,
    Logistic,
    Model,
    Popular,
    Softmax,
    SVDpp,
)
from dasrec.testing import ModelSuite, StoreSuite, expect, planted_matrix
from dasrec.typing import Floats, Rng


class TestALS(ModelSuite):
    cut_tolerance = 0

    def make(self, *, rng: Rng) -> Model:
        return ALS(factors=4, iterations=4, rng=rng)


class TestALSWithoutBiases(ModelSuite):
    cut_tolerance = 0

    def make(self, *, rng: Rng) -> Model:
        return ALS(factors=4, iterations=4, biases=False, rng=rng)


class TestImplicitALS(ModelSuite):
    # a block is turned back from the Gram matrix's basis by one matrix product
    cut_tolerance = 1e-5

    def make(self, *, rng: Rng) -> Model:
        return ImplicitALS(factors=8, iterations=8, rng=rng)


class TestImplicitALSByConjugateGradients(ModelSuite):
    cut_tolerance = 1e-5

    def make(self, *, rng: Rng) -> Model:
        return ImplicitALS(factors=20, iterations=8, solver="cg", rng=rng)


class TestRoundedImplicitALS(ModelSuite):
    cut_tolerance = 1e-5

    @pytest.fixture(autouse=True)
    def few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let models of more than four factors be rounded."""
        monkeypatch.setattr("dasrec.sweeps.MANY_FACTORS", 4)

    def make(self, *, rng: Rng) -> Model:
        return ImplicitALS(factors=8, iterations=8, solver="cg", rng=rng)


class TestImplicitALSByBlocks(ModelSuite):
    cut_tolerance = 1e-5

    def make(self, *, rng: Rng) -> Model:
        return ImplicitALS(factors=40, iterations=4, solver="subspace", rng=rng)


class TestNonNegativeImplicitALS(ModelSuite):
    cut_tolerance = 0

    def make(self, *, rng: Rng) -> Model:
        return ImplicitALS(factors=8, iterations=8, nonnegative=True, rng=rng)


class TestALSByConjugateGradients(ModelSuite):
    cut_tolerance = 0

    def make(self, *, rng: Rng) -> Model:
        return ALS(factors=20, iterations=6, solver="cg", rng=rng)


class TestALSByBlocks(ModelSuite):
    cut_tolerance = 0

    def make(self, *, rng: Rng) -> Model:
        return ALS(factors=40, iterations=4, solver="subspace", rng=rng)


class TestNonNegativeALS(ModelSuite):
    cut_tolerance = 0

    def make(self, *, rng: Rng) -> Model:
        return ALS(factors=6, iterations=8, nonnegative=True, rng=rng)


class TestSGD(ModelSuite):
    cut_tolerance = 0

    def make(self, *, rng: Rng) -> Model:
        return SGD(factors=4, iterations=30, learning_rate=0.05, rng=rng)


class TestSVDpp(ModelSuite):
    # how far y goes is a sum over blocks
    cut_tolerance = 1e-4

    def make(self, *, rng: Rng) -> Model:
        return SVDpp(factors=4, iterations=30, learning_rate=0.05, rng=rng)


class TestBPR(ModelSuite):
    cut_tolerance = 0

    def make(self, *, rng: Rng) -> Model:
        return BPR(factors=8, iterations=40, rng=rng)


class TestWARP(ModelSuite):
    cut_tolerance = 0

    def make(self, *, rng: Rng) -> Model:
        return WARP(factors=8, iterations=40, learning_rate=0.05, rng=rng)


class TestLogistic(ModelSuite):
    cut_tolerance = 0

    def make(self, *, rng: Rng) -> Model:
        return Logistic(factors=8, iterations=40, learning_rate=0.05, rng=rng)


class TestSoftmax(ModelSuite):
    cut_tolerance = 0

    def make(self, *, rng: Rng) -> Model:
        settings = {"negatives": "popular", "learning_rate": 0.05}
        return Softmax(factors=8, iterations=40, rng=rng, **settings)


class TestSGDByAdam(ModelSuite):
    cut_tolerance = 0

    def make(self, *, rng: Rng) -> Model:
        settings = {"optimizer": "adam", "batch_size": 16, "learning_rate": 0.02}
        return SGD(factors=4, iterations=30, rng=rng, **settings)


class TestBPRByAdaGrad(ModelSuite):
    cut_tolerance = 0

    def make(self, *, rng: Rng) -> Model:
        return BPR(factors=8, iterations=30, optimizer="adagrad", batch_size=16, rng=rng)


class TestGradientDescent(ModelSuite):
    cut_tolerance = 0

    def make(self, *, rng: Rng) -> Model:
        return GradientDescent(factors=4, iterations=60, learning_rate=0.005, rng=rng)


class TestPopular(ModelSuite):
    personal = False
    cut_tolerance = 0

    def make(self, *, rng: Rng) -> Model:
        return Popular()


class TestBiases(ModelSuite):
    personal = False
    cut_tolerance = 0

    def make(self, *, rng: Rng) -> Model:
        return Biases()


class TestLocalStore(StoreSuite):
    pass


class TestMemoryStore(StoreSuite):
    def place(self, tmp_path: Path) -> str:
        return f"memory://{tmp_path.name}/store"


class Shifty(Popular):
    """A model with every fault that a suite must see."""

    def __init__(self, *, rng: Rng = None) -> None:
        self.rng = rng
        self.early_ = True

    def lazy_vectors(self) -> tuple[Floats, Floats]:
        users, items = super().lazy_vectors()
        return users, items + np.random.random(items.shape).astype(np.float32)


class ShiftySuite(ModelSuite):
    def make(self, *, rng: Rng) -> Model:
        return Shifty(rng=rng)


@pytest.mark.parametrize(
    "test",
    [
        "test_constructor_stores_and_fit_returns_self",
        "test_finds_planted_groups",
        "test_beats_its_baseline",
        "test_folding_in_leaves_the_model_alone",
        "test_same_seed_same_model_however_blocks_are_cut",
    ],
)
def test_the_suite_sees_a_bad_model(test: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        getattr(ShiftySuite(), test)(tmp_path)


def test_expect_can_fail() -> None:
    with pytest.raises(AssertionError, match="nothing was raised"):
        expect(InputError, "", lambda: None)

    def refuse() -> None:
        msg = "something else"
        raise InputError(msg)

    with pytest.raises(AssertionError, match="lacks 'these words'"):
        expect(InputError, "these words", refuse)


@pytest.fixture
def data(tmp_path: Path) -> Interactions:
    return dasrec.interactions_from_scipy(planted_matrix(), tmp_path / "data")


def test_a_generator_is_drawn_from_and_its_seed_recorded(
    data: Interactions, tmp_path: Path
) -> None:
    generator = np.random.default_rng(5)
    model = ImplicitALS(factors=2, iterations=1, rng=generator).fit(data)
    again = ImplicitALS(factors=2, iterations=1, rng=int(model.seed_)).fit(data)
    assert np.array_equal(model.user_factors_.values, again.user_factors_.values)
    drawn_again = ImplicitALS(factors=2, iterations=1, rng=generator).fit(data)
    assert int(drawn_again.seed_) != int(model.seed_)
    assert dasrec.load_model(model.save(tmp_path / "model")).rng is None


def test_history_is_saved_too(data: Interactions, tmp_path: Path) -> None:
    model = ImplicitALS(factors=2, iterations=3, rng=0).fit(data)
    loaded = dasrec.load_model(model.save(tmp_path / "model"))
    assert loaded.history_.equals(model.history_)
    assert loaded.history_["iteration"].values.tolist() == [1, 2, 3]


def test_scores_want_pairs(data: Interactions) -> None:
    with pytest.raises(InputError, match="2 users and 3 items were given; expected pairs"):
        Popular().fit(data).score(np.arange(2), np.arange(3))


def test_biases_are_those_of_a_hand(tmp_path: Path) -> None:
    """One sweep: item means damped by 1, then user means of what is left, damped by 2."""
    cells = np.array([[5.0, 3.0], [4.0, 0.0]])  # mean of the three stored cells: 4
    data = dasrec.interactions_from_scipy(cells, tmp_path / "hand")
    model = Biases(user_damping=2, item_damping=1, iterations=1).fit(data)
    assert float(model.mean_) == 4
    items = [(1 + 0) / (2 + 1), -1 / (1 + 1)]
    assert model.item_biases_.values == pytest.approx(items)
    users = [(1 - items[0] - 1 - items[1]) / (2 + 2), (0 - items[0]) / (1 + 2)]
    assert model.user_biases_.values == pytest.approx(users)
    assert model.score([1], [1])[0] == pytest.approx(4 + users[1] + items[1])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"user_damping": -1}, "user_damping is -1; expected a finite number of at least 0"),
        ({"item_damping": np.nan}, "item_damping is nan"),
        ({"iterations": 0}, "iterations is 0; expected a whole number, at least 1"),
    ],
)
def test_bad_parameters_of_biases_are_refused(
    data: Interactions, parameters: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Biases(**parameters).fit(data)


def test_popular_counts_interactions(data: Interactions) -> None:
    counts = (planted_matrix().toarray() != 0).sum(axis=0)
    model = Popular().fit(data)
    assert model.item_counts_.values.tolist() == counts.tolist()
    best = sorted(range(60), key=lambda item: (-counts[item], item))[:7]
    assert model.recommend([3], n=7)["item_id"].values.tolist() == [best]
