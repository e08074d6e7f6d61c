"""Keyed hashes of cells: randomness that does not depend on order, block or cluster."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit words: the finaliser of SplitMix64.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014,
    doi:10.1145/2660193.2660195.
    """
    with np.errstate(over="ignore"):
        state = (state ^ (state >> np.uint64(30))) * _FIRST
        state = (state ^ (state >> np.uint64(27))) * _SECOND
    return np.asarray(state ^ (state >> np.uint64(31)))


def cell_words(
    rows: NDArray[np.int32],
    columns: NDArray[np.int32],
    values: NDArray[np.float32],
    timestamps: NDArray[np.int64] | None,
) -> NDArray[np.uint64]:
    """Return a word for each cell that changes with anything that the cell holds."""
    with np.errstate(over="ignore"):
        state = mix((rows.astype(np.uint64) + np.uint64(1)) * _STEP)
        state = mix(state + (columns.astype(np.uint64) + np.uint64(1)) * _STEP)
        state = mix(state + values.view(np.uint32).astype(np.uint64))
        if timestamps is not None:
            state = mix(state + timestamps.view(np.uint64))
    return state


def cell_uniform(
    seed: int, rows: NDArray[np.int32], columns: NDArray[np.int32] | None = None
) -> NDArray[np.float64]:
    """Return a uniform number in [0, 1) for each (row, column), or for each row alone.

    The number depends on nothing but ``seed`` and the cell itself.
    """
    with np.errstate(over="ignore"):
        key = mix(np.asarray([seed], np.uint64) + _STEP)
        state = mix(key + (rows.astype(np.uint64) + np.uint64(1)) * _STEP)
        if columns is not None:
            state = mix(state + (columns.astype(np.uint64) + np.uint64(1)) * _STEP)
    return np.asarray((state >> np.uint64(11)) * 2.0**-53)
