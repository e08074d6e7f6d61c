"""Items that a user has not: drawn, and told from those that it has; lengths of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dasrec.kernels.csr import has
from dasrec.kernels.hashing import below, word
from dasrec.kernels.rows import FAST
from dasrec.kernels.rule import POPULAR, UNIFORM

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

Known = tuple[Longs, Ints, Ints]
"""indptr and indices of all that users have used, by the numbers of items in the store; and these
numbers, of the items of the stratum."""

_TRIES = 16  # to find an item that was not seen, before a cell is passed over
_FEW = 4  # of which the best is the hard one


@njit(cache=True, nogil=True)
def is_seen(known: Known, row: int, column: int) -> Any:
    """Search a row for an item of the stratum."""
    indptr, indices, names = known
    return has(indptr, indices, row, names[column])


@njit(cache=True, nogil=True)
def draw_unseen(known: Known, columns: Ints, row: int, key: int, negatives: int) -> Any:
    """Draw an item of the stratum that a row has not, or -1 where that takes too many tries."""
    for attempt in range(_TRIES):
        bits = word(key, attempt)
        if negatives == POPULAR:
            column: Any = np.int64(columns[below(bits, columns.shape[0])])
        else:
            column = below(bits, known[2].shape[0])
        if not is_seen(known, row, column):
            return column
    return -1


@njit(cache=True, nogil=True, fastmath=FAST)
def score_of(x: Floats, y: Floats, k: int) -> Any:
    """Return b + x . y."""
    score = np.float32(0)
    for p in range(k):
        score += x[p] * y[p]
    return score + y[k]


@njit(cache=True, nogil=True)
def draw_hardest(
    vectors: tuple[Floats, Floats], known: Known, columns: Ints, row: int, key: int, k: int
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
