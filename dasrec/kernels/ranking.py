"""Comparing ranked lists with the items that were to be found, and with each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]


@njit(cache=True, nogil=True)
def find_hits(lists: Ints, indptr: Longs, indices: Ints) -> Bools:
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


@njit(cache=True, nogil=True)
def find_gains(lists: Ints, hits: Bools, indptr: Longs, indices: Ints, weights: Floats) -> Doubles:
    """Return the weight of each hit, 0 where none is or where it is negative.

    Shapes are those of :func:`find_hits`; ``weights`` stand beside ``indices``.
    """
    gains = np.zeros(lists.shape, np.float64)
    for row in range(lists.shape[0]):
        start, stop = indptr[row], indptr[row + 1]
        for place in range(lists.shape[1]):
            if hits[row, place]:
                at = start + np.searchsorted(indices[start:stop], lists[row, place])
                gains[row, place] = max(weights[at], 0.0)
    return gains


@njit(cache=True, nogil=True)
def ideal_gains(indptr: Longs, weights: Floats, discount: Doubles) -> Doubles:
    """Return for each row the discounted sum of its largest weights, best first."""
    ideal = np.zeros(len(indptr) - 1, np.float64)
    for row in range(len(ideal)):
        best = np.sort(weights[indptr[row] : indptr[row + 1]])[::-1][: len(discount)]
        for place in range(len(best)):
            ideal[row] += discount[place] * max(best[place], 0.0)
    return ideal


@njit(cache=True, nogil=True)
def win_shares(scores: Floats, seen: tuple[Longs, Ints], truth: tuple[Longs, Ints]) -> Doubles:
    """Return for each item to be found which share of the other candidates has a lower score.

    Parameters
    ----------
    scores : float32, shape (n_rows, n_items)
    seen, truth : (indptr, indices), one row a row of scores; indptr begins at 0

    Returns
    -------
    float64, shape (len(truth indices),)
        Equal scores count half; NaN where there is no other candidate.

    Notes
    -----
    Others are all items that are neither seen nor to be found. Cost: n_items log |truth| a row.
    """
    n_rows, n_items = scores.shape
    wins = np.full(truth[0][-1], np.nan, np.float64)
    for row in range(n_rows):
        cells = slice(truth[0][row], truth[0][row + 1])
        wanted = truth[1][cells]
        is_other = np.ones(n_items, np.bool_)
        is_other[seen[1][seen[0][row] : seen[0][row + 1]]] = False
        is_other[wanted] = False
        mine = scores[row][wanted]
        ordered = np.sort(mine)
        n_below = np.zeros(len(wanted) + 1, np.int64)  # by how many of mine are not above
        n_equal = np.zeros(len(wanted) + 1, np.int64)
        n_others = 0
        for item in range(n_items):
            if is_other[item]:
                left = np.searchsorted(ordered, scores[row, item], "left")
                right = np.searchsorted(ordered, scores[row, item], "right")
                n_below[right] += 1
                n_equal[left] += right > left
                n_others += 1
        if n_others:
            at = np.searchsorted(ordered, mine, "left")
            wins[cells] = (np.cumsum(n_below)[at] + 0.5 * n_equal[at]) / n_others
    return wins


def ratio(above: NDArray[Any], below: NDArray[Any]) -> Doubles:
    """Return ``above / below``, NaN where ``below`` is 0."""
    out = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    np.divide(above, below, out=out, where=below != 0)
    return out


def row_means(values: Doubles, indptr: Longs) -> Doubles:
    """Return the mean of each row's values, NaN for rows without any."""
    counts = np.diff(indptr)
    rows = np.repeat(np.arange(len(counts)), counts)
    return ratio(np.bincount(rows, values, len(counts)), counts)


def discounts(n: int) -> Doubles:
    """Return 1 / log2(rank + 1) for ranks 1..n.

    Jarvelin and Kekalainen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4),
    2002, doi:10.1145/582415.582418.
    """
    return 1.0 / np.log2(np.arange(2, n + 2))


def precision(hits: Bools, n_truth: Longs) -> Doubles:
    """Return |hits| / n for each list; n is the length asked for, also when a list is shorter."""
    del n_truth
    return np.asarray(hits.sum(axis=1) / hits.shape[1])


def recall(hits: Bools, n_truth: Longs) -> Doubles:
    """Return |hits| / |truth| for each list."""
    return np.asarray(hits.sum(axis=1) / n_truth)


def hit_rate(hits: Bools, n_truth: Longs) -> Doubles:
    """Return 1 for each list with a hit, else 0."""
    del n_truth
    return hits.any(axis=1).astype(np.float64)


def reciprocal_rank(hits: Bools, n_truth: Longs) -> Doubles:
    """Return 1 / rank of the first hit for each list, 0 without one."""
    del n_truth
    return np.where(hits.any(axis=1), 1.0 / (hits.argmax(axis=1) + 1), 0.0)


def average_precision(hits: Bools, n_truth: Longs) -> Doubles:
    """Return sum over hits of precision at the hit's rank, / min(n, |truth|)."""
    at_rank = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
    return np.asarray((at_rank * hits).sum(axis=1) / np.minimum(hits.shape[1], n_truth))


def ndcg(hits: Bools, n_truth: Longs) -> Doubles:
    """Return DCG / ideal DCG with binary gains; the ideal list has min(n, |truth|) hits."""
    weights = discounts(hits.shape[1])
    ideal = np.concatenate(([0.0], np.cumsum(weights)))
    return np.asarray(hits @ weights / ideal[np.minimum(hits.shape[1], n_truth)])


def graded_ndcg(gains: Doubles, ideal: Doubles) -> Doubles:
    """Return DCG / ideal DCG with weights as gains, NaN where nothing can be gained."""
    return ratio(gains @ discounts(gains.shape[1]), ideal)


def f1(hits: Bools, n_truth: Longs) -> Doubles:
    """Return the harmonic mean of precision and recall, 2 |hits| / (n + |truth|)."""
    return np.asarray(2 * hits.sum(axis=1) / (hits.shape[1] + n_truth))


def r_precision(hits: Bools, n_truth: Longs) -> Doubles:
    """Return hits among the first r / r, r = min(n, |truth|)."""
    first = np.minimum(hits.shape[1], n_truth)
    early = np.arange(hits.shape[1]) < first[:, None]
    return np.asarray((hits & early).sum(axis=1) / first)


def limited_auc(hits: Bools, n_truth: Longs, n_items: int) -> Doubles:
    """Return AUC of which only the list is known: what it lacks is taken to be in random order.

    As implicit has it: every item of the catalogue that is not to be found is one of the others.
    """
    n_hits, n_others = hits.sum(axis=1), n_items - n_truth
    before = (hits.cumsum(axis=1) * ~hits).sum(axis=1)
    left = n_others - (~hits).sum(axis=1)
    return ratio(before + (n_hits + n_truth) / 2 * left, n_truth * n_others)


def list_means(lists: Ints, values: NDArray[Any]) -> Doubles:
    """Return the mean over each list of its items' values, NaN for an empty list."""
    listed = lists >= 0
    sums = np.where(listed, values[np.maximum(lists, 0)], 0).sum(axis=1, dtype=np.float64)
    return ratio(sums, listed.sum(axis=1))


@njit(cache=True, nogil=True)
def list_spreads(lists: Ints, directions: Floats) -> Doubles:
    """Return 1 - mean cosine over all pairs of each list, NaN for lists of fewer than two items.

    ``directions`` are float32 (n_items, d) of length 1; rows of zeros are at right angles to all.
    Of unit vectors v, sum over pairs i != j of v_i . v_j is |sum v|^2 - sum |v|^2.
    """
    spreads = np.full(lists.shape[0], np.nan, np.float64)
    for row in range(lists.shape[0]):
        total = np.zeros(directions.shape[1], np.float64)
        squares, n_listed = 0.0, 0
        for item in lists[row]:
            if item >= 0:
                n_listed += 1
                for k in range(directions.shape[1]):
                    total[k] += directions[item, k]
                    squares += float(directions[item, k]) ** 2
        if n_listed > 1:
            pairs = (total**2).sum() - squares
            spreads[row] = 1.0 - pairs / (n_listed * (n_listed - 1))
    return spreads


def gini(counts: Doubles) -> float:
    """Return sum (2 i - N - 1) x_i / (N sum x_i), x ascending, i from 1; NaN if all are 0."""
    n, total = len(counts), counts.sum()
    ranks = 2 * np.arange(1, n + 1) - n - 1
    return float(ranks @ np.sort(counts) / (n * total)) if total else float("nan")


def group_shares(rows: NDArray[Any], groups: Ints, shape: tuple[int, int]) -> Doubles:
    """Return the share of each group among the items of each row, NaN for rows without any.

    ``rows`` and ``groups`` have one entry an item; items of group -1 are left out.
    """
    inside = groups >= 0
    places = rows[inside].astype(np.int64) * shape[1] + groups[inside]
    counts = np.bincount(places, minlength=shape[0] * shape[1]).reshape(shape)
    return ratio(counts, counts.sum(axis=1, keepdims=True))


def divergence(before: Doubles, after: Doubles, alpha: float) -> Doubles:
    """Return sum p ln(p / ((1 - alpha) q + alpha p)) of each row; p is ``before``, q ``after``."""
    mixed = (1 - alpha) * after + alpha * before
    logs = np.log(np.divide(before, mixed, out=np.ones_like(before), where=before > 0))
    return np.asarray((before * logs).sum(axis=1))
