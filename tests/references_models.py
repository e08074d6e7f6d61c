"""Slow twins of the models: dense float64, plain loops, right at first sight."""

from __future__ import annotations

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


class Prior(NamedTuple):
    """What one side is drawn to: features @ weights; without features, to zero."""

    features: Doubles
    weights: Doubles

    @classmethod
    def of(cls, model: Any, side: str, features: Any) -> Prior:
        """Read the weights off a fitted model, with those of biases as the last column."""
        weights = getattr(model, f"{side}_feature_weights_").values
        biases = getattr(model, f"{side}_feature_biases_", None)
        both = weights if biases is None else np.column_stack([weights, biases.values])
        return cls(np.asarray(features, np.float64), both.astype(np.float64))


def penalty(
    vectors: Doubles, ridge: Doubles, prior: Prior | None, parameters: dict[str, Any]
) -> float:
    """Return sum ridge |x - W'f|^2 + mu |W|^2; rows of ridge 0 take no part."""
    if prior is None:
        return float((ridge * (vectors**2).sum(axis=1)).sum())
    away = vectors - prior.features @ prior.weights
    mu = parameters["feature_regularization"]
    return float((ridge * (away**2).sum(axis=1)).sum() + mu * (prior.weights**2).sum())


def regress(features: Doubles, ridge: Doubles, vectors: Doubles, mu: float) -> Doubles:
    """Return the W at which :func:`penalty` is least: as least squares of stacked equations."""
    root = np.sqrt(ridge)[:, None]
    left = np.vstack([root * features, np.sqrt(mu) * np.eye(features.shape[1])])
    right = np.vstack([root * vectors, np.zeros((features.shape[1], vectors.shape[1]))])
    return np.linalg.lstsq(left, right)[0]


Priors = tuple[Prior | None, Prior | None]


def implicit_objective(
    cells: Cells, at: Implicit, parameters: dict[str, Any], priors: Priors = (None, None)
) -> float:
    """Return sum_stored w (1 - x.y)^2 + a sum_all (x.y)^2 + reg sum (n + a N)^e |.|^2.

    With priors it is |x - W'f|^2, and mu |W|^2 is added. Rows without cells count for nothing.
    """
    known = [cells.stored.any(axis=axis) for axis in (1, 0)]
    at = Implicit(*(v * k[:, None] for v, k in zip(at, known, strict=True)))
    a, e = parameters["unobserved_weight"], parameters["regularization_exponent"]
    scores = at.users @ at.items.T
    total = (cells.weights * cells.stored * (1 - scores) ** 2).sum() + a * (scores**2).sum()
    for vectors, counts, others, prior in (
        (at.users, cells.stored.sum(axis=1), len(at.items), priors[0]),
        (at.items, cells.stored.sum(axis=0), len(at.users), priors[1]),
    ):
        ridge = parameters["regularization"] * (counts + a * others) ** e * (counts > 0)
        total += penalty(vectors, ridge, prior, parameters)
    return float(total)


def explicit_errors(cells: Cells, at: Explicit) -> Doubles:
    """Return r - m - b_u - b_i - p.q of every stored cell."""
    biases = at.users[:, -1:] + at.items[:, -1]
    scores = at.users[:, :-1] @ at.items[:, :-1].T
    return (cells.weights - at.mean - biases - scores)[cells.stored]


def explicit_objective(
    cells: Cells, at: Explicit, parameters: dict[str, Any], priors: Priors = (None, None)
) -> float:
    """Return sum of squared errors + reg (sum n_u (|p|^2 + b_u^2) + the same for items).

    With priors it is |(p, b) - W'f|^2, and mu |W|^2 is added.
    """
    total = (explicit_errors(cells, at) ** 2).sum()
    for vectors, counts, prior in (
        (at.users, cells.stored.sum(axis=1), priors[0]),
        (at.items, cells.stored.sum(axis=0), priors[1]),
    ):
        total += penalty(vectors, parameters["regularization"] * counts, prior, parameters)
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


# -- reasons ---------------------------------------------------------------------------------------


def contributions(
    targets: Doubles, rows: Doubles, weights: Doubles, goals: Doubles, system: Doubles
) -> Doubles:
    """Return (t' A^-1 v_j) c_j g_j with A = S + sum_j c_j v_j v_j', one pair after the other."""
    full = system.astype(np.float64).copy()
    for v, c in zip(rows, weights, strict=True):
        for p in range(len(v)):
            for q in range(len(v)):
                full[p, q] += c * v[p] * v[q]
    inverse = np.linalg.inv(full)
    found = np.zeros((len(targets), len(rows)))
    for i, t in enumerate(targets):
        for j, v in enumerate(rows):
            near = sum(t[p] * inverse[p, q] * v[q] for p in range(len(t)) for q in range(len(v)))
            found[i, j] = near * weights[j] * goals[j]
    return found
