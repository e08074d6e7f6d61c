"""What evaluations and comparisons are: datasets that show themselves, and records for JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from dasrec.cards import Card
from dasrec.errors import InputError
from dasrec.schema import BY_GROUP, METRIC, MODEL, N
from dasrec.tables import certainty_table, metric_table, names_of, tabulate, with_models

_NARROW = 100  # characters of a line of text
_COMPARED = ("value", "low", "high", "difference", "difference_low", "difference_high")


class _Result(xr.Dataset):  # type: ignore[no-untyped-call]
    """A dataset that shows itself as a table of its figures, as long as it has some."""

    __slots__ = ()

    def _title(self) -> str:
        models = names_of(with_models(self)) if MODEL in {*self.attrs, *self.coords} else []
        told = ", ".join(models) if len(models) < 4 else f"{len(models)} models"
        split = f" on {self.attrs['split']}" if "split" in self.attrs else ""
        users = f", {self.attrs['n_users']:,} users" if "n_users" in self.attrs else ""
        return f"{self._kind()}{f' of {told}' if told else ''}{split}{users}"

    def _kind(self) -> str:
        return type(self).__name__

    def _table(self) -> pd.DataFrame | None:
        """Return the figures as a table; None if there are none such, or if they are lazy."""
        raise NotImplementedError

    def _html_table(self) -> str:
        raise NotImplementedError

    def __repr__(self) -> str:
        table = self._table()
        if table is None:
            return super().__repr__()
        text = table.to_string(float_format="{:.4f}".format, na_rep="-", line_width=_NARROW)
        return f"<{self._title()}>\n{text}"

    def _repr_html_(self) -> str:
        whole = super()._repr_html_()
        if self._table() is None:
            return whole
        facts = {str(key).replace("_", " "): value for key, value in self.attrs.items()}
        for shown in (MODEL, "split", "n users"):
            facts.pop(shown, None)
        tables = (self._html_table(),)
        return Card(self._title(), facts, tables=tables, more={"as xarray": whole}).to_html()


class Evaluation(_Result):  # type: ignore[no-untyped-call]
    """What :func:`dasrec.evaluate` returns: an xarray.Dataset that shows itself as a table."""

    __slots__ = ()

    def _table(self) -> pd.DataFrame | None:
        """Return a row a metric and length, a column a model or group."""
        odd = [each for each in self.data_vars.values() if each.dtype.kind != "f"]
        if odd or not self.data_vars or self.chunks or not {*self.dims} <= {MODEL, N, *BY_GROUP}:
            return None
        return tabulate(self)

    def _html_table(self) -> str:
        return metric_table(self)


class Comparison(_Result):  # type: ignore[no-untyped-call]
    """What :func:`dasrec.compare` and :func:`dasrec.intervals` return, likewise."""

    __slots__ = ()

    def _kind(self) -> str:
        return "Comparison" if "difference" in self else "Intervals"

    def _table(self) -> pd.DataFrame | None:
        if (
            self.chunks
            or not {*_COMPARED[:3]} <= {*self.data_vars}
            or not {METRIC, N} <= {*self.dims}
        ):
            return None
        whole = with_models(self)
        names = [name for name in (*_COMPARED, "p", "p_holm") if name in whole]
        table = whole[names].to_dataframe(dim_order=[METRIC, N, MODEL])[names]
        places = [(f"{metric}@{n}", model) for metric, n, model in table.index]
        return table.set_axis(pd.MultiIndex.from_tuples(places, names=[None, None]), axis=0)

    def _html_table(self) -> str:
        return certainty_table(self)


def as_record(evaluation: xr.Dataset) -> dict[str, Any]:
    """Return an evaluation as one JSON-able object; ``metrics`` has keys like ``recall@20``.

    Groups follow the name: ``recall/tail@20``; ``groups`` says which there are.
    """
    figures: dict[str, float] = {}
    groups = {dim: evaluation[dim].values.tolist() for dim in BY_GROUP if dim in evaluation.dims}
    for name, values in evaluation.data_vars.items():
        for place in np.ndindex(values.shape):
            value = values[place]
            labels = "".join(f"/{value[dim].item()}" for dim in values.dims if dim != N)
            length = f"@{int(value[N])}" if N in values.dims else ""
            figures[f"{name}{labels}{length}"] = float(value)
    named = {"groups": groups} if groups else {}
    return {**evaluation.attrs, **named, "metrics": figures}


def as_records(comparison: xr.Dataset) -> dict[str, Any]:
    """Return a comparison as one JSON-able object; ``figures`` has one object a model and metric.

    Metrics are called like ``recall@20``; what is NaN is left out.
    """
    figures = []
    for model in comparison[MODEL].values:
        for metric in comparison[METRIC].values:
            for n in comparison[N].values:
                cell = comparison.sel({MODEL: model, METRIC: metric, N: n})
                known = {str(key): float(each) for key, each in cell.data_vars.items()}
                known = {key: value for key, value in known.items() if not np.isnan(value)}
                figures.append({"model": str(model), "metric": f"{metric}@{n}"} | known)
    return {**comparison.attrs, "figures": figures}


def from_record(record: Mapping[str, Any], *, where: str) -> Evaluation | Comparison:
    """Return the evaluation or comparison that :func:`as_record` or :func:`as_records` wrote down.

    Parameters
    ----------
    record : mapping
    where : str
        How messages call it.

    Raises
    ------
    InputError
        It is neither.
    """
    figures = record.get("figures", record.get("metrics"))
    rest = ("figures", "metrics", "groups")
    facts = {key: value for key, value in record.items() if key not in rest}
    try:
        if isinstance(figures, list):
            return _comparison(figures).assign_attrs(facts)
        if isinstance(figures, dict) and figures:
            return _evaluation(figures, record.get("groups", {})).assign_attrs(facts)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        msg = f"{where} is damaged: {type(error).__name__} {error}"
        raise InputError(msg) from error
    msg = f"{where} is no evaluation; expected what dasrec evaluate or compare print with --json"
    raise InputError(msg)


def _evaluation(figures: Mapping[str, float], groups: Mapping[str, Sequence[Any]]) -> Evaluation:
    lengths = sorted({int(end[1]) for key in figures if (end := re.search(r"@(\d+)$", key))})
    sizes = {dim: len(labels) for dim, labels in groups.items()} | {N: len(lengths)}
    places = _places(groups, lengths)
    found: dict[str, Any] = {}
    for key, figure in figures.items():
        name = re.split("[/@]", key, maxsplit=1)[0]
        dims, place = places[key[len(name) :]]
        blank = np.full([sizes[dim] for dim in dims], np.nan)
        found.setdefault(name, (dims, blank))[1][place] = figure
    return Evaluation(found, coords={**groups, N: lengths})


def _places(
    groups: Mapping[str, Sequence[Any]], lengths: Sequence[int]
) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """Return the dims and the place that each end of a name stands for, like ``/tail@20``."""
    sides = {dim: [f"/{label}" for label in labels] for dim, labels in groups.items()}
    sides[N] = [f"@{n}" for n in lengths]
    found = {}
    for most in range(len(sides) + 1):  # what can be told apart more goes before
        for dims in combinations(sides, most):
            for place in np.ndindex(*(len(sides[dim]) for dim in dims)):
                end = "".join(sides[dim][at] for dim, at in zip(dims, place, strict=True))
                found[end] = dims, place
    return found


def _comparison(figures: list[dict[str, Any]]) -> Comparison:
    table = pd.DataFrame(figures)
    table[[METRIC, N]] = table[METRIC].str.split("@", expand=True)
    table[N] = table[N].astype(int)
    order = {dim: pd.unique(table[dim]) for dim in (MODEL, METRIC, N)}
    whole = table.set_index([MODEL, METRIC, N]).astype(float).to_xarray().reindex(order)
    whole = whole.transpose(MODEL, METRIC, N)
    return Comparison(whole.data_vars, whole.coords)
