"""Count the cells of a block on a grid of a few bins."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]


@njit(cache=True, nogil=True)
def count_cells(
    indptr: Longs, indices: Ints, row_bins: Ints, column_bins: Ints, shape: tuple[int, int]
) -> Longs:
    """Count the cells of a block by the bins of their rows and columns.

    Parameters
    ----------
    indptr, indices : int64 and int32, the block's rows
    row_bins : int32, shape (n_rows,), of the block's rows
    column_bins : int32, shape (n_columns,)
    shape : how many bins of rows and of columns there are

    Returns
    -------
    int64, of this shape

    Notes
    -----
    Cost: a look-up and an addition a cell.
    """
    counts = np.zeros(shape, np.int64)
    for row in range(indptr.shape[0] - 1):
        line = counts[row_bins[row]]
        for cell in range(indptr[row], indptr[row + 1]):
            line[column_bins[indices[cell]]] += 1
    return counts


@njit(cache=True, nogil=True)
def count_steps(
    indptr: Longs, times: Longs, start: int, step: int, n_steps: int
) -> tuple[Longs, Longs]:
    """Count the cells of a block, and the rows that have some, by equal steps of time.

    Parameters
    ----------
    indptr : int64, the block's rows
    times : int64, shape (n_stored,), none before ``start``
    start, step : in the unit of the times
    n_steps : steps that there are

    Returns
    -------
    cells, rows : int64, shape (n_steps,)

    Notes
    -----
    Cost: a division a cell.
    """
    cells, rows = np.zeros(n_steps, np.int64), np.zeros(n_steps, np.int64)
    last = np.full(n_steps, -1, np.int64)  # the last row that was counted there
    for row in range(indptr.shape[0] - 1):
        for cell in range(indptr[row], indptr[row + 1]):
            place = (times[cell] - start) // step
            cells[place] += 1
            if last[place] != row:
                last[place] = row
                rows[place] += 1
    return cells, rows
