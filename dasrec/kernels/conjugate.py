"""Least squares for the rows of one sparse block by conjugate gradients, as exact as is asked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from dasrec.errors import InputError
from dasrec.kernels.rows import (
    FAST,
    OVERFLOW,
    TILE_BYTES,
    TINY,
    Cells,
    Doubles,
    Floats,
    Ints,
    Rows,
    squares,
)
from dasrec.kernels.tiles import TOGETHER, Fixed, gather, make_room, multiply, padded

Work = tuple[Floats, Floats, Floats]
"""Scratch of one thread: a tile of factors; of each cell c, t - v.x, v.p and 0; the vectors x, r,
p, q, M and 1 / M of conjugate gradients."""


@njit(cache=True, nogil=True)
def _far_pass(
    tile: Floats,
    far: tuple[Fixed, Ints],
    cells: tuple[Floats, Floats, Floats],
    x: Floats,
    out: Floats,
) -> None:
    """As :func:`multiply`, with factors all over memory, which are left in the tile if they fit."""
    (fixed, indices), (c, d, dots) = far, cells
    n, most = c.shape[0], tile.shape[0]
    for first in range(0, n, most):
        some = slice(first, min(first + most, n))
        part = tile[: some.stop - first]
        gather(part, fixed, indices[some])
        multiply(part, x, c[some], d[some], dots[some], out)


@njit(cache=True, nogil=True, fastmath=FAST)
def _begin(x: Floats, r: Floats, p: Floats, q: Floats, m: Floats, inverse: Floats) -> Any:
    """Finish the residual r, to which q is added, set the direction p, and return the gap."""
    gap = np.float32(0)
    for j in range(x.shape[0]):
        r[j] = (r[j] + q[j]) - m[j] * x[j]
        p[j] = r[j] * inverse[j]
        gap += r[j] * p[j]
    return gap


@njit(cache=True, nogil=True, fastmath=FAST)
def _step(
    x: Floats, r: Floats, p: Floats, q: Floats, m: Floats, inverse: Floats, gap: float
) -> tuple[Any, Any]:
    """Go along p, given q = -V'CV p, and turn; return how far that was and the new gap."""
    k = x.shape[0]
    curvature = np.float32(0)
    for j in range(k):
        q[j] = m[j] * p[j] - q[j]
        curvature += p[j] * q[j]
    if curvature < gap:  # by rounding alone: the system is at least M, and p'Mp at least the gap
        curvature = np.float32(gap)
    length = np.float32(gap / curvature)
    after = np.float32(0)
    for j in range(k):
        x[j] += length * p[j]
        r[j] -= length * q[j]
        after += r[j] * r[j] * inverse[j]
    turn = np.float32(after / gap)
    for j in range(k):
        p[j] = r[j] * inverse[j] + turn * p[j]
    return length, after


@njit(cache=True, nogil=True, fastmath=FAST)
def _refine(work: Work, fixed: Fixed, cells: Cells, tolerance: float) -> tuple[float, float]:
    """Improve the vector x of ``work``; return the row's loss and the gap of its objective.

    The vector q of ``work`` begins as ridge times the mean of the row.
    """
    tile, of_cells, vectors = work
    x, r, p, q, m, inverse = (
        vectors[0],
        vectors[1],
        vectors[2],
        vectors[3],
        vectors[4],
        vectors[5],
    )
    indices, n = cells[0], padded(cells[0].shape[0], TOGETHER)
    c, errors, dots, zeros = of_cells[0, :n], of_cells[1, :n], of_cells[2, :n], of_cells[3, :n]
    scale = squares(cells)
    if not scale < np.inf:
        return np.inf, np.inf
    _set_out(c, errors, cells)
    r[:] = 0
    _far_pass(tile, (fixed, indices), (c, errors, dots), x, r)
    for i in range(n):
        errors[i] -= dots[i]
    gap = _begin(x, r, p, q, m, inverse)
    steps = 0
    # more than k steps are taken only where rounding spoils directions
    while gap > max(tolerance * scale, TINY) and steps < 2 * fixed[0].shape[1] + 16:
        q[:] = 0
        if n <= tile.shape[0]:
            multiply(tile[:n], p, c, zeros, dots, q)
        else:
            _far_pass(tile, (fixed, indices), (c, zeros, dots), p, q)
        length, gap = _step(x, r, p, q, m, inverse, gap)
        for i in range(n):
            errors[i] -= length * dots[i]
        steps += 1
    loss = 0.0
    for i in range(n):
        loss += np.float64(c[i]) * errors[i] * errors[i]
    return loss, np.float64(gap)


@njit(cache=True, nogil=True)
def _set_out(c: Floats, t: Floats, cells: Cells) -> None:
    """Copy c and t of cells, followed by zeros."""
    n = cells[0].shape[0]
    c[:n], c[n:] = cells[1], 0
    t[:n], t[n:] = cells[2], 0


@njit(cache=True, nogil=True)
def refine_rows(
    rows: Rows,
    fixed: Fixed,
    base: Floats,
    ridge: Floats,
    start: Floats,
    tolerance: float,
    means: Floats | None = None,
) -> tuple[Floats, Doubles, Doubles]:
    """Minimise, for every row on its own, over x of length k

        sum_j c_j (t_j - v_j . x)^2  +  x' diag(base) x  +  ridge_row |x - mean_row|^2

    by conjugate gradients from ``start``, preconditioned by M = diag(base) + ridge I, until the
    objective is known to be no more than ``tolerance`` times sum c t^2 above its least value.

    That is known because the system V'CV + M is at least M: with r the residual, what is missing is
    at most r' M^-1 r. So a row takes the steps that it needs; at a tolerance of 1e-8 the solution
    is exact as far as float32 goes.

    Parameters
    ----------
    rows : the block: indptr, int64; indices, int32; c >= 0 and t of every stored cell, float32
    fixed : v, in a basis where the shared quadratic form is diagonal: float32 or int16, shape
        (n_columns, k), and the unit of each row of it, float32, shape (n_columns,)
    base : float32, shape (k,): that form's diagonal, for instance eigenvalues of a Gram matrix
    ridge : float32, shape (n_rows,), > 0: regularisation of each row
    start : float32, shape (n_rows, k): the nearer to the solution the fewer steps
    tolerance : float
    means : float32, shape (n_rows, k), or None: zeros

    Returns
    -------
    solution : float32, shape (n_rows, k); zeros for a row without cells
    loss : float64, shape (n_rows,): the first sum at the solution
    gap : float64, shape (n_rows,): what the objective may still be above its least value

    Notes
    -----
    Cost: 2 n k multiply-adds a step and row of n cells, and to gather the n factors once, which
    takes as long as three to six steps, of int16 half as long. Rows whose factors exceed 16 MiB
    gather them at every step. InputError if numbers overflow. Takacs, Pilaszy and Tikk,
    "Applications of the conjugate gradient method for implicit feedback collaborative filtering",
    RecSys 2011, doi:10.1145/2043932.2043987.
    """
    indptr, indices, weights, targets = rows
    n_rows, k = indptr.shape[0] - 1, fixed[0].shape[1]
    solution = np.empty_like(start)
    loss, gap = np.zeros(n_rows), np.zeros(n_rows)
    longest = 0
    for row in range(n_rows):
        longest = max(longest, indptr[row + 1] - indptr[row])
    longest = padded(longest, TOGETHER)
    most = padded(max(1, TILE_BYTES // (4 * k)), TOGETHER)
    tile, of_cells, vectors = (
        make_room(min(longest, most), k),
        make_room(4, longest),
        make_room(6, k),
    )
    x, q, m, inverse = vectors[0], vectors[3], vectors[4], vectors[5]
    of_cells[3], m[:], inverse[:] = 0, 1, 1
    for row in range(n_rows):
        own = slice(indptr[row], indptr[row + 1])
        if own.start == own.stop:
            solution[row] = 0
            continue
        q[:] = 0
        for j in range(k):
            x[j] = start[row, j]
            m[j] = base[j] + ridge[row]
            inverse[j] = 1 / m[j]
        if means is not None:
            for j in range(k):
                q[j] = ridge[row] * means[row, j]
        cells = (indices[own], weights[own], targets[own])
        loss[row], gap[row] = _refine((tile, of_cells, vectors), fixed, cells, tolerance)
        if not loss[row] + gap[row] < np.inf:
            raise InputError(OVERFLOW)
        solution[row] = x[:k]
    return solution, loss, gap
