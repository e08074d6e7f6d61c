"""Exact least squares for the rows of one sparse block."""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numpy as np
from numba import njit, types
from numba.extending import get_cython_function_address
from numpy.typing import NDArray

from dasrec.errors import InputError

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

Work = tuple[Floats, Floats, Floats, Floats]
"""Scratch of one thread: tile W, goal q, a system to factorise, W'W."""

_OVERFLOW = "numbers overflow float32; scale the values down, for instance to at most 1000"
TILE = 512
"""Rows of factors gathered at a time: 512 x 64 float32 is 128 KiB, which stays in the L2 cache."""


def _routine(module: str, name: str, n_arguments: int) -> Any:
    """Make a routine of BLAS or LAPACK callable; by name, so that compiled code can be cached."""
    symbol = f"dasrec_{name}"
    llvm.add_symbol(symbol, get_cython_function_address(f"scipy.linalg.cython_{module}", name))
    return types.ExternalFunction(symbol, types.void(*[types.uintp] * n_arguments))


_ssyrk: Any = _routine("blas", "ssyrk", 10)
_sposv: Any = _routine("lapack", "sposv", 8)


_BY_COLUMNS, _BY_ROWS = ord("N"), ord("T")


@njit(cache=True, nogil=True)
def _rank_update(way: int, tile: Floats, n: int, matrix: Floats, before: float) -> None:
    """Set the upper half of a matrix to ``before`` times itself and T'T, T being ``tile[:n]``.

    With the way ``_BY_ROWS`` it is TT', n x n in the corner of the matrix. BLAS takes arrays by
    columns, so that T is T' to it, and the upper half the lower.
    """
    k = tile.shape[1]
    rows, inner = (n, k) if way == _BY_ROWS else (k, n)
    words = np.array([rows, inner, k, matrix.shape[1]], np.int32)
    scales = np.array([1, before], np.float32)
    letters = np.array([ord("L"), way], np.int8)
    at = words.ctypes.data
    _ssyrk(
        letters.ctypes.data,
        letters.ctypes.data + 1,
        at,
        at + 4,
        scales.ctypes.data,
        tile.ctypes.data,
        at + 8,
        scales.ctypes.data + 4,
        matrix.ctypes.data,
        at + 12,
    )


@njit(cache=True, nogil=True)
def _cholesky_solve(matrix: Floats, right: Floats, n: int) -> bool:
    """Solve ``matrix[:n, :n] x = right[:n]`` in place; False if it is not positive definite.

    Only the upper half of the matrix is read.
    """
    words = np.array([n, 1, matrix.shape[1], n, 0], np.int32)
    letter = np.array([ord("L")], np.int8)
    at = words.ctypes.data
    _sposv(
        letter.ctypes.data,
        at,
        at + 4,
        matrix.ctypes.data,
        at + 8,
        right.ctypes.data,
        at + 12,
        at + 16,
    )
    return bool(words[4] == 0)


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
    for p in range(k):
        x[p] = np.sqrt(inverse[p])
    for i in range(n):
        for p in range(k):
            tile[i, p] *= x[p]
    _rank_update(_BY_ROWS, tile, n, system, 0)
    for i in range(n):
        system[i, i] += np.float32(1)
    if not _cholesky_solve(system, goal, n):
        return False
    scale = x.copy()
    x[:] = 0
    for i in range(n):
        for p in range(k):
            x[p] += tile[i, p] * goal[i]
    for p in range(k):
        x[p] *= scale[p]
    return True


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _long_row(
    work: Work, factors: Floats, indices: Ints, weights: Floats, targets: Floats, right: Floats
) -> None:
    """Sum W'W and W'q over tiles of the row's cells, into ``work`` and ``right``."""
    tile, goal, _, normal = work
    k = right.shape[0]
    right[:] = 0
    for first in range(0, indices.shape[0], TILE):
        cells = slice(first, min(first + TILE, indices.shape[0]))
        n = cells.stop - first
        _gather(work, factors, indices[cells], weights[cells], targets[cells])
        _rank_update(_BY_COLUMNS, tile, n, normal, min(first, 1))
        for i in range(n):
            for p in range(k):
                right[p] += goal[i] * tile[i, p]


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


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def shift_rows(
    rows: tuple[Longs, Ints, Floats, Floats],
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
