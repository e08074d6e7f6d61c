"""Ratings by stochastic gradient descent: squared error on stored cells, with biases."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from dasrec.checks import check_choice
from dasrec.factors import in_memory
from dasrec.interactions import Interactions
from dasrec.kernels.rule import SQUARED, Rule
from dasrec.kernels.stochastic import descend_cells
from dasrec.models.base import label
from dasrec.models.rated import Rated
from dasrec.models.stratified import INIT_SCALE, Optimizer, Schedule, State, Stratified
from dasrec.schema import USER, USER_ITEMS
from dasrec.strata import Strata, Stratum, map_users
from dasrec.sweeps import sweep
from dasrec.training import Record
from dasrec.typing import CsrBlock, Floats, Rng


class SGD(Rated, Stratified):
    """Predict ratings by stochastic gradient descent: what :class:`ALS` minimises, by other means.

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
    rng : int, numpy.random.Generator or None
        Seed of the initial vectors and of the order of cells.

    Attributes
    ----------
    user_factors_, item_factors_ : xarray.DataArray, float32, dims (user, factor), (item, factor)
        Zeros for users and items without interactions.
    user_biases_, item_biases_ : xarray.DataArray, float32, dims (user), (item)
    mean_ : xarray.DataArray, float32, no dims
    history_ : xarray.Dataset, dim (iteration): ``objective``, ``train_rmse``,
        ``learning_rate``, ``seconds``, and what a monitor found
        Errors are those of each cell before its step; the penalty is that of the last vectors.

    Notes
    -----
    Cost of an epoch: see :func:`dasrec.kernels.stochastic.descend_cells`. Strata of users and items
    run side by side, see :func:`dasrec.strata.run_epoch`. Koren, Bell and Volinsky, "Matrix
    factorization techniques for recommender systems", Computer 42(8), 2009,
    doi:10.1109/MC.2009.263.
    """

    name: ClassVar[str] = "sgd"
    loss: ClassVar[int] = SQUARED
    _start: float

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
        self.rng = rng

    def _check(self) -> None:
        super()._check()
        check_choice(self.biases, name="biases", choices=(True, False))

    def _prepare(self, interactions: Interactions, strata: Strata) -> None:
        parts = map_users(interactions, strata, _moments)
        n = int(strata.user_counts.sum())
        mean = sum(part[0] for part in parts) / n
        self._start = sum(part[1] for part in parts) - n * mean**2
        self.mean_ = label(np.array(mean, np.float32))

    def _start_loss(self, strata: Strata) -> float:
        # what the first vectors do is no divergence, even where all values are the same
        return self._start + INIT_SCALE**2 * float(strata.user_counts.sum())

    @staticmethod
    def _step(stratum: Stratum, users: Floats, items: Floats, rule: Any) -> float:
        cells = (stratum.rows, stratum.columns, stratum.values)
        return descend_cells(cells, users, items, rule)

    def _rule(self, rate: float) -> Rule:
        rule = super()._rule(rate)
        return rule._replace(offset=np.float32(self.mean_), biased=bool(self.biases))

    def _facts(self, strata: Strata, state: State, loss: float) -> Record:
        own = (each[:, : self.factors + 1] for each in state)
        squares = (np.einsum("ij,ij->i", each, each, dtype=np.float64) for each in own)
        counts = (strata.user_counts, strata.item_counts)
        penalty = sum(float(n @ each) for n, each in zip(counts, squares, strict=True))
        return {
            "objective": loss + self.regularization * penalty,
            "train_rmse": float(np.sqrt(loss / strata.user_counts.sum())),
        }

    def _state(self) -> State:
        users, items = super()._state()
        users[:, self.factors] = self.user_biases_.values
        return users, items

    def _keep(self, users: Floats, items: Floats) -> None:
        super()._keep(users, items)
        self.user_biases_ = label(users[:, self.factors], USER)

    def fold_in(self, interactions: Interactions) -> Floats:
        """Solve every user's vector and bias from these interactions exactly, items held fixed."""
        self.check_belongs(interactions)
        half = self._biased_half(self._item_side())
        return self._with_mean(in_memory(sweep(interactions, USER_ITEMS, half).vectors))


def _moments(block: CsrBlock) -> tuple[float, float]:
    data: Any = block.data.astype(np.float64)
    return float(data.sum()), float(data @ data)
