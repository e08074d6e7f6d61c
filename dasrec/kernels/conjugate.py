"""Least squares for the rows of one sparse block by conjugate gradients, as exact as is asked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from dasrec.errors import InputError
from dasrec.kernels.rows import (
    AHEAD,
    FAST,
    OVERFLOW,
    TILE_BYTES,
    TINY,
    Cells,
    Doubles,
    Floats,
    Rows,
    fetch,
    gather,
)

Work = tuple[Floats, Floats, Floats, Floats, Floats, Floats, Floats, Floats, Floats]
"""Scratch of one thread: a tile of factors; of each cell t - v.x, v.p and 0; the vectors r, p, q, M
and 1 / M of conjugate gradients."""


@njit(cache=True, nogil=True, fastmath=FAST)
def _pass(tile: Floats, c: Floats, d: Floats, x: Floats, dots: Floats, out: Floats) -> None:
    """Set ``dots`` to V x and ``out`` to V' c (d - V x), four cells at a time."""
    n, k = c.shape[0], x.shape[0]
    out[:] = 0
    for i in range(0, n - 3, 4):
        r0, r1, r2, r3 = tile[i], tile[i + 1], tile[i + 2], tile[i + 3]
        s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for p in range(k):
            s0 += r0[p] * x[p]
            s1 += r1[p] * x[p]
            s2 += r2[p] * x[p]
            s3 += r3[p] * x[p]
        dots[i], dots[i + 1], dots[i + 2], dots[i + 3] = s0, s1, s2, s3
        s0, s1 = c[i] * (d[i] - s0), c[i + 1] * (d[i + 1] - s1)
        s2, s3 = c[i + 2] * (d[i + 2] - s2), c[i + 3] * (d[i + 3] - s3)
        for p in range(k):
            out[p] += (s0 * r0[p] + s1 * r1[p]) + (s2 * r2[p] + s3 * r3[p])
    for i in range(n - n % 4, n):
        row, dot = tile[i], np.float32(0)
        for p in range(k):
            dot += row[p] * x[p]
        dots[i] = dot
        dot = c[i] * (d[i] - dot)
        for p in range(k):
            out[p] += dot * row[p]


@njit(cache=True, nogil=True, fastmath=FAST)
def _far_pass(
    factors: Floats, cells: Cells, d: Floats, x: Floats, dots: Floats, out: Floats
) -> None:
    """As :func:`_pass`, with factors all over memory, which are fetched ahead.

    What it does for a cell is written out once more: a function of its own takes a tenth longer.
    """
    indices, c, _ = cells
    n, k = c.shape[0], x.shape[0]
    out[:] = 0
    for i in range(min(AHEAD, n)):
        fetch(factors, indices[i])
    for i in range(n):
        if i + AHEAD < n:
            fetch(factors, indices[i + AHEAD])
        row, dot = factors[indices[i]], np.float32(0)
        for p in range(k):
            dot += row[p] * x[p]
        dots[i] = dot
        dot = c[i] * (d[i] - dot)
        for p in range(k):
            out[p] += dot * row[p]


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
def _refine(
    work: Work, factors: Floats, cells: Cells, x: Floats, tolerance: float
) -> tuple[float, float]:
    """Improve x in place; return the row's loss and the gap of its objective.

    The vector q of ``work`` begins as ridge times the mean of the row.
    """
    tile, errors, dots, zeros, r, p, q, m, inverse = work
    indices, c, t = cells
    n, k = indices.shape[0], x.shape[0]
    kept = n <= tile.shape[0]
    if kept:
        gather(tile, factors, indices)
        _pass(tile, c, t, x, dots, r)
    else:
        _far_pass(factors, cells, t, x, dots, r)
    squares = np.float32(0)
    for i in range(n):
        errors[i] = t[i] - dots[i]
        squares += c[i] * t[i] * t[i]
    if not squares < np.inf:
        return np.inf, np.inf
    gap = _begin(x, r, p, q, m, inverse)
    steps = 0
    # more than k steps are taken only where rounding spoils directions
    while gap > max(tolerance * squares, TINY) and steps < 2 * k + 16:
        if kept:
            _pass(tile, c, zeros, p, dots, q)
        else:
            _far_pass(factors, cells, zeros, p, dots, q)
        length, gap = _step(x, r, p, q, m, inverse, gap)
        for i in range(n):
            errors[i] -= length * dots[i]
        steps += 1
    loss = 0.0
    for i in range(n):
        loss += np.float64(c[i]) * errors[i] * errors[i]
    return loss, np.float64(gap)


@njit(cache=True, nogil=True)
def refine_rows(
    rows: Rows,
    factors: Floats,
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
    factors : float32, shape (n_columns, k): v, in a basis where the shared quadratic form is
        diagonal
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
    takes as long as two to five steps. Rows whose factors exceed 16 MiB gather them at every step.
    InputError if numbers overflow. Takacs, Pilaszy and Tikk, "Applications of the conjugate
    gradient method for implicit feedback collaborative filtering", RecSys 2011,
    doi:10.1145/2043932.2043987.
    """
    indptr, indices, weights, targets = rows
    n_rows, k = indptr.shape[0] - 1, factors.shape[1]
    solution = start.copy()
    loss, gap = np.zeros(n_rows), np.zeros(n_rows)
    longest = 0
    for row in range(n_rows):
        longest = max(longest, indptr[row + 1] - indptr[row])
    tile = np.empty((min(longest, max(1, TILE_BYTES // (4 * k))), k), np.float32)
    m, inverse = np.empty(k, np.float32), np.empty(k, np.float32)
    zeros = np.zeros(longest, np.float32)
    errors, dots = np.empty(longest, np.float32), np.empty(longest, np.float32)
    r, p, q = np.empty(k, np.float32), np.empty(k, np.float32), np.empty(k, np.float32)
    work = (tile, errors, dots, zeros, r, p, q, m, inverse)
    for row in range(n_rows):
        own = slice(indptr[row], indptr[row + 1])
        x = solution[row]
        if own.start == own.stop:
            x[:] = 0
            continue
        for j in range(k):
            m[j] = base[j] + ridge[row]
            inverse[j] = 1 / m[j]
            q[j] = 0
        if means is not None:
            for j in range(k):
                q[j] = ridge[row] * means[row, j]
        cells = (indices[own], weights[own], targets[own])
        loss[row], gap[row] = _refine(work, factors, cells, x, tolerance)
        if not loss[row] + gap[row] < np.inf:
            raise InputError(OVERFLOW)
    return solution, loss, gap
