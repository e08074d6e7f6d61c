"""What features say of vectors: their weights, learned by turns with the vectors themselves.

The vector of a user or item is a part of its own plus features @ weights. Given the vectors, the
weights are a ridge regression on the features; given the weights, each row is drawn to what they
say (:class:`dasrec.sweeps.Prior`). Agarwal and Chen, "Regression-based latent factor models", KDD
2009, doi:10.1145/1557019.1557029, without the variances.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import linalg, sparse

from dasrec import blocks
from dasrec.checks import check_choice, check_number
from dasrec.errors import InputError, MismatchError
from dasrec.factors import Vectors, hold_array, in_memory, rotate
from dasrec.features import Features, multiply, open_features
from dasrec.interactions import Interactions
from dasrec.schema import FACTOR, ITEM, ITEM_USERS, USER, USER_ITEMS
from dasrec.sweeps import Half, Prior, Swept, sweep
from dasrec.typing import Bools, Entity, Floats, Side

Doubles = NDArray[np.float64]

_ROWS = 2**14  # that are added up at a time
_DIRECT = 2048  # features up to which the regression is solved directly
_SMALL = 1e-14  # of conjugate gradients: what may be left of the square of a residual
_STEPS = 200
_SIDES: tuple[Entity, ...] = ("user", "item")


class Regression:
    """The ridge regression of one side's vectors on its features, weighted by row.

    Minimises sum over rows of ridge |x - W'f|^2 + strength |W|^2 over W; rows of ridge 0 do not
    count.

    Parameters
    ----------
    features : Features, of n rows
    ridge : float64, shape (n,)
    strength : float, > 0

    Notes
    -----
    Cost: with up to 2,048 features n_stored n_features multiply-adds once, for the normal
    equations, and n_stored k for each solution; with more of them 2 n_stored k a step of conjugate
    gradients, which begin where the solution before was. Sums are taken in the order of rows.
    """

    def __init__(self, features: Features, ridge: Doubles, strength: float) -> None:
        self.features, self.matrix, self.names = features, features.matrix, features.names
        self.ridge, self.strength = ridge, strength

    @property
    def cold(self) -> Bools:
        """Rows that do not count: those of whom the features alone are known."""
        found: Bools = self.ridge == 0
        return found

    def solve(self, vectors: Floats, start: Floats) -> Floats:
        """Return the weights, float32, shape (n_features, k)."""
        with blocks.ONE_BLAS_THREAD:
            right = self._sum(lambda rows: vectors[rows], start.shape[1])
            if self.matrix.shape[1] <= _DIRECT:
                found: Doubles = linalg.cho_solve(self._normal, right)
            else:
                found = self._descend(right, start.astype(np.float64))
        return found.astype(np.float32)

    def penalty(self, vectors: Floats, weights: Floats) -> float:
        """Return what is minimised, at these weights."""
        total = self.strength * float(np.square(weights, dtype=np.float64).sum())
        with blocks.ONE_BLAS_THREAD:
            for rows in self._parts():
                away = vectors[rows] - multiply(self.matrix[rows], weights)
                total += float(self.ridge[rows] @ np.square(away, dtype=np.float64).sum(axis=1))
        return total

    def fill(self, vectors: Floats, weights: Floats) -> Floats:
        """Return the vectors with what the features say where nothing else is known."""
        filled = vectors.copy()
        filled[self.cold] = multiply(self.matrix[self.cold], weights)
        return filled

    def _parts(self) -> list[slice]:
        n_rows = self.matrix.shape[0]
        return [slice(first, first + _ROWS) for first in range(0, n_rows, _ROWS)]

    def _sum(self, values: Callable[[slice], Any], width: int) -> Doubles:
        """Add up F' ridge times what ``values`` gives for some rows."""
        total = np.zeros((self.matrix.shape[1], width))
        for rows in self._parts():
            weighted = self.ridge[rows, None] * values(rows)
            total += _dense(self.matrix[rows]).T @ weighted
        return total

    @cached_property
    def _normal(self) -> Any:
        """The factors of F' ridge F + strength I."""
        width = self.matrix.shape[1]
        total = self.strength * np.eye(width)
        for rows in self._parts():
            part = _dense(self.matrix[rows].astype(np.float64))
            product: Any = part.T @ (sparse.diags_array(self.ridge[rows]) @ part)
            total += product if isinstance(product, np.ndarray) else product.toarray()
        return linalg.cho_factor(total)

    @cached_property
    def _diagonal(self) -> Doubles:
        squares: Doubles = self.matrix.power(2).T @ self.ridge
        return squares[:, None] + self.strength

    def _descend(self, right: Doubles, x: Doubles) -> Doubles:
        """Solve the normal equations of each column by preconditioned conjugate gradients."""

        def apply(p: Doubles) -> Doubles:
            return self._sum(lambda rows: self.matrix[rows] @ p, p.shape[1]) + self.strength * p

        r = right - apply(x)
        p = z = r / self._diagonal
        gap = (r * z).sum(axis=0)
        enough = _SMALL * (right * right / self._diagonal).sum(axis=0)
        for _ in range(_STEPS):
            if (gap <= enough).all():
                break
            q = apply(p)
            length = gap / np.maximum((p * q).sum(axis=0), np.finfo(np.float64).tiny)
            x = x + length * p
            r = r - length * q
            z = r / self._diagonal
            before, gap = gap, (r * z).sum(axis=0)
            p = z + gap / np.maximum(before, np.finfo(np.float64).tiny) * p
        return x


def _dense(part: Any) -> Any:
    """Return rows as an array if most of their features are not zero: BLAS is quicker then."""
    return part.toarray() if 2 * part.nnz > part.shape[0] * part.shape[1] else part


class State(NamedTuple):
    """Where a fit is: both sides, users or items without interactions as zeros, and the priors."""

    users: Vectors | None
    items: Vectors
    priors: Priors

    def keep(self, model: Any) -> None:
        """Set what a model learned, with what features say where nothing else is known."""
        vectors: dict[str, Any] = {USER: self.users, ITEM: self.items}
        for side, regression in self.priors.sides.items():
            vectors[side] = regression.fill(vectors[side], self.priors.weights[side])
        model._keep(vectors[USER], vectors[ITEM])
        self.priors.keep(model)

    def in_memory(self) -> State:
        """Return it without files."""
        users = None if self.users is None else in_memory(self.users)
        return self._replace(users=users, items=in_memory(self.items))


@dataclass(frozen=True)
class Priors:
    """What features say at a moment of a fit; nothing without any.

    Attributes
    ----------
    sides : the regression of each side that has features
    weights : float32, shape (n_features, k), of each such side, in the basis of the vectors
    """

    sides: Mapping[str, Regression]
    weights: Mapping[str, Floats]

    def before(self, half: Half, side: str) -> tuple[Half, Priors]:
        """Go into the basis of a half-sweep, and give it the prior of the side that it solves."""
        rotation = half.rotation
        weights = {name: in_memory(rotate(each, rotation)) for name, each in self.weights.items()}
        if side in self.sides:
            half = replace(half, prior=Prior(self.sides[side].features, weights[side]))
        return half, replace(self, weights=weights)

    def after(self, swept: Swept, side: str) -> tuple[Swept, Priors]:
        """Learn the weights of the side that was solved; its penalty is then that of both."""
        if side not in self.sides:
            return swept, self
        regression = self.sides[side]
        vectors = in_memory(swept.vectors)
        weights = regression.solve(vectors, self.weights[side])
        swept = replace(swept, penalty=regression.penalty(vectors, weights))
        return swept, replace(self, weights={**self.weights, side: weights})

    def resumed(self, model: Any, place: str | None) -> State:
        """Return the state that a saved model was in; its vectors in files, if there is a place."""
        held: Any = [hold_array(each, place) for each in model._state()]
        vectors = dict(zip((USER, ITEM), held, strict=True))
        for side, regression in self.sides.items():
            vectors[side] = np.where(regression.cold[:, None], np.float32(0), vectors[side])
        weights = {side: _known_weights(model, side) for side in self.sides}
        return State(vectors[USER], vectors[ITEM], replace(self, weights=weights))

    def keep(self, model: Any) -> None:
        """Set a model's learned weights, of its factors and of its biases if it has some."""
        for side, weights in self.weights.items():
            dim, names = f"{side}_feature", self.sides[side].names
            kept = {"weights": xr.DataArray(weights[:, : model.factors], dims=(dim, FACTOR))}
            if weights.shape[1] > model.factors:
                kept["biases"] = xr.DataArray(weights[:, -1], dims=dim)
            for part, values in kept.items():
                setattr(model, f"{dim}_{part}_", values.assign_coords({dim: names}))


def _known_weights(model: Any, side: str) -> Floats:
    weights: Floats = getattr(model, f"{side}_feature_weights_").values
    biases = getattr(model, f"{side}_feature_biases_", None)
    return weights if biases is None else np.column_stack([weights, biases.values])


def check_features(model: Any) -> None:
    """Refuse parameters that are out of range."""
    check_number(model.feature_regularization, name="feature_regularization", above=0)
    for name in ("user_features", "item_features"):
        check_choice(getattr(model, name), name=name, choices=(True, False))
    if model.nonnegative and (model.user_features or model.item_features):
        msg = "nonnegative is True and features are given, which may draw below 0; choose either"
        raise InputError(msg)


def features_of(model: Any, interactions: Interactions) -> list[Features]:
    """Open the features that a model is to use."""
    wanted = {"user": model.user_features, "item": model.item_features}
    return [open_features(interactions, side) for side in _SIDES if wanted[side]]


def begin(
    model: Any,
    interactions: Interactions,
    items: Vectors,
    features: Sequence[Features],
    half: Callable[..., Half],
) -> State:
    """Return the state in which a fit begins with these items: nothing of users, no weights yet."""
    for name in [name for name in vars(model) if "_feature_" in name]:
        delattr(model, name)  # of a fit before, with other features
    sides: dict[str, Regression] = {}
    weights: dict[str, Floats] = {}
    for each in features:
        of_users = each.side == USER
        side: Side = USER_ITEMS if of_users else ITEM_USERS
        others = interactions.n_items if of_users else interactions.n_users
        counts = interactions.counts(side).astype(np.float64)
        ridge = half(items[:1], None, others).ridge(counts) * (counts > 0)
        sides[each.side] = Regression(each, ridge, model.feature_regularization)
        weights[each.side] = np.zeros((each.n_features, items.shape[1]), np.float32)
    return State(None, items, Priors(sides, weights))


def for_users(model: Any, interactions: Interactions, half: Half) -> Half:
    """Return the half-sweep that solves users of a fitted model precisely, with their features."""
    half = half.precise()
    if model.user_features:
        half = replace(half, prior=_user_prior(model, interactions, half.rotation))
    return half


def fold_users(interactions: Interactions, half: Half) -> Floats:
    """Solve all users as :func:`for_users` says; features speak for those without interactions."""
    vectors = in_memory(sweep(interactions, USER_ITEMS, half).vectors)
    if half.prior is not None:
        for start, stop in pairwise(interactions.cuts(USER_ITEMS).tolist()):
            part = vectors[start:stop]
            cold = ~part.any(axis=1)
            if cold.any():
                part[cold] = half.prior.means(start, stop)[cold]
    return vectors if half.rotation is None else in_memory(rotate(vectors, half.rotation.T))


def _user_prior(model: Any, interactions: Interactions, rotation: Floats | None) -> Prior:
    features = open_features(interactions, "user")
    names = model.user_feature_weights_[f"{USER}_feature"].values
    if features.names.tolist() != names.tolist():
        msg = (
            f"{interactions.url} has other features of users than the model learned from; write "
            "the same, or fit a model on these"
        )
        raise MismatchError(msg)
    weights = _known_weights(model, USER)
    return Prior(features, in_memory(rotate(weights, rotation)))
