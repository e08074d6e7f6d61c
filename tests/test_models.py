"""Every model passes the public suite."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dasrec
from dasrec import ALS, Biases, ImplicitALS, InputError, Model, Popular
from dasrec.testing import ModelSuite, StoreSuite, expect
from dasrec.typing import Rng


class TestALS(ModelSuite):
    ranks = False

    def make(self, rng: Rng = None) -> Model:
        return ALS(factors=4, iterations=4, rng=rng)


class TestALSWithoutBiases(ModelSuite):
    ranks = False

    def make(self, rng: Rng = None) -> Model:
        return ALS(factors=4, iterations=4, biases=False, rng=rng)


class TestImplicitALS(ModelSuite):
    def make(self, rng: Rng = None) -> Model:
        return ImplicitALS(factors=8, iterations=8, rng=rng)


class TestPopular(ModelSuite):
    personal = False

    def make(self, rng: Rng = None) -> Model:
        return Popular()


class TestBiases(ModelSuite):
    personal = False

    def make(self, rng: Rng = None) -> Model:
        return Biases()


class TestLocalStore(StoreSuite):
    pass


class TestMemoryStore(StoreSuite):
    def place(self, tmp_path: Path) -> str:
        return f"memory://{tmp_path.name}/store"


def test_expect_can_fail() -> None:
    with pytest.raises(AssertionError, match="nothing was raised"):
        expect(InputError, "", lambda: None)

    def refuse() -> None:
        msg = "something else"
        raise InputError(msg)

    with pytest.raises(AssertionError, match="lacks 'these words'"):
        expect(InputError, "these words", refuse)


def test_a_generator_is_drawn_from_and_its_seed_recorded(tmp_path: Path) -> None:
    data = dasrec.interactions_from_scipy(np.eye(4), tmp_path / "data")
    model = ImplicitALS(factors=2, iterations=1, rng=np.random.default_rng(5)).fit(data)
    again = ImplicitALS(factors=2, iterations=1, rng=int(model.seed_)).fit(data)
    assert np.array_equal(model.user_factors_.values, again.user_factors_.values)
    assert dasrec.load_model(model.save(tmp_path / "model")).rng is None
