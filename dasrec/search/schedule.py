"""Which trials are trained how far: random, grid, successive halving, Hyperband."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from dasrec.errors import InputError
from dasrec.search.base import Trial

STRATEGIES = ("random", "grid", "halving", "hyperband")
ETA = 3


class Rung(NamedTuple):
    """So many trials go on until each has done so many iterations."""

    n: int
    iterations: int


Bracket = tuple[Rung, ...]
"""Rungs of trials that compete; on each fewer go on, for more iterations."""


def cost(bracket: Bracket) -> int:
    """Count the iterations of a bracket whose trials go on from where they are."""
    steps = pairwise([0, *(rung.iterations for rung in bracket)])
    return sum(rung.n * (to - begun) for rung, (begun, to) in zip(bracket, steps, strict=True))


def levels(most: int, eta: int) -> list[int]:
    """Return most / eta^k, whole and at least 1, ascending."""
    found = [most]
    while found[0] >= eta:
        found.insert(0, found[0] // eta)
    return found


def ladder(n: int, steps: Sequence[int], eta: int) -> Bracket:
    """Return the bracket that begins with ``n`` trials and keeps one of ``eta`` after each rung."""
    return tuple(Rung(max(1, n // eta**k), iterations) for k, iterations in enumerate(steps))


def plan_brackets(
    strategy: str, *, most: int, budget: int | None, n_grid: int | None
) -> list[Bracket]:
    """Plan who is trained how far.

    Parameters
    ----------
    strategy : str
        One of :data:`STRATEGIES`; ``halving`` and ``hyperband`` keep one of 3 trials, or one of 4
        as ``halving:4``.
    most : int
        Iterations of a trial that is never dropped.
    budget : int or None
        Iterations of all trials together, at most; only a grid can do without.
    n_grid : int or None
        How many configurations there are; None if without end.

    Raises
    ------
    InputError
        The strategy is unknown, there is no budget, or it is less than the least search takes.

    Notes
    -----
    A trial goes on from its checkpoint, so that a rung costs what it adds: ``n`` trials in rungs of
    r, r eta, ..., R iterations take n r (1 + s (1 - 1 / eta)) of them, with s = log_eta(R / r);
    to train each rung anew takes n r (1 + s). Jamieson and Talwalkar, "Non-stochastic best arm
    identification and hyperparameter optimization", AISTATS 2016. Hyperband gives equal parts of
    the budget to brackets that begin at each of these levels, the lowest first, since nobody knows
    how early bad configurations show. Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar,
    "Hyperband", JMLR 18 (2018).
    """
    kind, eta = _parse(strategy)
    if kind == "grid":
        return [_whole_grid(most, budget, n_grid)]
    if budget is None:
        msg = f"budget is missing; {strategy} needs the iterations of all trials together"
        raise InputError(msg)
    steps = levels(most, eta) if kind in ("halving", "hyperband") else [most]
    starts = range(len(steps)) if kind == "hyperband" else [0]
    left = budget if n_grid is None else n_grid
    brackets = []
    for start in starts:
        n = _affordable(budget // len(starts), steps[start:], eta, left)
        if n:
            brackets.append(ladder(n, steps[start:], eta))
            left -= n
        elif left:
            least = most * len(starts)
            msg = f"budget is {budget} iterations; {strategy} of {most} takes at least {least}"
            raise InputError(msg)
    return brackets


def _parse(strategy: str) -> tuple[str, int]:
    kind, colon, eta = strategy.partition(":")
    if kind in STRATEGIES and not colon:
        return kind, ETA
    if kind in ("halving", "hyperband") and eta.isdecimal() and int(eta) >= 2:
        return kind, int(eta)
    msg = f"strategy is {strategy!r}; expected one of: {', '.join(STRATEGIES)}, halving:4"
    raise InputError(msg)


def _whole_grid(most: int, budget: int | None, n_grid: int | None) -> Bracket:
    if n_grid is None:
        msg = "a grid was asked for over a distribution; expected lists of values, or random"
        raise InputError(msg)
    if budget is not None and budget < n_grid * most:
        msg = (
            f"budget is {budget} iterations; the grid has {n_grid} configurations of {most}, which "
            f"is {n_grid * most}. Give that, or take random or halving"
        )
        raise InputError(msg)
    return (Rung(n_grid, most),)


def _affordable(budget: int, steps: Sequence[int], eta: int, most: int) -> int:
    """Return with how many trials a bracket may begin; the more, the more it costs."""
    numbers = range(1, min(most, budget // steps[0]) + 1)
    return bisect_right(numbers, budget, key=lambda n: cost(ladder(n, steps, eta)))


def survivors(trials: Sequence[Trial], iterations: int, n: int) -> list[Trial]:
    """Return the ``n`` best after so many iterations; of equals the first, NaN last."""

    def rank(trial: Trial) -> tuple[float, int]:
        metric = trial.measures[iterations].metric
        return (np.inf if np.isnan(metric) else -metric, trial.number)

    return sorted(sorted(trials, key=rank)[:n], key=lambda trial: trial.number)
