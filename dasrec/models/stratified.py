"""What models share that go by stochastic gradient descent: epochs, steps, the state between."""

from __future__ import annotations

import logging
import time
from typing import Any, ClassVar, Literal

import numpy as np
import xarray as xr

from dasrec.checks import check_choice, check_count, check_number
from dasrec.errors import InputError
from dasrec.interactions import Interactions
from dasrec.kernels.batches import descend_batches, kept_width
from dasrec.kernels.rule import ADAGRAD, ADAM, MOMENTUM, PLAIN, Rule
from dasrec.medium import CACHE, FitPlan
from dasrec.models.base import label, label_factors
from dasrec.models.stepwise import Stepwise
from dasrec.schema import ITEM, USER
from dasrec.strata import DEALT, Step, Strata, Stratum, cut_strata, plan_epochs, run_epoch
from dasrec.training import Course, Record, Training
from dasrec.typing import Floats

logger = logging.getLogger(__name__)

Schedule = Literal["constant", "inverse", "bold"]
Optimizer = Literal["sgd", "momentum", "adagrad", "adam"]
State = tuple[Floats, Floats]

INIT_SCALE = 0.1
"""Standard deviation of the length of an initial vector."""

_OPTIMIZERS = {"sgd": PLAIN, "momentum": MOMENTUM, "adagrad": ADAGRAD, "adam": ADAM}
_MOMENT = "moment"
_HALVINGS = 30
_WORSE = 2.0  # times the loss without factors: steps of a sensible length never make it that
_UP, _DOWN = 1.05, 0.5  # of the bold driver


class Stratified(Stepwise):
    """Epochs of stochastic gradient descent over strata; a vector is k factors and a bias.

    What an optimizer keeps of a vector lies behind it, and goes where it goes; checkpoints hold it
    as ``user_moments_`` and ``item_moments_``, models that are done do not.
    """

    loss: ClassVar[int]
    factors: int
    regularization: float
    learning_rate: float
    schedule: Schedule
    decay: float
    optimizer: Optimizer
    batch_size: int
    user_factors_: xr.DataArray
    item_factors_: xr.DataArray
    item_biases_: xr.DataArray
    user_moments_: xr.DataArray
    item_moments_: xr.DataArray

    def _check(self) -> None:
        check_count(self.factors, name="factors")
        check_count(self.iterations, name="iterations")
        check_number(self.regularization, name="regularization", least=0)
        check_number(self.learning_rate, name="learning_rate", above=0)
        check_choice(self.schedule, name="schedule", choices=("constant", "inverse", "bold"))
        check_number(self.decay, name="decay", least=0)
        check_choice(self.optimizer, name="optimizer", choices=tuple(_OPTIMIZERS))
        check_count(self.batch_size, name="batch_size")

    def _plan(
        self, interactions: Interactions, memory: str | int | None, *, checkpoint: bool
    ) -> FitPlan:
        del checkpoint  # which leaves vectors in memory
        return plan_epochs(interactions, width=self._row_width(), memory=memory)

    def _learn(self, interactions: Interactions, training: Training) -> None:
        plan = self.plan(interactions, memory=training.memory)
        course = Course(training, self.name, self.iterations)
        before = self._begin_from(interactions, training)
        # one half for decoded blocks, one for dealt ones
        keep = plan.cache_bytes // 2
        strata = cut_strata(interactions, seed=int(self.seed_), cache_bytes=keep)
        if not len(strata.known):
            msg = "there are no interactions to learn from; choose a smaller test part"
            raise InputError(msg)
        strata = self._prepare(interactions, strata)
        state = self._first(strata)
        if before:
            course.restore(before.history_)
            state = before._whole()
        kept = self.best_kept(training)
        best = kept._whole() if kept else state
        try:
            for number in course:
                state, facts = self._epoch(interactions, strata, state, course.history, number)
                self._keep(*state)
                self._keep_moments(*state)
                if course.record(facts, self):
                    best = state
            course.finish(self)
        finally:
            CACHE.clear()
            DEALT.clear()
        self._keep(*best)
        for name in ("user_moments_", "item_moments_"):
            if hasattr(self, name):
                delattr(self, name)
        self.history_ = course.dataset()

    def _epoch(
        self,
        interactions: Interactions,
        strata: Strata,
        state: State,
        history: list[Record],
        number: int,
    ) -> tuple[State, Record]:
        """Go through all cells once; again with half the step should it diverge."""
        start, rate = time.perf_counter(), self._next_rate(history)
        limit = _WORSE * self._start_loss(strata)
        for _ in range(_HALVINGS):
            users = state[0].copy()
            rule = self._rule(rate)
            items, loss = run_epoch(
                interactions, strata, self._stepping(), (users, state[1]), rule, number
            )
            if loss < limit and np.isfinite(users).all() and np.isfinite(items).all():
                items = self._close(interactions, strata, users, items)
                seconds = time.perf_counter() - start
                facts = self._facts(strata, (users, items), loss)
                return (users, items), {**facts, "learning_rate": rate, "seconds": seconds}
            logger.warning(
                "%s diverges in iteration %d at a learning rate of %g; trying half of it",
                self.name,
                number + 1,
                rate,
            )
            rate /= 2
        msg = (
            f"{self.name} diverges however short the steps are; scale the values down, for "
            "instance to at most 1000"
        )
        raise InputError(msg)

    def _next_rate(self, history: list[Record]) -> float:
        """Return the learning rate of the next epoch, a function of the history alone."""
        if not history:
            return self.learning_rate
        last = float(history[-1]["learning_rate"])
        if self.schedule == "constant":
            return last
        if self.schedule == "inverse":
            return last * (1 + self.decay * (len(history) - 1)) / (1 + self.decay * len(history))
        fell = len(history) < 2 or history[-1]["objective"] < history[-2]["objective"]
        return last * (_UP if fell else _DOWN)

    def _prepare(self, interactions: Interactions, strata: Strata) -> Strata:
        """Learn what does not change from one epoch to the next; return what epochs go by."""
        del interactions
        return strata

    def _close(
        self, interactions: Interactions, strata: Strata, users: Floats, items: Floats
    ) -> Floats:
        """Do what comes after an epoch: change the users in place, return the items."""
        del interactions, strata, users
        return items

    def _width(self) -> int:
        """Return how many numbers a vector has."""
        return self.factors + 1

    def _row_width(self) -> int:
        """Return how many numbers a row of the state has: also what the optimizer keeps."""
        return self._width() + kept_width(_OPTIMIZERS[self.optimizer], self.factors)

    def _stepping(self) -> Step:
        """Return what takes the steps of a stratum: kernels of their own where cells go alone."""
        plain = self.optimizer == "sgd" and self.batch_size == 1
        return type(self)._step if plain else step_batches

    def _first(self, strata: Strata) -> State:
        """Draw the first vectors; zeros for those without cells."""
        draw = np.random.default_rng(int(self.seed_))
        return self._draw(draw, strata.user_counts), self._draw(draw, strata.item_counts)

    def _draw(self, draw: np.random.Generator, counts: Any) -> Floats:
        found = np.zeros((len(counts), self._row_width()), np.float32)
        drawn = draw.standard_normal((len(counts), self.factors), np.float32)
        drawn *= np.float32(INIT_SCALE / np.sqrt(self.factors))
        found[counts > 0, : self.factors] = drawn[counts > 0]
        return found

    @staticmethod
    def _step(stratum: Stratum, users: Floats, items: Floats, rule: Any) -> float:
        """Take the steps of one stratum in place, and return the loss before them."""
        raise NotImplementedError

    def _start_loss(self, strata: Strata) -> float:
        """Return the loss without any factors."""
        raise NotImplementedError

    def _rule(self, rate: float) -> Rule:
        """Return what a step takes."""
        return Rule(
            factors=self.factors,
            rate=np.float32(rate),
            regularization=np.float32(self.regularization),
            loss=type(self).loss,
            optimizer=_OPTIMIZERS[self.optimizer],
            batch=self.batch_size,
            kept=self._width(),
        )

    def _facts(self, strata: Strata, state: State, loss: float) -> Record:
        """Return what the history records of an epoch: ``objective`` is among it."""
        raise NotImplementedError

    def _whole(self) -> State:
        """Return what an epoch starts from."""
        users, items = self._state()
        if not hasattr(self, "user_moments_"):
            return users, items
        return (
            np.column_stack([users, self.user_moments_.values]),
            np.column_stack([items, self.item_moments_.values]),
        )

    def _keep_moments(self, users: Floats, items: Floats) -> None:
        """Set what the optimizer has kept, for the checkpoint."""
        width = self._width()
        if self.optimizer != "sgd":
            self.user_moments_ = label(users[:, width:], USER, _MOMENT)
            self.item_moments_ = label(items[:, width:], ITEM, _MOMENT)

    def _state(self) -> State:
        """Return the vectors that are learned."""
        items = np.column_stack([self.item_factors_.values, self.item_biases_.values])
        users = self.user_factors_.values
        return np.column_stack([users, np.zeros_like(users[:, :1])]), items

    def _keep(self, users: Floats, items: Floats) -> None:
        """Set the learned attributes from the last vectors."""
        k = self.factors
        self.user_factors_ = label_factors(users[:, :k], USER, self.user_ids_)
        self.item_factors_ = label_factors(items[:, :k], ITEM, self.item_ids_)
        self.item_biases_ = label(items[:, k], ITEM)


def step_batches(stratum: Stratum, users: Floats, items: Floats, rule: Rule) -> float:
    """Take the steps of one stratum by mini-batches, in place, and return the loss before them."""
    cells = (stratum.rows, stratum.columns, stratum.values)
    known = (stratum.indptr, stratum.indices, stratum.names)
    return descend_batches(cells, known, users, items, rule, stratum.key)
