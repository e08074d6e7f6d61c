"""Metrics as records: what a block of users gives, and what the sum over blocks means.

docs/metrics.md states every formula with its denominator; a test holds it to this table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dasrec.errors import InputError
from dasrec.kernels import ranking
from dasrec.typing import Bools, Floats, Ints, Longs

Doubles = NDArray[np.float64]


class Ranked(NamedTuple):
    """Lists of one block of users, cut at n."""

    lists: Ints
    """int32, shape (n_users, n), -1 where a list has ended."""
    hits: Bools
    """bool, the same shape."""
    n_truth: Longs
    """int64, shape (n_users,), at least 1."""
    n_items: int


class Predicted(NamedTuple):
    """Predictions for the test interactions of one block."""

    values: Floats
    predictions: Floats


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes
    ----------
    name : str
    kind : {"ranking", "values"}
        Whether ``chunk`` takes a :class:`Ranked` (for each n) or a :class:`Predicted`.
    chunk : callable
        Gives a float64 vector for a block; blocks are combined by adding, in block order.
    finalize : callable
        Makes the figure of the sum.
    formula : str
        As docs/metrics.md prints it.
    """

    name: str
    kind: Literal["ranking", "values"]
    chunk: Callable[[Any], Doubles]
    finalize: Callable[[Doubles], float]
    formula: str


def _mean(total: Doubles) -> float:
    return float(total[0] / total[1]) if total[1] else float("nan")


def _per_user(values: Callable[[Bools, Longs], Doubles], block: Ranked) -> Doubles:
    each = values(block.hits, block.n_truth)
    return np.array([each.sum(), len(each)])


def _user_mean(name: str, values: Callable[[Bools, Longs], Doubles], formula: str) -> Metric:
    return Metric(name, "ranking", partial(_per_user, values), _mean, formula)


def _shown(block: Ranked) -> Doubles:
    listed = block.lists[block.lists >= 0]
    return np.bincount(listed, minlength=block.n_items).astype(np.float64)


def _squares(block: Predicted) -> Doubles:
    errors = block.values.astype(np.float64) - block.predictions
    return np.array([np.square(errors).sum(), len(errors)])


def _distances(block: Predicted) -> Doubles:
    errors = block.values.astype(np.float64) - block.predictions
    return np.array([np.abs(errors).sum(), len(errors)])


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "rmse",
            "values",
            _squares,
            lambda t: float(np.sqrt(_mean(t))),
            "sqrt(sum (r - p)^2 / |test|)",
        ),
        Metric("mae", "values", _distances, _mean, "sum |r - p| / |test|"),
        _user_mean("precision", ranking.precision, "|hits| / n"),
        _user_mean("recall", ranking.recall, "|hits| / |truth|"),
        _user_mean("ndcg", ranking.ndcg, "DCG / ideal DCG of min(n, |truth|) hits"),
        _user_mean(
            "map",
            ranking.average_precision,
            "sum over hits of precision at its rank / min(n, |truth|)",
        ),
        _user_mean("mrr", ranking.reciprocal_rank, "1 / rank of the first hit"),
        _user_mean("hit_rate", ranking.hit_rate, "1 if there is a hit, else 0"),
        Metric(
            "item_coverage",
            "ranking",
            _shown,
            lambda total: float((total > 0).mean()),
            "|items in any list| / n_items",
        ),
    )
}


def choose_metrics(names: Sequence[str] | None, *, predicts_values: bool) -> tuple[Metric, ...]:
    """Return the metrics of these names; None: all that mean something for the model.

    Raises
    ------
    InputError
        A name is unknown, or RMSE or MAE is asked of a model whose scores are not values.
    """
    if names is None:
        return tuple(m for m in METRICS.values() if predicts_values or m.kind == "ranking")
    chosen = []
    for name in [names] if isinstance(names, str) else names:
        if name not in METRICS:
            msg = f"metric {name!r} is unknown; expected some of: {', '.join(METRICS)}"
            raise InputError(msg)
        if METRICS[name].kind == "values" and not predicts_values:
            msg = f"{name} needs predicted values, and this model only ranks; leave it out"
            raise InputError(msg)
        chosen.append(METRICS[name])
    return tuple(chosen)
