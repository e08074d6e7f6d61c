"""Metrics as records: what a block of users gives, and what the sum over blocks means.

docs/metrics.md states every formula with its denominator and its source; a test holds it to these
tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dasrec.checks import check_choice
from dasrec.errors import InputError
from dasrec.metrics import conventions, found, listed
from dasrec.metrics.base import Doubles, Items, Metric, Predicted, Ranked, tally
from dasrec.metrics.facts import Groups, facts_of, groups_of, with_directions

USUAL = (
    found.RMSE,
    found.MAE,
    found.PRECISION,
    found.RECALL,
    found.NDCG,
    found.MAP,
    found.MRR,
    found.HIT_RATE,
    listed.ITEM_COVERAGE,
)
"""What is measured if nothing is named."""

METRICS: Mapping[str, Metric] = {
    metric.name: metric for metric in (*USUAL, *found.OTHERS, *listed.OTHERS, found.LOG_LOSS)
}
"""All metrics by name, as this library defines them."""

CONVENTIONS: Mapping[str, Mapping[str, Metric]] = {
    library: {name: METRICS[name] for name in names}
    | {metric.name: metric for metric in conventions.TABLES[library]}
    for library, names in conventions.LISTS.items()
}
"""What other libraries have by the same names, as they define them."""

__all__ = [
    "CONVENTIONS",
    "METRICS",
    "USUAL",
    "Doubles",
    "Groups",
    "Items",
    "Metric",
    "Predicted",
    "Ranked",
    "choose_metrics",
    "facts_of",
    "groups_of",
    "metrics_of",
    "tally",
    "with_directions",
]


def metrics_of(compat: str | None = None) -> Mapping[str, Metric]:
    """Return the metrics of a convention by name; None: our own."""
    if compat is None:
        return METRICS
    return CONVENTIONS[check_choice(compat, name="compat", choices=CONVENTIONS)]


def choose_metrics(
    names: Sequence[str] | None, *, predicts_values: bool, compat: str | None = None
) -> tuple[Metric, ...]:
    """Return the metrics of these names; None: the usual ones that mean something for the model.

    Raises
    ------
    InputError
        A name or the convention is unknown, or RMSE, MAE or log loss is asked of what predicts no
        values.
    """
    known = metrics_of(compat)
    if names is None:
        usual = [known[each.name] for each in USUAL if each.name in known]
        return tuple(each for each in usual if predicts_values or each.kind != "values")
    chosen = []
    for name in [names] if isinstance(names, str) else names:
        if name not in known:
            whose = "" if compat is None else f" to compat={compat!r}"
            msg = f"metric {name!r} is unknown{whose}; expected some of: {', '.join(known)}"
            raise InputError(msg)
        if known[name].kind == "values" and not predicts_values:
            msg = f"{name} needs predicted values, and what is measured only ranks; leave it out"
            raise InputError(msg)
        chosen.append(known[name])
    return tuple(chosen)
