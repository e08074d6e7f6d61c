"""One step of one trial: train it further from its checkpoint, measure it, write the record."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from dasrec import blocks, files
from dasrec.errors import InputError
from dasrec.interactions import Interactions
from dasrec.models import Model
from dasrec.search.base import Measure, Trial
from dasrec.training import Training

SAVE_SECONDS = 10.0
"""A killed search does so much of each trial again; to save takes some hundredths of a second."""


@dataclass(frozen=True)
class Job:
    """What every step needs, shared once a worker.

    Attributes
    ----------
    train : Interactions
    metric : function of a fitted model
    place : str
        The folder of the search.
    alone : bool
        Whether a trial takes one thread of a process, or all that there is.
    memory : bytes, text like "2GB", or None
        What a process may hold while it trains one trial.
    deadline : float
        Seconds since 1970 at which no iteration begins any more.
    """

    train: Interactions
    metric: Callable[[Model], float]
    place: str
    alone: bool
    memory: int | str | None
    deadline: float

    def record(self, number: int) -> str:
        """Return where a trial is recorded."""
        return files.join(self.place, "trials", f"{number:05}.json")

    def checkpoint(self, number: int) -> str:
        """Return where a trial is saved."""
        return files.join(self.place, "models", f"{number:05}")


def advance(job: Job, trial: Trial, model: Model, iterations: int) -> Measure | None:
    """Train a trial to so many iterations and measure it; None if there is no time for it.

    ``model`` has the parameters of the trial, for the data of this job.
    """
    left = job.deadline - time.time()
    if left <= 0:
        return None
    with blocks.alone() if job.alone else contextlib.nullcontext():
        seconds = _train(job, trial, model, left)
        if model.stepwise:
            history = model.history_
            if history.sizes["iteration"] < iterations:
                model.save(job.checkpoint(trial.number), overwrite=True)
                return None
            seconds = float(history["seconds"].sum())
        measure = Measure(float(job.metric(model)), seconds)
    trial.measures[iterations] = measure
    write_record(job, trial)
    return measure


def _train(job: Job, trial: Trial, model: Model, left: float) -> float:
    """Fit the model, from its checkpoint if it has one, and return the seconds that this took."""
    start, training = time.perf_counter(), Training()
    if model.stepwise:
        place = job.checkpoint(trial.number)
        if trial.measures and model.open_saved(place) is None:
            msg = (
                f"{place} is gone, or is not reached from every worker; expected the checkpoint of "
                f"trial {trial.number}. Pass a place= that all workers share"
            )
            raise InputError(msg)
        training = Training(
            checkpoint=place,
            checkpoint_every=SAVE_SECONDS,
            resume=True,
            memory=job.memory,
            time_limit=left if left < float("inf") else None,
        )
    model.fit(job.train, training=training)
    return time.perf_counter() - start


def write_record(job: Job, trial: Trial) -> None:
    """Put the record of a trial in place, as a whole."""
    content = asdict(trial) | {
        "measures": [
            {"iterations": iterations, **measure._asdict()}
            for iterations, measure in sorted(trial.measures.items())
        ]
    }
    place = job.record(trial.number)
    with files.writing(place):
        files.replace(place, json.dumps(content, indent=1).encode())


def read_record(job: Job, trial: Trial) -> None:
    """Give a trial the measures that are on record."""
    try:
        content: dict[str, Any] = files.read_json(job.record(trial.number))
    except FileNotFoundError:
        return
    for each in content["measures"]:
        trial.measures[int(each["iterations"])] = Measure(each["metric"], each["seconds"])
