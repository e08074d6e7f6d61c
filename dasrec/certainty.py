"""How certain a mean over users is, and whether two models differ by more than chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

from dasrec import blocks
from dasrec.checks import check_choice, check_count, check_fraction, seed_of
from dasrec.errors import InputError
from dasrec.kernels.resampling import flip_sums, poisson_sums
from dasrec.results import Comparison
from dasrec.schema import METRIC, USER, N
from dasrec.typing import Rng

Doubles = NDArray[np.float64]
Method = Literal["bca", "percentile"]
Test = Literal["randomisation", "wilcoxon", "t"]

REPLICATES = 1000
FLIPS = 10_000
_TASK_USERS = 1 << 15  # the same on any cluster, since it is the order in which sums are taken


def intervals(
    values: xr.Dataset,
    *,
    level: float = 0.95,
    method: Method = "bca",
    replicates: int = REPLICATES,
    rng: Rng = 0,
) -> Comparison:
    """Bootstrap confidence intervals of means over users, eagerly.

    Parameters
    ----------
    values : xarray.Dataset
        What :func:`dasrec.evaluate_users` returns: a variable a metric, dims (user, n) or (user,).
    level : float
        How often such intervals hold the mean over all users that there might have been.
    method : {"bca", "percentile"}
        Corrected for bias and skewness, or the plain quantiles of the replicates.
    replicates : int
        How often the users are drawn again, at least 100.
    rng : int, numpy.random.Generator or None
        One seed gives the same on any cluster.

    Returns
    -------
    Comparison, an xarray.Dataset
        float64 variables ``value`` (the mean), ``low`` and ``high``, dims (metric, n); a metric
        that does not depend on n is the same at each. NaN bounds where fewer than two users have a
        value.

    Raises
    ------
    InputError
        ``values`` are not by user, or a number is out of range.

    Notes
    -----
    Users are drawn by weights that are Poisson of mean 1, one a user and replicate, keyed by the
    seed (Hanley and MacGibbon 2006, Computer Methods and Programs in Biomedicine 83, 57); a
    replicate is the weighted mean. BCa: Efron and Tibshirani 1993, ISBN 978-0-412-04231-7, chapter
    14; the acceleration of a mean needs no jackknife. Cost: replicates times the number of values,
    in tasks of 32,768 users; memory does not grow with the replicates times the users.
    """
    table = lay_out(values)
    how = check_interval(level=level, replicates=replicates, rng=rng)
    check_choice(method, name="method", choices=get_args(Method))
    columns = table.values.reshape(table.sizes[USER], -1)
    found = bounds(columns, level=level, replicates=replicates, seed=how["rng"], method=method)
    dims = table.dims[1:]
    shape = table.shape[1:]
    return Comparison(
        {name: (dims, each.reshape(shape)) for name, each in found.items()},
        coords={dim: table[dim] for dim in dims},
        attrs=values.attrs | {"n_users": table.sizes[USER], "method": method} | how,
    )


def check_interval(*, level: float, replicates: int, rng: Rng) -> dict[str, Any]:
    """Return what an interval depends on, as attributes of a result."""
    return {
        "level": check_fraction(level, name="level"),
        "replicates": check_count(replicates, name="replicates", least=100),
        "rng": seed_of(rng),
    }


def lay_out(values: xr.Dataset) -> xr.DataArray:
    """Return values of users as one array, dims (user, metric, n)."""
    dims = [{*each.dims} for each in values.data_vars.values()]
    if not dims or N not in values.coords or not all({USER} <= each <= {USER, N} for each in dims):
        msg = (
            f"values holds {dict(values.sizes)}; expected those of users with the coordinate n, as "
            "evaluate_users gives; choose metrics there"
        )
        raise InputError(msg)
    table = values.drop_vars(list(values.coords)).to_dataarray(METRIC)
    if N not in table.dims:
        table = table.expand_dims({N: values.sizes[N]})
    return table.assign_coords({N: values[N].values}).transpose(USER, METRIC, N)


def bounds(
    values: Doubles, *, level: float, replicates: int, seed: int, method: Method = "bca"
) -> dict[str, Doubles]:
    """Return the mean of each column, ``value``, and its interval, ``low`` and ``high``.

    Parameters
    ----------
    values : float64, shape (n_users, n_columns); NaN where a user has no value

    Returns
    -------
    dict of float64, shape (n_columns,)
    """
    mean = _mean(values)
    sums = _over_users(poisson_sums, values, seed, replicates)
    ends = np.full((2, len(mean)), np.nan)
    for column in np.flatnonzero((~np.isnan(values)).sum(axis=0) > 1):
        drawn = sums[1, column] > 0
        means = sums[0, column, drawn] / sums[1, column, drawn]
        tails = np.array([0.5 - level / 2, 0.5 + level / 2])
        if method == "bca":
            tails = _bca(values[:, column], means, mean[column], tails)
        ends[:, column] = np.quantile(means, tails)
    return {"value": mean, "low": ends[0], "high": ends[1]}


def _mean(values: Doubles) -> Doubles:
    counts = (~np.isnan(values)).sum(axis=0)
    return np.where(counts > 0, np.nansum(values, axis=0) / np.maximum(counts, 1), np.nan)


def _bca(values: Doubles, means: Doubles, mean: float, tails: Doubles) -> Doubles:
    """Return which quantiles of the replicates to take for the tails of a normal distribution."""
    # means of equal users differ in their last bits, and by no more
    slack = 1e-12 * np.abs(means).max()
    below = (means < mean - slack).sum() + 0.5 * (np.abs(means - mean) <= slack).sum()
    share = np.clip(below / len(means), 0.5 / len(means), 1 - 0.5 / len(means))
    bias = stats.norm.ppf(share)
    away = values[~np.isnan(values)] - mean
    spread = (away**2).sum()
    skew = (away**3).sum() / (6 * spread**1.5) if spread > 0 else 0.0
    shifted = bias + stats.norm.ppf(tails)
    return np.asarray(stats.norm.cdf(bias + shifted / (1 - skew * shifted)))


def p_values(differences: Doubles, *, test: Test, seed: int) -> Doubles:
    """Test whether the differences of two models over the same users are more than chance.

    Parameters
    ----------
    differences : float64, shape (n_users, n_columns)
        NaN where a user has no value under one of both; left out.
    test : {"randomisation", "wilcoxon", "t"}
        Random signs, 10,000 times, and the share of sums as far from 0 as the one found (Smucker,
        Allan and Carterette 2007, doi:10.1145/1321440.1321528), itself among them; the signed rank
        test; Student's paired t-test. Two-sided.

    Returns
    -------
    float64, shape (n_columns,)
        1 where no user differs; NaN where no user has a value, and for t where only one has.
    """
    columns = [each[~np.isnan(each)] for each in differences.T]
    if test == "randomisation":
        sums = np.abs(_over_users(flip_sums, differences, seed, FLIPS))
        found = np.array([_share(*pair) for pair in zip(columns, sums, strict=True)])
    else:
        one = _wilcoxon if test == "wilcoxon" else _student
        found = np.array([one(each) for each in columns])
    return np.where([len(each) > 0 for each in columns], found, np.nan)


def _share(differences: Doubles, sums: Doubles) -> float:
    # the same sum in another order differs in its last bits
    least = np.abs(differences.sum()) - 1e-12 * np.abs(differences).sum()
    return float((1 + (sums >= least).sum()) / (1 + len(sums)))


def _wilcoxon(differences: Doubles) -> float:
    most = np.abs(differences).max(initial=0)
    if most == 0:
        return 1.0
    # equal differences may differ in their last bits, which ranks would tell apart
    rounded = np.round(differences / most, 12)
    return float(stats.wilcoxon(rounded[rounded != 0]).pvalue)


def _student(differences: Doubles) -> float:
    if len(differences) < 2:
        return np.nan
    if np.ptp(differences) == 0:
        return 0.0 if differences[0] else 1.0
    return float(stats.ttest_1samp(differences, 0).pvalue)


def holm(p: Doubles) -> Doubles:
    """Correct p-values along the first axis for being several: Holm 1979, jstor.org/stable/4615733.

    NaN stays, and does not count.
    """
    order = np.argsort(p, axis=0)  # NaN comes last
    left = (~np.isnan(p)).sum(axis=0) - np.arange(len(p)).reshape(-1, *[1] * (p.ndim - 1))
    ascending = np.take_along_axis(p, order, axis=0) * left
    corrected = np.empty_like(p)
    steps = np.minimum(np.maximum.accumulate(ascending, axis=0), 1)
    np.put_along_axis(corrected, order, steps, axis=0)
    return corrected


def _over_users(
    kernel: Callable[[Doubles, int, int, int], Doubles], values: Doubles, seed: int, times: int
) -> Doubles:
    """Add what a kernel of resampling gives for each range of users, in their order."""
    cuts = range(0, max(len(values), 1), _TASK_USERS)
    arguments = [
        (
            blocks.share(np.ascontiguousarray(values[start : start + _TASK_USERS])),
            start,
            seed,
            times,
        )
        for start in cuts
    ]
    return np.sum(blocks.run(kernel, arguments, name="resample-block"), axis=0)
