"""Biases alone: the baseline that every rating predictor must beat."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import xarray as xr

from dasrec import blocks
from dasrec.checks import check_count, check_number
from dasrec.interactions import Interactions
from dasrec.models.base import Model, label
from dasrec.schema import ITEM, USER
from dasrec.training import Training
from dasrec.typing import Floats, Side


class Biases(Model):
    """Predict mean + user bias + item bias, each a damped mean of what the others leave.

    Parameters
    ----------
    user_damping, item_damping : float, >= 0
        How many interactions at the mean every user and item is given beforehand.
    iterations : int

    Attributes
    ----------
    mean_, user_biases_, item_biases_ : xarray.DataArray, float32

    Notes
    -----
    Koren, "Factor in the neighbors", ACM TKDD 4(1), 2010, section 2.1, doi:10.1145/1644873.1644874.
    """

    name: ClassVar[str] = "biases"
    predicts_values: ClassVar[bool] = True
    mean_: xr.DataArray
    user_biases_: xr.DataArray
    item_biases_: xr.DataArray

    def __init__(
        self, *, user_damping: float = 5.0, item_damping: float = 2.0, iterations: int = 10
    ) -> None:
        self.user_damping = user_damping
        self.item_damping = item_damping
        self.iterations = iterations

    def _check(self) -> None:
        check_number(self.user_damping, name="user_damping", least=0)
        check_number(self.item_damping, name="item_damping", least=0)
        check_count(self.iterations, name="iterations")

    def _learn(self, interactions: Interactions, training: Training) -> None:
        del training  # it takes no time
        zeros = np.zeros(interactions.n_items, np.float32)
        mean = _damped_means(interactions, "user_items", zeros, None)
        self.mean_ = label(mean)
        users = np.zeros(interactions.n_users, np.float32)
        for _ in blocks.track(self.iterations, name=f"fit {self.name}"):
            items = _damped_means(interactions, "item_users", users + mean, self.item_damping)
            users = _damped_means(interactions, "user_items", items + mean, self.user_damping)
        self.user_biases_, self.item_biases_ = label(users, USER), label(items, ITEM)

    def lazy_vectors(self) -> tuple[Floats, Floats]:
        """Return (b_u + m, 1) and (1, b_i)."""
        items = self.item_biases_.values
        return self._user_vectors(self.user_biases_.values), np.column_stack(
            [np.ones_like(items), items]
        )

    def fold_in(self, interactions: Interactions) -> Floats:
        """Take every user's bias from these interactions, items held fixed."""
        self.check_belongs(interactions)
        expected = self.item_biases_.values + self.mean_.values
        return self._user_vectors(
            _damped_means(interactions, "user_items", expected, self.user_damping)
        )

    def _user_vectors(self, biases: Floats) -> Floats:
        return np.column_stack([biases + self.mean_.values, np.ones_like(biases)])


def _damped_means(
    view: Interactions, side: Side, expected: Floats, damping: float | None
) -> Floats:
    """Return each row's damped mean of value minus ``expected``; None: the mean of all."""
    parts = view.map_blocks(
        _row_sums, side, blocks.share(expected), name="bias-sweep", progress=False
    )
    sums = np.concatenate([part[0] for part in parts])
    counts = np.concatenate([part[1] for part in parts])
    if damping is None:
        return np.array(sums.sum() / max(counts.sum(), 1), np.float32)
    return (sums / np.maximum(counts + damping, 1e-9)).astype(np.float32)


def _row_sums(
    view: Interactions, side: Side, start: int, stop: int, expected: Floats
) -> tuple[
    np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.int64]]
]:
    block = view.read_rows(side, start, stop)
    left = np.concatenate(
        ([0.0], np.cumsum(block.data.astype(np.float64) - expected[block.indices]))
    )
    return left[block.indptr[1:]] - left[block.indptr[:-1]], np.diff(block.indptr)
