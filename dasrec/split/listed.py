"""Splits by a list of pairs, for folds that somebody published."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from dasrec.errors import InputError
from dasrec.interactions import Interactions
from dasrec.split.base import Part, Split, halves
from dasrec.typing import Bools, Ids, Ints, Longs


@dataclass(frozen=True, eq=False)
class Listed(Part):
    """Interactions from a list."""

    name: str
    keys: Longs  # user << 32 | item, ascending, at least one

    def __call__(self, users: Ints, items: Ints, timestamps: Longs | None) -> Bools:
        """Mark them."""
        cells = users.astype(np.int64) << 32 | items
        place = np.minimum(np.searchsorted(self.keys, cells), len(self.keys) - 1)
        return np.asarray((self.keys[place] == cells) == self.inside)

    def describe(self) -> dict[str, Any]:
        """Return the name and a hash of the list."""
        digest = hashlib.blake2b(self.keys.tobytes(), digest_size=8).hexdigest()
        return {"mask": "Listed", "inside": self.inside, "name": self.name, "hash": digest}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Listed) and self.describe() == other.describe()

    def __hash__(self) -> int:
        return hash((self.inside, self.name))


def split_listed(interactions: Interactions, *, user_ids: Ids, item_ids: Ids, name: str) -> Split:
    """Test on listed interactions, for folds that somebody published.

    Parameters
    ----------
    user_ids, item_ids : arrays of ids, shape (m,)
        The pairs to be tested; held in memory, 8 bytes each. Pairs that the store lacks do nothing.
    name : str
        What the split is called in results.

    Raises
    ------
    InputError
        An id is unknown, or there are not as many users as items.
    """
    users, items = interactions.user_ids.numbers(user_ids), interactions.item_ids.numbers(item_ids)
    if len(users) != len(items):
        msg = f"{len(users)} users and {len(items)} items were given; expected pairs"
        raise InputError(msg)
    if len(users) == 0:
        msg = "no pairs were given; expected at least one to test on"
        raise InputError(msg)
    keys = np.unique(users.astype(np.int64) << 32 | items)
    return halves(interactions, f"listed:{name}", Listed(inside=True, name=name, keys=keys))
