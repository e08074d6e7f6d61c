"""Measure a model on what it was not trained on: all users, the full catalogue, block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from dasrec import blocks
from dasrec.checks import check_lengths
from dasrec.errors import InputError, MismatchError
from dasrec.interactions import Interactions
from dasrec.kernels.csr import rows_of
from dasrec.kernels.ranking import find_hits
from dasrec.metrics import METRICS, Doubles, Metric, Predicted, Ranked, choose_metrics
from dasrec.models.base import Model, rank_items, view_of
from dasrec.schema import N
from dasrec.split import Split
from dasrec.typing import CsrBlock, Floats, Side


class _Job(NamedTuple):
    """What every block task needs, shared once a worker."""

    users: Floats
    items: Floats
    seen: Interactions
    lengths: tuple[int, ...]
    metrics: tuple[str, ...]


def evaluate(
    model: Model,
    split: Split,
    *,
    n: int | Sequence[int] = 10,
    metrics: Sequence[str] | None = None,
    allow_overlap: bool = False,
) -> xr.Dataset:
    """Measure a fitted model on the test part of a split, eagerly.

    Every user with something to find gets a list over the whole catalogue without what is known of
    them; users count equally, those with nothing to find not at all.

    Parameters
    ----------
    model : Model
        Fitted on ``split.train``.
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
        Attributes: ``model``, ``split``, ``n_users`` (evaluated), ``n_test``; ``seed`` if random.

    Raises
    ------
    InputError
        A metric is unknown or does not apply, ``n`` is larger than the catalogue, or nothing is
        tested.
    MismatchError
        The model belongs to another store, was fitted on something else than ``split.train``, or
        predicts values on another scale than those of the split.
    """
    model.check_belongs(split.train)
    _check_scale(model, split)
    if not allow_overlap:
        _check_trained_on(model, split)
    lengths = check_lengths(n, n_items=split.train.n_items)
    chosen = choose_metrics(metrics, predicts_values=model.predicts_values)
    users, items = model.scoring_vectors()
    if split.folds_in:
        users = _fold_in(model, split, users)
    job = _Job(users, items, split.seen, lengths, tuple(metric.name for metric in chosen))
    parts = split.test.map_blocks(_rank_block, "user_items", blocks.share(job), name="rank-block")
    n_users, n_test = (int(sum(part[key][0] for part in parts)) for key in ("users", "test"))
    if n_test == 0:
        msg = f"the split {split.spec} leaves nothing to test; choose a larger test part"
        raise InputError(msg)
    result = xr.Dataset(
        {metric.name: _figure(metric, parts, lengths) for metric in chosen},
        coords={N: np.array(lengths)},
        attrs={"model": model.name, "split": split.spec, "n_users": n_users, "n_test": n_test},
    )
    return result if split.seed is None else result.assign_attrs(seed=split.seed)


def evaluate_all(
    models: Sequence[Model], split: Split, *, n: int | Sequence[int] = 10
) -> xr.Dataset:
    """Evaluate several models on one split, eagerly.

    Returns
    -------
    xarray.Dataset
        As :func:`evaluate`, along a dim ``model``; NaN where a metric says nothing about a model.
    """
    measured = [evaluate(model, split, n=n) for model in models]
    names = pd.Index([model.name for model in models], name="model")
    whole = xr.concat(measured, dim=names, data_vars="all", join="outer", combine_attrs="override")
    return whole.drop_attrs(deep=False).assign_attrs(split=split.spec)


def as_record(evaluation: xr.Dataset) -> dict[str, Any]:
    """Return an evaluation as one JSON-able object; ``metrics`` has keys like ``recall@20``."""
    figures: dict[str, float] = {}
    for name, values in evaluation.data_vars.items():
        if N in values.dims:
            figures |= {f"{name}@{int(v[N])}": float(v) for v in values}
        else:
            figures[str(name)] = float(values)
    return {**evaluation.attrs, "metrics": figures}


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
    }
    chosen = [METRICS[name] for name in job.metrics]
    ranked = _rank(truth, start, tested, job) if any(m.kind == "ranking" for m in chosen) else None
    for metric in chosen:
        if metric.kind == "values":
            sums[metric.name] = metric.chunk(_predict(truth, start, job))
        elif ranked is not None:
            for n in job.lengths:
                sums[metric.name, n] = metric.chunk(
                    ranked._replace(lists=ranked.lists[:, :n], hits=ranked.hits[:, :n])
                )
    return sums


def _rank(truth: CsrBlock, start: int, tested: Any, job: _Job) -> Ranked:
    known = job.seen.read_rows("user_items", start, start + truth.n_rows)
    known_indptr, known_indices = _take_rows(known, tested)
    lists, _ = rank_items(
        job.users[start + tested], job.items, job.lengths[-1], (known_indptr, known_indices)
    )
    indptr, indices = _take_rows(truth, tested)
    hits = find_hits(lists, indptr, indices)
    return Ranked(lists, hits, np.diff(indptr), len(job.items))


def _take_rows(block: CsrBlock, rows: Any) -> tuple[Any, Any]:
    taken = block.to_scipy()[rows]
    return taken.indptr.astype(np.int64), taken.indices


def _predict(truth: CsrBlock, start: int, job: _Job) -> Predicted:
    users = job.users[rows_of(truth.indptr) + start]
    return Predicted(truth.data, np.einsum("ij,ij->i", users, job.items[truth.indices]))
