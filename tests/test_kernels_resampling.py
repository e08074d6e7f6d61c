"""Random weights and signs against slow twins, and that they are what they should be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from dasrec.kernels.hashing import cell_uniform
from dasrec.kernels.resampling import flip_sums, poisson_sums
from tests import references_certainty as twins

VALUES = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=5),
    elements=st.sampled_from([0.0, 0.25, -1.5, 3.0, np.nan]),  # sums of them are exact
)
SEEDS = st.integers(0, 2**62)
USERS = st.integers(0, 2**31 - 10)


@given(values=VALUES, first=USERS, seed=SEEDS, replicates=st.integers(1, 4))
def test_weights_are_those_of_a_slow_twin(
    values: np.ndarray, first: int, seed: int, replicates: int
) -> None:
    found = poisson_sums(values, first, seed, replicates)
    np.testing.assert_array_equal(found, twins.poisson_sums(values, first, seed, replicates))


@given(values=VALUES, first=USERS, seed=SEEDS, flips=st.integers(1, 130))
def test_signs_are_those_of_a_slow_twin(
    values: np.ndarray, first: int, seed: int, flips: int
) -> None:
    found = flip_sums(values, first, seed, flips)
    np.testing.assert_array_equal(found, twins.flip_sums(values, first, seed, flips))


@given(seed=SEEDS, user=USERS, column=st.integers(0, 2**31 - 1))
def test_a_word_is_that_of_the_cell(seed: int, user: int, column: int) -> None:
    """The twin of signs and the hash of cells are one function."""
    cell = np.array([user], np.int32), np.array([column], np.int32)
    assert (twins.word(seed, user, column) >> 11) * 2.0**-53 == cell_uniform(seed, *cell)[0]


@pytest.mark.parametrize("kernel", [poisson_sums, flip_sums])
@given(values=VALUES, seed=SEEDS, at=st.integers(0, 5))
def test_sums_do_not_depend_on_the_cut(kernel, values: np.ndarray, seed: int, at: int) -> None:
    parts = kernel(values[:at], 7, seed, 70) + kernel(values[at:], 7 + len(values[:at]), seed, 70)
    np.testing.assert_array_equal(parts, kernel(values, 7, seed, 70))


def test_weights_are_poisson_of_mean_1() -> None:
    weights = poisson_sums(np.eye(400), 0, 3, 100)[0].ravel()
    counts = np.bincount(weights.astype(int), minlength=6)
    expected = len(weights) * np.append(stats.poisson.pmf(range(5), 1), stats.poisson.sf(4, 1))
    found = np.append(counts[:5], counts[5:].sum())
    assert stats.chisquare(found, expected).pvalue > 0.001


def test_signs_are_fair_and_independent() -> None:
    signs = flip_sums(np.eye(400), 0, 3, 400)
    assert set(signs.ravel()) == {-1, 1}
    assert abs(signs.mean()) < 4 / 400
    for other in (signs[:, 1:] * signs[:, :-1], signs[1:] * signs[:-1]):
        assert abs(other.mean()) < 4 / 399
