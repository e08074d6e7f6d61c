"""Slow twins of the transforms: loops over dense float64 matrices, NaN where nothing is stored.

Each learns from ``train`` and returns what stands for ``values``; both are users x items.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Matrix = np.ndarray[Any, Any]


def each_cell(values: Matrix, function: Any) -> Matrix:
    """Fill a matrix with ``function(user, item, weight)`` of each stored cell."""
    out = np.full(values.shape, np.nan)
    for user, item in zip(*np.nonzero(~np.isnan(values)), strict=True):
        out[user, item] = function(user, item, float(values[user, item]))
    return out


def stored(vector: Matrix) -> list[float]:
    """Return what is stored in a row or a column."""
    return [float(each) for each in vector if not math.isnan(each)]


def log1p(train: Matrix, values: Matrix, *, epsilon: float = 1.0) -> Matrix:
    """log(1 + w / epsilon)."""
    return each_cell(values, lambda u, i, w: math.log(1 + w / epsilon))


def binarise(train: Matrix, values: Matrix, *, threshold: float = 0.0) -> Matrix:
    """Say whether a weight is above the threshold."""
    return each_cell(values, lambda u, i, w: float(w > threshold))


def clip(train: Matrix, values: Matrix, *, low: float, high: float) -> Matrix:
    """Keep weights between two limits."""
    return each_cell(values, lambda u, i, w: sorted([low, w, high])[1])


def tf_idf(train: Matrix, values: Matrix, *, by: str = "user") -> Matrix:
    """Weight times inverse document frequency."""
    if by == "item":
        return tf_idf(train.T, values.T).T
    n_documents = sum(1 for row in train if stored(row))
    idf = [math.log((1 + n_documents) / (1 + len(stored(column)))) + 1 for column in train.T]
    return each_cell(values, lambda u, i, w: w * idf[i])


def bm25(
    train: Matrix, values: Matrix, *, k1: float = 1.2, b: float = 0.75, by: str = "user"
) -> Matrix:
    """Okapi BM25 with Lucene's idf."""
    if by == "item":
        return bm25(train.T, values.T, k1=k1, b=b).T
    lengths = [sum(stored(row)) for row in train if stored(row)]
    mean = sum(lengths) / len(lengths)

    def weigh(u: int, i: int, w: float) -> float:
        length = sum(stored(train[u])) if stored(train[u]) else mean
        n = len(stored(train[:, i]))
        idf = math.log(1 + (len(lengths) - n + 0.5) / (n + 0.5))
        return idf * w * (k1 + 1) / (w + k1 * (1 - b + b * length / mean)) if w > 0 else 0.0

    return each_cell(values, weigh)


def time_decay(
    train_times: Matrix, times: Matrix, values: Matrix, *, half_life: float, now: float | None
) -> Matrix:
    """Halve a weight every ``half_life`` days; times are seconds, NaN where nothing is stored."""
    latest = float(np.nanmax(train_times)) if now is None else now

    def weigh(u: int, i: int, w: float) -> float:
        age = max(0.0, latest - float(times[u, i])) / 86_400
        return w * math.pow(0.5, age / half_life)

    return each_cell(values, weigh)


def moments(train: Matrix, by: str) -> list[tuple[float, float]]:
    """Return mean and standard deviation of each row, those of all where a row has nothing."""
    if by == "item":
        return moments(train.T, "user")
    whole = stored(train.ravel())
    groups = [stored(row) if by == "user" and stored(row) else whole for row in train]
    means = [sum(group) / len(group) for group in groups]
    spreads = [
        math.sqrt(sum((w - mean) ** 2 for w in group) / len(group))
        for group, mean in zip(groups, means, strict=True)
    ]
    return list(zip(means, spreads, strict=True))


def centre(train: Matrix, values: Matrix, *, by: str) -> Matrix:
    """Take off the mean."""
    known = moments(train, by)
    return each_cell(values, lambda u, i, w: w - known[i if by == "item" else u][0])


def z_score(train: Matrix, values: Matrix, *, by: str) -> Matrix:
    """Take off the mean and divide by the standard deviation, unless that is 0."""
    known = moments(train, by)

    def weigh(u: int, i: int, w: float) -> float:
        mean, spread = known[i if by == "item" else u]
        return (w - mean) / (spread if spread > 0 else 1.0)

    return each_cell(values, weigh)
