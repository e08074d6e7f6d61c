"""Slow twins of gradient descent: plain loops, written from the formulas, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Doubles = np.ndarray[Any, np.dtype[np.float64]]


def explicit_loss(
    error_of: tuple[float, float], x: Doubles, y: Doubles, regularization: float, *, biased: bool
) -> float:
    """Return what a step at one cell goes down: half a squared error, and half the squares."""
    value, offset = error_of
    both = x[:-1] @ y[:-1] + (x[-1] + y[-1] if biased else 0.0)
    width = len(x) if biased else len(x) - 1
    squares = (x[:width] ** 2).sum() + (y[:width] ** 2).sum()
    return float((value - offset - both) ** 2 / 2 + regularization / 2 * squares)


def explicit_descent(
    cells: Sequence[tuple[int, int, float]], users: Doubles, items: Doubles, rule: Any
) -> tuple[Doubles, Doubles, float]:
    """Take the steps of :func:`dasrec.kernels.stochastic.descend_cells` one after the other."""
    users, items, total = users.copy(), items.copy(), 0.0
    k, rate, shrink = rule.factors, float(rule.rate), float(rule.regularization)
    for row, column, value in cells:
        x, y = users[row].copy(), items[column].copy()
        error = value - float(rule.offset) - x[k] - y[k] - sum(x[p] * y[p] for p in range(k))
        total += error**2
        for p in range(k):
            users[row, p] += rate * (error * y[p] - shrink * x[p])
            items[column, p] += rate * (error * x[p] - shrink * y[p])
        if rule.biased:
            users[row, k] += rate * (error - shrink * x[k])
            items[column, k] += rate * (error - shrink * y[k])
    return users, items, total


def pair_loss(x: Doubles, y: Doubles, z: Doubles, regularization: float) -> float:
    """Return what a step of BPR goes down; the last number of y and z is a bias."""
    difference = x[:-1] @ (y[:-1] - z[:-1]) + y[-1] - z[-1]
    squares = (x[:-1] ** 2).sum() + (y**2).sum() + (z**2).sum()
    return float(np.log1p(np.exp(-difference)) + regularization / 2 * squares)


def top_loss(x: Doubles, y: Doubles, z: Doubles, regularization: float, rank: int) -> float:
    """Return what a step of WARP goes down, for an item of a rank."""
    near = 1 - x[:-1] @ (y[:-1] - z[:-1]) - y[-1] + z[-1]
    squares = (x[:-1] ** 2).sum() + (y**2).sum() + (z**2).sum()
    weight = sum(1 / r for r in range(1, rank + 1))
    return float(weight * max(0.0, near) + regularization / 2 * squares)


def step_down(loss: Any, vectors: Sequence[Doubles], rate: float) -> list[Doubles]:
    """Move all vectors at once against the gradient of a loss, by central differences."""
    moved = [each.copy() for each in vectors]
    for which, vector in enumerate(vectors):
        for place in range(len(vector)):
            ends = []
            for nudge in (1e-6, -1e-6):
                shifted = [each.copy() for each in vectors]
                shifted[which][place] += nudge
                ends.append(loss(*shifted))
            moved[which][place] -= rate * (ends[0] - ends[1]) / 2e-6
    return moved


def scored_loss(
    kind: str, vectors: Sequence[Doubles], logs: Sequence[float], cell: tuple[float, ...]
) -> float:
    """Return the loss of one user's scores for an item that it has and for others it has not.

    Vectors are those of the user and of the items, a bias last; of ratings both have one. The cell
    is its value and what is predicted without vectors, or the weight of a rank.
    """
    x, items = vectors[0], vectors[1:]
    scores = [x[:-1] @ y[:-1] + y[-1] - log for y, log in zip(items, logs, strict=True)]
    if kind == "squared":
        return float((cell[0] - cell[1] - x[-1] - scores[0]) ** 2 / 2)
    if kind == "pairs":
        return float(np.log1p(np.exp(scores[1] - scores[0])))
    if kind == "top":
        return float(cell[0] * max(0.0, 1 - scores[0] + scores[1]))
    if kind == "logistic":
        lost = np.log1p(np.exp(-scores[0])) + sum(np.log1p(np.exp(each)) for each in scores[1:])
        return float(lost)
    return float(np.log(sum(np.exp(each) for each in scores)) - scores[0])


class Slowly:
    """What becomes of gradients: the rules of the papers, one number after the other."""

    def __init__(self, kind: str, rate: float) -> None:
        self.kind, self.rate, self.kept = kind, rate, dict[Any, list[float]]()

    def move(self, name: Any, number: float, slope: float) -> float:
        """Return a number after a step, which it is known by its name for."""
        first, second, steps = self.kept.get(name, [0.0, 0.0, 0.0])
        if self.kind == "plain":
            return number - self.rate * slope
        if self.kind == "momentum":
            first = 0.9 * first - slope
            moved = number + self.rate * first
        elif self.kind == "adagrad":
            second += slope**2
            moved = number - self.rate * slope / (np.sqrt(second) + 1e-8)
        else:
            steps += 1
            first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
            unbiased = first / (1 - 0.9**steps), second / (1 - 0.999**steps)
            moved = number - self.rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
        self.kept[name] = [first, second, steps]
        return float(moved)


def timed_descent(
    cells: Sequence[tuple[int, int, float, float]], users: Doubles, items: Doubles, rule: Any
) -> tuple[Doubles, Doubles, float]:
    """Take steps of biases that move in time: down the slopes, which are found by differences."""
    users, items, total = users.copy(), items.copy(), 0.0
    k, n_bins = rule.factors, items.shape[1] - rule.factors - 1
    for row, column, value, time in cells:
        bin_ = k + 1 + min(int(time * n_bins), n_bins - 1)
        own = [*range(k + 1), bin_]
        middle = users[row, k + 2]
        bent = np.sign(time - middle) * abs(time - middle) ** 0.4

        def loss(x: Doubles, y: Doubles, value: float = value, bent: float = float(bent)) -> float:
            predicted = (
                float(rule.offset) + x[:k] @ y[:k] + x[k] + x[k + 1] * bent + y[k] + y[k + 1]
            )
            return float((value - predicted) ** 2 / 2)

        vectors = [users[row, : k + 2], items[column, own]]
        total += 2 * loss(*vectors)
        shrink = float(rule.rate * rule.regularization)
        moved = step_down(loss, vectors, float(rule.rate))
        users[row, : k + 2] = moved[0] - shrink * vectors[0]
        items[column, own] = moved[1] - shrink * vectors[1]
    return users, items, total
