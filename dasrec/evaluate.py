"""Measure a model on what it was not trained on: all users, the full catalogue, block by block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy import sparse

from dasrec import blocks
from dasrec.checks import check_count, check_lengths, seed_of
from dasrec.errors import InputError
from dasrec.interactions import Interactions
from dasrec.kernels.csr import indptr_of
from dasrec.kernels.hashing import cell_uniform
from dasrec.measure import (
    Job,
    both_block,
    check_scale,
    check_trained_on,
    choose_for,
    factors_of,
    facts_of_run,
    label,
    nothing_to_test,
    plan_job,
    rank_block,
    value_block,
)
from dasrec.metrics import (
    METRICS,
    Items,
    choose_metrics,
    facts_of,
    with_directions,
)
from dasrec.models.base import Model
from dasrec.results import Evaluation
from dasrec.schema import USER, USER_ID, USER_ITEMS, N
from dasrec.scorers import Rankable, Vectors
from dasrec.split import Split
from dasrec.typing import Bools, CsrBlock, Ints, Longs, Rng, Side

_TASK_USERS = 256  # of a sample; a task of ranking


@blocks.job("evaluate")
def evaluate(
    model: Rankable,
    split: Split,
    *,
    n: int | Sequence[int] = 10,
    metrics: Sequence[str] | None = None,
    compat: str | None = None,
    groups: Mapping[str, Any] | None = None,
    allow_overlap: bool = False,
) -> Evaluation:
    """Measure a fitted model, or whatever ranks, on the test part of a split, eagerly.

    Every user with something to find gets a list over the whole catalogue without what is known of
    them; users count equally, those with nothing to find not at all.

    Parameters
    ----------
    model : Model, path, function, Scorer or Sampled
        A model fitted on ``split.train``, or on a part of it such as ``split.validation.train``;
        lists in Parquet as :func:`recommend_all` writes them; a function of users' numbers (int32,
        shape (m,)) that returns scores, float (m, n_items), or lists of item numbers, integers
        (m, length), -1 for none; any :class:`dasrec.Scorer`. In :class:`dasrec.Sampled` it ranks a
        few items only.
    split : Split
    n : int or several
        Lengths of lists.
    metrics : names, optional
        Some of :data:`dasrec.metrics.METRICS`; the usual ones that apply if not given.
    compat : {"implicit", "lenskit", "recbole", "rectools", "vae"}, optional
        Whose formulas to use, as docs/metrics.md states them.
    groups : mapping, optional
        Labels by which to tell results apart: ``{"user": labels}``, ``{"item": labels}`` or both,
        one label a user or an item in the order of their numbers; ``{"item": "popularity"}`` cuts
        the items in head, middle and tail.
    allow_overlap : bool
        Evaluate even if the model was fitted on other rows than ``split.train``, perhaps on tested
        ones.

    Returns
    -------
    Evaluation, an xarray.Dataset
        One variable a metric: metrics of lists by ``n``, others without dims; with ``groups`` by
        ``user_group`` and ``item_group`` too, but ``calibration``, which compares the item groups.
        Attributes: ``model``, ``split``, ``n_users`` (evaluated), ``n_test``; ``seed`` if random,
        ``compat`` if given; ``leaks_time`` if there are timestamps, by the masks alone
        (:func:`dasrec.check_split`); ``n_unlisted``, users with nothing in their list, if there are
        any. Of lists in files ``unknown_users`` and ``unknown_items``, how many ids the store does
        not know, and ``longest_list``; of samples ``sampled``, ``sampled_seed``, ``sampled_bias``.

    Raises
    ------
    InputError
        A metric is unknown or does not apply, ``n`` is larger than the catalogue, labels are not
        one a user or an item, nothing is tested, or what was given cannot rank.
    BudgetError
        It would not fit in memory; nothing was started. :func:`plan_ranking` says what it takes.
    MismatchError
        The model belongs to another store, was fitted on something else than ``split.train``, or
        predicts values on another scale than those of the split.
    """
    chosen = choose_for(model, split, metrics, compat=compat, allow_overlap=allow_overlap)
    job = plan_job(model, split, chosen, n, groups=groups, compat=compat)
    parts = split.test.map_blocks(rank_block, USER_ITEMS, blocks.share(job), name="rank-block")
    return _summed(job, split, parts)


def _summed(job: Job, split: Split, parts: Sequence[dict[str, Any]]) -> Evaluation:
    sizes = {key: sum(part[key] for part in parts) for key in ("n_users", "n_test", "n_unlisted")}
    if sizes["n_test"] == 0:
        raise InputError(nothing_to_test(split))
    if sizes["n_unlisted"] == 0:
        del sizes["n_unlisted"]
    sides = {f"{side}_group": each.names for side, each in job.groups.items()}
    return Evaluation(
        {metric.name: label(metric, parts, list(sides)) for metric in job.chosen},
        coords=sides | {N: np.array(job.lengths)},
        attrs=facts_of_run(job, split) | sizes,
    )


def evaluate_users(
    model: Rankable,
    split: Split,
    *,
    n: int | Sequence[int] = 10,
    metrics: Sequence[str] | None = None,
    compat: str | None = None,
    allow_overlap: bool = False,
) -> xr.Dataset:
    """Measure each user on the test part of a split, eagerly.

    Parameters are those of :func:`evaluate`.

    Returns
    -------
    xarray.Dataset
        One float64 variable a metric that is a mean over users, dims (user, n) or (user,), with
        the ids of the measured users as ``user_id``; NaN where a user has no value. The means over
        users, NaN left out, are what :func:`evaluate` gives.

    Raises
    ------
    InputError
        Also if a metric is named that is no mean over users.
    """
    chosen = choose_for(model, split, metrics, compat=compat, allow_overlap=allow_overlap)
    odd = [metric.name for metric in chosen if metric.values is None]
    if odd and metrics is not None:
        msg = f"{', '.join(odd)} is no mean over users; leave it out, or call evaluate"
        raise InputError(msg)
    chosen = tuple(metric for metric in chosen if metric.values is not None)
    job = plan_job(model, split, chosen, n, compat=compat)
    parts = split.test.map_blocks(value_block, USER_ITEMS, blocks.share(job), name="rank-block")
    return _by_user(job, split, parts)


def _by_user(job: Job, split: Split, parts: Sequence[dict[str, Any]]) -> xr.Dataset:
    numbers = np.concatenate([part[USER] for part in parts])
    if len(numbers) == 0:
        raise InputError(nothing_to_test(split))
    dims = {
        metric.name: (USER, N) if metric.kind == "ranking" else (USER,)
        for metric in job.chosen
        if metric.values is not None
    }
    return xr.Dataset(
        {name: (dim, np.concatenate([part[name] for part in parts])) for name, dim in dims.items()},
        coords={USER_ID: (USER, split.train.user_ids.ids_of(numbers)), N: np.array(job.lengths)},
        attrs=facts_of_run(job, split),
    )


def evaluate_both(
    model: Rankable,
    split: Split,
    *,
    n: int | Sequence[int] = 10,
    metrics: Sequence[str] | None = None,
    compat: str | None = None,
    groups: Mapping[str, Any] | None = None,
    allow_overlap: bool = False,
) -> tuple[Evaluation, xr.Dataset]:
    """Return what :func:`evaluate` and :func:`evaluate_users` do, of lists that are made once.

    Values of users are those of the metrics that are means over users, perhaps of none.
    """
    chosen = choose_for(model, split, metrics, compat=compat, allow_overlap=allow_overlap)
    job = plan_job(model, split, chosen, n, groups=groups, compat=compat)
    parts = split.test.map_blocks(both_block, USER_ITEMS, blocks.share(job), name="rank-block")
    sums, values = zip(*parts, strict=True)
    return _summed(job, split, sums), _by_user(job, split, values)


def evaluate_all(
    models: Sequence[Rankable],
    split: Split,
    *,
    n: int | Sequence[int] = 10,
    metrics: Sequence[str] | None = None,
    compat: str | None = None,
    groups: Mapping[str, Any] | None = None,
    allow_overlap: bool = False,
) -> Evaluation:
    """Evaluate several models, or whatever ranks, on one split, eagerly.

    Parameters are those of :func:`evaluate`, for each of the models.

    Returns
    -------
    Evaluation, an xarray.Dataset
        As :func:`evaluate`, along a dim ``model``; NaN where a metric says nothing about a model.
    """
    how: dict[str, Any] = {"n": n, "metrics": metrics, "compat": compat, "groups": groups}
    measured = [evaluate(model, split, **how, allow_overlap=allow_overlap) for model in models]
    names = pd.Index([each.attrs["model"] for each in measured], name="model")
    whole = xr.concat(measured, dim=names, data_vars="all", join="outer", combine_attrs="override")
    facts = {"split": split.spec} | ({} if compat is None else {"compat": compat})
    return Evaluation(whole.data_vars, whole.coords, attrs=facts)


def holdout(
    split: Split, metric: str = "ndcg@10", *, users: int = 2000, rng: Rng = 0
) -> Callable[[Model], float]:
    """Choose some tested users, eagerly, and return a measure of models by them alone.

    It is what :class:`dasrec.Training` takes as its monitor. What is tested and what is known of
    these users is read now and kept, so that a measurement reads nothing and ranks for them only.
    As by :func:`evaluate`, each gets a list over the full catalogue.

    Parameters
    ----------
    split : Split
    metric : str
        Some of :data:`dasrec.metrics.METRICS`, those of lists with a length: ``recall@20``.
    users : int
        How many at most, chosen at random among those with something to find.
    rng : int, numpy.random.Generator or None
        Which users; one seed gives the same on any cluster.

    Returns
    -------
    callable
        Gives the metric of a model fitted on ``split.train`` as a float, the larger the better:
        errors, and others of which less is better, are negative. It can be pickled. It refuses
        models as :func:`evaluate` does.

    Raises
    ------
    InputError
        The metric is unknown, its list is longer than the catalogue, or nothing is tested.

    Notes
    -----
    Cost: the test part is read twice now, and what is known once. A measurement takes ``users``
    times n_items d multiply-adds, and where a split holds out users, to fold these in.
    """
    name, n = _parse_metric(metric, n_items=split.train.n_items)
    most, seed = check_count(users, name="users"), seed_of(rng)
    tested = np.flatnonzero(split.test.counts(USER_ITEMS)).astype(np.int32)
    if len(tested) == 0:
        raise InputError(nothing_to_test(split))
    order = np.argsort(cell_uniform(seed, tested), kind="stable")
    chosen = np.sort(tested[order[:most]])
    fresh = np.zeros(len(chosen), np.bool_)
    if split.folds_in:
        fresh = split.train.counts(USER_ITEMS)[chosen] == 0
    test, seen = (_pick(view, chosen) for view in (split.test, split.seen))
    return _Holdout(name, n, split, test, seen, fresh, facts_of([METRICS[name]], split.train))


def _parse_metric(text: str, *, n_items: int) -> tuple[str, int | None]:
    """Return the name of a metric, and how long its lists are."""
    name, at, length = text.partition("@")
    known = METRICS.get(name)
    if known is not None and known.kind != "ranking" and not at:
        return name, None
    if known is not None and known.kind == "ranking" and length.isdecimal():
        return name, check_lengths(int(length), n_items=n_items)[0]
    spelled = (f"{key}@10" if m.kind == "ranking" else key for key, m in METRICS.items())
    msg = f"metric {text!r} is unknown; expected one of: {', '.join(spelled)}"
    raise InputError(msg)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class _Picked(Interactions):
    """Rows of some users in memory, as they are read from a view; all others are empty."""

    numbers: Ints  # ascending
    rows: sparse.csr_array[np.float32]  # one for each of them

    def cuts(self, side: Side) -> Longs:
        """Return where blocks of as many of these users begin."""
        del side
        inner = self.numbers[_TASK_USERS::_TASK_USERS]
        return np.array([0, *inner, self.n_users], np.int64)

    def read_rows(self, side: Side, start: int, stop: int, *, timed: bool = False) -> CsrBlock:
        """Return rows ``start:stop`` by user."""
        assert (side, timed) == (USER_ITEMS, False)  # there is nothing else
        first, last = np.searchsorted(self.numbers, [start, stop])
        counts = np.zeros(stop - start, np.int64)
        counts[self.numbers[first:last] - start] = np.diff(self.rows.indptr[first : last + 1])
        cells = slice(self.rows.indptr[first], self.rows.indptr[last])
        indices = self.rows.indices[cells].astype(np.int32, copy=False)
        return CsrBlock(indptr_of(counts), indices, self.rows.data[cells], self.n_items)

    def close_up(self) -> _Picked:
        """Leave out the empty rows; what they were read through goes too, it may be large."""
        n = len(self.numbers)
        numbers = np.arange(n, dtype=np.int32)
        return replace(self, n_users=n, numbers=numbers, masks=(), transforms=())


def _pick(view: Interactions, numbers: Ints) -> _Picked:
    """Read the rows of some users."""
    parts = view.map_blocks(_pick_block, USER_ITEMS, numbers, name="pick-block", progress=False)
    facts = {each.name: getattr(view, each.name) for each in fields(Interactions)}
    return _Picked(**facts, numbers=numbers, rows=sparse.vstack(parts, format="csr"))


def _pick_block(
    view: Interactions, side: Side, start: int, stop: int, numbers: Ints
) -> sparse.csr_array[np.float32]:
    first, last = np.searchsorted(numbers, [start, stop])
    if first == last:
        return sparse.csr_array((0, view.n_items), dtype=np.float32)
    return view.read_rows(side, start, stop).to_scipy()[numbers[first:last] - start]


@dataclass(frozen=True, eq=False)
class _Holdout:
    """A metric over some users of a split, whose rows it holds."""

    metric: str
    n: int | None
    split: Split
    test: _Picked = field(repr=False)
    seen: _Picked = field(repr=False)
    fresh: Bools = field(repr=False)  # whom training does not see
    facts: Items = field(repr=False)

    def __call__(self, model: Model) -> float:
        """Measure a model fitted on the training part."""
        model.check_belongs(self.split.train)
        check_scale(model, self.split)
        check_trained_on(model, self.split)
        (metric,) = choose_metrics([self.metric], predicts_values=model.predicts_values)
        users, items = model.scoring_vectors()
        users = users[self.seen.numbers]
        if self.fresh.any():
            folded = model.fold_in(self.seen)[self.seen.numbers]
            users = np.where(self.fresh[:, None], folded, users).astype(np.float32)
        lengths = () if self.n is None else (self.n,)
        facts = with_directions(self.facts, (metric,), factors_of(model))
        scorer = Vectors(users, items, model.name)
        job = Job(scorer, self.seen.close_up(), lengths, (metric.name,), facts)
        test = self.test.close_up()
        view, shared = blocks.share(test), blocks.share(job)
        cuts = pairwise(test.cuts(USER_ITEMS).tolist())
        arguments = [(view, USER_ITEMS, start, stop, shared) for start, stop in cuts]
        parts = blocks.run(rank_block, arguments, name="holdout-block", progress=False)
        figure = float(label(metric, parts)[1].item())
        return -figure if metric.smaller else figure
