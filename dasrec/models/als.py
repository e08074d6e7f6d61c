"""Alternating least squares: explicit (error on stored cells), implicit (weights on all cells)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from dasrec import blocks, memory
from dasrec.checks import check_choice, check_count, check_number, seed_of
from dasrec.errors import InputError
from dasrec.interactions import Interactions
from dasrec.kernels.solve import solve_rows
from dasrec.models.base import Model, label, label_factors
from dasrec.schema import ITEM, ITERATION, USER, USER_ITEMS
from dasrec.typing import Floats, Rng, Side

logger = logging.getLogger(__name__)

INIT_SCALE = 0.1
"""Standard deviation of the length of an initial item vector."""


@dataclass(frozen=True)
class _Half:
    """What a half-sweep holds fixed, and the objective of each row that it solves.

    sum_j c_j (t_j - v_j . x)^2 + x' R diag(base) R' x + scale (n + shift)^exponent |x|^2
    """

    vectors: Floats  # v, in the basis R
    base: Floats
    rotation: Floats | None
    offsets: Floats | None  # explicit: what is predicted without x, by column
    scale: float
    shift: float
    exponent: float


@dataclass(frozen=True)
class _Swept:
    """One side after a half-sweep."""

    vectors: Floats
    loss: float
    penalty: float


class _Alternating(Model):
    """What both objectives share: alternate exact half-sweeps over row blocks of the store."""

    factors: int
    regularization: float
    iterations: int
    rng: Rng

    def _check(self) -> None:
        check_count(self.factors, name="factors")
        check_count(self.iterations, name="iterations")
        check_number(self.regularization, name="regularization", above=0)

    def _learn(self, interactions: Interactions) -> None:
        size = 12 * (interactions.n_users + interactions.n_items) * (self.factors + 1)
        memory.check_fits(
            size,
            limit=memory.limit(),
            what=f"fitting {self.factors} factors of {interactions.n_users:,} users "
            f"and {interactions.n_items:,} items",
            remedy="use fewer factors, or drop rare users and items with min_user and min_item",
        )
        seed = seed_of(self.rng)
        self.seed_ = label(np.array(seed, np.int64))
        self._prepare(interactions)
        items = self._first_items(interactions.n_items, seed)
        history = []
        for users_swept, items_swept, seconds in self._sweeps(interactions, items):
            history.append({**self._facts(users_swept, items_swept), "seconds": seconds})
            logger.info("%s iteration %d: %s", self.name, len(history), history[-1])
        self._keep(interactions, users_swept.vectors, items_swept.vectors)
        self.history_ = xr.Dataset(
            {key: (ITERATION, [each[key] for each in history]) for key in history[0]},
            coords={ITERATION: np.arange(1, len(history) + 1)},
        )

    def _sweeps(
        self, interactions: Interactions, items: Floats
    ) -> Iterator[tuple[_Swept, _Swept, float]]:
        for _ in blocks.track(self.iterations, name=f"fit {self.name}"):
            start = time.perf_counter()
            users = sweep(interactions, "user_items", self._half(items, interactions.n_items))
            turned = sweep(
                interactions, "item_users", self._half(users.vectors, interactions.n_users)
            )
            items = turned.vectors
            yield users, turned, time.perf_counter() - start

    def _first_items(self, n_items: int, seed: int) -> Floats:
        draw = np.random.default_rng(seed).standard_normal((n_items, self.factors), np.float32)
        return draw * np.float32(INIT_SCALE / np.sqrt(self.factors))

    def _prepare(self, interactions: Interactions) -> None:
        """Learn what the sweeps start from."""

    def _half(self, vectors: Floats, n_rows: int) -> _Half:
        """Describe the half-sweep that holds these vectors fixed."""
        raise NotImplementedError

    def _facts(self, users: _Swept, items: _Swept) -> dict[str, float]:
        """Return what the history records of an iteration; ``objective`` is among it."""
        raise NotImplementedError

    def _keep(self, interactions: Interactions, users: Floats, items: Floats) -> None:
        """Set the learned attributes from the last vectors."""
        raise NotImplementedError


class ImplicitALS(_Alternating):
    """Factorise implicit feedback by weighted least squares over all cells of the matrix.

    Minimises

        sum_stored w_ui (1 - x_u . y_i)^2 + unobserved_weight sum_all (x_u . y_i)^2
        + regularization (sum_u (n_u + unobserved_weight n_items)^e |x_u|^2 + the same for items)

    with w the stored weight, n the number of stored cells, e ``regularization_exponent``.

    Parameters
    ----------
    factors : int
        Length of the latent vectors.
    regularization : float, > 0
        0.3 times the mean stored weight is a good first value at the other defaults.
    unobserved_weight : float, > 0
        Weight of every cell, against the stored weight of an observed one. Roughly ``1 / alpha`` of
        Hu, Koren and Volinsky; docs/conventions.md has the exact relation.
    regularization_exponent : float
        1 scales the regularisation with activity and with the size of the catalogue, 0 makes it
        the same for all; at 0.5 one ``regularization`` suits catalogues of very different sizes.
    iterations : int
    rng : int, numpy.random.Generator or None
        Seed of the initial item vectors.

    Attributes
    ----------
    user_factors_, item_factors_ : xarray.DataArray, float32, dims (user, factor), (item, factor)
        Zeros for users and items without interactions.
    item_shares_ : xarray.DataArray, float32, dim (item)
        Share of users who have used each item: the scores for users without interactions.
    history_ : xarray.Dataset, dim (iteration): ``objective``, ``seconds``

    Notes
    -----
    Cost of an iteration: see :func:`dasrec.kernels.solve.solve_rows`, for each side. Both factor
    matrices are held by every worker. Rendle, Krichene, Zhang and Koren, "Revisiting the
    performance of iALS on item recommendation benchmarks", RecSys 2022,
    doi:10.1145/3523227.3548486.
    """

    name: ClassVar[str] = "implicit-als"
    user_factors_: xr.DataArray
    item_factors_: xr.DataArray
    item_shares_: xr.DataArray

    def __init__(
        self,
        *,
        factors: int = 64,
        regularization: float = 0.5,
        unobserved_weight: float = 1.0,
        regularization_exponent: float = 0.5,
        iterations: int = 15,
        rng: Rng = None,
    ) -> None:
        self.factors = factors
        self.regularization = regularization
        self.unobserved_weight = unobserved_weight
        self.regularization_exponent = regularization_exponent
        self.iterations = iterations
        self.rng = rng

    def _check(self) -> None:
        super()._check()
        check_number(self.unobserved_weight, name="unobserved_weight", above=0)
        check_number(self.regularization_exponent, name="regularization_exponent")

    def _half(self, vectors: Floats, n_rows: int) -> _Half:
        values, rotation = np.linalg.eigh(gram(vectors))
        return _Half(
            vectors=vectors @ rotation.astype(np.float32),
            base=(self.unobserved_weight * np.maximum(values, 0)).astype(np.float32),
            rotation=rotation.astype(np.float32),
            offsets=None,
            scale=self.regularization,
            shift=self.unobserved_weight * n_rows,
            exponent=self.regularization_exponent,
        )

    def _facts(self, users: _Swept, items: _Swept) -> dict[str, float]:
        # sum over all cells of (x . y)^2 = <X'X, Y'Y>
        everywhere = float((gram(users.vectors) * gram(items.vectors)).sum())
        penalty = users.penalty + items.penalty
        return {"objective": items.loss + self.unobserved_weight * everywhere + penalty}

    def _keep(self, interactions: Interactions, users: Floats, items: Floats) -> None:
        self.user_factors_ = label_factors(users, USER, interactions.user_ids)
        self.item_factors_ = label_factors(items, ITEM, interactions.item_ids)
        counts = interactions.counts("item_users")
        self.item_shares_ = label((counts / interactions.n_users).astype(np.float32), ITEM)

    def scoring_vectors(self) -> tuple[Floats, Floats]:
        """Return (x, whether x is zero) and (y, share of users)."""
        items, shares = self.item_factors_.values, self.item_shares_.values
        return _with_fallback(self.user_factors_.values), np.column_stack([items, shares])

    def fold_in(self, interactions: Interactions) -> Floats:
        """Solve every user's vector from these interactions, items held fixed."""
        self.check_belongs(interactions)
        half = self._half(self.item_factors_.values, interactions.n_items)
        return _with_fallback(sweep(interactions, "user_items", half).vectors)


class ALS(_Alternating):
    """Predict ratings: squared error over the stored cells, with global mean and biases.

    Minimises

        sum_stored (r_ui - m - b_u - b_i - p_u . q_i)^2
        + regularization (sum_u n_u (|p_u|^2 + b_u^2) + the same for items)

    with m the mean of the stored values and n the number of stored cells (count-scaled, as ALS-WR).
    For ranking take :class:`ImplicitALS`: what people rate tells more than how they rate it.

    Parameters
    ----------
    factors : int
        Length of the latent vectors.
    regularization : float, > 0
    iterations : int
    biases : bool
        Whether users and items have biases; the mean is there anyway.
    rng : int, numpy.random.Generator or None
        Seed of the initial item vectors.

    Attributes
    ----------
    user_factors_, item_factors_ : xarray.DataArray, float32, dims (user, factor), (item, factor)
    user_biases_, item_biases_ : xarray.DataArray, float32, dims (user), (item)
    mean_ : xarray.DataArray, float32, no dims
    history_ : xarray.Dataset, dim (iteration): ``objective``, ``train_rmse``, ``seconds``

    Notes
    -----
    Zhou, Wilkinson, Schreiber and Pan, "Large-scale parallel collaborative filtering for the
    Netflix prize", AAIM 2008, doi:10.1007/978-3-540-68880-8_32.
    """

    name: ClassVar[str] = "als"
    predicts_values: ClassVar[bool] = True
    user_factors_: xr.DataArray
    item_factors_: xr.DataArray

    def __init__(
        self,
        *,
        factors: int = 32,
        regularization: float = 0.12,
        iterations: int = 20,
        biases: bool = True,
        rng: Rng = None,
    ) -> None:
        self.factors = factors
        self.regularization = regularization
        self.iterations = iterations
        self.biases = biases
        self.rng = rng

    def _check(self) -> None:
        super()._check()
        check_choice(self.biases, name="biases", choices=(True, False))

    def _prepare(self, interactions: Interactions) -> None:
        parts = interactions.map_blocks(_sums, "user_items", name="mean-block", progress=False)
        total, n = (float(sum(column)) for column in zip(*parts, strict=True))
        if n == 0:
            msg = "there are no interactions to learn from; choose a smaller test part"
            raise InputError(msg)
        self._n = n
        self.mean_ = label(np.array(total / n, np.float32))

    def _first_items(self, n_items: int, seed: int) -> Floats:
        return np.column_stack([super()._first_items(n_items, seed), np.zeros(n_items, np.float32)])

    def _half(self, vectors: Floats, n_rows: int) -> _Half:
        # the bias of a row is the weight of a constant 1 beside the other side's factors
        del n_rows
        ones = np.full((len(vectors), 1), self.biases, np.float32)
        return _Half(
            vectors=np.column_stack([vectors[:, :-1], ones]),
            base=np.zeros(vectors.shape[1], np.float32),
            rotation=None,
            offsets=vectors[:, -1] + self.mean_.values,
            scale=self.regularization,
            shift=0.0,
            exponent=1.0,
        )

    def _facts(self, users: _Swept, items: _Swept) -> dict[str, float]:
        objective = items.loss + users.penalty + items.penalty
        return {"objective": objective, "train_rmse": float(np.sqrt(items.loss / self._n))}

    def _keep(self, interactions: Interactions, users: Floats, items: Floats) -> None:
        self.user_factors_ = label_factors(users[:, :-1], USER, interactions.user_ids)
        self.item_factors_ = label_factors(items[:, :-1], ITEM, interactions.item_ids)
        self.user_biases_ = label(users[:, -1], USER)
        self.item_biases_ = label(items[:, -1], ITEM)

    def scoring_vectors(self) -> tuple[Floats, Floats]:
        """Return (p, b_u + m, 1) and (q, 1, b_i)."""
        users = np.column_stack([self.user_factors_.values, self.user_biases_.values])
        return self._with_mean(users), self._item_vectors()

    def fold_in(self, interactions: Interactions) -> Floats:
        """Solve every user's vector and bias from these interactions, items held fixed."""
        self.check_belongs(interactions)
        items = np.column_stack([self.item_factors_.values, self.item_biases_.values])
        half = self._half(items, interactions.n_items)
        return self._with_mean(sweep(interactions, "user_items", half).vectors)

    def _with_mean(self, users: Floats) -> Floats:
        biases = users[:, -1:] + self.mean_.values
        return np.column_stack([users[:, :-1], biases, np.ones_like(biases)])

    def _item_vectors(self) -> Floats:
        biases = self.item_biases_.values[:, None]
        return np.column_stack([self.item_factors_.values, np.ones_like(biases), biases])


def _with_fallback(users: Floats) -> Floats:
    """Append what ranks items by popularity for users of whom nothing is known."""
    return np.column_stack([users, ~users.any(axis=1, keepdims=True)]).astype(np.float32)


def gram(vectors: Floats) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return V'V, float64, shape (k, k); the same bits however many threads the machine has."""
    total = np.zeros((vectors.shape[1], vectors.shape[1]))
    with threadpool_limits(1, "blas"):
        for start in range(0, len(vectors), 2**16):
            part = vectors[start : start + 2**16]
            total += part.T @ part
    return total


def sweep(view: Interactions, side: Side, half: _Half) -> _Swept:
    """Solve all rows of one side, block by block."""
    name = "als-user-sweep" if side == USER_ITEMS else "als-item-sweep"
    parts = view.map_blocks(_sweep_block, side, blocks.share(half), name=name, progress=False)
    return _Swept(
        np.concatenate([part.vectors for part in parts]),
        sum(part.loss for part in parts),
        sum(part.penalty for part in parts),
    )


def _sweep_block(view: Interactions, side: Side, start: int, stop: int, half: _Half) -> _Swept:
    block = view.read_rows(side, start, stop)
    if half.offsets is None:
        if (block.data < 0).any():
            msg = f"{view.url} holds negative weights; implicit feedback needs weights >= 0"
            raise InputError(msg)
        weights, targets = block.data, np.ones_like(block.data)
    else:
        weights, targets = np.ones_like(block.data), block.data - half.offsets[block.indices]
    counts = np.diff(block.indptr).astype(np.float64)
    ridge = half.scale * (counts + half.shift) ** half.exponent
    vectors, loss = solve_rows(
        block.indptr,
        block.indices,
        weights,
        targets,
        half.vectors,
        half.base,
        np.maximum(ridge, np.finfo(np.float32).tiny).astype(np.float32),
    )
    penalty = float(ridge @ np.square(vectors, dtype=np.float64).sum(axis=1))
    if half.rotation is not None:
        vectors = vectors @ half.rotation.T
    return _Swept(vectors, float(loss.sum()), penalty)


def _sums(view: Interactions, side: Side, start: int, stop: int) -> tuple[float, int]:
    data = view.read_rows(side, start, stop).data
    return float(data.sum(dtype=np.float64)), len(data)
