"""Alternating least squares: explicit (error on stored cells), implicit (weights on all cells)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import xarray as xr

from dasrec import files
from dasrec.checks import check_choice, check_count, check_number, seed_of
from dasrec.errors import InputError
from dasrec.interactions import Interactions
from dasrec.models.base import Model, label, label_factors
from dasrec.schema import ITEM, ITEM_USERS, USER, USER_ITEMS
from dasrec.sweeps import CACHE, Half, Swept, eigenbasis, gram, plan_fit, rotate, sweep
from dasrec.training import Course, Record, Training
from dasrec.typing import Floats, Rng, Side

_PRECISE = 1e-8
_FEW_FACTORS = 16  # with more of them conjugate gradients are quicker, whatever the rows
Solver = Literal["auto", "exact", "cg"]

INIT_SCALE = 0.1
"""Standard deviation of the length of an initial item vector."""


class _Alternating(Model):
    """What both objectives share: alternate half-sweeps over row blocks of the store."""

    iterates: ClassVar[bool] = True
    factors: int
    regularization: float
    iterations: int
    solver: Solver
    tolerance: float
    rng: Rng
    seed_: xr.DataArray
    history_: xr.Dataset

    def _check(self) -> None:
        check_count(self.factors, name="factors")
        check_count(self.iterations, name="iterations")
        check_number(self.regularization, name="regularization", above=0)
        check_choice(self.solver, name="solver", choices=("auto", "exact", "cg"))
        check_number(self.tolerance, name="tolerance", above=0)

    def _learn(self, interactions: Interactions, training: Training) -> None:
        plan = plan_fit(interactions, factors=self.factors, memory=training.memory)
        course = Course(training, self.name, self.iterations)
        before = self.resumed(interactions, training)
        seed = int(before.seed_) if before else seed_of(self.rng)
        self.seed_ = label(np.array(seed, np.int64))
        self._prepare(interactions)
        items = self._first_items(interactions.n_items, seed)
        users = np.zeros((interactions.n_users, items.shape[1]), np.float32)
        if before:
            course.restore(before.history_)
            users, items = before._state()
        best = self._best(training) or (users, items)
        sweeps = partial(sweep, interactions, fit=files.token(), cache_bytes=plan.cache_bytes)
        try:
            for _ in course:
                users, items, facts = self._iterate(interactions, sweeps, users, items)
                self._keep(users, items)
                if course.record(facts, self):
                    best = users, items
        finally:
            CACHE.clear()
        self._keep(*best)
        self.history_ = course.dataset()

    def _best(self, training: Training) -> tuple[Floats, Floats] | None:
        """Return the best state so far of a fit that goes on, if it has been kept."""
        place = training.best_place() if training.resume else None
        found = self.open_saved(place) if place else None
        return found._state() if found else None

    def _iterate(
        self, interactions: Interactions, sweeps: Callable[..., Swept], users: Floats, items: Floats
    ) -> tuple[Floats, Floats, Record]:
        """Solve users, then items; each comes back in the basis of what was held fixed last."""
        start = time.perf_counter()
        half = self._half(items, users, interactions.n_items)
        by_user = sweeps(USER_ITEMS, half)
        items = half.vectors if half.rotation is not None else items
        half = self._half(by_user.vectors, items, interactions.n_users)
        by_item = sweeps(ITEM_USERS, half)
        users = half.vectors if half.rotation is not None else by_user.vectors
        facts = self._facts(replace(by_user, vectors=users), by_item)
        seconds = time.perf_counter() - start
        gap = by_user.gap + by_item.gap
        return users, by_item.vectors, {**facts, "gap": gap, "seconds": seconds}

    def _tolerance(self) -> float | None:
        """Return what conjugate gradients are to reach, or None for direct solutions."""
        if self.solver == "auto":
            return None if self.factors <= _FEW_FACTORS else self.tolerance
        return None if self.solver == "exact" else self.tolerance

    def _state(self) -> tuple[Floats, Floats]:
        """Return what an iteration starts from."""
        raise NotImplementedError

    def _first_items(self, n_items: int, seed: int) -> Floats:
        draw = np.random.default_rng(seed).standard_normal((n_items, self.factors), np.float32)
        return draw * np.float32(INIT_SCALE / np.sqrt(self.factors))

    def _prepare(self, interactions: Interactions) -> None:
        """Learn what does not change from one iteration to the next."""

    def _half(self, vectors: Floats, start: Floats | None, n_rows: int) -> Half:
        """Describe the half-sweep that holds these vectors fixed."""
        raise NotImplementedError

    def _facts(self, users: Swept, items: Swept) -> dict[str, float]:
        """Return what the history records of an iteration; ``objective`` is among it."""
        raise NotImplementedError

    def _keep(self, users: Floats, items: Floats) -> None:
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
    solver : {"auto", "exact", "cg"}
        How rows are solved: directly, or by conjugate gradients; "auto" takes the former up to 16
        factors.
    tolerance : float, > 0
        Of conjugate gradients: what the objective of a row may be above its least value, in terms
        of what it is without factors. ``gap`` in the history adds up what it may be for all rows.
    rng : int, numpy.random.Generator or None
        Seed of the initial item vectors.

    Attributes
    ----------
    user_factors_, item_factors_ : xarray.DataArray, float32, dims (user, factor), (item, factor)
        Zeros for users and items without interactions.
    item_shares_ : xarray.DataArray, float32, dim (item)
        Share of users who have used each item: the scores for users without interactions.
    history_ : xarray.Dataset, dim (iteration): ``objective``, ``gap``, ``seconds``,
        and what a monitor found

    Notes
    -----
    Cost of an iteration: see :func:`dasrec.kernels.conjugate.refine_rows`, for each side. Both
    factor matrices are held by every worker. Rendle, Krichene, Zhang and Koren, "Revisiting the
    performance of iALS on item recommendation benchmarks", RecSys 2022,
    doi:10.1145/3523227.3548486.
    """

    name: ClassVar[str] = "implicit-als"
    user_factors_: xr.DataArray
    item_factors_: xr.DataArray
    item_shares_: xr.DataArray

    def __init__(  # noqa: PLR0913 - all that can be tuned
        self,
        *,
        factors: int = 64,
        regularization: float = 0.5,
        unobserved_weight: float = 1.0,
        regularization_exponent: float = 0.5,
        iterations: int = 15,
        solver: Solver = "auto",
        tolerance: float = 1e-5,
        rng: Rng = None,
    ) -> None:
        self.factors = factors
        self.regularization = regularization
        self.unobserved_weight = unobserved_weight
        self.regularization_exponent = regularization_exponent
        self.iterations = iterations
        self.solver = solver
        self.tolerance = tolerance
        self.rng = rng

    def _check(self) -> None:
        super()._check()
        check_number(self.unobserved_weight, name="unobserved_weight", above=0)
        check_number(self.regularization_exponent, name="regularization_exponent")

    def _prepare(self, interactions: Interactions) -> None:
        counts = interactions.counts("item_users")
        self.item_shares_ = label((counts / interactions.n_users).astype(np.float32), ITEM)

    def _half(self, vectors: Floats, start: Floats | None, n_rows: int) -> Half:
        values, rotation = eigenbasis(vectors)
        return Half(
            vectors=rotate(vectors, rotation),
            base=(self.unobserved_weight * values).astype(np.float32),
            rotation=rotation,
            offsets=None,
            scale=self.regularization,
            shift=self.unobserved_weight * n_rows,
            exponent=self.regularization_exponent,
            start=start,
            tolerance=self._tolerance(),
        )

    def _state(self) -> tuple[Floats, Floats]:
        return self.user_factors_.values, self.item_factors_.values

    def _facts(self, users: Swept, items: Swept) -> dict[str, float]:
        # sum over all cells of (x . y)^2 = <X'X, Y'Y>
        everywhere = float((gram(users.vectors) * gram(items.vectors)).sum())
        penalty = users.penalty + items.penalty
        return {"objective": items.loss + self.unobserved_weight * everywhere + penalty}

    def _keep(self, users: Floats, items: Floats) -> None:
        self.user_factors_ = label_factors(users, USER, self.user_ids_)
        self.item_factors_ = label_factors(items, ITEM, self.item_ids_)

    def scoring_vectors(self) -> tuple[Floats, Floats]:
        """Return (x, whether x is zero) and (y, share of users)."""
        items, shares = self.item_factors_.values, self.item_shares_.values
        return _with_fallback(self.user_factors_.values), np.column_stack([items, shares])

    def fold_in(self, interactions: Interactions) -> Floats:
        """Solve every user's vector from these interactions, items held fixed."""
        self.check_belongs(interactions)
        half = _precise(self._half(self.item_factors_.values, None, interactions.n_items))
        rotated = sweep(interactions, USER_ITEMS, half).vectors
        assert half.rotation is not None
        return _with_fallback(rotate(rotated, np.ascontiguousarray(half.rotation.T)))


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
    solver : {"auto", "exact", "cg"}
        How rows are solved: directly, or by conjugate gradients; "auto" takes the former up to 16
        factors.
    tolerance : float, > 0
        Of conjugate gradients: what the objective of a row may be above its least value, in terms
        of what it is without factors. ``gap`` in the history adds up what it may be for all rows.
    rng : int, numpy.random.Generator or None
        Seed of the initial item vectors.

    Attributes
    ----------
    user_factors_, item_factors_ : xarray.DataArray, float32, dims (user, factor), (item, factor)
    user_biases_, item_biases_ : xarray.DataArray, float32, dims (user), (item)
    mean_ : xarray.DataArray, float32, no dims
    history_ : xarray.Dataset, dim (iteration): ``objective``, ``train_rmse``, ``gap``, ``seconds``

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
        solver: Solver = "auto",
        tolerance: float = 1e-5,
        rng: Rng = None,
    ) -> None:
        self.factors = factors
        self.regularization = regularization
        self.iterations = iterations
        self.biases = biases
        self.solver = solver
        self.tolerance = tolerance
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

    def _half(self, vectors: Floats, start: Floats | None, n_rows: int) -> Half:
        # the bias of a row is the weight of a constant 1 beside the other side's factors
        del n_rows
        ones = np.full((len(vectors), 1), self.biases, np.float32)
        return Half(
            vectors=np.column_stack([vectors[:, :-1], ones]),
            base=np.zeros(vectors.shape[1], np.float32),
            rotation=None,
            offsets=vectors[:, -1] + self.mean_.values,
            scale=self.regularization,
            shift=0.0,
            exponent=1.0,
            start=start,
            tolerance=self._tolerance(),
        )

    def _state(self) -> tuple[Floats, Floats]:
        return (
            np.column_stack([self.user_factors_.values, self.user_biases_.values]),
            np.column_stack([self.item_factors_.values, self.item_biases_.values]),
        )

    def _facts(self, users: Swept, items: Swept) -> dict[str, float]:
        objective = items.loss + users.penalty + items.penalty
        return {"objective": objective, "train_rmse": float(np.sqrt(items.loss / self._n))}

    def _keep(self, users: Floats, items: Floats) -> None:
        self.user_factors_ = label_factors(users[:, :-1], USER, self.user_ids_)
        self.item_factors_ = label_factors(items[:, :-1], ITEM, self.item_ids_)
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
        half = _precise(self._half(items, None, interactions.n_items))
        return self._with_mean(sweep(interactions, USER_ITEMS, half).vectors)

    def _with_mean(self, users: Floats) -> Floats:
        biases = users[:, -1:] + self.mean_.values
        return np.column_stack([users[:, :-1], biases, np.ones_like(biases)])

    def _item_vectors(self) -> Floats:
        biases = self.item_biases_.values[:, None]
        return np.column_stack([self.item_factors_.values, np.ones_like(biases), biases])


def _precise(half: Half) -> Half:
    """Solve as exactly as float32 goes: no later sweep mends what is left undone."""
    return half if half.tolerance is None else replace(half, tolerance=_PRECISE)


def _with_fallback(users: Floats) -> Floats:
    """Append what ranks items by popularity for users of whom nothing is known."""
    return np.column_stack([users, ~users.any(axis=1, keepdims=True)]).astype(np.float32)


def _sums(view: Interactions, side: Side, start: int, stop: int) -> tuple[float, int]:
    data = view.read_rows(side, start, stop).data
    return float(data.sum(dtype=np.float64)), len(data)
