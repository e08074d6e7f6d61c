"""Comparing ranked lists with the items that were to be found."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]


@njit(cache=True, nogil=True)
def find_hits(lists: Ints, indptr: Longs, indices: Ints) -> NDArray[np.bool_]:
    """Mark the places of each list that hold an item to be found.

    Parameters
    ----------
    lists : int32, shape (n_rows, n), items best first, -1 where a list has ended
    indptr, indices : the truth, one row a list, items ascending

    Returns
    -------
    bool, shape (n_rows, n)
    """
    hits = np.zeros(lists.shape, np.bool_)
    for row in range(lists.shape[0]):
        truth = indices[indptr[row] : indptr[row + 1]]
        for place in range(lists.shape[1]):
            item = lists[row, place]
            if item < 0:
                break
            at = np.searchsorted(truth, item)
            hits[row, place] = at < truth.shape[0] and truth[at] == item
    return hits


def discounts(n: int) -> Doubles:
    """Return 1 / log2(rank + 1) for ranks 1..n.

    Jarvelin and Kekalainen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4),
    2002, doi:10.1145/582415.582418.
    """
    return 1.0 / np.log2(np.arange(2, n + 2))


def precision(hits: NDArray[np.bool_], n_truth: Longs) -> Doubles:
    """Return |hits| / n for each list; n is the length asked for, also when a list is shorter."""
    del n_truth
    return np.asarray(hits.sum(axis=1) / hits.shape[1])


def recall(hits: NDArray[np.bool_], n_truth: Longs) -> Doubles:
    """Return |hits| / |truth| for each list."""
    return np.asarray(hits.sum(axis=1) / n_truth)


def hit_rate(hits: NDArray[np.bool_], n_truth: Longs) -> Doubles:
    """Return 1 for each list with a hit, else 0."""
    del n_truth
    return hits.any(axis=1).astype(np.float64)


def reciprocal_rank(hits: NDArray[np.bool_], n_truth: Longs) -> Doubles:
    """Return 1 / rank of the first hit for each list, 0 without one."""
    del n_truth
    return np.where(hits.any(axis=1), 1.0 / (hits.argmax(axis=1) + 1), 0.0)


def average_precision(hits: NDArray[np.bool_], n_truth: Longs) -> Doubles:
    """Return sum over hits of precision at the hit's rank, / min(n, |truth|)."""
    at_rank = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
    return np.asarray((at_rank * hits).sum(axis=1) / np.minimum(hits.shape[1], n_truth))


def ndcg(hits: NDArray[np.bool_], n_truth: Longs) -> Doubles:
    """Return DCG / ideal DCG with binary gains; the ideal list has min(n, |truth|) hits."""
    weights = discounts(hits.shape[1])
    ideal = np.concatenate(([0.0], np.cumsum(weights)))
    return np.asarray(hits @ weights / ideal[np.minimum(hits.shape[1], n_truth)])
