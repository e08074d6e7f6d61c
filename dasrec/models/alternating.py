"""What models share that alternate half-sweeps over row blocks of the store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from dasrec import blocks
from dasrec.checks import check_count, check_number
from dasrec.factors import Vectors, drop, hold, row_cuts
from dasrec.interactions import Interactions
from dasrec.medium import FitPlan, Medium, opened_medium, plan_sweeps
from dasrec.memory import from_heap
from dasrec.models.stepwise import Stepwise
from dasrec.priors import State, begin, check_features, features_of
from dasrec.schema import ITEM, ITEM_USERS, USER, USER_ITEMS
from dasrec.sweeps import Half, Solver, Swept, check_solver, sweep
from dasrec.training import Course, Record, Training
from dasrec.typing import Floats

INIT_SCALE = 0.1
"""Standard deviation of the length of an initial item vector."""


class Alternating(Stepwise):
    """What both objectives share: alternate half-sweeps over row blocks of the store."""

    factors: int
    regularization: float
    solver: Solver
    tolerance: float
    nonnegative: bool

    def _check(self) -> None:
        check_count(self.factors, name="factors")
        check_count(self.iterations, name="iterations")
        check_number(self.regularization, name="regularization", above=0)
        check_solver(self.solver, self.tolerance, nonnegative=self.nonnegative)
        check_features(self)

    def _plan(
        self, interactions: Interactions, memory: str | int | None, *, checkpoint: bool
    ) -> FitPlan:
        features = features_of(self, interactions)
        return plan_sweeps(
            interactions, self.factors, memory, checkpoint=checkpoint, features=features
        )

    def _learn(self, interactions: Interactions, training: Training) -> None:
        before = self._begin_from(interactions, training)
        self._prepare(interactions)
        course = Course(training, self.name, self.iterations)
        features = features_of(self, interactions)
        with (
            # quicker, but holes in the heap are more than a limit foresees
            from_heap() if training.memory is None else nullcontext(),
            opened_medium(
                interactions,
                factors=self.factors,
                memory=training.memory,
                checkpoint=training.checkpoint,
                features=features,
                monitored=training.monitor is not None,
            ) as medium,
        ):
            items = self._begin(interactions.n_items, int(self.seed_), medium.place)
            state = begin(self, interactions, items, features, self._half)
            if before:
                course.restore(before.history_)
                state = state.priors.resumed(before, medium.place)
            best = self._improve(interactions, medium, course, state)
            place = training.best_place() or training.checkpoint
            # what lies in the medium goes with it
            saved = self.open_saved(place) if medium.place and place else None
            if saved is None:
                best.in_memory().keep(self)
        if saved is not None:
            self._keep(*saved._state())
        self.history_ = course.dataset()

    def _improve(
        self, interactions: Interactions, medium: Medium, course: Course, state: State
    ) -> State:
        """Go through the iterations from a state, and return the best one."""
        kept = self.best_kept(course.training)
        best = state.priors.resumed(kept, medium.place) if kept else state
        for _ in course:
            with blocks.ONE_BLAS_THREAD:  # which each step would enter for itself
                state, facts = self._iterate(interactions, medium, state)
            # a monitor may keep what it is shown
            shown = state if course.training.monitor is None else state.in_memory()
            shown.keep(self)
            if course.record(facts, self):
                best = state
            if medium.place is not None:
                drop(medium.place, but=[*state[:2], *best[:2]])
        course.finish(self)
        return best

    def _iterate(
        self, interactions: Interactions, medium: Medium, state: State
    ) -> tuple[State, Record]:
        """Solve users, then items; each comes back in the basis of what was held fixed last."""
        start = time.perf_counter()
        users, items, priors = state
        half, priors = priors.before(self._half(items, users, interactions.n_items), USER)
        by_user, priors = priors.after(sweep(interactions, USER_ITEMS, half, medium), USER)
        items = items if half.rotation is None else half.vectors
        half, priors = priors.before(self._half(by_user.vectors, items, interactions.n_users), ITEM)
        by_item, priors = priors.after(sweep(interactions, ITEM_USERS, half, medium), ITEM)
        if half.rotation is not None:
            by_user = replace(by_user, vectors=half.vectors)
        by_user = replace(by_user, base=half.base)
        facts = self._facts(by_user, by_item)
        seconds = time.perf_counter() - start
        facts |= {"gap": by_user.gap + by_item.gap, "seconds": seconds}
        return State(by_user.vectors, by_item.vectors, priors), facts

    def _solved(self, half: Half) -> Half:
        """Add how rows are solved."""
        return half.solved_by(
            self.solver, self.tolerance, factors=self.factors, nonnegative=self.nonnegative
        )

    def _state(self) -> tuple[Any, Any]:
        """Return what an iteration starts from: arrays, lazy ones if they are saved."""
        raise NotImplementedError

    def _begin(self, n_items: int, seed: int, place: str | None) -> Vectors:
        """Return the first item vectors, in memory or in files."""
        return hold(self._draw(n_items, seed), (n_items, self.factors), place)

    def _draw(self, n_items: int, seed: int) -> Iterator[Floats]:
        """Draw them, some rows at a time."""
        rng, scale = np.random.default_rng(seed), np.float32(INIT_SCALE / np.sqrt(self.factors))
        for start, stop in pairwise(row_cuts(n_items)):
            rows = scale * rng.standard_normal((stop - start, self.factors), np.float32)
            yield np.abs(rows) if self.nonnegative else rows

    def _prepare(self, interactions: Interactions) -> None:
        """Learn what does not change from one iteration to the next."""

    def _half(self, vectors: Vectors, start: Vectors | None, n_rows: int) -> Half:
        """Describe the half-sweep that holds these vectors fixed."""
        raise NotImplementedError

    def _facts(self, users: Swept, items: Swept) -> dict[str, float]:
        """Return what the history records of an iteration; ``objective`` is among it."""
        raise NotImplementedError

    def _keep(self, users: Vectors | None, items: Vectors) -> None:
        """Set the learned attributes from the last vectors."""
        raise NotImplementedError
