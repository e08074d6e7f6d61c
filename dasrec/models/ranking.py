"""Lists from implicit feedback by stochastic gradient descent: pairs of items, and the top."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np

from dasrec.checks import check_choice, check_count, check_number
from dasrec.interactions import Interactions
from dasrec.kernels.pairwise import HARD, POPULAR, UNIFORM, Rule, rank_pairs, rank_top
from dasrec.medium import CACHE
from dasrec.models.stratified import Schedule, State, Stratified
from dasrec.strata import DEALT, Strata, Stratum, cut_strata, run_epoch
from dasrec.training import Record
from dasrec.typing import Floats, Rng

Negatives = Literal["uniform", "popular", "hard"]
_NEGATIVES = {"uniform": UNIFORM, "popular": POPULAR, "hard": HARD}
_FOLDING = 20  # epochs that a new user takes


class _Ranking(Stratified):
    """What the ranking losses share: a stored cell against items that the user has not."""

    def _prepare(self, interactions: Interactions, strata: Strata) -> None:
        self._catalogue = len(strata.known)

    def _rule(self, rate: float) -> Rule:
        return Rule(
            factors=self.factors,
            rate=np.float32(rate),
            regularization=np.float32(self.regularization),
            frozen=False,
            negatives=UNIFORM,
        )

    def _facts(self, strata: Strata, state: State, loss: float) -> Record:
        del state
        n = int(strata.user_counts.sum())
        return {"objective": loss, "mean_loss": loss / n}

    def scoring_vectors(self) -> tuple[Floats, Floats]:
        """Return (x, 1) and (y, b), b the least of all for items that training did not have."""
        users, items = self._state()
        unknown = ~items[:, :-1].any(axis=1)
        items[unknown, -1] = items[:, -1].min()
        users[:, -1] = 1
        return users, items

    def fold_in(self, interactions: Interactions) -> Floats:
        """Learn every user's vector from these interactions by 20 epochs, items held fixed."""
        self.check_belongs(interactions)
        _, items = self._state()
        seed = int(self.seed_)
        strata = cut_strata(interactions, seed=seed, cache_bytes=2**28)
        held = np.union1d(np.flatnonzero(items[:, :-1].any(axis=1)), strata.known)
        strata = replace(strata, known=held.astype(np.int32))
        self._catalogue = len(held)
        rule = self._rule(self.learning_rate)._replace(frozen=True)
        users = np.zeros((interactions.n_users, self.factors + 1), np.float32)
        try:
            for epoch in range(_FOLDING):
                number = self.iterations + epoch  # another order than those of the fit
                run_epoch(interactions, strata, type(self)._step, (users, items), rule, number)
        finally:
            CACHE.clear()
            DEALT.clear()
        users[:, -1] = 1
        return users


class BPR(_Ranking):
    """Rank what a user has above what the user has not, pair by pair: Bayesian ranking.

    Minimises, in expectation over an item j drawn for each stored cell (u, i),

        - log sigmoid(b_i + x_u . y_i - b_j - x_u . y_j)
        + regularization / 2 (|x_u|^2 + |y_i|^2 + |y_j|^2 + b_i^2 + b_j^2)

    Stored weights do not count, only which cells are stored.

    Parameters
    ----------
    factors : int
        Length of the latent vectors.
    regularization : float, >= 0
    learning_rate : float, > 0
        Of the first epoch. Too long a step is halved, with a warning in the log.
    iterations : int
        Epochs: each takes every stored cell once.
    negatives : {"uniform", "popular", "hard"}
        How j is drawn among items that the user has not: each alike, as often as it is used by
        others, or the best scored of four.
    schedule : {"constant", "inverse", "bold"}
        The learning rate of epoch t, from 0: the same; divided by ``1 + decay t``; or 5 % more when
        the objective fell in the epoch before, half when it rose.
    decay : float, >= 0
    rng : int, numpy.random.Generator or None
        Seed of the initial vectors, of the order of cells and of the items that are drawn.

    Attributes
    ----------
    user_factors_, item_factors_ : xarray.DataArray, float32, dims (user, factor), (item, factor)
        Zeros for users and items without interactions.
    item_biases_ : xarray.DataArray, float32, dim (item)
    history_ : xarray.Dataset, dim (iteration): ``objective``, ``mean_loss``, ``learning_rate``,
        ``seconds``, and what a monitor found
        The objective is the sum of the losses, each before its step, without regularisation.

    Notes
    -----
    Cost of an epoch: see :func:`dasrec.kernels.pairwise.rank_pairs`. j is drawn from the group of
    items that i is in, which is another one in each epoch, see :func:`dasrec.strata.run_epoch`.
    Rendle, Freudenthaler, Gantner and Schmidt-Thieme, "BPR: Bayesian personalized ranking from
    implicit feedback", UAI 2009, arXiv:1205.2618.
    """

    name: ClassVar[str] = "bpr"

    def __init__(  # noqa: PLR0913 - all that can be tuned
        self,
        *,
        factors: int = 64,
        regularization: float = 0.02,
        learning_rate: float = 0.05,
        iterations: int = 60,
        negatives: Negatives = "uniform",
        schedule: Schedule = "constant",
        decay: float = 0.0,
        rng: Rng = None,
    ) -> None:
        self.factors = factors
        self.regularization = regularization
        self.learning_rate = learning_rate
        self.iterations = iterations
        self.negatives = negatives
        self.schedule = schedule
        self.decay = decay
        self.rng = rng

    def _check(self) -> None:
        super()._check()
        check_choice(self.negatives, name="negatives", choices=tuple(_NEGATIVES))

    def _start_loss(self, strata: Strata) -> float:
        return float(np.log(2) * strata.user_counts.sum())

    def _rule(self, rate: float) -> Rule:
        return super()._rule(rate)._replace(negatives=_NEGATIVES[self.negatives])

    @staticmethod
    def _step(stratum: Stratum, users: Floats, items: Floats, rule: Any) -> float:
        known = (stratum.indptr, stratum.indices, stratum.names)
        cells = (stratum.rows, stratum.columns)
        return rank_pairs(cells, known, users, items, rule, stratum.key)


class WARP(_Ranking):
    """Rank what a user has at the top: weighted approximate-rank pairwise loss.

    For each stored cell (u, i) items that u has not are drawn until one, j, comes within 1 of i;
    the more were needed, the higher i is ranked already, and the smaller the step, which goes down

        L(rank) max(0, 1 - s_i + s_j)
        + regularization / 2 (|x_u|^2 + |y_i|^2 + |y_j|^2 + b_i^2 + b_j^2)

    with s_i = b_i + x_u . y_i and L(r) = 1 + 1/2 + ... + 1/r. Stored weights do not count.

    Parameters
    ----------
    factors : int
        Length of the latent vectors.
    regularization : float, >= 0
    learning_rate : float, > 0
        Of the first epoch. Too long a step is halved, with a warning in the log.
    iterations : int
        Epochs: each takes every stored cell once.
    max_norm : float, > 0
        Length that vectors of factors may have: what is longer is cut.
    tries : int
        Items that are drawn at most for a cell.
    schedule : {"constant", "inverse", "bold"}
        The learning rate of epoch t, from 0: the same; divided by ``1 + decay t``; or 5 % more when
        the objective fell in the epoch before, half when it rose.
    decay : float, >= 0
    rng : int, numpy.random.Generator or None
        Seed of the initial vectors, of the order of cells and of the items that are drawn.

    Attributes
    ----------
    user_factors_, item_factors_, item_biases_, history_ : as those of BPR

    Notes
    -----
    Cost of an epoch: see :func:`dasrec.kernels.pairwise.rank_top`. Weston, Bengio and Usunier,
    "WSABIE: scaling up to large vocabulary image annotation", IJCAI 2011,
    doi:10.5591/978-1-57735-516-8/IJCAI11-460.
    """

    name: ClassVar[str] = "warp"

    def __init__(  # noqa: PLR0913 - all that can be tuned
        self,
        *,
        factors: int = 64,
        regularization: float = 0.02,
        learning_rate: float = 0.005,
        iterations: int = 60,
        max_norm: float = 1.5,
        tries: int = 50,
        schedule: Schedule = "constant",
        decay: float = 0.0,
        rng: Rng = None,
    ) -> None:
        self.factors = factors
        self.regularization = regularization
        self.learning_rate = learning_rate
        self.iterations = iterations
        self.max_norm = max_norm
        self.tries = tries
        self.schedule = schedule
        self.decay = decay
        self.rng = rng

    def _check(self) -> None:
        super()._check()
        check_number(self.max_norm, name="max_norm", above=0)
        check_count(self.tries, name="tries")

    def _start_loss(self, strata: Strata) -> float:
        return float((1 + np.log(len(strata.known))) * strata.user_counts.sum())

    def _rule(self, rate: float) -> Rule:
        return (
            super()
            ._rule(rate)
            ._replace(tries=self.tries, catalogue=self._catalogue, most=np.float32(self.max_norm))
        )

    @staticmethod
    def _step(stratum: Stratum, users: Floats, items: Floats, rule: Any) -> float:
        known = (stratum.indptr, stratum.indices, stratum.names)
        cells = (stratum.rows, stratum.columns)
        return rank_top(cells, known, users, items, rule, stratum.key)
