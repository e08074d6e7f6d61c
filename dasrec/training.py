"""How a fit that goes in iterations is watched, limited, stopped early, kept and taken up again."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from dasrec import blocks
from dasrec.errors import InputError
from dasrec.schema import ITERATION

logger = logging.getLogger(__name__)

Record = dict[str, float]

_TOLD = 500  # iterations of a fit that was taken up again, to the dashboard

_NUMBER = re.compile(r"\d+(\.\d*)?")  # which pandas would take for nanoseconds


@dataclass(frozen=True)
class Training:
    """What a fit does beside learning; pass it as ``model.fit(interactions, training=...)``.

    Parameters
    ----------
    monitor : function of the model, optional
        Called after every iteration; the larger what it returns the better. It stands in the
        history as ``monitor``. :func:`dasrec.holdout` makes one of a split and a metric.
    patience : int, optional
        Stop after so many iterations without a better ``monitor``; the best iteration is kept.
    time_limit : seconds, or text like "10min", optional
        Begin no iteration that would end later, as long as the one before took.
    callbacks : functions of the record of an iteration
        A fit stops after the iteration for which one returns True.
    log : path, optional
        Append the record of each iteration as a line of JSON.
    checkpoint : path or fsspec URL, optional
        Save the model there after each iteration: a whole model at any time. With ``patience`` the
        best one is saved beside it, under the same name and ``-best``. Factors that do not fit in
        memory lie in files beside it too, as do those of a fit on several hosts that reach it.
    checkpoint_every : seconds, or text like "10min", optional
        Let so much time pass between two saves, for iterations that are quicker; the last one is
        saved anyhow.
    resume : bool
        Go on from ``checkpoint`` if one is there: with the bits of a fit that was never stopped.
    memory : bytes or text like "2GB", optional
        What this process, or each worker of a client, may hold. :func:`dasrec.plan_fit` says what
        comes of it.
    """

    monitor: Callable[[Any], float] | None = None
    patience: int | None = None
    time_limit: float | str | None = None
    callbacks: Sequence[Callable[[Record], Any]] = ()
    log: str | os.PathLike[str] | None = None
    checkpoint: str | os.PathLike[str] | None = None
    checkpoint_every: float | str | None = None
    resume: bool = False
    memory: str | int | None = None

    def check(self) -> None:
        """Refuse what does not go together."""
        if self.patience is not None and self.monitor is None:
            msg = "patience was given without a monitor; expected both, as monitor=holdout(split)"
            raise InputError(msg)
        if self.patience is not None and self.patience < 1:
            msg = f"patience is {self.patience}; expected a whole number of iterations, at least 1"
            raise InputError(msg)
        if self.resume and self.checkpoint is None:
            msg = "resume=True was given without a checkpoint; pass checkpoint= as before"
            raise InputError(msg)
        self.seconds()
        self.gap()

    def best_place(self) -> str | None:
        """Return where the best iteration is kept when it need not be the last."""
        if self.checkpoint is None or self.patience is None:
            return None
        return f"{os.fspath(self.checkpoint)}-best"

    def seconds(self) -> float:
        """Return the time limit in seconds."""
        return np.inf if self.time_limit is None else _seconds(self.time_limit, "time_limit")

    def gap(self) -> float:
        """Return the seconds between two saves."""
        every = self.checkpoint_every
        return 0.0 if every is None else _seconds(every, "checkpoint_every")


def _seconds(given: float | str, name: str) -> float:
    try:
        if isinstance(given, str) and not _NUMBER.fullmatch(given):
            found = float(pd.Timedelta(given).total_seconds())
        else:
            found = -1.0 if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        found = -1.0
    if not found > 0:
        msg = f'{name} is {given!r}; expected seconds above 0, or text like "10min"'
        raise InputError(msg)
    return found


def _plain(record: Record) -> Record:
    return {name: float(value) for name, value in record.items()}


@dataclass
class Course:
    """The iterations of one fit, and whether there is to be another."""

    training: Training
    name: str
    iterations: int
    history: list[Record] = field(default_factory=list)
    best: int = 0  # the number of the best iteration, from 1
    _stop: bool = False
    _saved: float = field(default_factory=lambda: time.monotonic())
    _unsaved: bool = False

    def __iter__(self) -> Any:
        """Count the iterations that are left, behind a progress bar."""
        begun, limit = time.monotonic(), self.training.seconds()
        done = len(self.history)
        blocks.tell("course", **self._facts())
        for number in blocks.track(self.iterations - done, name=f"fit {self.name}"):
            last = self.history[-1]["seconds"] if number else 0.0
            if self._stop or (number and time.monotonic() - begun + last > limit):
                logger.info("%s stops after %d iterations", self.name, len(self.history))
                return
            yield done + number

    def record(self, facts: Mapping[str, float], model: Any) -> bool:
        """Note what an iteration did, save the model, and say whether it is the best so far."""
        record = {"iteration": len(self.history) + 1, **facts}
        if self.training.monitor is not None:
            start = time.perf_counter()
            record["monitor"] = float(self.training.monitor(model))
            record["monitor_seconds"] = time.perf_counter() - start
        better = self._append(record)
        logger.info("%s iteration %d: %s", self.name, len(self.history), record)
        blocks.tell("iteration", record=_plain(record))
        if self.training.log is not None:
            with Path(self.training.log).open("a") as log:
                log.write(json.dumps({"model": self.name, **record}) + "\n")
        model.history_ = self.dataset()
        # the best one first: what is killed in between does this iteration again
        if better and (place := self.training.best_place()):
            model.save(place, overwrite=True)
        self._unsaved = self.training.checkpoint is not None
        last = self._stop or len(self.history) == self.iterations
        if last or time.monotonic() - self._saved >= self.training.gap():
            self.finish(model)
        for callback in self.training.callbacks:
            self._stop |= callback(dict(record)) is True
        return better

    def finish(self, model: Any) -> None:
        """Save the model if it has changed since it was saved."""
        if self._unsaved and self.training.checkpoint is not None:
            model.save(self.training.checkpoint, overwrite=True)
            self._saved, self._unsaved = time.monotonic(), False

    def _append(self, record: Record) -> bool:
        """Say whether an iteration is the best so far; stop if patience has come to its end."""
        patience = self.training.patience
        better = patience is None or not self.best
        if not better:
            # what is taken up may have been fitted without a monitor
            before = self.history[self.best - 1].get("monitor", -np.inf)
            better = record.get("monitor", np.inf) > before
        self.history.append(record)
        if better:
            self.best = len(self.history)
        self._stop = patience is not None and len(self.history) - self.best >= patience
        return better

    def dataset(self) -> xr.Dataset:
        """Label the history: each fact by iteration."""
        names = dict.fromkeys(name for each in self.history for name in each if name != ITERATION)
        return xr.Dataset(
            {
                name: (ITERATION, [each.get(name, np.nan) for each in self.history])
                for name in names
            },
            coords={ITERATION: np.arange(1, len(self.history) + 1)},
        )

    def _facts(self) -> dict[str, Any]:
        """Return what the dashboard shows of a fit, beside its iterations."""
        monitor, limit = self.training.monitor, self.training.seconds()
        metric, n = getattr(monitor, "metric", "monitor"), getattr(monitor, "n", None)
        return {
            "iterations": self.iterations,
            "history": [_plain(record) for record in self.history[-_TOLD:]],
            "monitor": "" if monitor is None else metric if n is None else f"{metric}@{n}",
            "seconds": 0.0 if np.isinf(limit) else limit,
            "memory": str(self.training.memory or ""),
        }

    def restore(self, history: xr.Dataset) -> None:
        """Take up the history of a checkpoint."""
        for i in range(history.sizes.get(ITERATION, 0)):
            facts = {str(name): float(values.values[i]) for name, values in history.items()}
            self._append({ITERATION: i + 1, **facts})
