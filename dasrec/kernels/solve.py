"""Exact least squares for the rows of one sparse block."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dasrec.errors import InputError

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

Work = tuple[Floats, Floats, Floats, Floats, Floats]
"""Scratch of one thread: tile W, goal q, a system to factorise, W'W and a part of it."""

_OVERFLOW = "numbers overflow float32; scale the values down, for instance to at most 1000"
TILE = 512
"""Rows of factors gathered at a time: 512 x 64 float32 is 128 KiB, which stays in the L2 cache."""


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _cholesky_solve(matrix: Floats, right: Floats, n: int) -> bool:
    """Solve ``matrix[:n, :n] x = right[:n]`` in place; False if it is not positive definite.

    Row-oriented, so every inner loop is a dot product of two contiguous rows.
    """
    for i in range(n):
        row = matrix[i]
        for j in range(i):
            other = matrix[j]
            total = row[j]
            for p in range(j):
                total -= row[p] * other[p]
            row[j] = total / other[j]
        pivot = row[i]
        for p in range(i):
            pivot -= row[p] * row[p]
        if not pivot > 0:
            return False
        row[i] = np.sqrt(pivot)
        total = right[i]
        for p in range(i):
            total -= row[p] * right[p]
        right[i] = total / row[i]
    for i in range(n - 1, -1, -1):
        row = matrix[i]
        right[i] /= row[i]
        for p in range(i):
            right[p] -= right[i] * row[p]
    return True


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _gather(work: Work, factors: Floats, indices: Ints, weights: Floats, targets: Floats) -> None:
    """Fill W = sqrt(c) V and q = sqrt(c) t for the columns in ``indices``."""
    tile, goal = work[0], work[1]
    for i in range(indices.shape[0]):
        root = np.sqrt(weights[i])
        goal[i] = root * targets[i]
        source = factors[indices[i]]
        for p in range(source.shape[0]):
            tile[i, p] = root * source[p]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _short_row(work: Work, n: int, inverse: Floats, x: Floats) -> bool:
    """Solve through the n x n system: x = M^-1 W' y with (I + W M^-1 W') y = q."""
    tile, goal, system = work[0], work[1], work[2]
    k = x.shape[0]
    for i in range(n):
        for j in range(i + 1):
            total = np.float32(1.0) if i == j else np.float32(0.0)
            for p in range(k):
                total += tile[i, p] * inverse[p] * tile[j, p]
            system[i, j] = total
    if not _cholesky_solve(system, goal, n):
        return False
    x[:] = 0
    for i in range(n):
        for p in range(k):
            x[p] += tile[i, p] * goal[i]
    for p in range(k):
        x[p] *= inverse[p]
    return True


@njit(cache=True, nogil=True)
def _long_row(
    work: Work, factors: Floats, indices: Ints, weights: Floats, targets: Floats, right: Floats
) -> None:
    """Sum W'W and W'q over tiles of the row's cells, into ``work`` and ``right``."""
    tile, goal, _, normal, part = work
    normal[:] = 0
    right[:] = 0
    for first in range(0, indices.shape[0], TILE):
        cells = slice(first, min(first + TILE, indices.shape[0]))
        n = cells.stop - first
        _gather(work, factors, indices[cells], weights[cells], targets[cells])
        np.dot(tile[:n].T, tile[:n], part)
        normal += part
        right += np.dot(goal[:n], tile[:n])


@njit(cache=True, nogil=True)
def _normal_equations(work: Work, base: Floats, level: float, right: Floats, x: Floats) -> bool:
    """Solve (W'W + diag(base) + level I) x = W'q; a singular system gets a tenfold level."""
    system, normal = work[2], work[3]
    k = x.shape[0]
    while level < np.inf:
        for i in range(k):
            system[i, :k] = normal[i]
            system[i, i] += base[i] + level
        x[:] = right
        if _cholesky_solve(system, x, k):
            return True
        level *= 10
    return False


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _row_loss(x: Floats, factors: Floats, indices: Ints, weights: Floats, targets: Floats) -> float:
    """Return sum of c (t - v . x)^2 over the row's cells, in float64."""
    loss = 0.0
    for i in range(indices.shape[0]):
        source = factors[indices[i]]
        predicted = np.float32(0.0)
        for p in range(x.shape[0]):
            predicted += source[p] * x[p]
        error = float(targets[i]) - float(predicted)
        loss += float(weights[i]) * error * error
    return loss


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
    work = (
        np.empty((TILE, k), np.float32),
        np.empty(TILE, np.float32),
        np.empty((k, k), np.float32),
        np.empty((k, k), np.float32),
        np.empty((k, k), np.float32),
    )
    for row in range(n_rows):
        cells = slice(indptr[row], indptr[row + 1])
        n = cells.stop - cells.start
        if n == 0:
            continue
        x, columns, c, t = solution[row], indices[cells], weights[cells], targets[cells]
        solved = False
        if n < k and n <= TILE:
            _gather(work, factors, columns, c, t)
            solved = _short_row(work, n, 1 / (base + ridge[row]), x)
        if not solved:
            _long_row(work, factors, columns, c, t, right)
            solved = _normal_equations(work, base, ridge[row], right, x)
        loss[row] = _row_loss(x, factors, columns, c, t)
        if not (solved and loss[row] < np.inf):
            raise InputError(_OVERFLOW)
    return solution, loss
