"""Least squares for the rows of one sparse block by one pass over blocks of their entries."""

from __future__ import annotations

import numpy as np
from numba import njit

from dasrec.errors import InputError
from dasrec.kernels.rows import (
    BY_COLUMNS,
    FAST,
    OVERFLOW,
    TILE_BYTES,
    Cells,
    Doubles,
    Floats,
    Rows,
    Sums,
    gather_weighted,
    rank_update,
    solve_dual,
    solve_normal,
    some,
    squares,
)

BLOCK = 32
"""Entries that are solved together, at most."""

Row = tuple[Floats, Cells, Floats]
"""Factors, the row's cells, and its errors q - W x, which are kept up to date."""

Level = tuple[Floats, float]
"""Base and ridge of the row; M is their sum."""


@njit(cache=True, nogil=True, fastmath=FAST)
def _subtract(tile: Floats, first: int, x: Floats, errors: Floats) -> None:
    """Subtract W x from the errors, x being the entries from ``first`` on."""
    for i in range(errors.shape[0]):
        row, dot = tile[i, first : first + x.shape[0]], np.float32(0)
        for p in range(x.shape[0]):
            dot += row[p] * x[p]
        errors[i] -= dot


@njit(cache=True, nogil=True, fastmath=FAST)
def _add(tile: Floats, first: int, errors: Floats, out: Floats) -> None:
    """Add W'e of the errors e to ``out``, which are the entries from ``first`` on."""
    for i in range(errors.shape[0]):
        row, error = tile[i, first : first + out.shape[0]], errors[i]
        for p in range(out.shape[0]):
            out[p] += error * row[p]


@njit(cache=True, nogil=True)
def _begin(sums: Sums, row: Row, x: Floats) -> None:
    """Set the errors; of a row that the tile holds the factors stay there."""
    tile, (factors, cells, errors) = sums[0], row
    for a in range(0, errors.shape[0], tile.shape[0]):
        z = min(a + tile.shape[0], errors.shape[0])
        gather_weighted(tile, errors[a:z], factors, some(cells, a, z))
        _subtract(tile, 0, x, errors[a:z])


@njit(cache=True, nogil=True)
def _again(sums: Sums, row: Row, a: int, z: int) -> None:
    """Gather the cells from a to z, if the tile does not hold the whole row."""
    if row[2].shape[0] > sums[0].shape[0]:
        gather_weighted(sums[0], sums[1], row[0], some(row[1], a, z))


@njit(cache=True, nogil=True)
def _descend(
    sums: Sums, row: Row, x: Floats, level: Level, first: int, right: Floats, move: Floats
) -> None:
    """Minimise over as many entries as ``move`` has, from ``first`` on."""
    tile, normal, errors, (base, ridge) = sums[0], sums[3], row[2], level
    stop, n, height = first + move.shape[0], errors.shape[0], tile.shape[0]
    for j in range(first, stop):
        right[j - first] = -(base[j] + ridge) * x[j]
    for a in range(0, n, height):
        z = min(a + height, n)
        _again(sums, row, a, z)
        rank_update(BY_COLUMNS, tile[: z - a, first:stop], normal, min(a, 1))
        _add(tile, first, errors[a:z], right)
    if not solve_normal(sums, base[first:stop], ridge, right, move):
        errors[:] = np.nan  # what has overflowed is refused at the end
        return
    x[first:stop] += move
    for a in range(0, n, height):
        z = min(a + height, n)
        _again(sums, row, a, z)
        _subtract(tile, first, move, errors[a:z])


@njit(cache=True, nogil=True, fastmath=FAST)
def _measure(sums: Sums, row: Row, x: Floats, level: Level, r: Floats) -> tuple[float, float]:
    """Return the loss, and the gap r' M^-1 r."""
    tile, errors, (base, ridge) = sums[0], row[2], level
    loss, gap, n = 0.0, 0.0, errors.shape[0]
    for i in range(n):
        loss += np.float64(errors[i]) * errors[i]
    for j in range(x.shape[0]):
        r[j] = -(base[j] + ridge) * x[j]
    for a in range(0, n, tile.shape[0]):
        z = min(a + tile.shape[0], n)
        _again(sums, row, a, z)
        _add(tile, 0, errors[a:z], r)
    for j in range(x.shape[0]):
        gap += np.float64(r[j]) * r[j] / (base[j] + ridge)
    return loss, gap


@njit(cache=True, nogil=True)
def _solve_row(
    sums: Sums, row: Row, x: Floats, level: Level, right: Floats, move: Floats
) -> tuple[float, float]:
    """Improve x in place; return the row's loss and the gap of its objective."""
    k, n = x.shape[0], row[2].shape[0]
    n_blocks = (k + BLOCK - 1) // BLOCK
    solved = False
    if n < k and n <= BLOCK:
        # all entries at once take no longer than a pass over blocks
        for j in range(k):
            right[j] = 1 / (level[0][j] + level[1])
        gather_weighted(sums[0], sums[1], row[0], row[1])
        solved = solve_dual(sums, n, right, x)
        if not solved:
            x[:] = 0
    _begin(sums, row, x)
    for b in range(0 if solved else n_blocks):
        first, stop = k * b // n_blocks, k * (b + 1) // n_blocks
        d = stop - first
        _descend(sums, row, x, level, first, right[:d], move[:d])
    return _measure(sums, row, x, level, right)


@njit(cache=True, nogil=True)
def sweep_rows(
    rows: Rows, factors: Floats, base: Floats, ridge: Floats, start: Floats
) -> tuple[Floats, Doubles, Doubles]:
    """Lower, for every row on its own, over x of length k, from ``start`` on

        sum_j c_j (t_j - v_j . x)^2  +  x' (diag(base) + ridge_row I) x

    by minimising it over blocks of at most 32 entries, one after the other, once each.

    A block is solved exactly through its normal equations; what its cells are missed by is kept up
    to date. In a basis where the shared quadratic form is diagonal, blocks have to do with each
    other through these cells alone. Rows with no more cells than a block has entries are solved
    exactly in one go, which is cheaper.

    Parameters
    ----------
    rows : the block: indptr, int64; indices, int32; c >= 0 and t of every stored cell, float32
    factors : float32, shape (n_columns, k): v, in a basis where the shared quadratic form is
        diagonal
    base : float32, shape (k,): that form's diagonal, for instance eigenvalues of a Gram matrix
    ridge : float32, shape (n_rows,), > 0: regularisation of each row
    start : float32, shape (n_rows, k)

    Returns
    -------
    solution : float32, shape (n_rows, k); zeros for a row without cells
    loss : float64, shape (n_rows,): the first sum at the solution
    gap : float64, shape (n_rows,): what the objective may still be above its least value

    Notes
    -----
    Cost for a row of n cells and blocks of d entries: n k d / 2 + 4 n k + k d^2 / 6 multiply-adds.
    The gap is that of :func:`dasrec.kernels.conjugate.refine_rows`, a bound and not an estimate.
    Rows whose factors exceed 16 MiB gather them twice a block. InputError if numbers overflow.
    Rendle, Krichene, Zhang and Koren, "iALS++: speeding up matrix factorization with subspace
    optimization", 2021, arXiv:2110.14044.
    """
    indptr, indices, weights, targets = rows
    n_rows, k = indptr.shape[0] - 1, factors.shape[1]
    solution = start.copy()
    loss, gap = np.zeros(n_rows), np.zeros(n_rows)
    longest = BLOCK
    for row in range(n_rows):
        longest = max(longest, indptr[row + 1] - indptr[row])
    tile = np.empty((min(longest, max(BLOCK, TILE_BYTES // (4 * k))), k), np.float32)
    small, normal = np.empty((BLOCK, BLOCK), np.float32), np.empty((BLOCK, BLOCK), np.float32)
    sums = (tile, np.empty(tile.shape[0], np.float32), small, normal)
    errors = np.empty(longest, np.float32)
    right, move = np.empty(k, np.float32), np.empty(k, np.float32)
    for row in range(n_rows):
        own = slice(indptr[row], indptr[row + 1])
        x = solution[row]
        if own.start == own.stop:
            x[:] = 0
            continue
        cells = (indices[own], weights[own], targets[own])
        at = (factors, cells, errors[: own.stop - own.start])
        loss[row], gap[row] = _solve_row(sums, at, x, (base, ridge[row]), right, move)
        if not loss[row] + gap[row] + squares(cells) < np.inf:
            raise InputError(OVERFLOW)
    return solution, loss, gap
