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
from dasrec.metrics.base import Items, Metric, Need
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
        if len(names) == 0:
            msg = f"groups[{side!r}] has no label that is not missing; expected some"
            raise InputError(msg)
        found[side] = Groups(codes.astype(np.int32), np.asarray(names))
    return found


def facts_of(
    chosen: Collection[Metric], train: Interactions, *, groups: Groups | None = None
) -> Items:
    """Read what these metrics need to know of the items, but for their factors.

    ``groups`` are those of the items; thirds by popularity if not given.
    """
    needs = _needs(chosen)
    facts = Items(np.ones(train.n_items, np.bool_))
    if groups is not None:
        facts = facts._replace(groups=groups.codes)
    if "popularity" not in needs and (groups is not None or "groups" not in needs):
        return facts
    popularity = train.counts(ITEM_USERS)
    order = np.empty(train.n_items, np.int32)
    order[np.argsort(-popularity, kind="stable")] = np.arange(train.n_items)
    return facts._replace(
        popularity=popularity,
        order=order,
        n_trained=int((train.counts(USER_ITEMS) > 0).sum()),
        groups=thirds(popularity).codes if groups is None else groups.codes,
    )


def with_directions(facts: Items, chosen: Collection[Metric], factors: Floats | None) -> Items:
    """Add the item factors (n_items, d) of a model, at length 1, if these metrics need them.

    Raises
    ------
    InputError
        They do, and there are none.
    """
    if "directions" not in _needs(chosen):
        return facts
    if factors is None:
        msg = "diversity needs item factors, and what is measured has none; leave it out"
        raise InputError(msg)
    lengths = np.linalg.norm(factors, axis=1, keepdims=True)
    return facts._replace(directions=np.nan_to_num(ratio(factors, lengths)).astype(np.float32))


def _needs(chosen: Collection[Metric]) -> set[Need]:
    return {need for metric in chosen for need in metric.needs}
