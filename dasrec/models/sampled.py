"""Lists from implicit feedback by sampled losses: a stored cell against several items not seen."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from dasrec.checks import check_choice, check_count
from dasrec.kernels.rule import LOGISTIC, SOFTMAX, Rule
from dasrec.models.ranking import NEGATIVES, Negatives, Ranking
from dasrec.models.stratified import Optimizer, Schedule, step_batches
from dasrec.strata import Step, Strata
from dasrec.typing import Rng


class Logistic(Ranking):
    """Tell what a user has from what the user has not: logistic loss, with sampled negatives.

    Minimises, in expectation over m items j drawn for each stored cell (u, i), with
    s_i = b_i + x_u . y_i,

        - log sigmoid(s_i) - sum_j log sigmoid(-s_j)
        + regularization / 2 (|x_u|^2 + |y_i|^2 + b_i^2 + sum_j (|y_j|^2 + b_j^2))

    so that sigmoid(s) is the chance that a pair is a stored one rather than a drawn one. Stored
    weights do not count, only which cells are stored.

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
        How items j are drawn among those that the user has not: each alike, as often as they are
        used by others, or each the best scored of four.
    samples : int
        m: items drawn for a cell.
    schedule, decay, optimizer, batch_size : as those of :class:`SGD`
    rng : int, numpy.random.Generator or None
        Seed of the initial vectors, of the order of cells and of the items that are drawn.

    Attributes
    ----------
    user_factors_, item_factors_, item_biases_, history_ : as those of :class:`BPR`

    Notes
    -----
    Cost of an epoch: see :func:`dasrec.kernels.batches.descend_batches`. Items are drawn from the
    group of items that i is in, as for :class:`BPR`. Johnson, "Logistic matrix factorization for
    implicit feedback data", NIPS workshop 2014; Mikolov, Sutskever, Chen, Corrado and Dean,
    "Distributed representations of words and phrases and their compositionality", NIPS 2013,
    arXiv:1310.4546.
    """

    name: ClassVar[str] = "logistic"
    loss: ClassVar[int] = LOGISTIC

    def __init__(  # noqa: PLR0913 - all that can be tuned
        self,
        *,
        factors: int = 64,
        regularization: float = 0.05,
        learning_rate: float = 0.02,
        iterations: int = 60,
        negatives: Negatives = "uniform",
        samples: int = 8,
        schedule: Schedule = "constant",
        decay: float = 0.0,
        optimizer: Optimizer = "sgd",
        batch_size: int = 1,
        rng: Rng = None,
    ) -> None:
        self.factors = factors
        self.regularization = regularization
        self.learning_rate = learning_rate
        self.iterations = iterations
        self.negatives = negatives
        self.samples = samples
        self.schedule = schedule
        self.decay = decay
        self.optimizer = optimizer
        self.batch_size = batch_size
        self.rng = rng

    def _check(self) -> None:
        super()._check()
        check_choice(self.negatives, name="negatives", choices=tuple(NEGATIVES))
        check_count(self.samples, name="samples")

    def _rule(self, rate: float) -> Rule:
        return super()._rule(rate)._replace(samples=self.samples)

    def _stepping(self) -> Step:
        return step_batches

    def _start_loss(self, strata: Strata) -> float:
        return float((1 + self.samples) * np.log(2) * strata.user_counts.sum())


class Softmax(Logistic):
    """Pick what a user has out of the catalogue: softmax over a sample, corrected for popularity.

    Minimises, in expectation over m items j drawn for each stored cell (u, i), with
    s_i = b_i + x_u . y_i,

        - log(exp(s_i - c_i) / (exp(s_i - c_i) + sum_j exp(s_j - c_j)))
        + regularization / 2 (|x_u|^2 + |y_i|^2 + b_i^2 + sum_j (|y_j|^2 + b_j^2))

    c is the logarithm of how often an item is drawn, so that popular items, which are drawn more
    often as negatives, are not pushed down for it; it is 0 where all are drawn alike, and with
    ``negatives="hard"``, whose chances nobody knows. Stored weights do not count.

    Parameters
    ----------
    factors, regularization, learning_rate, iterations, negatives, samples, schedule, decay,
    optimizer, batch_size, rng : as those of :class:`Logistic`

    Attributes
    ----------
    user_factors_, item_factors_, item_biases_, history_ : as those of :class:`BPR`

    Notes
    -----
    Cost of an epoch: see :func:`dasrec.kernels.batches.descend_batches`. Yi et al.,
    "Sampling-bias-corrected neural modeling for large corpus item recommendations", RecSys 2019,
    doi:10.1145/3298689.3346996.
    """

    name: ClassVar[str] = "softmax"
    loss: ClassVar[int] = SOFTMAX

    def _start_loss(self, strata: Strata) -> float:
        # the correction sets scores apart by what popularity does
        spread = float(np.log(np.maximum(strata.item_counts, 1)).std())
        return float((np.log(1 + self.samples) + spread) * strata.user_counts.sum())
