"""Compare models over the users of one split: how certain figures are, and which differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from dasrec import blocks
from dasrec.certainty import (
    REPLICATES,
    Doubles,
    Test,
    bounds,
    check_interval,
    holm,
    lay_out,
    p_values,
)
from dasrec.checks import check_choice
from dasrec.errors import InputError
from dasrec.evaluate import evaluate_users
from dasrec.measure import check_measurable
from dasrec.models.base import Model
from dasrec.results import Comparison
from dasrec.schema import METRIC, MODEL, USER, N
from dasrec.scorers import Rankable
from dasrec.split import Split
from dasrec.typing import Rng


@blocks.job("compare")
def compare(
    models: Sequence[Model] | Mapping[str, Rankable],
    split: Split,
    *,
    n: int | Sequence[int] = 10,
    metrics: Sequence[str] | None = None,
    test: Test = "randomisation",
    level: float = 0.95,
    rng: Rng = 0,
) -> Comparison:
    """Measure models on the test part of a split and compare all with the first, eagerly.

    Each is measured as by :func:`dasrec.evaluate`, and compared user by user.

    Parameters
    ----------
    models : sequence of Model, or mapping of names to models or to whatever ranks
        Two or more, models fitted on ``split.train``; the first is the baseline. Without names they
        have those of their kinds, ``als``, ``als-2`` and so on.
    split : Split
    n : int or several
        Lengths of lists.
    metrics : names, optional
        Means over users among :data:`dasrec.metrics.METRICS`; the usual ones if not given.
    test : {"randomisation", "wilcoxon", "t"}
        Random signs of the differences, signed ranks, or Student's paired test.
    level : float
        Of the confidence intervals.
    rng : int, numpy.random.Generator or None
        For the intervals and random signs; one seed gives the same on any cluster.

    Returns
    -------
    Comparison, an xarray.Dataset
        float64 variables, dims (model, metric, n): ``value``, ``low`` and ``high``, the mean over
        users and its interval; ``difference``, ``difference_low`` and ``difference_high``, the mean
        of value less that of the baseline over the users with both, and its interval; ``p``, the
        probability of a difference as large if there were none, and ``p_holm``, corrected for the
        number of models at each metric and n. Those of differences are NaN for the baseline.
        Attributes: ``split``, ``baseline``, ``test``, ``level``, ``replicates``, ``rng``,
        ``n_users``; ``seed`` of a random split.

    Raises
    ------
    InputError
        There are fewer than two models, a metric is no mean over users, or a value is out of range.
    MismatchError
        A model was fitted on something else than ``split.train``.

    See Also
    --------
    dasrec.intervals : of one model; what an interval is.

    Notes
    -----
    Cost: that of :func:`dasrec.evaluate_users` for each model, whose values stay in memory (8 bytes
    for each user, metric, n and model), and some 15 ns for each user, model and replicate, of which
    there are 1,000. Random signs take 10,000 of them, so for millions of users take ``"t"``, which
    then says the same. Holm: Scandinavian Journal of Statistics 6, 1979, 65.
    """
    named = _name(models)
    check_choice(test, name="test", choices=get_args(Test))
    how = check_interval(level=level, replicates=REPLICATES, rng=rng)
    for model in named.values():
        check_measurable(model, split)
    measured = [evaluate_users(model, split, n=n, metrics=metrics) for model in named.values()]
    tables = [lay_out(each) for each in measured]
    dims, shape = (MODEL, METRIC, N), (len(tables), *tables[0].shape[1:])
    columns = [table.values.reshape(table.sizes[USER], -1) for table in tables]
    found = _compare(columns, test=test, how=how)
    facts = {key: value for key, value in measured[0].attrs.items() if key != MODEL}
    chosen = {"baseline": next(iter(named)), "test": test, "n_users": tables[0].sizes[USER]}
    return Comparison(
        {name: (dims, each.reshape(shape)) for name, each in found.items()},
        coords={MODEL: list(named)} | {dim: tables[0][dim].values for dim in (METRIC, N)},
        attrs=facts | chosen | how,
    )


def _compare(columns: list[Doubles], *, test: Test, how: dict[str, Any]) -> dict[str, Doubles]:
    """Return each variable as an array of shape (n_models, n_columns)."""
    options = {"level": how["level"], "replicates": how["replicates"], "seed": how["rng"]}
    alone = [bounds(each, **options) for each in columns]
    blank = np.full(columns[0].shape[1], np.nan)
    apart, p = [dict.fromkeys(alone[0], blank)], [blank]
    for each in columns[1:]:
        differences = each - columns[0]
        apart.append(bounds(differences, **options))
        p.append(p_values(differences, test=test, seed=how["rng"]))
    names = {"value": "difference", "low": "difference_low", "high": "difference_high"}
    found = {name: np.stack([each[name] for each in alone]) for name in names}
    found |= {new: np.stack([each[name] for each in apart]) for name, new in names.items()}
    return found | {"p": np.stack(p), "p_holm": holm(np.stack(p))}


def _name(models: Sequence[Model] | Mapping[str, Rankable]) -> dict[str, Rankable]:
    """Give each model a name of its own."""
    if isinstance(models, Mapping):
        named = dict(models)
    else:
        named = {}
        for model in models:
            name, number = model.name, 2
            while name in named:
                name, number = f"{model.name}-{number}", number + 1
            named[name] = model
    if len(named) < 2:
        msg = (
            f"{len(named)} models are given; expected two or more, the baseline first; "
            "for one alone call intervals(evaluate_users(model, split))"
        )
        raise InputError(msg)
    return named
