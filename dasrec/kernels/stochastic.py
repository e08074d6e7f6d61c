"""Stochastic gradient descent on the cells of one stratum: dealing them out, and squared error."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dasrec.kernels.hashing import below, word
from dasrec.kernels.rows import AHEAD, FAST, fetch

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

Cells = tuple[Ints, Ints, Floats]
"""Rows, columns and values of the cells of one stratum, in the order in which they are taken."""

_TILE = 4096
"""Cells that are shuffled together: the rows that they lie in stay in the cache meanwhile."""


class Rule(NamedTuple):
    """What a cell does to the vectors of its row and its column.

    Attributes
    ----------
    factors : int, k; a vector has k factors and then a bias
    rate : float32: length of a step
    regularization : float32: of both vectors, at each cell
    offset : float32: what is predicted without any vector
    biased : bool: whether biases are learned
    centred : bool: whether users are drawn towards k numbers that follow their biases, not to zero
    """

    factors: int
    rate: np.float32
    regularization: np.float32
    offset: np.float32
    biased: bool
    centred: bool = False


@njit(cache=True, nogil=True)
def _gcd(a: int, b: int) -> Any:
    while b:
        a, b = b, a % b
    return a


@njit(cache=True, nogil=True)
def _order(n: int, key: int, group: int) -> Any:
    """Draw where a group of n cells begins, the strides of its tiles, and how high the last is."""
    rest = n % _TILE
    last: Any = max(1, rest // 3 + below(word(key, 3 * group), rest // 3 + 1))
    while _gcd(last, rest) > 1:  # else its multiples would not visit all places
        last += 1
    stride = _TILE // 3 + below(word(key, 3 * group + 1), _TILE // 3) | 1
    return below(word(key, 3 * group + 2), n), stride, last, rest


@njit(cache=True, nogil=True)
def _place(number: int, n: int, order: tuple[int, int, int, int]) -> int:
    """Return where among n a cell stands: moved within its tile, and all of them turned."""
    start, stride, last, rest = order
    tile = number // _TILE * _TILE
    if tile + _TILE <= n:
        inside = (number - tile) * stride % _TILE
    else:
        inside = (number - tile) * last % rest
    place = start + tile + inside
    return place - n if place >= n else place


@njit(cache=True, nogil=True)
def deal(
    block: tuple[Longs, Ints, Floats], places: Ints, size: int, n_groups: int, key: int
) -> tuple[Longs, Ints, Ints, Floats]:
    """Deal the cells of a block out to the groups of their columns, each group in a drawn order.

    Cells are shuffled within tiles, which follow each other as rows do, so that the vectors of
    these rows and what else is known of them stay in the cache.

    Parameters
    ----------
    block : indptr, int64; indices, int32; values, float32
    places : int32, shape (n_columns,): where a column stands; its group is ``place // size``
    size, n_groups : int
    key : of :func:`dasrec.kernels.hashing.key_of`: draws the order

    Returns
    -------
    offsets : int64, shape (n_groups + 1,): where the cells of each group begin
    rows, columns : int32; columns count from the first of their group
    values : float32

    Notes
    -----
    Cost: two passes over the cells.
    """
    indptr, indices, values = block
    n = indices.shape[0]
    offsets = np.zeros(n_groups + 1, np.int64)
    for i in range(n):
        offsets[places[indices[i]] // size + 1] += 1
    for group in range(n_groups):
        offsets[group + 1] += offsets[group]
    orders = [_order(offsets[g + 1] - offsets[g], key, g) for g in range(n_groups)]
    rows, columns, dealt = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.float32)
    done = np.zeros(n_groups, np.int64)
    for row in range(indptr.shape[0] - 1):
        for i in range(indptr[row], indptr[row + 1]):
            place = places[indices[i]]
            group = place // size
            first, length = offsets[group], offsets[group + 1] - offsets[group]
            slot = first + _place(done[group], length, orders[group])
            rows[slot], columns[slot], dealt[slot] = row, place - group * size, values[i]
            done[group] += 1
    return offsets, rows, columns, dealt


@njit(cache=True, nogil=True, fastmath=FAST)
def descend_cells(cells: Cells, users: Floats, items: Floats, rule: Rule) -> float:
    """Take a step for every cell, one after the other, in place, for the loss

        (r - offset - b_u - b_i - p.q)^2 / 2

    plus ``regularization`` / 2 times the squares of both vectors, biases included.

    Parameters
    ----------
    cells : rows, columns, int32; values, float32
    users : float32, shape (n_rows, >= k + 1): factors, then a bias
    items : float32, shape (n_columns, >= k + 1), likewise
    rule : Rule

    Returns
    -------
    float
        Sum of the squared errors, each before its step.

    Notes
    -----
    Cost: some 4 k multiply-adds a cell; vectors are fetched before they are needed. Koren, Bell and
    Volinsky, "Matrix factorization techniques for recommender systems", Computer 42(8), 2009,
    doi:10.1109/MC.2009.263.
    """
    rows, columns, values = cells
    n, k = rows.shape[0], rule.factors
    rate, shrink = rule.rate, np.float32(1) - rule.rate * rule.regularization
    total = 0.0
    for c in range(n):
        if c + AHEAD < n:
            fetch(users, rows[c + AHEAD])
            fetch(items, columns[c + AHEAD])
        x, y = users[rows[c]], items[columns[c]]
        score = np.float32(0)
        for p in range(k):
            score += x[p] * y[p]
        score += rule.offset + x[k] + y[k]
        error = values[c] - score
        total += np.float64(error) * error
        step = rate * error
        for p in range(k):
            before = x[p]
            x[p] = shrink * before + step * y[p]
            y[p] = shrink * y[p] + step * before
        if rule.centred:
            for p in range(k):
                x[p] += (np.float32(1) - shrink) * x[k + 1 + p]
        if rule.biased:
            x[k] = shrink * x[k] + step
            y[k] = shrink * y[k] + step
    return total
