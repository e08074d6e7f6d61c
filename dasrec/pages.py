"""Whole pages about a store, its models and how they compare, composed of the parts in report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from dasrec.interactions import Interactions
from dasrec.models import Model
from dasrec.report import (
    Section,
    by_unit,
    certainty_table,
    difference_points,
    interval_points,
    learning_curve,
    list_table,
    long_tail,
    metric_bars,
    metric_table,
)
from dasrec.schema import ITEM, USER, N

SAMPLED_USERS = 5
_SHOWN = (
    "Split {split}. Every user with something to find gets a list over the full catalogue, "
    "without what is known of them."
)
_TESTS = {
    "randomisation": "random signs of the differences",
    "wilcoxon": "Wilcoxon's signed rank test",
    "t": "Student's paired t-test",
}


def describe(
    interactions: Interactions, models: list[Model], evaluation: xr.Dataset | None
) -> list[Section]:
    """Return the sections of a page about a store and the models fitted on it."""
    density = interactions.n_stored / interactions.n_users / interactions.n_items
    text = (
        f"{interactions.n_users:,} users, {interactions.n_items:,} items, "
        f"{interactions.n_stored:,} interactions: {100 * density:.2f} % of the matrix."
    )
    users = xr.DataArray(interactions.counts("user_items"), dims=USER)
    items = xr.DataArray(interactions.counts("item_users"), dims=ITEM)
    tails = (
        long_tail(users, title="Interactions of each user"),
        long_tail(items, title="Interactions of each item"),
    )
    audit = interactions.audit.to_dataframe().reset_index()
    sections = [
        Section("The log", text=text, html=(audit.to_html(index=False, border=0),)),
        Section("Long tails", figures=tails),
    ]
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


def _figures(evaluation: xr.Dataset) -> Section:
    return Section(
        "Evaluation",
        text=_SHOWN.format(**evaluation.attrs),
        figures=(metric_bars(evaluation),),
        html=(metric_table(evaluation),),
    )


def describe_evaluation(evaluation: xr.Dataset, certainty: xr.Dataset | None) -> list[Section]:
    """Return the sections of a page about one model; ``certainty`` is what ``intervals`` gives."""
    table = Section(
        "Evaluation", text=_SHOWN.format(**evaluation.attrs), html=(metric_table(evaluation),)
    )
    return [table] if certainty is None else [table, _intervals(certainty)]


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
