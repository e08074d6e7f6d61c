"""Least squares for the rows of one sparse block whose entries may not be negative."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from dasrec.errors import InputError
from dasrec.kernels.rows import (
    FAST,
    OVERFLOW,
    TILE,
    TINY,
    Doubles,
    Floats,
    Ints,
    Rows,
    cholesky_solve,
    row_loss,
    squares,
    sum_up,
)

_SWEEPS = 8
"""Sweeps of coordinate descent before a step of Newton's method, which costs some ten of them."""

System = tuple[Floats, Floats, Floats, int]
"""A symmetric k x k, its right-hand side b, its gradient A x - b, and how many entries of x, which
come first, may not be negative."""

Step = tuple[Floats, Floats, Floats, Floats, Ints]
"""Scratch of a step: a system to factorise, its solution, the step, A times it, places."""


@njit(cache=True, nogil=True, fastmath=FAST)
def _fill(normal: Floats, base: Floats, ridge: float) -> None:
    """Add base and ridge to the upper half of V'CV, and fill the lower."""
    for i in range(normal.shape[0]):
        for j in range(i, normal.shape[0]):
            normal[i, j] += base[i, j]
            normal[j, i] = normal[i, j]
        normal[i, i] += ridge


@njit(cache=True, nogil=True, fastmath=FAST)
def _multiply(a: Floats, x: Floats, out: Floats) -> None:
    """Add A x to what is in ``out``, column by column, without those where x is zero."""
    for j in range(x.shape[0]):
        if x[j] != 0:
            column = a[j]
            for p in range(x.shape[0]):
                out[p] += x[j] * column[p]


@njit(cache=True, nogil=True, fastmath=FAST)
def _bound(system: System, x: Floats, ridge: float) -> Any:
    """Return what the objective is at most above its least value.

    A is at least ridge I, so a step d from x lowers it by at most -2 g'd - ridge d'd, and what
    makes the most of that within the bounds is known entry by entry.
    """
    _, _, g, n_bounded = system
    gap = np.float32(0)
    for j in range(x.shape[0]):
        d = -g[j] / ridge
        if j < n_bounded:
            d = max(d, -x[j])
        gap -= d * (2 * g[j] + ridge * d)
    return gap


@njit(cache=True, nogil=True, fastmath=FAST)
def _descend(system: System, x: Floats) -> None:
    """Minimise over one entry after the other."""
    a, _, g, n_bounded = system
    k = x.shape[0]
    for j in range(k):
        d = -g[j] / a[j, j]
        if j < n_bounded:
            d = max(d, -x[j])
        if d != 0:
            x[j] += d
            column = a[j]
            for p in range(k):
                g[p] += d * column[p]


@njit(cache=True, nogil=True, fastmath=FAST)
def _jump(system: System, step: Step, x: Floats) -> None:
    """Go to the minimum over the entries that are not zero, or as far towards it as is good.

    Entries that would become negative go to zero; then the best point on the way there is taken,
    if there is a better one at all.
    """
    a, _, g, n_bounded = system
    small, found, d, image, places = step
    n, k = 0, x.shape[0]
    for j in range(k):
        if x[j] > 0 or j >= n_bounded:
            places[n] = j
            n += 1
    for i in range(n):
        column = a[places[i]]
        for j in range(i, n):
            small[i, j] = column[places[j]]
        found[i] = -g[places[i]]
    if n == 0 or not cholesky_solve(small, found, n):
        return
    d[:], image[:] = 0, 0
    for i in range(n):
        j = places[i]
        d[j] = max(found[i], -x[j]) if j < n_bounded else found[i]
    _multiply(a, d, image)
    slope, curvature = np.float32(0), np.float32(0)
    for j in range(k):
        slope -= g[j] * d[j]
        curvature += d[j] * image[j]
    if slope > 0 and curvature > 0:
        length = min(np.float32(1), slope / curvature)
        for j in range(k):
            x[j] += length * d[j]
            g[j] += length * image[j]


@njit(cache=True, nogil=True)
def _refine(system: System, step: Step, x: Floats, ridge: float, limit: float) -> float:
    """Improve x in place until its objective is within the limit; return the gap."""
    a, b, g, n_bounded = system
    for j in range(n_bounded):
        x[j] = max(x[j], np.float32(0))
    gap = np.inf
    for _ in range(2 * x.shape[0] + 16):
        g[:] = -b
        _multiply(a, x, g)
        gap = _bound(system, x, ridge)
        if not gap > limit:
            break
        for _ in range(_SWEEPS):
            _descend(system, x)
            if not _bound(system, x, ridge) > limit:
                break
        else:
            _jump(system, step, x)
    return np.float64(gap)


@njit(cache=True, nogil=True)
def nonnegative_rows(
    rows: Rows,
    factors: Floats,
    base: Floats,
    ridge: Floats,
    start: Floats,
    tolerance: float,
    n_bounded: int,
) -> tuple[Floats, Doubles, Doubles]:
    """Minimise, for every row on its own, over x of length k whose first entries are not negative

        sum_j c_j (t_j - v_j . x)^2  +  x' (base + ridge_row I) x

    until the objective is known to be no more than ``tolerance`` times sum c t^2 above its least
    value under that bound.

    Parameters
    ----------
    rows : the block: indptr, int64; indices, int32; c >= 0 and t of every stored cell, float32
    factors : float32, shape (n_columns, k): v
    base : float32, shape (k, k): the quadratic form that all rows share
    ridge : float32, shape (n_rows,), > 0: regularisation of each row
    start : float32, shape (n_rows, k): the nearer to the solution the fewer steps
    tolerance : float
    n_bounded : int: how many entries, which come first, are >= 0; the others are free

    Returns
    -------
    solution : float32, shape (n_rows, k); zeros for a row without cells
    loss : float64, shape (n_rows,): the first sum at the solution
    gap : float64, shape (n_rows,): what the objective may still be above its least value

    Notes
    -----
    Each row sums its k x k normal equations, n k^2 / 2 multiply-adds for n cells. On them it does
    sweeps of coordinate descent, k^2 each, which find out which entries are zero. If eight are not
    enough, a step of Newton's method over the others, at most k^3 / 6, goes to their minimum at
    once, where coordinate descent is slow, and so on in turn. No step raises the objective. The gap
    is known because the system is at least ridge I. InputError if numbers overflow. Franc, Hlavac
    and Navara, "Sequential coordinate-wise algorithm for the non-negative least squares problem",
    CAIP 2005, doi:10.1007/11556121_50; Bertsekas, "Projected Newton methods for optimization
    problems with simple constraints", SIAM Journal on Control and Optimization 20 (1982),
    doi:10.1137/0320018.
    """
    indptr, indices, weights, targets = rows
    n_rows, k = indptr.shape[0] - 1, factors.shape[1]
    solution = start.copy()
    loss, gap = np.zeros(n_rows), np.zeros(n_rows)
    small, a = np.empty((k, k), np.float32), np.empty((k, k), np.float32)
    sums = (np.empty((TILE, k), np.float32), np.empty(TILE, np.float32), small, a)
    b, g = np.empty(k, np.float32), np.empty(k, np.float32)
    found, d, image = np.empty(k, np.float32), np.empty(k, np.float32), np.empty(k, np.float32)
    step = (small, found, d, image, np.empty(k, np.int32))
    for row in range(n_rows):
        own = slice(indptr[row], indptr[row + 1])
        x = solution[row]
        if own.start == own.stop:
            x[:] = 0
            continue
        cells = (indices[own], weights[own], targets[own])
        sum_up(sums, factors, cells, b)
        _fill(a, base, ridge[row])
        limit = max(tolerance * squares(cells), TINY)
        gap[row] = _refine((a, b, g, n_bounded), step, x, ridge[row], limit)
        loss[row] = row_loss(x, factors, cells)
        if not loss[row] + gap[row] + limit < np.inf:
            raise InputError(OVERFLOW)
    return solution, loss, gap
