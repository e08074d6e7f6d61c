"""Sums over users under random weights and random signs, keyed by seed, user and column."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dasrec.kernels.hashing import STEP, mixed

Doubles = NDArray[np.float64]

_BELOW = np.append(np.exp(-1.0) * np.cumsum(1 / np.cumprod(np.r_[1.0, np.arange(1.0, 18.0)])), 1.0)
"""The distribution function of a Poisson variable of mean 1, from 0 on; 1 ends every search."""


@njit(cache=True, nogil=True)
def _word(seed: np.uint64, user: int, column: int) -> np.uint64:
    """Return the word that a cell (user, column) has in hashing."""
    state = mixed(mixed(seed + STEP) + (np.uint64(user) + np.uint64(1)) * STEP)
    return mixed(state + (np.uint64(column) + np.uint64(1)) * STEP)


@njit(cache=True, nogil=True)
def _add(sums: Doubles, factors: Doubles, value: float) -> None:
    for place in range(sums.shape[0]):
        sums[place] += factors[place] * value


@njit(cache=True, nogil=True)
def poisson_sums(values: Doubles, first: int, seed: int, replicates: int) -> Doubles:
    """Sum values under weights that are Poisson of mean 1, one a user and replicate.

    Parameters
    ----------
    values : float64, shape (n_users, n_columns)
        NaN where a user has no value.
    first : int
        Number of the first user; the weight of a user depends on nothing but ``seed``, the user
        and the replicate.

    Returns
    -------
    float64, shape (2, n_columns, replicates)
        Sums of weighted values, and of the weights of users that have a value.
    """
    n_columns = values.shape[1]
    sums = np.zeros((2, n_columns, replicates))
    weights = np.empty(replicates)
    for row in range(values.shape[0]):
        for replicate in range(replicates):
            word = _word(np.uint64(seed), first + row, replicate)
            uniform = np.float64(word >> np.uint64(11)) * 2.0**-53
            weight = 0
            while uniform >= _BELOW[weight]:
                weight += 1
            weights[replicate] = weight
        for column in range(n_columns):
            value = values[row, column]
            if np.isnan(value):
                continue
            _add(sums[0, column], weights, value)
            _add(sums[1, column], weights, 1.0)
    return sums


@njit(cache=True, nogil=True)
def flip_sums(differences: Doubles, first: int, seed: int, flips: int) -> Doubles:
    """Sum differences under random signs, one a user and flip.

    Parameters
    ----------
    differences : float64, shape (n_users, n_columns)
        NaN counts as 0.
    first : int
        Number of the first user; 64 signs are the bits of one word, keyed as the weights are.

    Returns
    -------
    float64, shape (n_columns, flips)
    """
    n_columns = differences.shape[1]
    sums = np.zeros((n_columns, flips))
    signs = np.empty(flips)
    for row in range(differences.shape[0]):
        if not (np.abs(differences[row]) > 0).any():
            continue
        word = np.uint64(0)
        for flip in range(flips):
            if flip % 64 == 0:
                word = _word(np.uint64(seed), first + row, flip // 64)
            signs[flip] = 1.0 if word & np.uint64(1) else -1.0
            word >>= np.uint64(1)
        for column in range(n_columns):
            difference = differences[row, column]
            if not np.abs(difference) > 0:
                continue
            _add(sums[column], signs, difference)
    return sums
