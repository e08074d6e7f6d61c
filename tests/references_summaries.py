"""Slow twins of what figures show: plain loops over cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Longs = np.ndarray[Any, np.dtype[np.int64]]
Doubles = np.ndarray[Any, np.dtype[np.float64]]
Cell = tuple[int, int]


def counts_on_grid(
    cells: Sequence[Cell], row_bins: Sequence[int], column_bins: Sequence[int], shape: Cell
) -> Longs:
    """Count (row, column) pairs by the bins of both."""
    counts = np.zeros(shape, np.int64)
    for row, column in cells:
        counts[row_bins[row], column_bins[column]] += 1
    return counts


def counts_in_time(
    cells: Sequence[Cell], *, start: int, step: int, n_steps: int
) -> tuple[Longs, Longs]:
    """Count (row, time) pairs by step, and the different rows in each."""
    here: list[list[int]] = [[] for _ in range(n_steps)]
    for row, time in cells:
        here[(time - start) // step].append(row)
    return np.array([len(rows) for rows in here]), np.array([len({*rows}) for rows in here])


def plane(vectors: Doubles) -> tuple[Doubles, Doubles]:
    """Return rows less their mean on the two largest singular vectors, and shares of variance."""
    centred = vectors - vectors.mean(axis=0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    for direction in directions:
        direction *= np.sign(direction[np.abs(direction).argmax()])
    return centred @ directions[:2].T, (sizes**2 / (sizes**2).sum())[:2]
