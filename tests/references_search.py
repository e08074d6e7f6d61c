"""Slow twins of the schedules of a search: plain loops, written from the papers."""

from __future__ import annotations

from collections.abc import Callable


def levels(most: int, eta: int) -> list[int]:
    """Li et al. 2018, algorithm 1, lines 1 and 5: R eta^-s .. R, rounded down."""
    s_max = 0
    while eta ** (s_max + 1) <= most:
        s_max += 1
    found = []
    for s in range(s_max, -1, -1):
        iterations = most
        for _ in range(s):
            iterations = iterations // eta
        found.append(iterations)
    return found


def halving(
    trials: list[int], steps: list[int], eta: int, metric: Callable[[int, int], float]
) -> list[tuple[int, list[int]]]:
    """Return which trials are trained to each level; of equals the first goes on."""
    begun = len(trials)
    done = []
    for k, iterations in enumerate(steps):
        done.append((iterations, sorted(trials)))
        keep = begun
        for _ in range(k + 1):
            keep = keep // eta
        left = list(trials)
        trials = []
        while left and len(trials) < max(1, keep):
            best = left[0]
            for trial in left:
                here, there = metric(trial, iterations), metric(best, iterations)
                if here > there or (here == there and trial < best):
                    best = trial
            left.remove(best)
            trials.append(best)
    return done


def iterations_done(rungs: list[tuple[int, list[int]]]) -> int:
    """Count iterations one by one, each trial going on from where it is."""
    at: dict[int, int] = {}
    total = 0
    for iterations, trials in rungs:
        for trial in trials:
            while at.get(trial, 0) < iterations:
                at[trial] = at.get(trial, 0) + 1
                total += 1
    return total
