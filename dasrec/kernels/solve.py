"""Exact least squares for the rows of one sparse block."""

from __future__ import annotations

import numpy as np
from numba import njit

from dasrec.errors import InputError
from dasrec.kernels.rows import (
    FAST,
    OVERFLOW,
    TILE,
    Doubles,
    Floats,
    Ints,
    Longs,
    Rows,
    gather_weighted,
    row_loss,
    solve_dual,
    solve_normal,
    sum_up,
)


@njit(cache=True, nogil=True)
def solve_rows(
    indptr: Longs,
    indices: Ints,
    weights: Floats,
    targets: Floats,
    factors: Floats,
    base: Floats,
    ridge: Floats,
) -> tuple[Floats, Doubles]:
    """Minimise, for every row on its own, over x of length k

        sum_j c_j (t_j - v_j . x)^2  +  x' (diag(base) + ridge_row I) x

    exactly: rows with fewer cells than factors through the n x n dual system, longer ones through
    the k x k normal equations (diag(base) + ridge I + V' C V) x = V' C t.

    Parameters
    ----------
    indptr, indices : int64 and int32, the block's rows
    weights, targets : float32, shape (n_stored,): c >= 0 and t of every stored cell
    factors : float32, shape (n_columns, k): v, in a basis where the shared quadratic form is
    diagonal
    base : float32, shape (k,): that form's diagonal, for instance eigenvalues of a Gram matrix
    ridge : float32, shape (n_rows,), > 0: regularisation of each row

    Returns
    -------
    solution : float32, shape (n_rows, k); zeros for a row without cells
    loss : float64, shape (n_rows,): the first sum at the solution

    Notes
    -----
    Cost: min(n^2 k + n^3 / 3, n k^2 + k^3 / 3) multiply-adds a row of n cells. A system that is not
    positive definite in float32 gets a tenfold ridge until it is; InputError if numbers overflow.
    Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008,
    doi:10.1109/ICDM.2008.22.
    """
    n_rows, k = indptr.shape[0] - 1, factors.shape[1]
    solution = np.zeros((n_rows, k), np.float32)
    loss = np.zeros(n_rows, np.float64)
    right = np.empty(k, np.float32)
    tile, goal = np.empty((TILE, k), np.float32), np.empty(TILE, np.float32)
    sums = (tile, goal, np.empty((k, k), np.float32), np.empty((k, k), np.float32))
    for row in range(n_rows):
        own = slice(indptr[row], indptr[row + 1])
        n = own.stop - own.start
        if n == 0:
            continue
        x, cells = solution[row], (indices[own], weights[own], targets[own])
        solved = False
        if n < k and n <= TILE:
            gather_weighted(tile, goal, factors, cells)
            solved = solve_dual(sums, n, 1 / (base + ridge[row]), x)
        if not solved:
            sum_up(sums, factors, cells, right)
            solved = solve_normal(sums, base, ridge[row], right, x)
        loss[row] = row_loss(x, factors, cells)
        if not (solved and loss[row] < np.inf):
            raise InputError(OVERFLOW)
    return solution, loss


@njit(cache=True, nogil=True, fastmath=FAST)
def shift_rows(
    rows: Rows,
    factors: Floats,
    base: Floats,
    ridge: Floats,
    means: Floats,
) -> tuple[Floats, Floats]:
    """Turn a penalty of ridge |x - mean|^2 into one of ridge |z|^2 with x = center + z.

    With M = diag(base) + ridge I and center = M^-1 ridge mean, the penalty of a row is z' M z but
    for a constant, and its targets become t - v . center.

    Parameters
    ----------
    rows : the block: indptr, int64; indices, int32; weights and targets of stored cells, float32
    factors, base, ridge : as :func:`solve_rows`
    means : float32, shape (n_rows, k)

    Returns
    -------
    centers : float32, shape (n_rows, k); zeros for a row without cells
    targets : float32, shape (n_stored,)

    Notes
    -----
    Cost: k multiply-adds a cell, and to gather its factors once.
    """
    indptr, indices, _, targets = rows
    n_rows, k = indptr.shape[0] - 1, factors.shape[1]
    centers, shifted = np.zeros((n_rows, k), np.float32), targets.copy()
    for row in range(n_rows):
        if indptr[row] == indptr[row + 1]:
            continue
        center = centers[row]
        for p in range(k):
            center[p] = ridge[row] * means[row, p] / (base[p] + ridge[row])
        for cell in range(indptr[row], indptr[row + 1]):
            source, known = factors[indices[cell]], np.float32(0)
            for p in range(k):
                known += source[p] * center[p]
            shifted[cell] -= known
    return centers, shifted
