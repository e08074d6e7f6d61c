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
from dasrec.schema import ITEM_ID, RANK, REASON, REASON_ID, USER_ITEMS
from dasrec.sweeps import Half, sweep_block
from dasrec.typing import CsrBlock, Floats, Ids, Ints


class _Parts(NamedTuple):
    """What makes up the scores of m items for one user, who has n."""

    by_item: Doubles  # (m, n)
    offset: Doubles  # (m,): what does not come of their items
    total: Doubles  # (m,): what does


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

    Models that fold a user in by least squares are taken apart exactly, however they were fitted:
    the score of an item is a sum over the items that the user has. Of other models with vectors of
    items it is told how alike these are.

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
        a missing id or -1. By rank, float64: ``total``, what is the user's own, and ``offset``,
        what is not: mean, biases and features. Attributes: ``model``, ``user_id``, ``how``, and
        ``n_seen``.

        With ``how="contributions"`` total, the sum over all items of the user, and offset add up to
        the score of the user folded in (:meth:`Model.fold_in`): the item vectors held fixed, it is
        what their items make of them. ``score`` differs by what the fit has left the user's vector
        behind. With ``how="cosine"`` contributions are cosines of item vectors, which add up to
        nothing, while total and offset add up to ``score``: the product of user and item, and the
        bias of the item, which the item has whoever the user is.

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
    with ``nonnegative=True`` over those factors of the user that are not 0. SVD++ has one more
    term, linear in the same items. Where nothing is regularised and a user has too few items to
    settle their vector, there are cosines.
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
    scores = model.score(np.repeat(ids, len(items)), model.item_ids_.ids_of(items))
    with blocks.ONE_BLAS_THREAD:
        half = model.folding(seen)
        if half is not None and _is_unique(half, row):
            parts, how = _taken_apart(model, seen, half, user, row, items), "contributions"
        else:
            parts, how = _alike(model, row, items, scores), "cosine"
    facts = {"model": model.name, "user_id": user_id, "how": how, "n_seen": len(row.indices)}
    return _label(model, items, scores, row.indices, parts, reasons).assign_attrs(facts)


def _is_unique(half: Half, row: CsrBlock) -> bool:
    """Tell whether one vector alone is best for a row; without a ridge cells must settle it."""
    if half.scale > 0:
        return True
    own = in_memory(half.vectors)[row.indices]
    return bool(np.linalg.matrix_rank(own) == own.shape[1])


def _alike(model: Any, row: CsrBlock, items: Ints, scores: Floats) -> _Parts:
    """Say how alike items are, and what of their scores is the same for every user."""
    vectors: Floats = model.item_factors_.values
    offset = np.zeros(len(items))
    for name, own in (("item_biases_", items), ("mean_", ())):
        if hasattr(model, name):
            offset += getattr(model, name).values[own]
    return _Parts(cosines(vectors[items], vectors[row.indices]), offset, scores - offset)


def _taken_apart(
    model: Any, seen: Interactions, half: Half, user: int, row: CsrBlock, items: Ints
) -> _Parts:
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
    shares = contributions(targets[:, free], own[:, free], weights, np.ones_like(goals), system)
    found = shares * goals
    if hasattr(model, "implicit_factors_"):  # what is rated at all counts as well
        pooled = model.implicit_factors_.values[row.indices] / np.sqrt(n_seen)
        found += (targets - shares @ own)[:, : pooled.shape[1]] @ pooled.T
    by_item, rest = found[:, :n_seen], found[:, n_seen:]
    return _Parts(by_item, offset + rest.sum(axis=1), by_item.sum(axis=1))


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
    return xr.Dataset(
        {
            ITEM_ID: (RANK, model.item_ids_.ids_of(items)),
            "score": (RANK, scores),
            REASON_ID: (both, names),
            "contribution": (both, values),
            "total": (RANK, parts.total),
            "offset": (RANK, parts.offset),
        },
        coords={RANK: np.arange(1, len(items) + 1), REASON: np.arange(1, reasons + 1)},
    )
