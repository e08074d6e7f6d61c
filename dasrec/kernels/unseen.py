"""Items that a user has not: drawn, and told from those that it has; lengths of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dasrec.kernels.csr import has
from dasrec.kernels.hashing import STEP, below, word
from dasrec.kernels.rows import FAST
from dasrec.kernels.rule import POPULAR, UNIFORM

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

Known = tuple[Longs, Ints, Ints]
"""indptr and indices of all that users have used, by the numbers of items in the store; and these
numbers, of the items of the stratum."""

Marked = tuple[Longs, Ints, Ints, NDArray[np.uint8]]
"""The same, and marks of :func:`mark_cells`."""

_TRIES = 16  # to find an item that was not seen, before a cell is passed over
_FEW = 4  # of which the best is the hard one


@njit(cache=True, nogil=True)
def _mark_of(indptr: Longs, row: int, column: int) -> Any:
    """Return the byte and the bit that stand for a cell: a row has eight bits for each of its own.

    Several cells may share one.
    """
    first = indptr[row]
    bits = (indptr[row + 1] - first) << 3
    bit = np.int64(np.uint64(column) * STEP >> np.uint64(33)) * bits >> 31
    return first + (bit >> 3), np.uint8(1 << (bit & 7))


@njit(cache=True, nogil=True)
def mark_cells(known: Known, rows: Ints, columns: Ints) -> Marked:
    """Mark the cells of a stratum: all that its rows have among its columns.

    What is not marked was not seen. So of ten items that are drawn, nine need no search, which
    would wait for memory at each of its steps.
    """
    indptr, indices, names = known
    marks = np.zeros(indices.shape[0] + 1, np.uint8)
    for c in range(rows.shape[0]):
        place, bit = _mark_of(indptr, rows[c], columns[c])
        marks[place] |= bit
    return indptr, indices, names, marks


@njit(inline="always")  # a call would count references to each array
def is_seen(known: Marked, row: int, column: int) -> Any:
    """Say whether a row has an item of the stratum."""
    indptr, indices, names, marks = known
    place, bit = _mark_of(indptr, row, column)
    return marks[place] & bit and has(indptr, indices, row, names[column])


@njit(inline="always")  # a call would count references to each array
def draw_unseen(known: Marked, columns: Ints, row: int, key: int, negatives: int) -> Any:
    """Draw an item of the stratum that a row has not, or -1 where that takes too many tries."""
    bits = key
    for attempt in range(_TRIES):
        if negatives == POPULAR:
            column: Any = np.int64(columns[below(bits, columns.shape[0])])
        else:
            column = below(bits, known[2].shape[0])
        if not is_seen(known, row, column):
            return column
        bits = word(key, attempt)
    return -1


@njit(cache=True, nogil=True)
def draw_each(known: Marked, rows: Ints, columns: Ints, key: int, negatives: int) -> Ints:
    """Draw for each cell an item that its row has not, or -1, by the words of ``key``."""
    drawn = np.empty(rows.shape[0], np.int32)
    for c in range(rows.shape[0]):
        drawn[c] = draw_unseen(known, columns, rows[c], word(key, c), negatives)
    return drawn


@njit(cache=True, nogil=True, fastmath=FAST)
def score_of(x: Floats, y: Floats, k: int) -> Any:
    """Return b + x . y."""
    score = np.float32(0)
    for p in range(k):
        score += x[p] * y[p]
    return score + y[k]


@njit(cache=True, nogil=True)
def draw_hardest(
    vectors: tuple[Floats, Floats], known: Marked, columns: Ints, row: int, key: int, k: int
) -> Any:
    """Draw a few items and return the one that the row scores best."""
    users, items = vectors
    best, most = -1, np.float32(-np.inf)
    for number in range(_FEW):
        column = draw_unseen(known, columns, row, word(key, -1 - number), UNIFORM)
        if column >= 0:
            score = score_of(users[row], items[column], k)
            if score > most:
                best, most = column, score
    return best


@njit(cache=True, nogil=True, fastmath=FAST)
def shorten(x: Floats, k: int, most: np.float32) -> None:
    """Cut a vector that is too long."""
    square = np.float32(0)
    for p in range(k):
        square += x[p] * x[p]
    if square > most * most:
        shrink = most / np.sqrt(square)
        for p in range(k):
            x[p] *= shrink
