"""Transforms that take off the mean of a user, an item or all, and divide by the spread."""

from __future__ import annotations

from typing import Literal

import numpy as np

from dasrec.checks import check_choice
from dasrec.interactions import Interactions
from dasrec.normalise.base import SIDE_OF, Cells, Doubles, Entity, WeightTransform, sum_rows
from dasrec.schema import ITEM, USER, USER_ITEMS
from dasrec.typing import Floats

Scope = Literal["user", "item", "global"]


class Centre(WeightTransform):
    """w - mean, of the user's, the item's or all weights in training.

    Users or items without training rows get the mean of all. Inverse: w' + mean.

    Parameters
    ----------
    by : {"user", "item", "global"}

    Attributes
    ----------
    means_ : float32, shape (n,), or (1,) for all

    Notes
    -----
    By user: Resnick, Iacovou, Suchak, Bergstrom and Riedl, "GroupLens", CSCW 1994,
    doi:10.1145/192844.192905. Models of implicit feedback refuse the negative weights.
    """

    means_: Floats

    def __init__(self, *, by: Scope = "user") -> None:
        self.by: Scope = by

    def _check(self) -> None:
        check_choice(self.by, name="by", choices=(USER, ITEM, "global"))

    def _learn(self, interactions: Interactions) -> tuple[Entity, ...]:
        self._keep(*_moments(interactions, self.by))
        return () if self.by == "global" else (self.by,)

    def _keep(self, means: Doubles, variances: Doubles) -> None:
        self.means_ = means.astype(np.float32)

    def _of_cells(self, values: Floats, cells: Cells) -> Doubles:
        if self.by != "global":
            values = values[cells.users if self.by == USER else cells.items]
        return values.astype(np.float64)

    def _forward(self, cells: Cells, weights: Doubles) -> Doubles:
        return weights - self._of_cells(self.means_, cells)

    def _backward(self, cells: Cells, weights: Doubles) -> Doubles:
        return weights + self._of_cells(self.means_, cells)


class ZScore(Centre):
    """(w - mean) / s, s the standard deviation, of the user's, the item's or all training weights.

    s^2 is the mean squared deviation (divided by n); where it is 0, s is 1. Users or items without
    training rows get the mean and s of all. Inverse: w' s + mean.

    Parameters
    ----------
    by : {"user", "item", "global"}

    Attributes
    ----------
    means_, deviations_ : float32, shape (n,), or (1,) for all

    Notes
    -----
    Herlocker, Konstan, Borchers and Riedl, "An algorithmic framework for performing collaborative
    filtering", SIGIR 1999, doi:10.1145/312624.312682.
    """

    deviations_: Floats

    def _keep(self, means: Doubles, variances: Doubles) -> None:
        super()._keep(means, variances)
        deviations = np.sqrt(variances).astype(np.float32)
        self.deviations_ = np.where(deviations > 0, deviations, np.float32(1))

    def _forward(self, cells: Cells, weights: Doubles) -> Doubles:
        return super()._forward(cells, weights) / self._of_cells(self.deviations_, cells)

    def _backward(self, cells: Cells, weights: Doubles) -> Doubles:
        return super()._backward(cells, weights * self._of_cells(self.deviations_, cells))


def _moments(interactions: Interactions, by: Scope) -> tuple[Doubles, Doubles]:
    """Return means and variances, float64, shape (n,), or (1,) for all."""
    rows = sum_rows(interactions, SIDE_OF.get(by, USER_ITEMS))
    counts, total = rows.counts, rows.counts.sum()
    means = rows.sums / np.maximum(counts, 1)
    mean = rows.sums.sum() / total
    variance = (rows.squares + counts * (means - mean) ** 2).sum() / total
    if by == "global":
        return np.array([mean]), np.array([variance])
    variances = rows.squares / np.maximum(counts, 1)
    return np.where(counts > 0, means, mean), np.where(counts > 0, variances, variance)
