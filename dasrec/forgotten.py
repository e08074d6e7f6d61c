"""Ids that name nobody: what stands in a vocabulary where the ids of forgotten users were.

Such an id says its own place, so it is found without a search, and a search may skip it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dasrec.typing import Bools, Ids, Ints, Longs

_LEAST = np.iinfo(np.int64).min
_PREFIX = "\x00forgotten-"


def nobody(places: Longs, kind: np.dtype[Any]) -> Ids:
    """Return the ids that name nobody at some places, of ``kind``: int64, or else str objects."""
    if kind == np.int64:
        return _LEAST + places
    return np.array([f"{_PREFIX}{place}" for place in places.tolist()], object)


def places_of(ids: Ids) -> Longs:
    """Return the place that each id says if it names nobody, -1 if it says none; int64.

    ``ids`` are as a store holds them: int64, or NumPy's variable-width strings. The place may be
    past the end of any vocabulary.
    """
    if ids.dtype == np.int64:
        return np.where(ids < 0, ids - _LEAST, -1)
    said = np.full(len(ids), -1, np.int64)
    for row in np.flatnonzero(np.strings.startswith(ids, _PREFIX)):
        number = str(ids[row]).removeprefix(_PREFIX)
        if number.isdecimal() and number.isascii() and len(number) < 19:
            said[row] = int(number)
    return said


def names_somebody(ids: Ids, start: int) -> Bools:
    """Mark the ids, which stand from place ``start`` on, that are not those of nobody."""
    named: Bools = places_of(ids) != np.arange(start, start + len(ids))
    return named


@dataclass(frozen=True)
class NotForgotten:
    """The interactions of everyone but the users of these numbers."""

    users: tuple[int, ...]
    needs_timestamp = False

    def __call__(self, users: Ints, items: Ints, timestamps: Longs | None) -> Bools:
        """Mark them."""
        return np.isin(users, np.array(self.users, np.int32), invert=True)

    def describe(self) -> dict[str, Any]:
        """Return how many are left out; who, nobody needs to know."""
        return {"mask": "NotForgotten", "n": len(self.users)}
