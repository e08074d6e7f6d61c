"""Intervals and tests against SciPy, exact counts and simulated data of known truth."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

import dasrec
from dasrec import InputError, certainty
from dasrec.certainty import bounds, holm, p_values
from tests import references_certainty as twins

TESTS = ["randomisation", "wilcoxon", "t"]


def skewed(n: int, seed: int = 0) -> np.ndarray:
    """Values as metrics have them: many 0, some 1, the rest between; column 1 lacks a fifth."""
    rng = np.random.default_rng(seed)
    values = np.clip(rng.exponential(0.4, (n, 2)) - 0.2, 0, 1)
    values[rng.random(n) < 0.2, 1] = np.nan
    return values


def wrapped(values: np.ndarray) -> xr.Dataset:
    return xr.Dataset(
        {"recall": (("user", "n"), values), "auc": ("user", values[:, 0])},
        coords={"n": [5, 10], "user_id": ("user", np.arange(len(values)))},
        attrs={"split": "random:0.2"},
    )


# -- intervals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_intervals_are_those_of_scipy_but_for_chance(method: Any) -> None:
    values = skewed(300)
    found = bounds(values, level=0.9, replicates=8000, seed=1, method=method)
    for column in (0, 1):
        known = values[~np.isnan(values[:, column]), column]
        theirs = stats.bootstrap(
            (known,), np.mean, confidence_level=0.9, n_resamples=8000, method=method, rng=2
        )
        slack = 0.08 * theirs.standard_error
        assert found["value"][column] == pytest.approx(known.mean(), rel=1e-12)
        assert found["low"][column] == pytest.approx(theirs.confidence_interval.low, abs=slack)
        assert found["high"][column] == pytest.approx(theirs.confidence_interval.high, abs=slack)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_95_of_100_intervals_hold_the_truth(method: Any) -> None:
    """Columns are 400 samples of 200 users; truth is the mean of what they are drawn from."""
    rng = np.random.default_rng(5)
    samples = rng.beta(0.5, 2.0, (200, 400))
    found = bounds(samples, level=0.95, replicates=500, seed=3, method=method)
    held = ((found["low"] <= 0.2) & (found["high"] >= 0.2)).sum()
    # 0.94 is what a bootstrap of so few replicates has at least
    least, most = stats.binom.ppf([0.001, 0.999], 400, [0.94, 0.95])
    assert least <= held <= most


def test_intervals_shrink_with_users_and_grow_with_the_level() -> None:
    def width(n: int, level: float) -> float:
        found = bounds(skewed(n)[:, :1], level=level, replicates=500, seed=0)
        assert found["low"] < found["value"] < found["high"]
        return float(found["high"][0] - found["low"][0])

    assert width(1600, 0.95) == pytest.approx(width(100, 0.95) / 4, rel=0.25)
    assert width(100, 0.5) < width(100, 0.8) < width(100, 0.95) < width(100, 0.99)


def test_sure_and_unknown_means() -> None:
    values = np.array(
        [[0.1, np.nan, 0.2, 0.1], [0.1, np.nan, np.nan, 0.3], [0.1, np.nan, np.nan, 0.2]]
    )
    found = bounds(values, level=0.95, replicates=200, seed=0)
    np.testing.assert_allclose(found["value"], [0.1, np.nan, 0.2, 0.2])
    np.testing.assert_allclose(found["low"][:3], [0.1, np.nan, np.nan])
    np.testing.assert_allclose(found["high"][:3], [0.1, np.nan, np.nan])
    assert 0.1 <= found["low"][3] < 0.2 < found["high"][3] <= 0.3


def test_intervals_are_labelled_and_repeatable() -> None:
    values = wrapped(skewed(50))
    found = dasrec.intervals(values, level=0.8, rng=3)
    assert {name: each.dims for name, each in found.items()} == dict.fromkeys(
        ("value", "low", "high"), ("metric", "n")
    )
    assert found["metric"].values.tolist() == ["recall", "auc"]
    assert found["n"].values.tolist() == [5, 10]
    assert found.attrs == {
        **{"split": "random:0.2", "n_users": 50, "method": "bca"},
        **{"level": 0.8, "replicates": 1000, "rng": 3},
    }
    auc = found.sel(metric="auc")
    assert auc.sel(n=5).drop_vars("n").equals(auc.sel(n=10).drop_vars("n"))
    np.testing.assert_allclose(auc["value"], np.mean(skewed(50)[:, 0]))
    assert found.identical(dasrec.intervals(values, level=0.8, rng=3))
    assert not found.equals(dasrec.intervals(values, level=0.8, rng=4))
    alone = dasrec.intervals(values[["auc"]].assign_coords(n=[5, 10]), level=0.8, rng=3)
    assert alone.equals(found.sel(metric=["auc"]))


@given(cut=st.integers(1, 70), n=st.integers(2, 60))
def test_nothing_depends_on_how_users_are_cut(cut: int, n: int) -> None:
    values = skewed(n)
    whole = bounds(values, level=0.9, replicates=100, seed=1)
    chances = p_values(values - 0.3, test="randomisation", seed=1)
    with mock.patch("dasrec.certainty._TASK_USERS", cut):
        parts = bounds(values, level=0.9, replicates=100, seed=1)
        np.testing.assert_array_equal(p_values(values - 0.3, test="randomisation", seed=1), chances)
    for name, each in whole.items():
        np.testing.assert_allclose(parts[name], each, rtol=1e-12)


def test_intervals_that_make_no_sense_are_refused() -> None:
    values = wrapped(skewed(9))
    for options, message in (
        ({"level": 95.0}, r"level is 95\.0; expected a number between 0 and 1"),
        ({"replicates": 10}, "replicates is 10; expected a whole number, at least 100"),
        ({"method": "t"}, "method is 't'; expected one of: bca, percentile"),
        ({"rng": -1}, "rng is -1"),
    ):
        with pytest.raises(InputError, match=message):
            dasrec.intervals(values, **options)
    for odd in (values.mean("user"), values.drop_vars(["recall", "auc"]), values.drop_vars("n")):
        with pytest.raises(InputError, match="expected those of users with the coordinate n"):
            dasrec.intervals(odd)


# -- tests of differences --------------------------------------------------------------------------


@given(hnp.arrays(np.float64, st.integers(1, 9), elements=st.sampled_from([0, 0.5, 1, -0.25])))
def test_randomisation_is_the_share_of_all_signs(differences: np.ndarray) -> None:
    p = p_values(differences[:, None], test="randomisation", seed=0)[0]
    exact = twins.every_sign(differences)
    assert abs(p - exact) <= 5 * np.sqrt(exact * (1 - exact) / certainty.FLIPS) + 1e-4


def test_tests_are_those_of_scipy() -> None:
    differences = skewed(40, seed=1) - skewed(40, seed=2) + 0.07
    columns = [each[~np.isnan(each)] for each in differences.T]
    assert len(columns[1]) < len(columns[0])
    for column, known in enumerate(columns):
        found = {
            test: p_values(differences, test=test, seed=0)[column]  # type: ignore[arg-type]
            for test in TESTS
        }
        none = np.zeros_like(known)
        assert found["t"] == pytest.approx(stats.ttest_rel(known, none).pvalue, rel=1e-9)
        assert found["wilcoxon"] == pytest.approx(stats.wilcoxon(known).pvalue, rel=1e-9)
        theirs = stats.permutation_test(
            *((known, none), lambda x, y, axis: np.mean(x - y, axis=axis)),
            **{"permutation_type": "samples", "n_resamples": 10_000, "vectorized": True, "rng": 1},
        ).pvalue
        assert found["randomisation"] == pytest.approx(theirs, abs=0.02)
        assert 0.001 < theirs < 0.9


@pytest.mark.parametrize("test", TESTS)
def test_p_values_are_uniform_if_there_is_no_difference(test: Any) -> None:
    differences = np.random.default_rng(8).normal(size=(60, 400))
    found = p_values(differences, test=test, seed=2)
    assert stats.kstest(found, "uniform").pvalue > 0.001
    moved = p_values(differences + 0.6, test=test, seed=2)
    assert np.quantile(moved, 0.95) < 0.01


@pytest.mark.parametrize("test", TESTS)
def test_no_difference_and_no_user(test: Any) -> None:
    differences = np.zeros((8, 3))
    differences[:, 1] = np.nan
    differences[:, 2] = 0.5
    same, nobody, always = p_values(differences, test=test, seed=0)
    assert same == 1
    assert np.isnan(nobody)
    assert always < 0.02
    assert np.isnan(p_values(np.ones((1, 1)), test="t", seed=0)[0])


def test_ranks_do_not_tell_equal_differences_apart() -> None:
    exact = np.tile([0.2, 0.2, -0.2, 0.4], 10)
    noisy = exact + np.tile([0, 1e-17, 3e-17, 0], 10) * np.arange(40)
    assert len(np.unique(np.abs(noisy))) > 2
    found = p_values(np.stack([exact, noisy], axis=1), test="wilcoxon", seed=0)
    assert found[0] == found[1]


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 6), st.integers(1, 3)),
        elements=st.sampled_from([0.001, 0.01, 0.02, 0.4, 1.0, np.nan]),
    )
)
def test_holm_is_that_of_a_slow_twin(p: np.ndarray) -> None:
    expected = np.stack([twins.holm(list(each)) for each in p.T], axis=1)
    np.testing.assert_allclose(holm(p), expected, rtol=1e-12)


def test_holm_by_hand() -> None:
    """0.01 x 4; 0.02 x 3; 0.03 x 2 stays 0.06; 0.9."""
    found = holm(np.array([0.03, np.nan, 0.01, 0.9, 0.02]))
    np.testing.assert_allclose(found, [0.06, np.nan, 0.04, 0.9, 0.06])
