"""What a search has found, labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from sklearn.base import clone

from dasrec.interactions import Interactions
from dasrec.models import Model
from dasrec.schema import ITERATION
from dasrec.search.base import Trial
from dasrec.training import Training

TRIAL, PARAMETER = "trial", "param_"


@dataclass(frozen=True)
class SearchResult:
    """What :func:`dasrec.search` returns.

    Attributes
    ----------
    trials : xarray.Dataset, dims (trial, iteration)
        ``param_*`` of each trial, as scikit-learn names them; its ``bracket``, ``iterations`` (how
        many it has done) and ``is_best``; by iteration at a rung ``metric`` (the larger the better;
        errors are negative) and ``seconds`` of training till then, NaN where it was not. Attributes
        say what was searched: ``metric``, ``strategy``, ``spent`` (iterations of all trials),
        ``best`` (number of a trial), ``finished`` (0 after the time limit), ``seed``.
    model : Model
        Not fitted, with the best parameters, meant for all users.
    """

    trials: xr.Dataset
    model: Model

    @property
    def best_params(self) -> dict[str, Any]:
        """What was searched, as it is best."""
        names = [str(name).removeprefix(PARAMETER) for name in searched(self.trials)]
        return {name: self.model.get_params()[name] for name in names}

    @property
    def best_metric(self) -> float:
        """The metric of the best trial after its last rung."""
        return float(last_metric(self.trials)[self.trials.attrs["best"]])

    def refit(self, interactions: Interactions, *, training: Training | None = None) -> Model:
        """Fit a model with the best parameters, eagerly; on a whole store, or on ``split.train``.

        Raises as :meth:`dasrec.Model.fit`.
        """
        fresh: Model = clone(self.model)
        return fresh.fit(interactions, training=training)


def searched(trials: xr.Dataset) -> list[str]:
    """Return the variables that are parameters."""
    return [str(name) for name in trials.data_vars if str(name).startswith(PARAMETER)]


def last_metric(trials: xr.Dataset) -> NDArray[np.float64]:
    """Return the metric of each trial after its last rung; NaN for those that reached none."""
    done, levels = trials["iterations"].values, trials[ITERATION].values
    columns = np.minimum(np.searchsorted(levels, done), len(levels) - 1)
    found = trials["metric"].transpose(TRIAL, ITERATION).values[np.arange(len(done)), columns]
    return np.where(done > 0, found, np.nan)


def as_dataset(runs: Sequence[Trial], *, best: int, facts: Mapping[str, Any]) -> xr.Dataset:
    """Label trials and their measures."""
    levels = sorted({iterations for run in runs for iterations in run.measures})
    shape = (len(runs), len(levels))
    metric, seconds = np.full(shape, np.nan), np.full(shape, np.nan)
    for row, run in enumerate(runs):
        for iterations, measure in run.measures.items():
            column = levels.index(iterations)
            metric[row, column], seconds[row, column] = measure
    parameters = {
        f"{PARAMETER}{name}": (TRIAL, _column([run.parameters[name] for run in runs]))
        for name in runs[0].parameters
    }
    numbers = np.array([run.number for run in runs])
    done = np.array([run.iterations for run in runs])
    return xr.Dataset(
        {
            **parameters,
            "bracket": (TRIAL, np.array([run.bracket for run in runs])),
            "iterations": (TRIAL, done),
            "is_best": (TRIAL, numbers == best),
            "metric": ((TRIAL, ITERATION), metric),
            "seconds": ((TRIAL, ITERATION), seconds, {"units": "s"}),
        },
        coords={TRIAL: numbers, ITERATION: np.array(levels)},
        attrs={**facts, "spent": int(done.sum()), "best": best},
    )


def _column(values: Sequence[Any]) -> NDArray[Any]:
    """Return values of one kind as an array of it, others as objects."""
    kinds = {type(value) for value in values}
    if kinds <= {int, float} or kinds in ({str}, {bool}):
        return np.array(values)
    column = np.empty(len(values), object)
    column[:] = values
    return column
