"""Stochastic gradient descent on implicit feedback: a stored cell against items not seen."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dasrec.kernels.hashing import below, word
from dasrec.kernels.rows import AHEAD, FAST, fetch
from dasrec.kernels.rule import HARD, Rule
from dasrec.kernels.unseen import (
    Known,
    draw_each,
    draw_hardest,
    is_seen,
    mark_cells,
    score_of,
    shorten,
)

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


_LARGE = 1e290  # before a product of losses overflows


@njit(inline="always")  # a call would take as long as a third of the step
def _part(x: Floats, y: Floats, z: Floats, step: np.float32, rule: Rule) -> None:
    """Move y up and z down for the user x, and x towards y and away from z."""
    k, shrink = rule.factors, np.float32(1) - rule.rate * rule.regularization
    if rule.frozen:
        for p in range(k):
            x[p] = shrink * x[p] + step * (y[p] - z[p])
        return
    for p in range(k):
        a, b, c = x[p], y[p], z[p]
        x[p] = shrink * a + step * (b - c)
        y[p] = shrink * b + step * a
        z[p] = shrink * c - step * a
    y[k] = shrink * y[k] + step
    z[k] = shrink * z[k] - step


@njit(cache=True, nogil=True, fastmath=FAST)
def rank_pairs(
    cells: tuple[Ints, Ints], known: Known, users: Floats, items: Floats, rule: Rule, key: int
) -> float:
    """Take a step for every cell (u, i) and an item j that u has not, in place, for the loss

        - log sigmoid(b_i + x_u . y_i - b_j - x_u . y_j)

    plus ``regularization`` / 2 times the squares of the vectors and biases that take part.

    Parameters
    ----------
    cells : rows, columns, int32: all that the rows have among the columns
    known : what rows have
    users, items : float32, shapes (n_rows, >= k + 1) and (n_columns, >= k + 1)
    rule : Rule
    key : int: cell c draws by the words of ``key`` and c

    Returns
    -------
    float
        Sum of the losses without regularisation, each before its step; log 2 for a cell that is
        passed over, since an item that was not seen was not found.

    Notes
    -----
    Cost: some 8 k multiply-adds a cell; items are drawn beforehand, and vectors fetched before they
    are needed. Rendle, Freudenthaler, Gantner and Schmidt-Thieme, "BPR: Bayesian personalized
    ranking from implicit feedback", UAI 2009, arXiv:1205.2618.
    """
    rows, columns = cells
    n, k, marked = rows.shape[0], rule.factors, mark_cells(known, rows, columns)
    drawn = draw_each(marked, rows, columns, key, rule.negatives)
    total, product = 0.0, 1.0
    for c in range(n):
        if c + AHEAD < n:
            fetch(users, rows[c + AHEAD])
            fetch(items, columns[c + AHEAD])
            fetch(items, max(drawn[c + AHEAD], 0))
        negative = drawn[c]
        if rule.negatives == HARD:
            negative = draw_hardest((users, items), marked, columns, rows[c], word(key, c), k)
        if negative < 0:
            total += np.log(2.0)
            continue
        x, y, z = users[rows[c]], items[columns[c]], items[negative]
        difference = np.float32(0)
        for p in range(k):
            difference += x[p] * (y[p] - z[p])
        difference += y[k] - z[k]
        raised = np.exp(-abs(difference))  # which does not overflow
        total += max(-difference, np.float32(0))
        product *= 1.0 + raised  # the sum of logarithms, by one for hundreds of cells
        if product > _LARGE:
            total += np.log(product)
            product = 1.0
        push = (raised if difference > 0 else np.float32(1)) / (np.float32(1) + raised)
        _part(x, y, z, rule.rate * push, rule)
    return float(total + np.log(product))


@njit(cache=True, nogil=True, fastmath=FAST)
def rank_top(
    cells: tuple[Ints, Ints], known: Known, users: Floats, items: Floats, rule: Rule, key: int
) -> float:
    """Take a step for every cell (u, i) that an item which u has not comes too near, in place:

        L(r) max(0, 1 - s_i + s_j)  with s_i = b_i + x_u . y_i  and L(r) = 1 + 1/2 + ... + 1/r

    plus ``regularization`` / 2 times the squares of the vectors and biases that take part; then
    factors longer than ``most`` are cut to that. Items are drawn until one, j, comes nearer than 1;
    the rank r of i is judged by how many that took, N tries, as (catalogue - 1) // N.

    Parameters, and what is returned, as :func:`rank_pairs`. A cell for which no such item is found
    within ``tries`` has no loss and takes no step.

    Notes
    -----
    Cost: k multiply-adds for each item that is drawn, and 9 k for a step. L is within 2 % of
    log(r + 1/2) + 0.577. Weston, Bengio and Usunier, "WSABIE: scaling up to large vocabulary image
    annotation", IJCAI 2011, doi:10.5591/978-1-57735-516-8/IJCAI11-460.
    """
    rows, columns = cells
    n, k, width = rows.shape[0], rule.factors, known[2].shape[0]
    marked, total = mark_cells(known, rows, columns), 0.0
    for c in range(n):
        if c + AHEAD < n:
            fetch(users, rows[c + AHEAD])
            fetch(items, columns[c + AHEAD])
        row, draws = rows[c], word(key, c)
        x, y = users[row], items[columns[c]]
        own = score_of(x, y, k)
        for attempt in range(rule.tries):
            column = below(word(draws, attempt), width)
            near = np.float32(1) - own + score_of(x, items[column], k)
            if near > 0 and not is_seen(marked, row, column):
                rank = max(1, (rule.catalogue - 1) // (attempt + 1))
                weight = np.float32(np.log(rank + 0.5) + 0.577)
                total += np.float64(weight * near)
                z = items[column]
                _part(x, y, z, rule.rate * weight, rule)
                shorten(x, k, rule.most)
                if not rule.frozen:
                    shorten(y, k, rule.most)
                    shorten(z, k, rule.most)
                break
    return total
