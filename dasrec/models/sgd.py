"""Ratings by stochastic gradient descent: squared error on stored cells, with biases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from dasrec.checks import check_choice, check_count
from dasrec.errors import InputError
from dasrec.factors import in_memory
from dasrec.interactions import Interactions
from dasrec.kernels.rule import SQUARED, Rule
from dasrec.kernels.stochastic import descend_cells, descend_timed
from dasrec.medium import FitPlan
from dasrec.models.base import label
from dasrec.models.drift import Times, bins_of, check_times, deviation, read_times
from dasrec.models.rated import Rated
from dasrec.models.stratified import INIT_SCALE, Optimizer, Schedule, State, Stratified
from dasrec.schema import ITEM, USER, USER_ITEMS
from dasrec.strata import Strata, Stratum, map_users, plan_epochs, shares_of
from dasrec.sweeps import Half, sweep
from dasrec.training import Record
from dasrec.typing import CsrBlock, Floats, Ids, Longs, Rng


class SGD(Rated, Stratified):
    r"""Predict ratings by stochastic gradient descent: what :class:`ALS` minimises, by other means.

    Minimises

        sum_stored (r_ui - m - b_u - b_i - p_u . q_i)^2
        + regularization (sum_u n_u (|p_u|^2 + b_u^2) + the same for items)

    with m the mean of the stored values and n the number of stored cells. A step at a stored cell
    with error e moves p_u by ``learning_rate (e q_i - regularization p_u)``, and so on.

    Parameters
    ----------
    factors : int
        Length of the latent vectors.
    regularization : float, >= 0
    learning_rate : float, > 0
        Of the first epoch. Too long a step is halved, with a warning in the log.
    iterations : int
        Epochs: each takes every stored cell once.
    biases : bool
        Whether users and items have biases; the mean is there anyway.
    schedule : {"constant", "inverse", "bold"}
        The learning rate of epoch t, from 0: the same; divided by ``1 + decay t``; or 5 % more when
        the objective fell in the epoch before, half when it rose.
    decay : float, >= 0
    optimizer : {"sgd", "momentum", "adagrad", "adam"}
        What becomes of a gradient: a step along it, as it is; with what is left of those before;
        divided by the root of the sum of their squares; or Adam. Rows move that a mini-batch
        touches. docs/gradient.md says when to take which.
    batch_size : int
        Cells whose gradients are added up before a step.
    time_bins : int
        Above 0, biases move in time: the prediction is also of a_u dev(t - t_u), with t_u the mean
        time of a user and dev(d) = sign(d) abs(d)^0.4, and of one bias of the item for each of so
        many bins of equal length. Needs a store with times, and plain steps.
    rng : int, numpy.random.Generator or None
        Seed of the initial vectors and of the order of cells.

    Attributes
    ----------
    user_factors_, item_factors_ : xarray.DataArray, float32, dims (user, factor), (item, factor)
        Zeros for users and items without interactions.
    user_biases_, item_biases_ : xarray.DataArray, float32, dims (user), (item)
    mean_ : xarray.DataArray, float32, no dims
    user_drifts_, user_middles_, item_time_biases_ : xarray.DataArray, float32, (user), (item, bin)
        With ``time_bins``: a, t as a share of all time, and the biases of bins.
    time_span_ : xarray.DataArray, int64, dims (end): the first and last microsecond since 1970
    history_ : xarray.Dataset, dim (iteration): ``objective``, ``train_rmse``,
        ``learning_rate``, ``seconds``, and what a monitor found
        Errors are those of each cell before its step; the penalty is that of the last vectors.

    Notes
    -----
    Cost of an epoch: see :func:`dasrec.kernels.stochastic.descend_cells`. Strata of users and items
    run side by side, see :func:`dasrec.strata.run_epoch`. Koren, Bell and Volinsky, "Matrix
    factorization techniques for recommender systems", Computer 42(8), 2009,
    doi:10.1109/MC.2009.263. With ``time_bins`` scores are those of the last moment that training
    knows, and who is folded in does not drift; :meth:`score` takes other moments. Koren,
    "Collaborative filtering with temporal dynamics", KDD 2009, doi:10.1145/1557019.1557072.
    """

    name: ClassVar[str] = "sgd"
    loss: ClassVar[int] = SQUARED
    user_drifts_: xr.DataArray
    user_middles_: xr.DataArray
    item_time_biases_: xr.DataArray
    time_span_: xr.DataArray
    _start: float
    _times: Times

    def __init__(  # noqa: PLR0913 - all that can be tuned
        self,
        *,
        factors: int = 64,
        regularization: float = 0.08,
        learning_rate: float = 0.03,
        iterations: int = 40,
        biases: bool = True,
        schedule: Schedule = "inverse",
        decay: float = 0.1,
        optimizer: Optimizer = "sgd",
        batch_size: int = 1,
        time_bins: int = 0,
        rng: Rng = None,
    ) -> None:
        self.factors = factors
        self.regularization = regularization
        self.learning_rate = learning_rate
        self.iterations = iterations
        self.biases = biases
        self.schedule = schedule
        self.decay = decay
        self.optimizer = optimizer
        self.batch_size = batch_size
        self.time_bins = time_bins
        self.rng = rng

    def _check(self) -> None:
        super()._check()
        check_choice(self.biases, name="biases", choices=(True, False))
        check_count(self.time_bins, name="time_bins", least=0)
        is_plain = self.optimizer == "sgd" and self.batch_size == 1
        if self.time_bins and not (is_plain and self.biases):
            msg = (
                f"time_bins is {self.time_bins}; expected 0, or optimizer='sgd', batch_size=1 and "
                "biases=True, with which biases can move in time"
            )
            raise InputError(msg)

    def _plan(
        self, interactions: Interactions, memory: str | int | None, *, checkpoint: bool
    ) -> FitPlan:
        if not self.time_bins:
            return super()._plan(interactions, memory, checkpoint=checkpoint)
        check_times(interactions)
        width = self._width() + max(2, self.time_bins)
        return plan_epochs(interactions, width=width, memory=memory, timed=True)

    def _prepare(self, interactions: Interactions, strata: Strata) -> Strata:
        parts = map_users(interactions, strata, _moments, timed=self.time_bins > 0)
        n = int(strata.user_counts.sum())
        mean = sum(part[0] for part in parts) / n
        self._start = sum(part[1] for part in parts) - n * mean**2
        self.mean_ = label(np.array(mean, np.float32))
        if not self.time_bins:
            return strata
        self._times = read_times(interactions, self.time_bins)
        self.time_span_ = label(self._times.span, "end")
        return replace(strata, span=self._times.span)

    def _first(self, strata: Strata) -> State:
        users, items = super()._first(strata)
        if not self.time_bins:
            return users, items
        drifts = np.zeros_like(self._times.middles)
        return (
            np.column_stack([users, drifts, self._times.middles]),
            np.column_stack([items, np.zeros_like(self._times.counts)]),
        )

    def _start_loss(self, strata: Strata) -> float:
        # what the first vectors do is no divergence, even where all values are the same
        return self._start + INIT_SCALE**2 * float(strata.user_counts.sum())

    @staticmethod
    def _step(stratum: Stratum, users: Floats, items: Floats, rule: Any) -> float:
        cells = (stratum.rows, stratum.columns, stratum.values)
        if stratum.times is not None:
            return descend_timed(cells, stratum.times, users, items, rule)
        return descend_cells(cells, users, items, rule)

    def _rule(self, rate: float) -> Rule:
        rule = super()._rule(rate)
        return rule._replace(offset=np.float32(self.mean_), biased=bool(self.biases))

    def _facts(self, strata: Strata, state: State, loss: float) -> Record:
        own = (each[:, : self.factors + 1] for each in state)
        squares = (np.einsum("ij,ij->i", each, each, dtype=np.float64) for each in own)
        counts = (strata.user_counts, strata.item_counts)
        penalty = sum(float(n @ each) for n, each in zip(counts, squares, strict=True))
        if self.time_bins:
            (drifts, biases), k = state, self.factors + 1
            penalty += float(strata.user_counts @ np.square(drifts[:, k], dtype=np.float64))
            penalty += float((self._times.counts * np.square(biases[:, k:])).sum(dtype=np.float64))
        return {
            "objective": loss + self.regularization * penalty,
            "train_rmse": float(np.sqrt(loss / strata.user_counts.sum())),
        }

    def _state(self) -> State:
        users, items = super()._state()
        users[:, self.factors] = self.user_biases_.values
        if not self.time_bins:
            return users, items
        return (
            np.column_stack([users, self.user_drifts_.values, self.user_middles_.values]),
            np.column_stack([items, self.item_time_biases_.values]),
        )

    def _keep(self, users: Floats, items: Floats) -> None:
        super()._keep(users, items)
        self.user_biases_ = label(users[:, self.factors], USER)
        if self.time_bins:
            self.user_drifts_ = label(users[:, self.factors + 1], USER)
            self.user_middles_ = label(users[:, self.factors + 2], USER)
            self.item_time_biases_ = label(items[:, self.factors + 1 :], ITEM, "bin")

    def lazy_vectors(self) -> tuple[Any, Floats]:
        """Return (p, b_u + m, 1) and (q, 1, b_i), biases as they are at the end of training."""
        users, items = super().lazy_vectors()
        if self.time_bins:
            users = np.asarray(users)
            last = np.ones_like(self.user_middles_.values)
            users[:, -2] += self.user_drifts_.values * deviation(last, self.user_middles_.values)
            items[:, -1] = self._item_side()[:, -1]
        return users, items

    def _item_side(self) -> Floats:
        items = super()._item_side()
        if self.time_bins:
            items[:, -1] += self.item_time_biases_.values[:, -1]
        return items

    def score(self, user_ids: Ids, item_ids: Ids, *, times: Longs | None = None) -> Floats:
        """Score pairs of a user and an item, eagerly; float32, shape (m,).

        Parameters
        ----------
        user_ids, item_ids : arrays of ids, shape (m,)
        times : int64, shape (m,), microseconds since 1970, optional
            When, for a model with ``time_bins``; without them at the end of training, as what
            comes later is. What is earlier than training is as at its beginning.

        Raises
        ------
        InputError
            An id is unknown, there are not as many of each, or there are times and no bins.
        """
        scores = super().score(user_ids, item_ids)
        if times is None:
            return scores
        if not self.time_bins or len(times) != len(scores):
            msg = (
                f"{len(times)} times were given for {len(scores)} pairs, to a model with "
                f"time_bins={self.time_bins}; expected one a pair, and time_bins above 0"
            )
            raise InputError(msg)
        rows, columns = self.user_ids_.numbers(user_ids), self.item_ids_.numbers(item_ids)
        shares, biases = shares_of(times, self.time_span_.values), self.item_time_biases_.values
        drifts, middles = self.user_drifts_.values[rows], self.user_middles_.values[rows]
        moved = deviation(shares, middles) - deviation(np.ones_like(shares), middles)
        bins = bins_of(shares, self.time_bins)
        scores = scores + drifts * moved + biases[columns, bins] - biases[columns, -1]
        return np.asarray(scores, np.float32)

    def fold_in(self, interactions: Interactions) -> Floats:
        """Solve every user's vector and bias from these interactions exactly, items held fixed."""
        solved = sweep(interactions, USER_ITEMS, self.folding(interactions))
        return np.asarray(self._with_mean(in_memory(solved.vectors)))

    def folding(self, interactions: Interactions) -> Half:
        """Describe how :meth:`fold_in` solves users."""
        self.check_belongs(interactions)
        return self._biased_half(self._item_side())


def _moments(block: CsrBlock) -> tuple[float, float]:
    data: Any = block.data.astype(np.float64)
    return float(data.sum()), float(data @ data)
