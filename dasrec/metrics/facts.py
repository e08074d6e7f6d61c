"""What metrics must know of the items, and groups of users and items."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dasrec.errors import InputError
from dasrec.interactions import Interactions
from dasrec.kernels.ranking import ratio
from dasrec.metrics.base import Items, Metric
from dasrec.schema import ITEM, ITEM_USERS, USER, USER_ITEMS
from dasrec.typing import Bools, Floats, Ints, Longs

THIRDS = ("head", "middle", "tail")


class Groups(NamedTuple):
    """Who belongs where."""

    codes: Ints
    """int32, one a user or an item: the number of its group, -1 for none."""
    names: NDArray[Any]

    def members(self, part: slice | NDArray[Any] = slice(None)) -> list[Bools]:
        """Return for each group which of these users or items belong to it."""
        codes = self.codes[part]
        return [codes == code for code in range(len(self.names))]


def thirds(popularity: Longs) -> Groups:
    """Cut the items in three that have about a third of the training interactions each.

    An item is ``head`` if those more popular, equal ones by number, have less than a third of all
    interactions, ``middle`` if less than two thirds, else ``tail``, as are all without any.
    """
    order = np.argsort(-popularity, kind="stable")
    before = np.cumsum(popularity[order]) - popularity[order]
    codes = np.empty(len(popularity), np.int32)
    codes[order] = 3 * before // max(int(popularity.sum()), 1)
    codes[popularity == 0] = 2
    return Groups(codes, np.array(THIRDS, object))


def groups_of(groups: Mapping[str, Any] | None, train: Interactions) -> dict[str, Groups]:
    """Number the groups that a caller gives by labels.

    Parameters
    ----------
    groups : mapping or None
        ``user`` or ``item`` or both: one label a user or an item, in the order of their numbers;
        None or NaN for no group. For ``item`` also ``"popularity"``.

    Raises
    ------
    InputError
        There is another key, or not one label for each.
    """
    groups, sizes = groups or {}, {USER: train.n_users, ITEM: train.n_items}
    for odd in groups.keys() - sizes.keys():
        msg = f"groups has the key {odd!r}; expected user or item"
        raise InputError(msg)
    found = {}
    for side in [side for side in sizes if side in groups]:
        labels = groups[side]
        if side == ITEM and isinstance(labels, str) and labels == "popularity":
            found[side] = thirds(train.counts(ITEM_USERS))
            continue
        given = np.asarray(labels)
        if given.shape != (sizes[side],):
            msg = (
                f"groups[{side!r}] has the shape {given.shape}; expected one label for each of "
                f"{sizes[side]} {side}s"
            )
            raise InputError(msg)
        codes, names = pd.factorize(given, sort=True)
        found[side] = Groups(codes.astype(np.int32), np.asarray(names))
    return found


def facts_of(
    chosen: Collection[Metric],
    train: Interactions,
    *,
    factors: Floats | None,
    groups: Groups | None = None,
) -> Items:
    """Gather what these metrics need to know of the items.

    Parameters
    ----------
    factors : float32, shape (n_items, d), or None if the model has none
    groups : of the items; thirds by popularity if not given

    Raises
    ------
    InputError
        Diversity is asked of a model without item factors.
    """
    needs = {need for metric in chosen for need in metric.needs}
    facts = Items(np.ones(train.n_items, np.bool_))
    if "groups" in needs and groups is not None:
        facts = facts._replace(groups=groups.codes)
    if "popularity" in needs or ("groups" in needs and groups is None):
        popularity = train.counts(ITEM_USERS)
        order = np.empty(train.n_items, np.int32)
        order[np.argsort(-popularity, kind="stable")] = np.arange(train.n_items)
        n_trained = int((train.counts(USER_ITEMS) > 0).sum())
        facts = facts._replace(popularity=popularity, order=order, n_trained=n_trained)
        if facts.groups is None:
            facts = facts._replace(groups=thirds(popularity).codes)
    if "directions" in needs:
        if factors is None:
            msg = "diversity needs item factors, and this model has none; leave it out"
            raise InputError(msg)
        lengths = np.linalg.norm(factors, axis=1, keepdims=True)
        directions = np.nan_to_num(ratio(factors, lengths)).astype(np.float32)
        facts = facts._replace(directions=directions)
    return facts
