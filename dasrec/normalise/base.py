"""What all transforms share: fit, call, inverse, describe, and sums over rows to learn from."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from dasrec.errors import InputError
from dasrec.interactions import Interactions
from dasrec.kernels.csr import rows_of
from dasrec.schema import ITEM, ITEM_USERS, USER, USER_ITEMS
from dasrec.typing import Floats, Ints, Longs, Side

Doubles = NDArray[np.float64]
Entity = Literal["user", "item"]

SIDE_OF: dict[str, Side] = {USER: USER_ITEMS, ITEM: ITEM_USERS}
"""The orientation whose rows are users, or items."""


class Cells(NamedTuple):
    """Where weights stand, in parallel arrays."""

    users: Ints
    items: Ints
    timestamps: Longs | None


class WeightTransform(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Base of all transforms: float64 inside, float32 out.

    A subclass says what it does in :meth:`_forward` and :meth:`_backward`. If it learns, it sets
    arrays in :meth:`_learn` and returns of which entities they hold one value each.
    """

    needs_timestamp = False
    learns = True

    def fit(self, interactions: Interactions, y: None = None) -> Self:
        """Learn from the training rows alone, eagerly, and return the transform itself.

        Parameters
        ----------
        interactions : Interactions
            The ``train`` part of a split. What it is transformed by already comes first.
        y : None
            Ignored; there for scikit-learn's sake.

        Raises
        ------
        InputError
            A parameter of the constructor is out of its range, or there is nothing to learn from.
        """
        self._check()
        entities = self._learn(interactions)
        hashes = {USER: interactions.user_hash, ITEM: interactions.item_hash}
        self.facts_ = self.get_params() | {f"{each}_hash": hashes[each] for each in entities}
        if self.learns:
            self.facts_["hash"] = self._digest()
        return self

    def __call__(
        self, users: Ints, items: Ints, weights: Floats, timestamps: Longs | None = None
    ) -> Floats:
        """Return what stands for the weights of some cells, float32; all arrays are parallel."""
        self._ready()
        wide = np.asarray(weights, np.float64)
        return self._narrow(self._forward(Cells(users, items, timestamps), wide))

    def inverse(
        self, users: Ints, items: Ints, weights: Floats, timestamps: Longs | None = None
    ) -> Floats:
        """Return the weights that the given ones stand for.

        Parameters
        ----------
        users, items : int, shape (m,)
            Numbers, as in the matrix.
        weights : shape (m,)
            Transformed ones, or what a model that was fitted on such predicts.
        timestamps : int64 microseconds since 1970-01-01 UTC, optional

        Raises
        ------
        InputError
            There is no inverse, or none of these weights.
        """
        self._ready()
        wide = np.asarray(weights, np.float64)
        return self._narrow(self._backward(Cells(users, items, timestamps), wide))

    def describe(self) -> dict[str, Any]:
        """Return the name, the parameters and a hash of what was learned."""
        self._ready()
        facts = getattr(self, "facts_", self.get_params())
        plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in facts.items()}
        return {"transform": type(self).__name__} | plain

    def _check(self) -> None:
        """Refuse parameters that are out of range."""

    def _learn(self, interactions: Interactions) -> tuple[Entity, ...]:
        """Set the learned attributes."""
        return ()

    def _forward(self, cells: Cells, weights: Doubles) -> Doubles:
        raise NotImplementedError

    def _backward(self, cells: Cells, weights: Doubles) -> Doubles:
        msg = (
            f"this {type(self).__name__} has no inverse: it makes one of several weights; keep "
            "the interactions as they were before it"
        )
        raise InputError(msg)

    def _ready(self) -> None:
        """Refuse to go on unfitted, or with other parameters than at the time of fitting."""
        self._check()
        facts, name = getattr(self, "facts_", None), type(self).__name__
        if facts is None and self.learns:
            msg = f"this {name} is not fitted; call fit(split.train) first"
            raise InputError(msg)
        if facts is not None and any(facts[k] != v for k, v in self.get_params().items()):
            msg = f"this {name} has other parameters than when it was fitted; call fit again"
            raise InputError(msg)

    def _narrow(self, weights: Doubles) -> Floats:
        with np.errstate(over="ignore"):
            narrow = weights.astype(np.float32)
        if not np.isfinite(narrow).all():
            msg = (
                f"{type(self).__name__} makes numbers that float32 cannot hold; clip the weights "
                "before it"
            )
            raise InputError(msg)
        return narrow

    def _nonnegative(self, weights: Doubles) -> Doubles:
        if (weights < 0).any():
            msg = (
                f"{type(self).__name__} needs weights of at least 0, and there is "
                f"{weights.min():g}; drop negative values when cleaning, and centre later"
            )
            raise InputError(msg)
        return weights

    def _digest(self) -> str:
        digest = hashlib.blake2b(digest_size=8)
        for _, value in sorted(vars(self).items()):
            if isinstance(value, np.ndarray):
                digest.update(value.tobytes())
        return digest.hexdigest()

    def _same(self) -> tuple[Any, ...]:
        """Return what transforms that do the same have in common."""
        return type(self), self.get_params(), getattr(self, "facts_", None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WeightTransform) and self._same() == other._same()

    def __hash__(self) -> int:
        return hash(type(self))

    def __dask_tokenize__(self) -> str:
        return json.dumps(self.describe(), sort_keys=True)


class Rows(NamedTuple):
    """Counts, sums and sums of squared deviations from the mean, by row."""

    counts: Longs
    sums: Doubles
    squares: Doubles


def sum_rows(interactions: Interactions, side: Side) -> Rows:
    """Sum up the rows of one side, eagerly; a row is never cut, so cuts do not show in the bits."""
    parts = interactions.map_blocks(_sum_block, side, name="normalise-block")
    rows = Rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    check_something(int(rows.counts.sum()), interactions)
    return rows


def _sum_block(view: Interactions, side: Side, start: int, stop: int) -> Rows:
    block = view.read_rows(side, start, stop)
    rows, counts = rows_of(block.indptr), np.diff(block.indptr)
    sums = np.bincount(rows, block.data, minlength=block.n_rows)
    means = sums / np.maximum(counts, 1)
    squares = np.bincount(rows, (block.data - means[rows]) ** 2, minlength=block.n_rows)
    return Rows(counts, sums, squares)


def check_something(n: int, interactions: Interactions) -> None:
    """Refuse to learn from a view without interactions."""
    if n == 0:
        msg = f"there are no interactions of {interactions.url} to learn from; choose a larger part"
        raise InputError(msg)
