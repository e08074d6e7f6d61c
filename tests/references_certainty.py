"""Slow twins of the statistics: one user, one replicate, one model at a time."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from scipy import stats

from dasrec.kernels.hashing import cell_uniform


def word(seed: int, user: int, column: int) -> int:
    """Mix seed, user and column: SplitMix64 in Python's whole numbers."""
    last, step = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(state: int) -> int:
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & last
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & last
        return state ^ (state >> 31)

    state = mix((seed + step) & last)
    state = mix((state + (user + 1) * step) & last)
    return mix((state + (column + 1) * step) & last)


def poisson_sums(values: Any, first: int, seed: int, replicates: int) -> Any:
    """Weigh each user by the quantile of a Poisson variable."""
    sums = np.zeros((2, values.shape[1], replicates))
    for (row, column), replicate in product(np.ndindex(values.shape), range(replicates)):
        cell = np.array([first + row], np.int32), np.array([replicate], np.int32)
        weight = stats.poisson.ppf(cell_uniform(seed, *cell)[0], 1)
        if not np.isnan(values[row, column]):
            sums[:, column, replicate] += weight * values[row, column], weight
    return sums


def flip_sums(differences: Any, first: int, seed: int, flips: int) -> Any:
    """Give each user the sign of one bit."""
    sums = np.zeros((differences.shape[1], flips))
    for (row, column), flip in product(np.ndindex(differences.shape), range(flips)):
        bit = word(seed, first + row, flip // 64) >> (flip % 64) & 1
        if not np.isnan(differences[row, column]):
            sums[column, flip] += differences[row, column] * (1 if bit else -1)
    return sums


def every_sign(differences: Any) -> float:
    """Return the exact p-value of a randomisation test: all signs there are."""
    found = abs(sum(differences))
    sums = [abs(np.dot(signs, differences)) for signs in product((-1, 1), repeat=len(differences))]
    return float(np.mean([each >= found - 1e-9 for each in sums]))


def holm(p: list[float]) -> list[float]:
    """Correct each for those that are no smaller, and never below one that was smaller."""
    known = sorted(each for each in p if not np.isnan(each))
    steps = [min(1, (len(known) - place) * each) for place, each in enumerate(known)]
    return [np.nan if np.isnan(each) else max(steps[: known.index(each) + 1]) for each in p]
