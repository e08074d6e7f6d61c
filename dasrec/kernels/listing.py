"""Items in the order in which they are ranked, and lists that are given."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dasrec.kernels.csr import has

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

Catalogue = tuple[Floats, Ints, Doubles]
"""Items, float32, shape (n_items, d), in one piece; their numbers; their lengths, descending."""


def by_length(items: Floats) -> Catalogue:
    """Return items from the longest to the shortest, their numbers and lengths."""
    lengths = np.sqrt(np.einsum("ij,ij->i", items, items, dtype=np.float64))
    order = np.argsort(-lengths, kind="stable").astype(np.int32)
    return items[order], order, lengths[order]


def as_they_are(items: Floats) -> Catalogue:
    """Return items in their order: for a few users, who are ranked before items are sorted."""
    n = len(items)
    return np.ascontiguousarray(items), np.arange(n, dtype=np.int32), np.full(n, np.inf)


@njit(cache=True, nogil=True)
def list_unseen(
    items: Ints, starts: Longs, stops: Longs, indptr: Longs, indices: Ints, n: int
) -> tuple[Ints, int]:
    """Copy the first n of each given list that its user has not seen.

    Parameters
    ----------
    items : int32: lists best first; -1 stands for nothing
    starts, stops : int64, shape (m,): where the list of each user begins and ends
    indptr, indices : int64 and int32: what each user has seen, one row a user, ascending
    n : int

    Returns
    -------
    lists : int32, shape (m, n), -1 where fewer are left
    twice : int
        The first row whose list has an item twice among what was copied; -1 without such a row.
    """
    m = starts.shape[0]
    lists, twice = np.full((m, n), -1, np.int32), -1
    for row in range(m):
        place = 0
        for cell in range(starts[row], stops[row]):
            item = items[cell]
            if place == n or item < 0 or has(indptr, indices, row, item):
                continue
            for before in range(place):
                if lists[row, before] == item and twice < 0:
                    twice = row
            lists[row, place] = item
            place += 1
    return lists, twice
