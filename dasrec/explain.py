"""Why a user is recommended what: what each item that they have adds to a score."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from dasrec import blocks
from dasrec.checks import check_count
from dasrec.errors import InputError
from dasrec.factors import in_memory
from dasrec.interactions import Interactions
from dasrec.kernels.reasons import Doubles, contributions, cosines
from dasrec.medium import Medium
from dasrec.models import Model
from dasrec.models.alternating import Alternating
from dasrec.schema import ITEM_ID, RANK, REASON, REASON_ID, USER_ITEMS
from dasrec.sweeps import Half, sweep_block
from dasrec.typing import CsrBlock, Floats, Ids, Ints


class _Parts(NamedTuple):
    """What makes up the scores of m items for one user, who has n."""

    by_item: Doubles  # (m, n)
    offset: Doubles  # (m,): what does not come of their items


def explain(
    model: Model,
    seen: Interactions,
    *,
    user_id: Any,
    item_ids: Ids | None = None,
    n: int = 10,
    reasons: int = 5,
) -> xr.Dataset:
    """Tell which items of a user speak for what they are recommended, eagerly.

    Models of least squares are taken apart exactly: the score of an item is a sum over the items
    that the user has. Of other models with vectors of items it is told how alike these are.

    Parameters
    ----------
    model : Model
    seen : Interactions
        What the user has: the view that the model was fitted on, or a later one.
    user_id : id
    item_ids : array of ids, optional
        What to explain; by default the best ``n`` that are not seen, as ``model.recommend``.
    n : int
        Length of the list.
    reasons : int
        How many of the user's items are named with each: those that add most.

    Returns
    -------
    xarray.Dataset
        By ``rank``: ``item_id``, and ``score``, float32, the model's. By (rank, reason):
        ``reason_id``, an item of the user, and ``contribution``, float64; past the end NaN, and
        a missing id or -1. By rank, float64: ``total``, what all items of the user add, and
        ``offset``, what comes of the mean, of biases and of features. Attributes: ``model``,
        ``user_id``, ``how``, and ``n_seen``.

        With ``how="contributions"`` total and offset add up to the score of the user folded in
        (:meth:`Model.fold_in`): the item vectors held fixed, it is what their items make of them.
        ``score`` differs by what the last sweep over the items moved. With ``how="cosine"``
        contributions are cosines of item vectors, which add up to nothing; total and offset are
        NaN.

    Raises
    ------
    InputError
        An id is unknown, the user has nothing, or the model has no vectors of items.
    MismatchError
        The model belongs to another store.

    Notes
    -----
    Cost: the row of the user is read; for k factors and n items of theirs n k^2 + k^3 / 3
    multiply-adds, and once the Gram matrix of all items. Hu, Koren and Volinsky, "Collaborative
    filtering for implicit feedback datasets", ICDM 2008, section 5, doi:10.1109/ICDM.2008.22;
    with ``nonnegative=True`` over those factors of the user that are not 0.
    """
    model.check_belongs(seen)
    check_count(reasons, name="reasons")
    if not hasattr(model, "item_factors_"):
        msg = f"{model.name} has no vectors of items to explain by; expected a model with factors"
        raise InputError(msg)
    ids: Any = np.asarray([user_id], object if isinstance(user_id, str) else None)
    (user,) = model.user_ids_.numbers(ids).tolist()
    row = seen.read_rows(USER_ITEMS, user, user + 1)
    if len(row.indices) == 0:
        msg = f"user {user_id!r} has no items in {seen.url}; expected some to explain by"
        raise InputError(msg)
    if item_ids is None:
        found = model.recommend(ids, n=min(n, seen.n_items), seen=seen).isel(user=0)
        item_ids = found[ITEM_ID].values[found["score"].notnull().values]
    items = model.item_ids_.numbers(item_ids)
    with blocks.ONE_BLAS_THREAD:
        parts, how = _parts(model, seen, user, row, items)
    scores = model.score(np.repeat(ids, len(items)), model.item_ids_.ids_of(items))
    facts = {"model": model.name, "user_id": user_id, "how": how, "n_seen": len(row.indices)}
    return _label(model, items, scores, row.indices, parts, reasons).assign_attrs(facts)


def _parts(
    model: Model, seen: Interactions, user: int, row: CsrBlock, items: Ints
) -> tuple[_Parts, str]:
    if isinstance(model, Alternating):
        return _taken_apart(seen, model.folding(seen), user, row, items), "contributions"
    factors: Any = model.item_factors_
    vectors: Floats = factors.values
    nothing = np.full(len(items), np.nan)
    return _Parts(cosines(vectors[items], vectors[row.indices]), nothing), "cosine"


def _taken_apart(seen: Interactions, half: Half, user: int, row: CsrBlock, items: Ints) -> _Parts:
    """Write the scores of the user's exact vector as a sum over their items."""
    vectors = in_memory(half.vectors)
    k, n_seen = vectors.shape[1], len(row.indices)
    offset, weights, goals = np.zeros(len(items)), row.data, np.ones_like(row.data)
    if half.offsets is not None:
        weights, goals = goals, row.data - half.offsets[row.indices]
        offset += half.offsets[items]
    ridge = float(half.ridge(np.array([n_seen], np.float64))[0])
    system = (half.base if half.base.ndim == 2 else np.diag(half.base)).astype(np.float64)
    targets, own = vectors[items], vectors[row.indices]
    if half.prior is None:
        system += ridge * np.eye(k)
    else:  # what draws to the prior is one more row for each factor
        own = np.concatenate([own, np.eye(k, dtype=own.dtype)])
        weights = np.concatenate([weights, np.full(k, ridge)])
        goals = np.concatenate([goals, half.prior.means(user, user + 1)[0]])
    free = np.ones(k, np.bool_)
    if half.n_bounded:
        # what is held at 0 takes no part; the others minimise the same without bounds
        solved = sweep_block(seen, USER_ITEMS, user, user + 1, half, None, Medium()).vectors[0]
        free = (solved > 0) | (np.arange(k) >= half.n_bounded)
    system = system[np.ix_(free, free)]
    found = contributions(targets[:, free], own[:, free], weights, goals, system)
    return _Parts(found[:, :n_seen], offset + found[:, n_seen:].sum(axis=1))


def _label(
    model: Model, items: Ints, scores: Floats, own: Ints, parts: _Parts, reasons: int
) -> xr.Dataset:
    order = np.argsort(-parts.by_item, axis=1, kind="stable")[:, :reasons]
    n_told, both = order.shape[1], (RANK, REASON)
    none: Any = -1 if model.item_ids_.dtype == np.int64 else None
    names = np.full((len(items), reasons), none, model.item_ids_.dtype)
    names[:, :n_told] = model.item_ids_.ids_of(own[order].reshape(-1)).reshape(order.shape)
    values = np.full(names.shape, np.nan)
    values[:, :n_told] = np.take_along_axis(parts.by_item, order, axis=1)
    total = np.where(np.isnan(parts.offset), np.nan, parts.by_item.sum(axis=1))
    return xr.Dataset(
        {
            ITEM_ID: (RANK, model.item_ids_.ids_of(items)),
            "score": (RANK, scores),
            REASON_ID: (both, names),
            "contribution": (both, values),
            "total": (RANK, total),
            "offset": (RANK, parts.offset),
        },
        coords={RANK: np.arange(1, len(items) + 1), REASON: np.arange(1, reasons + 1)},
    )
