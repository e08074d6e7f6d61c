"""Alternating least squares: explicit (error on stored cells), implicit (weights on all cells)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from dasrec.checks import check_choice, check_number
from dasrec.errors import InputError
from dasrec.factors import (
    Vectors,
    form_of,
    gram,
    hold,
    labelled,
    rotate,
)
from dasrec.interactions import Interactions
from dasrec.models.alternating import Alternating
from dasrec.models.base import label, label_factors
from dasrec.models.rated import Rated
from dasrec.priors import fold_users, for_users
from dasrec.schema import ITEM, USER
from dasrec.sweeps import Half, Solver, Swept, may_round
from dasrec.typing import Floats, Rng, Side


class ImplicitALS(Alternating):
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
    solver : {"auto", "exact", "cg", "subspace"}
        How rows are solved: directly, by conjugate gradients, or lowered by one pass over blocks of
        32 factors (iALS++); "auto" is direct up to 16 factors, and "cg" beyond.
    tolerance : float, > 0
        What "cg" may leave the objective of a row above its least value, in terms of what it is
        without factors. ``gap`` in the history adds up what it may be for all rows. From 1e-6 on
        and beyond 128 factors the side that is held fixed is rounded, to a 2^-15th of the largest
        factor of each row, and ``objective`` is told to some 2e-7 of it.
    nonnegative : bool
        Whether factors are at least 0, so that they add up and take nothing away; their solver has
        no name but "auto", and keeps to ``tolerance``. Not with features.
    rng : int, numpy.random.Generator or None
        Seed of the initial item vectors.
    user_features, item_features : bool
        Whether vectors are drawn to what the features in the store say; see docs/features.md.
    feature_regularization : float, > 0
        Strength of the regularisation of what features weigh.

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
        nonnegative: bool = False,
        rng: Rng = None,
        user_features: bool = False,
        item_features: bool = False,
        feature_regularization: float = 1.0,
    ) -> None:
        self.factors = factors
        self.regularization = regularization
        self.unobserved_weight = unobserved_weight
        self.regularization_exponent = regularization_exponent
        self.iterations = iterations
        self.solver = solver
        self.tolerance = tolerance
        self.nonnegative = nonnegative
        self.rng = rng
        self.user_features = user_features
        self.item_features = item_features
        self.feature_regularization = feature_regularization

    def _check(self) -> None:
        super()._check()
        check_number(self.unobserved_weight, name="unobserved_weight", above=0)
        check_number(self.regularization_exponent, name="regularization_exponent")

    def _prepare(self, interactions: Interactions) -> None:
        counts = interactions.counts("item_users")
        self.item_shares_ = label((counts / interactions.n_users).astype(np.float32), ITEM)

    def _half(self, vectors: Vectors, start: Vectors | None, n_rows: int) -> Half:
        rounded = self._may_round()
        vectors, form, rotation = form_of(vectors, diagonal=not self.nonnegative, rounded=rounded)
        half = Half(
            vectors=vectors,
            base=(self.unobserved_weight * form).astype(np.float32),
            rotation=rotation,
            offsets=None,
            scale=self.regularization,
            shift=self.unobserved_weight * n_rows,
            exponent=self.regularization_exponent,
            start=start,
            rounded=rounded,
        )
        return self._solved(half)

    def _may_round(self) -> bool:
        return may_round(
            self.solver, self.tolerance, factors=self.factors, nonnegative=self.nonnegative
        )

    def _state(self) -> tuple[Any, Any]:
        return self.user_factors_.data, self.item_factors_.data

    def _facts(self, users: Swept, items: Swept) -> dict[str, float]:
        # sum over all cells of (x . y)^2 = <X'X, Y'Y>, and X'X was held fixed, maybe diagonal
        assert users.base is not None
        form, other = users.base.astype(np.float64), gram(items.vectors)
        everywhere = np.vdot(form, other if form.ndim == 2 else np.diag(other))
        return {"objective": items.loss + float(everywhere) + users.penalty + items.penalty}

    def _keep(self, users: Vectors | None, items: Vectors) -> None:
        users, items = labelled(users), labelled(items)
        self.user_factors_ = label_factors(users, USER, self.user_ids_)
        self.item_factors_ = label_factors(items, ITEM, self.item_ids_)

    def lazy_vectors(self) -> tuple[Any, Floats]:
        """Return (x, whether x is zero) and (y, share of users)."""
        items, shares = self.item_factors_.values, self.item_shares_.values
        return _with_fallback(self.user_factors_.data), np.column_stack([items, shares])

    def fold_in(self, interactions: Interactions) -> Floats:
        """Solve every user's vector from these interactions, items held fixed."""
        return np.asarray(_with_fallback(fold_users(interactions, self.folding(interactions))))

    def folding(self, interactions: Interactions) -> Half:
        """Describe how :meth:`fold_in` solves users."""
        self.check_belongs(interactions)
        items = self.item_factors_.values
        # items that nobody had used take no part in what all users share
        half = self._half(items * (self.item_shares_.values > 0)[:, None], None, len(items))
        half = replace(half, vectors=rotate(items, half.rotation))
        return for_users(self, interactions, half)


class ALS(Rated, Alternating):
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
    biases : bool
        Whether users and items have biases; the mean is there anyway, but see ``nonnegative``.
    nonnegative : bool
        Whether factors are at least 0; biases are free. Factors then only add to mean and biases,
        which are what is left to who and what has no taste at all. Without biases there is no mean
        either (``mean_`` is 0), since nothing could be predicted below it: r_ui = p_u . q_i.
    iterations, solver, tolerance, rng, user_features, item_features, feature_regularization
        As :class:`ImplicitALS`.

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

    def __init__(  # noqa: PLR0913 - all that can be tuned
        self,
        *,
        factors: int = 32,
        regularization: float = 0.12,
        iterations: int = 20,
        biases: bool = True,
        solver: Solver = "auto",
        tolerance: float = 1e-5,
        nonnegative: bool = False,
        rng: Rng = None,
        user_features: bool = False,
        item_features: bool = False,
        feature_regularization: float = 1.0,
    ) -> None:
        self.factors = factors
        self.regularization = regularization
        self.iterations = iterations
        self.biases = biases
        self.solver = solver
        self.tolerance = tolerance
        self.nonnegative = nonnegative
        self.rng = rng
        self.user_features = user_features
        self.item_features = item_features
        self.feature_regularization = feature_regularization

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
        # what is never negative, with a mean before it, would tell nothing below the mean
        mean = total / n if self.biases or not self.nonnegative else 0.0
        self.mean_ = label(np.array(mean, np.float32))

    def _begin(self, n_items: int, seed: int, place: str | None) -> Vectors:
        parts = (np.pad(rows, [(0, 0), (0, 1)]) for rows in self._draw(n_items, seed))
        return hold(parts, (n_items, self.factors + 1), place)

    def _half(self, vectors: Vectors, start: Vectors | None, n_rows: int) -> Half:
        del n_rows
        return self._solved(self._biased_half(vectors, start, square=self.nonnegative))

    def _state(self) -> tuple[Any, Any]:
        return (
            np.concatenate([self.user_factors_.data, self.user_biases_.data[:, None]], axis=1),
            np.concatenate([self.item_factors_.data, self.item_biases_.data[:, None]], axis=1),
        )

    def _facts(self, users: Swept, items: Swept) -> dict[str, float]:
        objective = items.loss + users.penalty + items.penalty
        return {"objective": objective, "train_rmse": float(np.sqrt(items.loss / self._n))}

    def _keep(self, users: Vectors | None, items: Vectors) -> None:
        users, items = labelled(users), labelled(items)
        self.user_factors_ = label_factors(users[:, :-1], USER, self.user_ids_)
        self.item_factors_ = label_factors(items[:, :-1], ITEM, self.item_ids_)
        self.user_biases_ = label(users[:, -1], USER)
        self.item_biases_ = label(items[:, -1], ITEM)

    def fold_in(self, interactions: Interactions) -> Floats:
        """Solve every user's vector and bias from these interactions, items held fixed."""
        return np.asarray(self._with_mean(fold_users(interactions, self.folding(interactions))))

    def folding(self, interactions: Interactions) -> Half:
        """Describe how :meth:`fold_in` solves users."""
        self.check_belongs(interactions)
        half = self._half(self._item_side(), None, interactions.n_items)
        return for_users(self, interactions, half)


def _with_fallback(users: Any) -> Any:
    """Append what ranks items by popularity for users of whom nothing is known."""
    unknown = ~users.any(axis=1, keepdims=True)
    return np.concatenate([users, unknown.astype(np.float32)], axis=1)


def _sums(view: Interactions, side: Side, start: int, stop: int) -> tuple[float, int]:
    data = view.read_rows(side, start, stop).data
    return float(data.sum(dtype=np.float64)), len(data)
