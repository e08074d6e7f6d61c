"""Slow twins of the models and of the metrics: dense float64, plain loops, right at first sight."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

Doubles = np.ndarray[Any, np.dtype[np.float64]]


# -- objectives ------------------------------------------------------------------------------------


class Cells(NamedTuple):
    """A matrix as dense weights, and which cells are stored: a stored zero is not a gap."""

    weights: Doubles
    stored: np.ndarray[Any, np.dtype[np.bool_]]

    @classmethod
    def of(cls, matrix: sparse.csr_array[Any]) -> Cells:
        """Spread a sparse matrix out."""
        stored = np.zeros(matrix.shape, np.bool_)
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        stored[rows, matrix.indices] = True
        return cls(matrix.toarray().astype(np.float64), stored)


class Implicit(NamedTuple):
    """What both sides of an implicit factorisation hold."""

    users: Doubles
    items: Doubles

    @classmethod
    def of(cls, model: Any) -> Implicit:
        """Read them off a fitted model."""
        pair = (model.user_factors_, model.item_factors_)
        return cls(*(each.values.astype(np.float64) for each in pair))


class Explicit(NamedTuple):
    """What both sides of an explicit factorisation hold; the last column is the bias."""

    users: Doubles
    items: Doubles
    mean: float

    @classmethod
    def of(cls, model: Any) -> Explicit:
        """Read them off a fitted model."""
        pairs = (
            (model.user_factors_, model.user_biases_),
            (model.item_factors_, model.item_biases_),
        )
        return cls(
            *(np.column_stack([f.values, b.values]).astype(np.float64) for f, b in pairs),
            mean=float(model.mean_),
        )


def implicit_objective(cells: Cells, at: Implicit, parameters: dict[str, Any]) -> float:
    """Return sum_stored w (1 - x.y)^2 + a sum_all (x.y)^2 + reg sum (n + a N)^e |.|^2."""
    a, e = parameters["unobserved_weight"], parameters["regularization_exponent"]
    scores = at.users @ at.items.T
    total = (cells.weights * cells.stored * (1 - scores) ** 2).sum() + a * (scores**2).sum()
    for vectors, counts, others in (
        (at.users, cells.stored.sum(axis=1), len(at.items)),
        (at.items, cells.stored.sum(axis=0), len(at.users)),
    ):
        scale = (counts + a * others) ** e
        total += parameters["regularization"] * (scale * (vectors**2).sum(axis=1)).sum()
    return float(total)


def explicit_errors(cells: Cells, at: Explicit) -> Doubles:
    """Return r - m - b_u - b_i - p.q of every stored cell."""
    biases = at.users[:, -1:] + at.items[:, -1]
    scores = at.users[:, :-1] @ at.items[:, :-1].T
    return (cells.weights - at.mean - biases - scores)[cells.stored]


def explicit_objective(cells: Cells, at: Explicit, parameters: dict[str, Any]) -> float:
    """Return sum of squared errors + reg (sum n_u (|p|^2 + b_u^2) + the same for items)."""
    total = (explicit_errors(cells, at) ** 2).sum()
    for vectors, counts in (
        (at.users, cells.stored.sum(axis=1)),
        (at.items, cells.stored.sum(axis=0)),
    ):
        total += parameters["regularization"] * (counts * (vectors**2).sum(axis=1)).sum()
    return float(total)


def slopes(
    objective: Callable[[Doubles], float], at: Doubles, *, rows: Sequence[int], step: float = 1e-3
) -> Doubles:
    """Return some rows of the gradient by central differences: exact for a quadratic objective."""
    found = np.zeros((len(rows), at.shape[1]))
    for place in np.ndindex(found.shape):
        moved = at.copy()
        cell = rows[place[0]], place[1]
        moved[cell] += step
        up = objective(moved)
        moved[cell] -= 2 * step
        found[place] = (up - objective(moved)) / (2 * step)
    return found


# -- metrics ---------------------------------------------------------------------------------------


def list_metrics(listed: Sequence[int], truth: set[int], n: int) -> dict[str, float]:
    """Measure one list, at most ``n`` long, against what was to be found."""
    ranks = [rank for rank, item in enumerate(listed[:n], 1) if item in truth]
    best = min(n, len(truth))
    ideal = math.fsum(1 / math.log2(rank + 1) for rank in range(1, best + 1))
    return {
        "precision": len(ranks) / n,
        "recall": len(ranks) / len(truth),
        "ndcg": math.fsum(1 / math.log2(rank + 1) for rank in ranks) / ideal,
        "map": math.fsum(found / rank for found, rank in enumerate(ranks, 1)) / best,
        "mrr": 1 / ranks[0] if ranks else 0.0,
        "hit_rate": 1.0 if ranks else 0.0,
    }


def evaluate_lists(
    lists: Sequence[Sequence[int]], truth: Sequence[set[int]], *, n: int, n_items: int
) -> dict[str, float]:
    """Average over the users with something to find; coverage is over their lists together."""
    pairs = [(row[:n], wanted) for row, wanted in zip(lists, truth, strict=True) if wanted]
    each = [list_metrics(row, wanted, n) for row, wanted in pairs]
    means = {name: math.fsum(one[name] for one in each) / len(each) for name in each[0]}
    shown = {item for row, _ in pairs for item in row}
    return means | {"item_coverage": len(shown) / n_items}
