"""What a search is told, and what it knows of its trials."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from dasrec.checks import check_choice, check_count, check_fraction
from dasrec.training import Training
from dasrec.typing import Rng

Parallel = Literal["auto", "trials", "blocks"]


@dataclass(frozen=True)
class Trials:
    """How the trials of a search run; pass it as ``search(..., trials=...)``.

    Parameters
    ----------
    users : float, optional
        Train and measure on a random share of the users, between 0 and 1. Parameters are found, and
        told, for the whole: trials get them scaled by :func:`dasrec.for_sample`.
    tested : int
        Of how many tested users at most the metric is taken, as by :func:`dasrec.holdout`.
    parallel : {"auto", "trials", "blocks"}
        "trials" run side by side, each by one thread alone; of "blocks" each trial in turn takes
        all threads, or the whole cluster. "auto" runs trials side by side on a client whose workers
        can hold one a thread, else blocks. All give the same bits.
    place : path or fsspec URL, optional
        A folder for a record of each trial and its checkpoint, which all workers must reach. The
        same search goes on from it. Without one a temporary folder of this machine is used.
    time_limit : seconds, or text like "10min", optional
        Begin no iteration that would end later; what has been measured till then is the result.
    memory : bytes or text like "2GB", optional
        What this process, or each worker of a client, may hold.
    rng : int, numpy.random.Generator or None
        Seed of the configurations, the samples, and of models that have none. None takes a fresh
        one, or that of the search in ``place``.
    """

    users: float | None = None
    tested: int = 2000
    parallel: Parallel = "auto"
    place: str | os.PathLike[str] | None = None
    time_limit: float | str | None = None
    memory: str | int | None = None
    rng: Rng = None

    def check(self) -> None:
        """Refuse what is out of range."""
        if self.users is not None:
            check_fraction(self.users, name="users")
        check_count(self.tested, name="tested")
        check_choice(self.parallel, name="parallel", choices=("auto", "trials", "blocks"))
        Training(time_limit=self.time_limit).check()


class Measure(NamedTuple):
    """What a trial has come to: the metric, the larger the better, and seconds of training."""

    metric: float
    seconds: float


@dataclass
class Trial:
    """One configuration, and its measures by iterations."""

    number: int
    bracket: int
    parameters: dict[str, Any]
    measures: dict[int, Measure] = field(default_factory=dict)

    @property
    def iterations(self) -> int:
        """How far it has been trained and measured."""
        return max(self.measures, default=0)
