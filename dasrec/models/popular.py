"""Popularity: the baseline that every personal model must beat."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import xarray as xr

from dasrec.interactions import Interactions
from dasrec.models.base import Model, label
from dasrec.schema import ITEM
from dasrec.training import Training
from dasrec.typing import Floats


class Popular(Model):
    """Recommend to everyone the items with the most interactions.

    Attributes
    ----------
    item_counts_ : xarray.DataArray, int64, dim (item)
    """

    name: ClassVar[str] = "popular"
    item_counts_: xr.DataArray

    def _check(self) -> None:
        """Nothing can be out of range."""

    def _learn(self, interactions: Interactions, training: Training) -> None:
        del training  # it takes no time
        self.item_counts_ = label(interactions.counts("item_users"), ITEM)

    def lazy_vectors(self) -> tuple[Floats, Floats]:
        """Return a column of ones and the counts."""
        counts = self.item_counts_.values.astype(np.float32)
        return np.ones((len(self.user_ids_), 1), np.float32), counts[:, None]
