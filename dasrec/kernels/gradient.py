"""Full-batch gradient descent as textbooks define it: on a small dense matrix, on stored cells."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dasrec.kernels.rows import AHEAD, FAST, fetch

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]


def squared_error(matrix: Doubles, left: Doubles, right: Doubles) -> float:
    """Return the objective J(U, V) = sum over all cells of (a_ij - u_i . v_j)^2."""
    return float(np.square(matrix - left @ right.T).sum())


def gradient_step(
    matrix: Doubles, left: Doubles, right: Doubles, learning_rate: float
) -> tuple[Doubles, Doubles]:
    """Move both factors at the same time against the gradient of :func:`squared_error`.

    Parameters
    ----------
    matrix : float64, shape (m, n)
    left, right : float64, shapes (m, k) and (n, k)
    learning_rate : step length; too long a one diverges, and nothing here guards against it

    Returns
    -------
    The new (left, right). Cost: 3 m n k multiplications.
    """
    error = matrix - left @ right.T
    # dJ/dU = -2 E V,  dJ/dV = -2 E' U
    return left + 2 * learning_rate * error @ right, right + 2 * learning_rate * error.T @ left


@njit(cache=True, nogil=True, fastmath=FAST)
def row_gradients(
    block: tuple[Longs, Ints, Floats], rows: Floats, columns: Floats
) -> tuple[Floats, float]:
    """Go through the stored cells of a block; the gradient of each row, but for a factor of -2.

    Parameters
    ----------
    block : indptr, int64; indices, int32; values a, float32
    rows, columns : float32, shapes (n_rows, k) and (n_columns, k): u and v

    Returns
    -------
    gradient : float32, shape (n_rows, k): sum over the cells of a row of (a - u.v) v
    loss : float64: sum over all cells of (a - u.v)^2

    Notes
    -----
    Cost: 2 k multiply-adds a cell; vectors are fetched before they are needed.
    """
    indptr, indices, values = block
    n_rows, k, n = indptr.shape[0] - 1, rows.shape[1], indices.shape[0]
    gradient, loss = np.zeros((n_rows, k), np.float32), 0.0
    for row in range(n_rows):
        x, out = rows[row], gradient[row]
        for i in range(indptr[row], indptr[row + 1]):
            if i + AHEAD < n:
                fetch(columns, indices[i + AHEAD])
            y, dot = columns[indices[i]], np.float32(0)
            for p in range(k):
                dot += x[p] * y[p]
            error = values[i] - dot
            loss += np.float64(error) * error
            for p in range(k):
                out[p] += error * y[p]
    return gradient, loss
