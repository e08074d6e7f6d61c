"""Measure a model on what it was not trained on: all users, the full catalogue, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from scipy import sparse

from dasrec import blocks
from dasrec.checks import check_count, check_lengths, seed_of
from dasrec.errors import InputError, MismatchError
from dasrec.interactions import Interactions
from dasrec.kernels.csr import indptr_of
from dasrec.kernels.hashing import cell_uniform
from dasrec.kernels.ranking import find_hits
from dasrec.memory import listed_users
from dasrec.metrics import METRICS, Doubles, Metric, Predicted, Ranked, choose_metrics
from dasrec.models.base import Model, view_of
from dasrec.schema import USER_ITEMS, N
from dasrec.scorers import Rankable, Sampled, Vectors, check_room, make_lists, scorer_of
from dasrec.split import Split
from dasrec.typing import Bools, CsrBlock, Floats, Ints, Longs, Rng, Side

_TASK_USERS = 256  # of a sample; a task of ranking


class _Job(NamedTuple):
    """What every block task needs, shared once a worker."""

    scorer: Any
    seen: Interactions
    lengths: tuple[int, ...]
    metrics: tuple[str, ...]


def evaluate(
    model: Rankable,
    split: Split,
    *,
    n: int | Sequence[int] = 10,
    metrics: Sequence[str] | None = None,
    allow_overlap: bool = False,
) -> xr.Dataset:
    """Measure a fitted model, or whatever ranks, on the test part of a split, eagerly.

    Every user with something to find gets a list over the whole catalogue without what is known of
    them; users count equally, those with nothing to find not at all.

    Parameters
    ----------
    model : Model, path, function, Scorer or Sampled
        A model fitted on ``split.train``; lists in Parquet as :func:`recommend_all` writes them; a
        function of users' numbers (int32, shape (m,)) that returns scores, float (m, n_items), or
        lists of item numbers, integers (m, length), -1 for none; any
        :class:`dasrec.scorers.Scorer`. In :class:`dasrec.Sampled` it ranks a few items only.
    split : Split
    n : int or several
        Lengths of lists.
    metrics : names, optional
        Some of :data:`dasrec.metrics.METRICS`; all that apply if not given.
    allow_overlap : bool
        Evaluate even if the model was fitted on other rows than ``split.train``, perhaps on tested
        ones.

    Returns
    -------
    xarray.Dataset
        One variable a metric: ranking metrics by ``n``, ``rmse`` and ``mae`` without dims.
        Attributes: ``model``, ``split``, ``n_users`` (evaluated), ``n_test``; ``seed`` if random;
        ``n_unlisted``, users with nothing in their list, if there are any. Of lists in files
        ``unknown_users`` and ``unknown_items``, how many ids the store does not know, and
        ``longest_list``; of samples ``sampled``, ``sampled_seed`` and ``sampled_bias``.

    Raises
    ------
    InputError
        A metric is unknown or does not apply, ``n`` is larger than the catalogue, nothing is
        tested, or what was given cannot rank.
    BudgetError
        It would not fit in memory; nothing was started. :func:`plan_ranking` says what it takes.
    MismatchError
        The model belongs to another store, was fitted on something else than ``split.train``, or
        predicts values on another scale than those of the split.
    """
    scorer, predicts_values = _scorer(model, split, allow_overlap=allow_overlap)
    lengths = check_lengths(n, n_items=split.train.n_items)
    chosen = choose_metrics(metrics, predicts_values=predicts_values)
    check_room(scorer, split.train, lengths[-1])
    job = _Job(scorer, split.seen, lengths, tuple(metric.name for metric in chosen))
    parts = split.test.map_blocks(_rank_block, "user_items", blocks.share(job), name="rank-block")
    n_users, n_test, n_empty = (
        int(sum(part[key][0] for part in parts)) for key in ("users", "test", "unlisted")
    )
    if n_test == 0:
        raise InputError(_nothing_to_test(split))
    facts = {"model": scorer.name, "split": split.spec, "n_users": n_users, "n_test": n_test}
    facts |= getattr(scorer, "facts", {}) | ({"n_unlisted": n_empty} if n_empty else {})
    result = xr.Dataset(
        {metric.name: _figure(metric, parts, lengths) for metric in chosen},
        coords={N: np.array(lengths)},
        attrs=facts,
    )
    return result if split.seed is None else result.assign_attrs(seed=split.seed)


def evaluate_all(
    models: Sequence[Rankable], split: Split, *, n: int | Sequence[int] = 10
) -> xr.Dataset:
    """Evaluate several models on one split, eagerly.

    Returns
    -------
    xarray.Dataset
        As :func:`evaluate`, along a dim ``model``; NaN where a metric says nothing about a model.
    """
    measured = [evaluate(model, split, n=n) for model in models]
    names = pd.Index([each.attrs["model"] for each in measured], name="model")
    whole = xr.concat(measured, dim=names, data_vars="all", join="outer", combine_attrs="override")
    return whole.drop_attrs(deep=False).assign_attrs(split=split.spec)


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
        ``rmse`` and ``mae`` are negative. It can be pickled. It refuses models as :func:`evaluate`
        does.

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
        raise InputError(_nothing_to_test(split))
    order = np.argsort(cell_uniform(seed, tested), kind="stable")
    chosen = np.sort(tested[order[:most]])
    fresh = np.zeros(len(chosen), np.bool_)
    if split.folds_in:
        fresh = split.train.counts(USER_ITEMS)[chosen] == 0
    test, seen = (_pick(view, chosen) for view in (split.test, split.seen))
    return _Holdout(name, n, split, test, seen, fresh)


def _parse_metric(text: str, *, n_items: int) -> tuple[str, int | None]:
    """Return the name of a metric, and how long its lists are."""
    name, at, length = text.partition("@")
    known = METRICS.get(name)
    if known is not None and known.kind == "values" and not at:
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

    def __call__(self, model: Model) -> float:
        """Measure a model fitted on the training part."""
        model.check_belongs(self.split.train)
        _check_scale(model, self.split)
        _check_trained_on(model, self.split)
        (metric,) = choose_metrics([self.metric], predicts_values=model.predicts_values)
        users, items = model.scoring_vectors()
        users = users[self.seen.numbers]
        if self.fresh.any():
            folded = model.fold_in(self.seen)[self.seen.numbers]
            users = np.where(self.fresh[:, None], folded, users).astype(np.float32)
        lengths = () if self.n is None else (self.n,)
        scorer = Vectors(users, items, model.name)
        job = _Job(scorer, self.seen.close_up(), lengths, (metric.name,))
        test = self.test.close_up()
        view, shared = blocks.share(test), blocks.share(job)
        cuts = pairwise(test.cuts(USER_ITEMS).tolist())
        arguments = [(view, USER_ITEMS, start, stop, shared) for start, stop in cuts]
        parts = blocks.run(_rank_block, arguments, name="holdout-block", progress=False)
        key = metric.name if self.n is None else (metric.name, self.n)
        figure = metric.finalize(np.sum([part[key] for part in parts], axis=0))
        return -figure if metric.kind == "values" else figure


def as_record(evaluation: xr.Dataset) -> dict[str, Any]:
    """Return an evaluation as one JSON-able object; ``metrics`` has keys like ``recall@20``."""
    figures: dict[str, float] = {}
    for name, values in evaluation.data_vars.items():
        if N in values.dims:
            figures |= {f"{name}@{int(v[N])}": float(v) for v in values}
        else:
            figures[str(name)] = float(values)
    return {**evaluation.attrs, "metrics": figures}


def _nothing_to_test(split: Split) -> str:
    return f"the split {split.spec} leaves nothing to test; choose a larger test part"


def _check_scale(model: Model, split: Split) -> None:
    """Refuse weights on another scale than the model learned, wherever they are looked at.

    Ranking only asks what was used, so there a model may have learned from other weights.
    """
    learned, given = model.trained_on_["transforms"], view_of(split.train)["transforms"]
    if learned != given and (model.predicts_values or split.folds_in):
        msg = (
            f"the model learned from weights transformed by {_names(learned)}, and those of "
            f"{split.spec} are transformed by {_names(given)}; evaluate it on "
            "split.transform(...), the split that it was fitted on"
        )
        raise MismatchError(msg)


def _names(transforms: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(str(each.get("transform")) for each in transforms) or "nothing"


def _check_trained_on(model: Model, split: Split) -> None:
    trained, wanted = model.trained_on_, view_of(split.train)
    for key in ("state", "masks"):
        if trained[key] != wanted[key]:
            msg = (
                f"the model was fitted on {trained['masks'] or 'the whole store'} of "
                f"{trained['state']}, not on the training part of {split.spec}: it may know what "
                "is tested. Fit it on split.train (dasrec fit --split), or pass allow_overlap=True "
                "(--allow-overlap)"
            )
            raise MismatchError(msg)


def _scorer(given: Any, split: Split, *, allow_overlap: bool) -> tuple[Any, bool]:
    """Return what ranks, and whether its scores are on the scale of the stored values."""
    if isinstance(given, Sampled):
        inner, predicts = _scorer(given.ranked, split, allow_overlap=allow_overlap)
        return given.over(inner, split.train.n_items), predicts
    if not isinstance(given, Model):
        return scorer_of(given, split.train), False
    given.check_belongs(split.train)
    _check_scale(given, split)
    if not allow_overlap:
        _check_trained_on(given, split)
    users, items = given.scoring_vectors()
    if split.folds_in:
        users = _fold_in(given, split, users)
    return Vectors(users, items, given.name), given.predicts_values


def _fold_in(model: Model, split: Split, users: Floats) -> Floats:
    """Replace the vectors of users that training did not see."""
    fresh = split.train.counts("user_items") == 0
    return np.where(fresh[:, None], model.fold_in(split.seen), users).astype(np.float32)


def _figure(metric: Metric, parts: Sequence[dict[Any, Doubles]], lengths: Sequence[int]) -> Any:
    keys = [(metric.name, n) for n in lengths] if metric.kind == "ranking" else [metric.name]
    # added in block order, so the bits do not depend on who was ready first
    figures = [metric.finalize(np.sum([part[key] for part in parts], axis=0)) for key in keys]
    attrs = {"formula": metric.formula}
    return (N, figures, attrs) if metric.kind == "ranking" else ((), figures[0], attrs)


def _rank_block(
    test: Interactions, side: Side, start: int, stop: int, job: _Job
) -> dict[Any, Doubles]:
    """Measure one block of users; keys are metrics, ranking metrics with n."""
    truth = test.read_rows(side, start, stop)
    n_truth = np.diff(truth.indptr)
    tested = np.flatnonzero(n_truth)
    sums: dict[Any, Doubles] = {
        "users": np.array([float(len(tested))]),
        "test": np.array([float(len(truth.data))]),
        "unlisted": np.zeros(1),
    }
    chosen = [METRICS[name] for name in job.metrics]
    for metric in chosen:
        if metric.kind == "values":
            sums[metric.name] = metric.chunk(_predict(truth, start, job))
    if not any(metric.kind == "ranking" for metric in chosen):
        return sums
    for ranked in _rank(truth, start, tested, job):
        sums["unlisted"] += (ranked.lists < 0).all(axis=1).sum()
        for metric in chosen:
            for n in job.lengths if metric.kind == "ranking" else ():
                part = ranked._replace(lists=ranked.lists[:, :n], hits=ranked.hits[:, :n])
                sums[metric.name, n] = sums.get((metric.name, n), 0) + metric.chunk(part)
    return sums


def _rank(truth: CsrBlock, start: int, tested: Any, job: _Job) -> Iterator[Ranked]:
    """Yield the lists of some users of a block at a time, so that they need no more memory."""
    known = job.seen.read_rows("user_items", start, start + truth.n_rows)
    height, n_items = listed_users(job.lengths[-1]), job.seen.n_items
    for top in range(0, max(1, len(tested)), height):
        rows = tested[top : top + height]
        seen, wanted = _take_rows(known, rows), _take_rows(truth, rows)
        users = (start + rows).astype(np.int32)
        lists = make_lists(job.scorer, users, job.lengths[-1], seen=seen, truth=wanted)
        yield Ranked(lists, find_hits(lists, *wanted), np.diff(wanted[0]), n_items)


def _take_rows(block: CsrBlock, rows: Any) -> tuple[Any, Any]:
    taken = block.to_scipy()[rows]
    return taken.indptr.astype(np.int64), taken.indices.astype(np.int32, copy=False)


def _predict(truth: CsrBlock, start: int, job: _Job) -> Predicted:
    users = np.arange(start, start + truth.n_rows, dtype=np.int32)
    return Predicted(truth.data, job.scorer.score(users, (truth.indptr, truth.indices)))
