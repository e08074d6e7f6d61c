"""SVD++: ratings by gradient descent, where what users have rated at all tells of them as well."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import xarray as xr
from scipy import sparse

from dasrec import blocks
from dasrec.errors import InputError
from dasrec.factors import in_memory
from dasrec.interactions import Interactions
from dasrec.kernels.csr import rows_of
from dasrec.kernels.gradient import row_gradients
from dasrec.kernels.rule import Rule
from dasrec.kernels.solve import solve_rows
from dasrec.medium import CACHE
from dasrec.models.base import label_factors
from dasrec.models.sgd import SGD
from dasrec.models.stratified import State
from dasrec.schema import ITEM, ITEM_USERS, USER, USER_ITEMS
from dasrec.strata import Strata
from dasrec.sweeps import Half
from dasrec.training import Record
from dasrec.typing import CsrBlock, Floats, Side


class SVDpp(SGD):
    """Predict ratings from how and from what a user has rated: SVD++.

    Minimises

        sum_stored (r_ui - m - b_u - b_i - (p_u + z_u) . q_i)^2
        + regularization (sum_u n_u (|p_u|^2 + b_u^2) + sum_i n_i (|q_i|^2 + b_i^2)
                          + sum_i c_i |y_i|^2)

    with z_u the sum of y_j over the items j that u has rated, divided by the root of their number,
    and c_i the sum of n_u over the users u of item i.

    Parameters
    ----------
    factors, regularization, learning_rate, iterations, biases, schedule, decay :
    optimizer, batch_size, rng :
        as those of SGD

    Attributes
    ----------
    user_factors_, pooled_factors_ : xarray.DataArray, float32, dims (user, factor): p + z and z
    item_factors_, implicit_factors_ : xarray.DataArray, float32, dims (item, factor): q and y
    user_biases_, item_biases_, mean_, history_ : as those of SGD

    Notes
    -----
    All but y move as in :class:`SGD`. y touches all that a user has rated, which no stratum has;
    it moves once an epoch, along the gradient over all cells divided by c_i, as far as the
    objective falls: it is quadratic in y. Cost of an epoch: that of :class:`SGD`, and five passes
    over the cells of k multiply-adds or two. Koren, "Factorization meets the neighborhood", KDD
    2008, doi:10.1145/1401890.1401944.
    """

    name: ClassVar[str] = "svdpp"
    implicit_factors_: xr.DataArray
    pooled_factors_: xr.DataArray

    def _check(self) -> None:
        super()._check()
        if self.time_bins:
            msg = f"time_bins is {self.time_bins}; expected 0, since only SGD moves in time"
            raise InputError(msg)

    def _width(self) -> int:
        return 2 * self.factors + 1  # then z and y

    def _rule(self, rate: float) -> Rule:
        return super()._rule(rate)._replace(centred=True)

    def _close(
        self, interactions: Interactions, strata: Strata, users: Floats, items: Floats
    ) -> Floats:
        """Move y along its gradient as far as the objective falls."""
        k, keep = self.factors, (strata.fit, strata.cache_bytes)
        rest = slice(k + 1, 2 * k + 1)  # y, or z
        item_vectors, implicit = items[:, :k], items[:, rest]
        slopes = np.concatenate(
            _map(interactions, _slope_block, USER_ITEMS, (users, items, k, self.mean_.values), keep)
        )
        scale = 1 / np.sqrt(np.maximum(strata.user_counts, 1)).astype(np.float32)[:, None]
        counts = _pool(interactions, ITEM_USERS, strata.user_counts[:, None], keep)
        gathered = _pool(interactions, ITEM_USERS, slopes * scale, keep)
        pull = np.float32(self.regularization) * implicit
        direction = gathered / np.maximum(counts, np.float32(1)) - pull
        moved = _pool(interactions, USER_ITEMS, direction, keep) * scale
        told = (moved, np.ascontiguousarray(item_vectors))
        curve = sum(_map(interactions, _curve_block, USER_ITEMS, told, keep))
        rise, lengths = (
            float((counts * direction.astype(np.float64) * each).sum())
            for each in (implicit, direction)
        )
        fall = float((moved.astype(np.float64) * slopes).sum()) - self.regularization * rise
        length = fall / max(curve + self.regularization * lengths, 1e-30)
        changed = items.copy()
        changed[:, rest] += np.float32(length) * direction
        pooled = _pool(interactions, USER_ITEMS, changed[:, rest], keep) * scale
        users[:, :k] += pooled - users[:, rest]
        users[:, rest] = pooled
        return changed

    def _facts(self, strata: Strata, state: State, loss: float) -> Record:
        k, (users, items) = self.factors, state
        own = np.column_stack([users[:, :k] - users[:, k + 1 : 2 * k + 1], users[:, k]])
        return super()._facts(strata, (own, items), loss)

    def _state(self) -> State:
        users, items = super()._state()
        return (
            np.column_stack([users, self.pooled_factors_.values]),
            np.column_stack([items, self.implicit_factors_.values]),
        )

    def _keep(self, users: Floats, items: Floats) -> None:
        super()._keep(users, items)
        k = self.factors
        rest = slice(k + 1, 2 * k + 1)
        self.implicit_factors_ = label_factors(items[:, rest], ITEM, self.item_ids_)
        self.pooled_factors_ = label_factors(users[:, rest], USER, self.user_ids_)

    def fold_in(self, interactions: Interactions) -> Floats:
        """Solve every user's vector and bias from these interactions exactly, items held fixed."""
        shared = blocks.share((self.folding(interactions), self.implicit_factors_.values))
        parts = interactions.map_blocks(
            _fold_block, USER_ITEMS, shared, name="fold-block", progress=False
        )
        return np.asarray(self._with_mean(np.concatenate(parts)))


Keep = tuple[str, int]
"""What names the view whose blocks are kept, and how many bytes of them."""


def _map(view: Interactions, task: Any, side: Side, told: Any, keep: Keep) -> list[Any]:
    shared = blocks.share(told)
    return view.map_blocks(task, side, shared, keep, name="implicit-block", progress=False)


def _pool(view: Interactions, side: Side, vectors: Any, keep: Keep) -> Floats:
    """Add up, for each row, the vectors of its cells."""
    told = np.ascontiguousarray(vectors, np.float32)
    return np.concatenate(_map(view, _pool_block, side, told, keep))


def _read(view: Interactions, side: Side, rows: tuple[int, int], keep: Keep) -> CsrBlock:
    return CACHE.read(view, side, rows, fit=keep[0], limit=keep[1])


def _pool_block(
    view: Interactions, side: Side, start: int, stop: int, vectors: Floats, keep: Keep
) -> Floats:
    return _pooled_rows(_read(view, side, (start, stop), keep), vectors)


def _pooled_rows(block: CsrBlock, vectors: Floats) -> Floats:
    shape = (block.n_rows, len(vectors))
    ones = np.ones(len(block.indices), np.float32)
    product: Floats = sparse.csr_array((ones, block.indices, block.indptr), shape=shape) @ vectors
    return product


def _slope_block(
    view: Interactions,
    side: Side,
    start: int,
    stop: int,
    told: tuple[Floats, Floats, int, Floats],
    keep: Keep,
) -> Floats:
    """Return for each user the sum of e q over its cells."""
    users, items, k, mean = told
    block = _read(view, side, (start, stop), keep)
    own = users[start:stop]
    left = block.data - mean - own[rows_of(block.indptr), k] - items[block.indices, k]
    cells = (block.indptr, block.indices, left)
    vectors = [np.ascontiguousarray(each[:, :k]) for each in (own, items)]
    slopes: Floats = row_gradients(cells, *vectors)[0]
    return slopes


def _curve_block(
    view: Interactions,
    side: Side,
    start: int,
    stop: int,
    told: tuple[Floats, Floats],
    keep: Keep,
) -> float:
    """Return the sum over cells of what a change of z does to a prediction, squared."""
    moved, items = told
    block = _read(view, side, (start, stop), keep)
    cells = (block.indptr, block.indices, np.zeros_like(block.data))
    return float(row_gradients(cells, moved[start:stop], items)[1])


def _fold_block(
    view: Interactions, side: Side, start: int, stop: int, told: tuple[Half, Floats]
) -> Floats:
    """Solve for p and b of each user, and add z to p."""
    half, implicit = told
    block = view.read_rows(side, start, stop)
    counts = np.diff(block.indptr).astype(np.float32)
    pooled = _pooled_rows(block, implicit) / np.sqrt(np.maximum(counts, 1))[:, None]
    assert half.offsets is not None
    vectors = in_memory(half.vectors)
    known = np.einsum("ij,ij->i", pooled[rows_of(block.indptr)], vectors[block.indices, :-1])
    left = (block.data - half.offsets[block.indices] - known).astype(np.float32)
    ridge = np.maximum(half.scale * counts, np.finfo(np.float32).tiny).astype(np.float32)
    cells = (block.indptr, block.indices, np.ones_like(left), left)
    found = solve_rows(*cells, vectors, half.base, ridge)[0]
    found[:, :-1] += pooled
    return np.asarray(found)
