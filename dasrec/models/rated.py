"""What models of ratings share: a mean and biases beside factors, and how users are solved."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import xarray as xr

from dasrec.factors import Vectors, last_column, map_rows
from dasrec.models.base import Model
from dasrec.sweeps import Half
from dasrec.typing import Floats


class Rated(Model):
    """Ratings are m + b_u + b_i + p_u . q_i."""

    predicts_values: ClassVar[bool] = True
    biases: bool
    regularization: float
    user_factors_: xr.DataArray
    item_factors_: xr.DataArray
    user_biases_: xr.DataArray
    item_biases_: xr.DataArray
    mean_: xr.DataArray

    def lazy_vectors(self) -> tuple[Any, Floats]:
        """Return (p, b_u + m, 1) and (q, 1, b_i)."""
        biases = self.user_biases_.data[:, None]
        users = np.concatenate([self.user_factors_.data, biases], axis=1)
        items, biases = self.item_factors_.values, self.item_biases_.values
        return self._with_mean(users), np.column_stack([items, np.ones_like(biases), biases])

    def _item_side(self) -> Floats:
        """Return (q, b_i), which a user's solution holds fixed."""
        return np.column_stack([self.item_factors_.values, self.item_biases_.values])

    def _with_mean(self, users: Any) -> Any:
        """Return scoring vectors of (p, b_u)."""
        biases = users[:, -1:] + self.mean_.values
        return np.concatenate([users[:, :-1], biases, np.ones_like(biases)], axis=1)

    def _biased_half(
        self, vectors: Vectors, start: Vectors | None = None, *, square: bool = False
    ) -> Half:
        """Describe what vectors and biases of one side minimise, (factors, bias) held fixed.

        The bias of a row is the weight of a constant 1 beside the other side's factors.
        """
        return Half(
            vectors=map_rows(_with_last, vectors, float(self.biases)),
            base=np.zeros((vectors.shape[1],) * (2 if square else 1), np.float32),
            rotation=None,
            offsets=last_column(vectors) + self.mean_.values,
            scale=self.regularization,
            shift=0.0,
            exponent=1.0,
            start=start,
        )


def _with_last(rows: Floats, value: float) -> Floats:
    """Return the rows with the last column set to a value."""
    rows = rows.copy()
    rows[:, -1] = value
    return rows
