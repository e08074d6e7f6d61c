"""Full-batch gradient descent: the textbook's way to factorise a matrix."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from dask.tokenize import tokenize

from dasrec import blocks
from dasrec.checks import check_count, check_number
from dasrec.errors import InputError
from dasrec.factors import in_memory
from dasrec.interactions import Interactions
from dasrec.kernels.gradient import row_gradients
from dasrec.medium import CACHE, FitPlan
from dasrec.models.base import label_factors
from dasrec.models.stepwise import Stepwise
from dasrec.schema import ITEM, ITEM_USERS, USER, USER_ITEMS
from dasrec.strata import plan_epochs
from dasrec.sweeps import Half, sweep
from dasrec.training import Course, Training
from dasrec.typing import Floats, Rng, Side

logger = logging.getLogger(__name__)

State = tuple[Floats, Floats]

_HALVINGS = 150  # down from any number that float32 has
_ROUNDING = 1e-6  # of the objective, by which it may rise
_COPIES = 6  # of both matrices: here, tried, the best, two gradients, and one in the making


@dataclass(frozen=True)
class _Slope:
    """The objective at a point, and its gradient on both sides but for a factor of -2."""

    objective: float
    users: Floats
    items: Floats


class GradientDescent(Stepwise):
    """Factorise the stored cells by full-batch gradient descent, as textbooks define it.

    Minimises

        J(U, V) = sum_stored (a_ui - u_u . v_i)^2 + regularization (|U|^2 + |V|^2)

    from random vectors: in each iteration both sides move at the same time against the gradient,

        U <- U + learning_rate (2 E V - 2 regularization U),  V likewise with E' U,

    with E the errors on stored cells. A step after which J would be larger is not taken: half of it
    is tried, a warning in the log says so, and the learning rate stays so. It is slow: take
    :class:`SGD` or :class:`ALS` for anything but small or didactic data.

    Parameters
    ----------
    factors : int
        Length of the latent vectors.
    learning_rate : float, > 0
    regularization : float, >= 0
    iterations : int
    init_scale : float, > 0
        Standard deviation of each number that the vectors start from.
    rng : int, numpy.random.Generator or None
        Seed of the initial vectors.

    Attributes
    ----------
    user_factors_, item_factors_ : xarray.DataArray, float32, dims (user, factor), (item, factor)
        Zeros for users and items without interactions.
    history_ : xarray.Dataset, dim (iteration): ``objective``, ``train_rmse``, ``learning_rate``,
        ``seconds``, and what a monitor found

    Notes
    -----
    Cost of an iteration: one pass over both orientations, see
    :func:`dasrec.kernels.gradient.row_gradients`, and one more for each step that is not taken.
    """

    name: ClassVar[str] = "gd"
    predicts_values: ClassVar[bool] = True
    user_factors_: xr.DataArray
    item_factors_: xr.DataArray

    def __init__(
        self,
        *,
        factors: int = 16,
        learning_rate: float = 0.001,
        regularization: float = 0.0,
        iterations: int = 200,
        init_scale: float = 0.3,
        rng: Rng = None,
    ) -> None:
        self.factors = factors
        self.learning_rate = learning_rate
        self.regularization = regularization
        self.iterations = iterations
        self.init_scale = init_scale
        self.rng = rng

    def _check(self) -> None:
        check_count(self.factors, name="factors")
        check_number(self.learning_rate, name="learning_rate", above=0)
        check_number(self.regularization, name="regularization", least=0)
        check_count(self.iterations, name="iterations")
        check_number(self.init_scale, name="init_scale", above=0)

    def _plan(
        self, interactions: Interactions, memory: str | int | None, *, checkpoint: bool
    ) -> FitPlan:
        del checkpoint  # which leaves vectors in memory
        return plan_epochs(interactions, width=self.factors, copies=_COPIES, memory=memory)

    def _learn(self, interactions: Interactions, training: Training) -> None:
        plan = self.plan(interactions, memory=training.memory)
        course = Course(training, self.name, self.iterations)
        before = self._begin_from(interactions, training)
        state, rate = self._first(interactions), self.learning_rate
        if before:
            course.restore(before.history_)
            state, rate = before._state(), course.history[-1]["learning_rate"]
        self._fit, self._bytes = tokenize(interactions), plan.cache_bytes
        kept = self.best_kept(training)
        best = kept._state() if kept else state
        try:
            slope = self._slope(interactions, state)
            for _ in course:
                start = time.perf_counter()
                state, slope, rate = self._descend(interactions, state, slope, rate)
                self._keep(*state)
                facts = {"learning_rate": rate, "seconds": time.perf_counter() - start}
                if course.record({**self._facts(state, slope), **facts}, self):
                    best = state
            course.finish(self)
        finally:
            CACHE.clear()
        self._keep(*best)
        self.history_ = course.dataset()

    def _first(self, interactions: Interactions) -> State:
        counts = [interactions.counts(side) for side in (USER_ITEMS, ITEM_USERS)]
        self._n = int(counts[0].sum())
        if not self._n:
            msg = "there are no interactions to learn from; choose a smaller test part"
            raise InputError(msg)
        draw = np.random.default_rng(int(self.seed_))
        users, items = (
            draw.standard_normal((len(each), self.factors), np.float32)
            * np.float32(self.init_scale)
            * (each > 0)[:, None]
            for each in counts
        )
        return users, items

    def _descend(
        self, interactions: Interactions, state: State, slope: _Slope, rate: float
    ) -> tuple[State, _Slope, float]:
        """Take a step that does not make the objective larger; halve it until it does not."""
        limit = slope.objective * (1 + _ROUNDING)
        for _ in range(_HALVINGS):
            length = np.float32(2 * rate)
            with np.errstate(over="ignore", invalid="ignore"):
                tried = state[0] + length * slope.users, state[1] + length * slope.items
                there = self._slope(interactions, tried)
            if there.objective <= limit:
                return tried, there, rate
            logger.warning(
                "%s: a step of %g takes the objective from %g to %g; trying half of it",
                self.name,
                rate,
                slope.objective,
                there.objective,
            )
            rate /= 2
        return state, slope, rate

    def _slope(self, interactions: Interactions, state: State) -> _Slope:
        """Return the objective and its gradient: a pass over each orientation."""
        users, items = state
        by_user, loss = self._pass(interactions, USER_ITEMS, users, items)
        by_item, _ = self._pass(interactions, ITEM_USERS, items, users)
        shrink = np.float32(self.regularization)
        lengths = sum(float(np.square(each, dtype=np.float64).sum()) for each in state)
        objective = loss + self.regularization * lengths
        if not np.isfinite(objective):
            objective = np.inf
        return _Slope(objective, by_user - shrink * users, by_item - shrink * items)

    def _pass(
        self, interactions: Interactions, side: Side, rows: Floats, columns: Floats
    ) -> tuple[Floats, float]:
        shared = blocks.share((rows, columns))
        parts = interactions.map_blocks(
            _gradient_block,
            side,
            shared,
            self._fit,
            self._bytes,
            name="gradient-block",
            progress=False,
        )
        return np.concatenate([part[0] for part in parts]), sum(part[1] for part in parts)

    def _facts(self, state: State, slope: _Slope) -> dict[str, float]:
        lengths = sum(float(np.square(each, dtype=np.float64).sum()) for each in state)
        loss = max(0.0, slope.objective - self.regularization * lengths)
        return {"objective": slope.objective, "train_rmse": float(np.sqrt(loss / self._n))}

    def _state(self) -> State:
        return self.user_factors_.values, self.item_factors_.values

    def _keep(self, users: Floats, items: Floats) -> None:
        self.user_factors_ = label_factors(users, USER, self.user_ids_)
        self.item_factors_ = label_factors(items, ITEM, self.item_ids_)

    def lazy_vectors(self) -> tuple[Floats, Floats]:
        """Return u and v."""
        return self._state()

    def fold_in(self, interactions: Interactions) -> Floats:
        """Solve every user's vector from these interactions exactly, items held fixed."""
        return in_memory(sweep(interactions, USER_ITEMS, self.folding(interactions)).vectors)

    def folding(self, interactions: Interactions) -> Half:
        """Describe how :meth:`fold_in` solves users."""
        self.check_belongs(interactions)
        items = self.item_factors_.values
        return Half(
            vectors=items,
            base=np.zeros(self.factors, np.float32),
            rotation=None,
            offsets=np.zeros(len(items), np.float32),
            scale=self.regularization,
            shift=0.0,
            exponent=0.0,
        )


def _gradient_block(
    view: Interactions,
    side: Side,
    start: int,
    stop: int,
    shared: tuple[Floats, Floats],
    fit: str,
    cache_bytes: int,
) -> tuple[Floats, float]:
    block = CACHE.read(view, side, (start, stop), fit=fit, limit=cache_bytes)
    rows, columns = shared
    found: tuple[Floats, float] = row_gradients(block[:3], rows[start:stop], columns)
    return found
