"""Tables of what was measured and listed, as fragments of HTML that are safe already."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from dasrec.checks import check_columns
from dasrec.schema import BY_GROUP, ITEM_ID, METRIC, MODEL, RANK, REASON, REASON_ID, USER_ID, N

NOT_MEASURED = "\N{EN DASH}"
_LOWER_IS_BETTER = frozenset({"rmse", "mae", "log_loss", "calibration", "gini"})


def with_models(measured: xr.Dataset) -> xr.Dataset:
    """Give the measures of a single model the dim that those of several have."""
    if MODEL in measured.dims:
        return measured
    name = np.asarray(measured.coords.get(MODEL, measured.attrs.get(MODEL, MODEL)))
    return measured.drop_vars(MODEL, errors="ignore").expand_dims({MODEL: [str(name)]})


def names_of(measured: xr.Dataset | xr.DataArray) -> list[str]:
    """Return the names of the models."""
    return [str(name) for name in measured[MODEL].values]


def tabulate(evaluation: xr.Dataset) -> pd.DataFrame:
    """Return a row a metric and length (``ndcg@10``), a column a model and group."""
    whole = with_models(evaluation)
    dims = [dim for dim in (MODEL, *BY_GROUP) if dim in whole.dims]
    labels = [pd.Index(whole[dim].values, name=dim) for dim in dims]
    columns = pd.MultiIndex.from_product(labels) if len(dims) > 1 else labels[0].rename(None)
    blank = xr.DataArray(np.zeros([len(each) for each in labels]), dims=dims)
    rows = {}
    for name, each in whole.drop_vars(dims).data_vars.items():
        lengths = whole[N].values if N in each.dims else [None]
        for place, n in enumerate(lengths):
            values = each if n is None else each.isel({N: place}, drop=True)
            key = f"{name}" if n is None else f"{name}@{n}"
            rows[key] = (blank + values).transpose(*dims).values.ravel()
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def metric_table(evaluation: xr.Dataset) -> str:
    """Return an escaped HTML table: a row a metric and length (``ndcg@10``), a column a model.

    ``evaluation`` is as for :func:`metric_bars`, or by groups, which have a column each. The best
    model of a row is bold (the lowest, where less is better); a dash is what was not measured.
    """
    table: Any = tabulate(evaluation)
    n_models = with_models(evaluation).sizes[MODEL]
    columns = [each if isinstance(each, tuple) else (each,) for each in table.columns]
    if n_models == 1 and len(columns[0]) > 1:  # its groups say enough
        columns = [each[1:] for each in columns]
    names = "".join(
        f'<th scope="col" class="number">{escape(" / ".join(map(str, each)))}</th>'
        for each in columns
    )
    rows = ""
    for key, values in zip(table.index, table.values, strict=True):
        name = key.partition("@")[0]
        by_group = values.reshape(n_models, -1).T
        texts = np.array([_column(name, each) for each in by_group]).T.ravel()
        formula = escape(str(evaluation[name].attrs.get("formula", "")))
        cells = "".join(f'<td class="number">{text}</td>' for text in texts)
        rows += f'<tr><th scope="row" title="{formula}">{escape(key)}</th>{cells}</tr>\n'
    return (
        f'<table class="metrics">\n<thead><tr><th scope="col">Metric</th>{names}</tr></thead>\n'
        f"<tbody>\n{rows}</tbody>\n</table>"
    )


def _column(name: str, values: NDArray[np.floating]) -> list[str]:
    """Return the figures of one metric; what prints like the best is as good as the best."""
    texts = [f"{value:.4f}" if np.isfinite(value) else NOT_MEASURED for value in values]
    found = [text for text in texts if text != NOT_MEASURED]
    choose = min if name in _LOWER_IS_BETTER else max
    best = choose(found, key=float) if len(found) > 1 else None
    return [f"<strong>{text}</strong>" if text == best else text for text in texts]


def list_table(lists: pd.DataFrame) -> str:
    """Return an escaped HTML table of recommendation lists, grouped by user.

    ``lists`` has the columns ``user_id``, ``rank`` (from 1), ``item_id``, ``score`` and perhaps
    ``title``; every row is printed, users in their order. Raises :class:`InputError` if one lacks.
    """
    check_columns(list(lists.columns), (USER_ID, RANK, ITEM_ID, "score"), where="lists")
    titled = '<th scope="col">Title</th>' if "title" in lists else ""
    head = (
        '<th scope="col">User</th><th scope="col" class="number">Rank</th>'
        f'<th scope="col">Item</th>{titled}<th scope="col" class="number">Score</th>'
    )
    groups = "".join(
        f"<tbody>\n{_list_rows(user, group.sort_values(RANK))}</tbody>\n"
        for user, group in lists.groupby(USER_ID, sort=False, dropna=False)
    )
    return f'<table class="lists">\n<thead><tr>{head}</tr></thead>\n{groups}</table>'


def _list_rows(user: Hashable, group: pd.DataFrame) -> str:
    names = [ITEM_ID, "title"] if "title" in group else [ITEM_ID]
    texts = group[names].astype("object").where(group[names].notna(), NOT_MEASURED)
    start = f'<th scope="rowgroup" rowspan="{len(group)}">{escape(str(user))}</th>'
    rows = ""
    columns = [group[RANK], group["score"], *(texts[name] for name in names)]
    for rank, score, *shown in zip(*columns, strict=True):
        cells = "".join(f"<td>{escape(str(text))}</td>" for text in shown)
        rows += f'<tr>{start}<td class="number">{rank}</td>{cells}'
        rows += f'<td class="number">{score:.4g}</td></tr>\n'
        start = ""  # the user's cell spans all rows
    return rows


def certainty_table(measured: xr.Dataset) -> str:
    """Return an escaped HTML table: a row a metric, length and model, with intervals and p-values.

    ``measured`` is what :func:`dasrec.compare` or :func:`dasrec.intervals` returns. Differences
    that are more than chance at its level, corrected for the number of models, are bold.
    """
    whole = with_models(measured)
    level = f"{100 * measured.attrs['level']:g} % interval"
    heads = ["Metric", "Model", "Mean", level]
    compared = "difference" in whole
    if compared:
        heads += ["Difference", level, "p", "p (Holm)"]
    head = "".join(
        f'<th scope="col"{" class='number'" if place > 1 else ""}>{escape(text)}</th>'
        for place, text in enumerate(heads)
    )
    groups = ""
    for metric in whole[METRIC].values:
        for n in whole[N].values:
            rows, name = "", escape(f"{metric}@{n}")
            start = f'<th scope="rowgroup" rowspan="{whole.sizes[MODEL]}">{name}</th>'
            for model in range(whole.sizes[MODEL]):
                cell = whole.isel({MODEL: model}).sel({METRIC: metric, N: n})
                rows += f"<tr>{start}{_cells(cell, compared=compared)}</tr>\n"
                start = ""  # the cell of the metric spans all rows
            groups += f"<tbody>\n{rows}</tbody>\n"
    return f'<table class="lists">\n<thead><tr>{head}</tr></thead>\n{groups}</table>'


def _cells(cell: xr.Dataset, *, compared: bool) -> str:
    at = {str(name): float(each) for name, each in cell.data_vars.items()}
    texts = [_number(at["value"]), _range(at["low"], at["high"])]
    if compared:
        difference = _number(at["difference"], sign="+")
        if at["p_holm"] <= 1 - cell.attrs["level"]:
            difference = f"<strong>{difference}</strong>"
        texts += [difference, _range(at["difference_low"], at["difference_high"], sign="+")]
        texts += [_chance(at[name]) for name in ("p", "p_holm")]
    numbers = "".join(f'<td class="number">{text}</td>' for text in texts)
    return f"<td>{escape(str(cell[MODEL].item()))}</td>{numbers}"


def _number(value: float, *, sign: str = "") -> str:
    return f"{value:{sign}.4f}" if np.isfinite(value) else NOT_MEASURED


def _range(low: float, high: float, *, sign: str = "") -> str:
    if np.isnan(low):
        return NOT_MEASURED
    return f"{_number(low, sign=sign)} to {_number(high, sign=sign)}"


def _chance(p: float) -> str:
    return "&lt; 0.0001" if p < 0.00005 else _number(p)


def fact_list(facts: Mapping[str, object]) -> str:
    """Return an escaped HTML list of names and values."""
    rows = "".join(
        f"<dt>{escape(name).replace('_', '_<wbr>')}</dt><dd>{escape(str(value))}</dd>\n"
        for name, value in facts.items()
    )
    return f"<dl>\n{rows}</dl>"


def reason_table(explanation: xr.Dataset) -> str:
    """Return an escaped HTML table: a row an item that is recommended, with what speaks for it.

    ``explanation`` is what :func:`dasrec.explain` returns, with ``title`` and ``reason_title`` if
    ids say little. Each reason has what it adds, or its cosine, in brackets. There is a column for
    what of the score is offset, if something is.
    """
    titles = explanation["title" if "title" in explanation else ITEM_ID].values
    told = "reason_title" if "reason_title" in explanation else REASON_ID
    names = explanation[told].transpose(RANK, REASON).values
    adds = explanation["contribution"].transpose(RANK, REASON).values
    offset, rows = explanation["offset"].values, ""
    shown = bool(np.abs(offset).max(initial=0) > 0)
    for place, (rank, score) in enumerate(
        zip(explanation[RANK].values, explanation["score"].values, strict=True)
    ):
        apart = f'<td class="number part">{offset[place]:.4g}</td>' if shown else ""
        because = "; ".join(
            f"{escape(str(name))} ({value:.3g})"
            for name, value in zip(names[place], adds[place], strict=True)
            if np.isfinite(value)
        )
        rows += (
            f'<tr><td class="number">{rank}</td><th scope="row">{escape(str(titles[place]))}</th>'
            f'<td class="number">{score:.4g}</td>{apart}<td class="long">{because}</td></tr>\n'
        )
    head = (
        '<th scope="col" class="number">Rank</th><th scope="col">Item</th>'
        '<th scope="col" class="number">Score</th>'
        f"{"<th scope='col' class='number'>Offset</th>" if shown else ''}"
        '<th scope="col">Because of</th>'
    )
    return (
        f'<table class="reasons">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}</tbody>\n</table>"
    )
