"""Whole pages about a store, its models and how they compare, composed of the parts in report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from dasrec.cards import told
from dasrec.checks import check_columns
from dasrec.errors import InputError
from dasrec.explain import explain
from dasrec.interactions import Interactions
from dasrec.models import Model
from dasrec.report import (
    Section,
    activity_curve,
    by_unit,
    certainty_table,
    difference_points,
    fact_list,
    group_bars,
    heat_map,
    interval_points,
    item_map,
    learning_curve,
    list_table,
    long_tail,
    metric_bars,
    metric_table,
    reason_bars,
    reason_table,
)
from dasrec.schema import BY_GROUP, ITEM, RANK, REASON, USER_ITEMS, N
from dasrec.summaries import count_in_time, count_on_grid, count_tails, place_items

SAMPLED_USERS = 5
EXPLAINED_USERS = 3
_MATRIX = (
    "Who has most interactions comes first. A bin is the darker, the more of its cells are stored; "
    "where nobody has used anything it is blank."
)
_MAP = "What is near is liked by the same users; the axes themselves mean nothing."
_WHY = {
    "contributions": (
        "What user {user_id} would be recommended, and what each of their {n_seen} items adds to "
        "a score: exactly, if the vectors of items are taken as they are. The offset comes of none "
        "of them."
    ),
    "cosine": (
        "What user {user_id} would be recommended, and which of their {n_seen} items {model} sees "
        "as most alike. Cosines do not add up to the score: that is the product of the user and "
        "the item, and the offset, which the item has whoever the user is."
    ),
}
_SHOWN = (
    "Split {split}. Every user with something to find gets a list over the full catalogue, "
    "without what is known of them."
)
_TESTS = {
    "randomisation": "random signs of the differences",
    "wilcoxon": "Wilcoxon's signed rank test",
    "t": "Student's paired t-test",
}


def read_titles(place: str) -> pd.Series:
    """Read the titles of items from a CSV with the columns ``item_id`` and ``title``.

    Raises
    ------
    InputError
        It is no CSV, or lacks a column.
    """
    return _read_column(place, "item_id", "title")


def read_groups(
    interactions: Interactions, users: str | None, items: str | None
) -> dict[str, Any] | None:
    """Read the groups that :func:`dasrec.evaluate` takes from CSV files.

    Parameters
    ----------
    interactions : Interactions
        Whose users and items they are; what a file does not name belongs to no group.
    users, items : path, optional
        Columns ``user_id`` or ``item_id``, and ``group``; for items also ``"popularity"``.

    Returns
    -------
    dict or None
        None if nothing is given.

    Raises
    ------
    InputError
        A file is no CSV or lacks a column, or none of its ids are known.
    """
    groups: dict[str, Any] = {}
    for side, place in (("user", users), ("item", items)):
        if place is None or (side, place) == ("item", "popularity"):
            groups |= {side: place} if place else {}
            continue
        ids = getattr(interactions, f"{side}_ids").ids
        labels = _read_column(place, f"{side}_id", "group", text=ids.dtype != np.int64)
        groups[side] = labels.reindex(ids).to_numpy(object)
    return groups or None


def _read_column(place: str, key: str, column: str, *, text: bool = False) -> pd.Series:
    """Return a column of a CSV by that of ids, which may be text even if they look like numbers."""
    try:
        table = pd.read_csv(place, dtype={key: str} if text else None)
    except ValueError as error:
        msg = f"{place} is not readable as CSV: {error}"
        raise InputError(msg) from error
    check_columns(list(table.columns), (key, column), where=place)
    if table[key].duplicated().any():
        twice = table[key][table[key].duplicated()].iloc[0]
        msg = f"{place} has {key} {twice} more than once; expected one {column} for each"
        raise InputError(msg)
    return table.set_index(key)[column]


def describe(
    interactions: Interactions, models: Sequence[Model] = (), evaluation: xr.Dataset | None = None
) -> list[Section]:
    """Return the sections of a page about a store, and perhaps models fitted on it, eagerly."""
    density = interactions.n_stored / interactions.n_users / interactions.n_items
    text = (
        f"{interactions.n_users:,} users, {interactions.n_items:,} items, "
        f"{interactions.n_stored:,} interactions: {100 * density:.2f} % of the matrix."
    )
    counts = count_tails(interactions)
    tails = (long_tail(counts["user_counts"]), long_tail(counts["item_counts"]))
    audit = interactions.audit.to_dataframe().reset_index()
    sections = [Section("The log", text=text, html=(audit.to_html(index=False, border=0),))]
    if interactions.has_timestamps:
        drawn = activity_curve(count_in_time(interactions))
        sections.append(Section("Activity", figures=(drawn,)))
    sections.append(Section("Long tails", figures=tails))
    sections.append(Section("The matrix", _MATRIX, (heat_map(count_on_grid(interactions)),)))
    learned = [model for model in models if hasattr(model, "history_")]
    if learned:
        curves = xr.concat(
            [model.history_[["objective"]] for model in learned],
            dim=pd.Index([model.name for model in learned], name="model"),
            join="outer",
        )
        sections.append(Section("Learning", figures=(learning_curve(curves),)))
    if evaluation is not None:
        sections.append(_figures(evaluation))
    return sections


def describe_model(
    model: Model, seen: Interactions | None, *, titles: pd.Series | None = None
) -> list[Section]:
    """Return the sections of a page about a model, eagerly.

    ``seen`` is what its users have; without it there are no lists. ``titles`` are those of items,
    by id.
    """
    for each in vars(model).values():
        if isinstance(each, xr.DataArray):
            each.load()  # once, since all that follows needs it
    trained = model.trained_on_
    facts: dict[str, Any] = {
        "knows": f"{len(model.user_ids_):,} users, {len(model.item_ids_):,} items",
        "fitted on": trained["store"],
        "part": ", ".join(told(mask) for mask in trained["masks"]) or "all of it",
        "weights": ", ".join(each["transform"] for each in trained["transforms"]) or "as stored",
        **model.get_params(),
    }
    sections = [Section("The model", html=(fact_list(facts),))]
    if hasattr(model, "history_"):
        sections.append(Section("Learning", figures=(learning_curve(model.history_),)))
    factors = getattr(model, "item_factors_", None)
    if factors is not None and factors.sizes["factor"] > 1:
        items = place_items(model, interactions=seen)
        if titles is not None:
            items["title"] = (ITEM, _titled(items["item_id"].values, titles))
        sections.append(Section("Items", _MAP, (item_map(items),)))
    if seen is None:
        missing = f"{trained['store']} is not there, or another by now: no lists can be shown."
        return [*sections, Section("Lists", missing)]
    if factors is None or trained["transforms"]:
        return [*sections, sample_lists(model, seen, titles=titles)]
    return [*sections, *_explained(model, seen, titles)]


def _explained(model: Model, seen: Interactions, titles: pd.Series | None) -> list[Section]:
    """Return a section a user, of a few who have something, spread over the vocabulary."""
    active = np.flatnonzero(seen.counts(USER_ITEMS))
    places = np.unique(np.linspace(0, len(active) - 1, EXPLAINED_USERS).astype(int))
    sections = []
    for user in seen.user_ids.ids_of(active[places]):
        found = explain(model, seen, user_id=user, n=10, reasons=4)
        if titles is not None:
            found["title"] = (RANK, _titled(found["item_id"].values, titles))
            reasons = found["reason_id"].values
            named = _titled(reasons.reshape(-1), titles).reshape(reasons.shape)
            found["reason_title"] = ((RANK, REASON), named)
        text = _WHY[str(found.attrs["how"])].format(**found.attrs)
        drawn, table = (reason_bars(found),), (reason_table(found),)
        sections.append(Section(f"User {user}", text, drawn, table))
    return sections


def _titled(ids: Any, titles: pd.Series) -> Any:
    """Return the titles of some ids, the ids themselves where there are none."""
    shown = pd.Series(ids)
    return shown.map(titles).where(shown.isin(titles.index), shown).astype(object).to_numpy()


def _figures(evaluation: xr.Dataset, heading: str = "Evaluation") -> Section:
    """Return the section of what was measured, perhaps by groups: then with a figure a metric."""
    if sides := {*BY_GROUP} & {*evaluation.dims}:
        names = [str(name) for name, each in evaluation.data_vars.items() if sides <= {*each.dims}]
        drawn = tuple(group_bars(evaluation, metric=name) for name in names)
    else:
        drawn = _draw(metric_bars, evaluation)
    text = _SHOWN.format(**evaluation.attrs)
    return Section(heading, text, drawn, (metric_table(evaluation),))


def describe_evaluation(evaluation: xr.Dataset, certainty: xr.Dataset | None) -> list[Section]:
    """Return the sections of a page about one model; ``certainty`` is what ``intervals`` gives.

    An evaluation by groups has a figure for each metric, at the first length of lists.
    """
    grouped = bool({*BY_GROUP} & {*evaluation.dims})
    if certainty is None or grouped:
        sections = [_figures(evaluation, "By groups" if grouped else "Evaluation")]
    else:
        text, table = _SHOWN.format(**evaluation.attrs), metric_table(evaluation)
        sections = [Section("Evaluation", text=text, html=(table,))]
    return sections if certainty is None else [*sections, _intervals(certainty)]


def describe_comparison(comparison: xr.Dataset) -> list[Section]:
    """Return the sections of a page about what :func:`dasrec.compare` returns."""
    facts = comparison.attrs
    text = (
        f"Each model is compared with {facts['baseline']}, user by user. If two models did not "
        f"differ, a difference as large would come with probability p ({_TESTS[facts['test']]}); "
        "p (Holm) is corrected for the number of models. Bold is what is more than chance."
    )
    figures = _draw(difference_points, comparison)
    return [
        _intervals(comparison),
        Section("Differences", text=text, figures=figures, html=(certainty_table(comparison),)),
    ]


def _intervals(measured: xr.Dataset) -> Section:
    facts = measured.attrs
    text = (
        f"{_SHOWN.format(**facts)}\n\nMeans over {facts['n_users']:,} users; were other users of "
        f"the same kind drawn, {100 * facts['level']:g} % of such intervals would hold the mean of "
        f"all ({facts['replicates']:,} replicates of a bootstrap)."
    )
    tables = () if "p" in measured else (certainty_table(measured),)
    return Section("Means", text, _draw(interval_points, measured), tables)


def _draw(points: Callable[..., Any], measured: xr.Dataset) -> tuple[Any, ...]:
    """Draw a figure for each unit and list length."""
    lengths = measured[N].values.tolist()
    return tuple(points(each, n=n) for each in by_unit(measured) for n in lengths)


def sample_lists(
    model: Model, seen: Interactions, *, titles: pd.Series | None, n: int = 10
) -> Section:
    """Return the section with the lists of a few users, spread over the vocabulary."""
    places = np.linspace(0, seen.n_users - 1, min(SAMPLED_USERS, seen.n_users)).astype(int)
    found = model.recommend(seen.user_ids.ids[places], n=min(n, seen.n_items), seen=seen)
    table: Any = found.to_dataframe().reset_index()
    table = table[table["score"].notna()][["user_id", "rank", "item_id", "score"]]
    if titles is not None:
        table["title"] = table["item_id"].map(titles).astype("str")
    return Section(
        f"Lists of {model.name}",
        text="What a few users would be recommended, without what they have used.",
        html=(list_table(table),),
    )
