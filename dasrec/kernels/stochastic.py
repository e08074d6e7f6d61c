"""Stochastic gradient descent on the cells of one stratum: dealing them out, and squared error."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dasrec.kernels.hashing import below, word
from dasrec.kernels.rows import AHEAD, FAST, fetch
from dasrec.kernels.rule import Rule

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

Cells = tuple[Ints, Ints, Floats]
"""Rows, columns and values of the cells of one stratum, in the order in which they are taken."""

BEND = 0.4
"""Power of the time that a user is away from the middle of what it has rated."""

_TILE = 4096
"""Cells that are shuffled together: the rows that they lie in stay in the cache meanwhile."""


@njit(cache=True, nogil=True)
def _gcd(a: int, b: int) -> Any:
    while b:
        a, b = b, a % b
    return a


@njit(cache=True, nogil=True)
def _order(n: int, key: int, group: int) -> Any:
    """Draw where a group of n cells begins, and the strides of its tiles and of the last one."""
    rest = n % _TILE
    last: Any = max(1, rest // 3 + below(word(key, 3 * group), rest // 3 + 1))
    while _gcd(last, rest) > 1:  # else its multiples would not visit all places
        last += 1
    stride = _TILE // 3 + below(word(key, 3 * group + 1), _TILE // 3) | 1
    return below(word(key, 3 * group + 2), n), stride, last


_BASE, _LENGTH, _STRIDE, _INSIDE, _LEFT, _TILES, _LAST, _END = range(8)
"""Of a group while it is dealt: where its tile begins, how long that is, how far apart are cells
that follow each other, where the next one is put, how many are to come in it; how many whole tiles
are to come; the stride of the last tile, which is not whole; where the group ends."""


@njit(cache=True, nogil=True)
def _open_groups(offsets: Longs, key: int) -> Longs:
    """Say where the first cell of each group is put."""
    states = np.zeros((offsets.shape[0] - 1, 8), np.int64)
    for group in range(states.shape[0]):
        n, state = offsets[group + 1] - offsets[group], states[group]
        if n:
            start, state[_STRIDE], state[_LAST] = _order(n, key, group)
            state[_BASE], state[_END] = offsets[group] + start - _TILE, offsets[group + 1]
            state[_TILES] = n // _TILE
            _open_tile(state, n)
    return states


@njit(cache=True, nogil=True)
def _open_tile(state: Longs, n: int) -> None:
    """Go on to the next tile of a group of n cells."""
    state[_BASE] += _TILE
    state[_INSIDE] = 0
    state[_TILES] -= 1
    state[_LENGTH] = _TILE
    if state[_TILES] < 0:
        state[_LENGTH], state[_STRIDE] = n % _TILE, state[_LAST]
    state[_LEFT] = state[_LENGTH]


@njit(cache=True, nogil=True)
def _next_slot(state: Longs, n: int) -> Any:
    """Return where the next cell of a group of n is put: within its tile, and all of them turned.

    Numbers are added up: products and their rests take five times as long.
    """
    slot, inside = state[_BASE] + state[_INSIDE], state[_INSIDE] + state[_STRIDE]
    state[_INSIDE] = inside - state[_LENGTH] if inside >= state[_LENGTH] else inside
    state[_LEFT] -= 1
    if state[_LEFT] == 0:
        _open_tile(state, n)
    return slot - n if slot >= state[_END] else slot


@njit(cache=True, nogil=True)
def deal(
    block: tuple[Longs, Ints, Floats],
    places: Ints,
    size: int,
    n_groups: int,
    key: int,
    only: int = -1,
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
    only : int: the group whose cells alone are returned; -1: all

    Returns
    -------
    offsets : int64, shape (n_groups + 1,): where the cells of each group begin, if all are returned
    rows, columns : int32; columns count from the first of their group
    values : float32

    Notes
    -----
    Cost: two passes over the cells.
    """
    indptr, indices, values = block
    table = np.empty(places.shape[0], np.int64)  # group and column, of which none is divided again
    for i in range(places.shape[0]):
        group = places[i] // size
        table[i] = group << 32 | (places[i] - group * size)
    offsets = np.zeros(n_groups + 1, np.int64)
    for i in range(indices.shape[0]):
        offsets[(table[indices[i]] >> 32) + 1] += 1
    for group in range(n_groups):
        offsets[group + 1] += offsets[group]
    first = offsets[only] if only >= 0 else 0
    n = offsets[only + 1] - first if only >= 0 else indices.shape[0]
    rows, columns, dealt = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.float32)
    states = _open_groups(offsets, key)
    for row in range(indptr.shape[0] - 1):
        for i in range(indptr[row], indptr[row + 1]):
            place = table[indices[i]]
            group = place >> 32
            if only >= 0 and group != only:
                continue
            slot = _next_slot(states[group], offsets[group + 1] - offsets[group]) - first
            rows[slot], columns[slot], dealt[slot] = row, place & 0xFFFFFFFF, values[i]
    return offsets, rows, columns, dealt


@njit(inline="always")  # a call would take as long as a third of the step
def _descend_cell(x: Floats, y: Floats, value: np.float32, rule: Rule) -> Any:
    """Take the step of one cell, and return its error before that."""
    k, shrink = rule.factors, np.float32(1) - rule.rate * rule.regularization
    score = np.float32(0)
    for p in range(k):
        score += x[p] * y[p]
    error = value - (score + rule.offset + x[k] + y[k])
    step = rule.rate * error
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
    return error


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
    n, total = rows.shape[0], 0.0
    for c in range(n):
        if c + AHEAD < n:
            fetch(users, rows[c + AHEAD])
            fetch(items, columns[c + AHEAD])
        error = _descend_cell(users[rows[c]], items[columns[c]], values[c], rule)
        total += np.float64(error) * error
    return total


@njit(cache=True, nogil=True, fastmath=FAST)
def descend_timed(cells: Cells, times: Floats, users: Floats, items: Floats, rule: Rule) -> float:
    """Take a step for every cell, one after the other, in place, for the loss

        (r - offset - b_u - a_u dev(t - t_u) - b_i - b_i,bin(t) - p.q)^2 / 2

    plus ``regularization`` / 2 times the squares of what takes part, with
    dev(d) = sign(d) |d|^0.4.

    Parameters
    ----------
    cells : rows, columns, int32; values, float32
    times : float32: t of each cell, from 0 to 1
    users : float32, shape (n_rows, k + 3): factors, a bias, a_u, t_u, which stays
    items : float32, shape (n_columns, k + 1 + bins): factors, a bias, those of bins of equal length
    rule : Rule

    Returns
    -------
    float
        Sum of the squared errors, each before its step.

    Notes
    -----
    Cost: as :func:`descend_cells`, and a power a cell. Koren, "Collaborative filtering with
    temporal dynamics", KDD 2009, doi:10.1145/1557019.1557072.
    """
    rows, columns, values = cells
    n, k, total = rows.shape[0], rule.factors, 0.0
    n_bins, shrink = items.shape[1] - k - 1, np.float32(1) - rule.rate * rule.regularization
    for c in range(n):
        if c + AHEAD < n:
            fetch(users, rows[c + AHEAD])
            fetch(items, columns[c + AHEAD])
        x, y = users[rows[c]], items[columns[c]]
        away = times[c] - x[k + 2]
        bent = np.float32(np.sign(away) * abs(away) ** BEND)
        own = k + 1 + min(np.int64(times[c] * n_bins), n_bins - 1)
        error = _descend_cell(x, y, values[c] - x[k + 1] * bent - y[own], rule)
        total += np.float64(error) * error
        x[k + 1] = shrink * x[k + 1] + rule.rate * error * bent
        y[own] = shrink * y[own] + rule.rate * error
    return total
