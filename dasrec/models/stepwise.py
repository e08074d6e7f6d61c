"""What models share that are fitted in iterations: a seed, a history, and how fits go on."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
import xarray as xr

from dasrec.checks import seed_of
from dasrec.errors import MismatchError
from dasrec.interactions import Interactions
from dasrec.medium import FitPlan
from dasrec.models.base import Model, label, plain, view_of
from dasrec.training import Training
from dasrec.typing import Rng


class Stepwise(Model):
    """A model that is fitted in iterations, which can be watched, stopped, kept and resumed."""

    stepwise: ClassVar[bool] = True
    iterations: int
    rng: Rng
    seed_: xr.DataArray
    history_: xr.Dataset

    def plan(
        self,
        interactions: Interactions,
        *,
        memory: str | int | None = None,
        checkpoint: bool = False,
    ) -> FitPlan:
        """Foresee tasks and memory of fitting this model; no block is read.

        Parameters as :func:`dasrec.plan_fit`, which may be asked as well.

        Raises
        ------
        BudgetError
            It would not fit; the message says how much it needs.
        """
        self._check()
        return self._plan(interactions, memory, checkpoint=checkpoint)

    def _plan(
        self, interactions: Interactions, memory: str | int | None, *, checkpoint: bool
    ) -> FitPlan:
        """Foresee the fit of a model whose parameters are in range."""
        raise NotImplementedError

    def _begin_from(self, interactions: Interactions, training: Training) -> Self | None:
        """Return what a fit that was stopped has left, if this one goes on; set the seed."""
        before = self.resumed(interactions, training)
        seed = int(before.seed_) if before else seed_of(self.rng)
        self.seed_ = label(np.array(seed, np.int64))
        return before

    def resumed(self, interactions: Interactions, training: Training) -> Self | None:
        """Open what a fit that was stopped has left, if this one is to go on with it.

        Raises
        ------
        MismatchError
            It was fitted with other parameters, or on something else than these interactions.
        """
        if not training.resume or training.checkpoint is None:
            return None
        found = self.open_saved(training.checkpoint)
        if found is None:
            return None
        mine, theirs = plain(self.get_params()), plain(found.get_params())
        odd = [name for name in mine if name != "iterations" and mine[name] != theirs[name]]
        if odd or found.trained_on_ != view_of(interactions):
            what = f"with other {', '.join(odd)}" if odd else "on another store, version or part"
            msg = f"{training.checkpoint} was fitted {what}; choose another place, or resume=False"
            raise MismatchError(msg)
        return found

    def best_kept(self, training: Training) -> Self | None:
        """Open the best iteration so far of a fit that goes on, if it has been kept."""
        place = training.best_place() if training.resume else None
        return self.open_saved(place) if place else None
