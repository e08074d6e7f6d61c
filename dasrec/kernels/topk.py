"""The n best of many scores, tile by tile, without sorting the rest."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]


@njit(cache=True, nogil=True)
def mask_tile(scores: Floats, first_item: int, indptr: Longs, indices: Ints) -> None:
    """Set the scores of already seen items to -inf.

    ``scores`` has shape (n_rows, tile width) and begins at item ``first_item``; row ``r`` has seen
    ``indices[indptr[r]:indptr[r + 1]]``, ascending.
    """
    width = scores.shape[1]
    for row in range(scores.shape[0]):
        start, stop = indptr[row], indptr[row + 1]
        place = start + np.searchsorted(indices[start:stop], first_item)
        while place < stop and indices[place] < first_item + width:
            scores[row, indices[place] - first_item] = -np.inf
            place += 1


@njit(cache=True, nogil=True)
def _sift_down(best: Floats, items: Ints) -> None:
    """Restore the heap whose root is the worst of the best: lowest score, then highest item."""
    n, parent = best.shape[0], 0
    while True:
        child = 2 * parent + 1
        if child >= n:
            return
        other = child + 1
        if other < n and (
            best[other] < best[child]
            or (best[other] == best[child] and items[other] > items[child])
        ):
            child = other
        if best[parent] < best[child] or (
            best[parent] == best[child] and items[parent] > items[child]
        ):
            return
        best[parent], best[child] = best[child], best[parent]
        items[parent], items[child] = items[child], items[parent]
        parent = child


@njit(cache=True, nogil=True)
def push_tile(scores: Floats, first_item: int, best: Floats, items: Ints) -> None:
    """Offer one tile of scores to the heaps of the n best.

    Parameters
    ----------
    scores : float32, shape (n_rows, width)
    first_item : the item that column 0 stands for; tiles must come in ascending order
    best, items : float32 and int32, shape (n_rows, n); begin as -inf and -1

    Equal scores go to the lower item, so the result does not depend on the tiling.
    """
    for row in range(scores.shape[0]):
        worst = best[row, 0]
        for column in range(scores.shape[1]):
            score = scores[row, column]
            if score > worst:
                best[row, 0] = score
                items[row, 0] = first_item + column
                _sift_down(best[row], items[row])
                worst = best[row, 0]


@njit(cache=True, nogil=True)
def sort_heaps(best: Floats, items: Ints) -> None:
    """Sort each row in place: score descending, then item ascending; empty places (-1) last."""
    n = best.shape[1]
    for row in range(best.shape[0]):
        for i in range(1, n):
            score, item = best[row, i], items[row, i]
            j = i - 1
            while j >= 0 and (
                best[row, j] < score or (best[row, j] == score and items[row, j] > item >= 0)
            ):
                best[row, j + 1] = best[row, j]
                items[row, j + 1] = items[row, j]
                j -= 1
            best[row, j + 1] = score
            items[row, j + 1] = item
