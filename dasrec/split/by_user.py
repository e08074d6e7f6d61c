"""Splits that take n interactions of each user: the last, or any."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasrec.checks import check_count, seed_of
from dasrec.errors import InputError, LeakageWarning
from dasrec.interactions import Interactions
from dasrec.kernels.csr import rows_of
from dasrec.kernels.hashing import cell_uniform
from dasrec.split.base import Part, Split, check_timed, fresh_seed, halves
from dasrec.typing import Bools, Ints, Longs, Rng, Side


@dataclass(frozen=True, eq=False)
class Last(Part):
    """The last n interactions of each user: from that user's cut on, ordered by (time, item)."""

    n: int
    cut_times: Longs  # shape (n_users,)
    cut_items: Ints
    needs_timestamp = True

    def __call__(self, users: Ints, items: Ints, timestamps: Longs | None) -> Bools:
        """Mark them."""
        if timestamps is None:
            msg = "a split by last interactions needs timestamps"
            raise InputError(msg)
        time, item = self.cut_times[users], self.cut_items[users]
        late = (timestamps > time) | ((timestamps == time) & (items >= item))
        return np.asarray(late == self.inside)

    def describe(self) -> dict[str, Any]:
        """Return the mask's name and n; the cuts follow from the store."""
        return {"mask": "Last", "inside": self.inside, "n": self.n}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Last) and self.describe() == other.describe()

    def __hash__(self) -> int:
        return hash((self.inside, self.n))


@dataclass(frozen=True, eq=False)
class Drawn(Part):
    """Any n interactions of each user: those whose keyed hash is at most that user's cut."""

    seed: int
    n: int
    cuts: NDArray[np.float64]  # shape (n_users,)

    def __call__(self, users: Ints, items: Ints, timestamps: Longs | None) -> Bools:
        """Mark them."""
        draw = cell_uniform(self.seed, users, items)
        return np.equal(draw <= self.cuts[users], self.inside)

    def describe(self) -> dict[str, Any]:
        """Return the mask's name, seed and n; the cuts follow from the store."""
        return {"mask": "Drawn", "inside": self.inside, "seed": self.seed, "n": self.n}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Drawn) and self.describe() == other.describe()

    def __hash__(self) -> int:
        return hash((self.inside, self.seed, self.n))


def split_last_n(interactions: Interactions, n: int = 1) -> Split:
    """Test on the last ``n`` interactions of each user who has more than ``n``.

    The cuts are found eagerly, in one pass over the timestamps; they take 12 bytes a user.

    Warns
    -----
    LeakageWarning
        Always: training then knows what others did later than some tested moments, and figures
        come out better than in a running service. :func:`split_by_time` does not have this leak.

    Raises
    ------
    InputError
        The store has no timestamps.
    """
    check_count(n, name="n")
    parts = check_timed(interactions).map_blocks(_last_cuts, "user_items", n, name="split-block")
    times = np.concatenate([part[0] for part in parts])
    items = np.concatenate([part[1] for part in parts])
    msg = (
        f"last:{n} trains on later moments of others than some that it tests, so figures come out "
        "better than in a running service; split_by_time (time:0.2) does not"
    )
    warnings.warn(msg, LeakageWarning, stacklevel=2)
    mask = Last(inside=True, n=n, cut_times=times, cut_items=items)
    return halves(interactions, f"last:{n}", mask)


def split_any_n(interactions: Interactions, n: int = 1, *, rng: Rng = None) -> Split:
    """Test on ``n`` random interactions of each user who has more than ``n``.

    With ``n=1`` this is to leave one out. The cuts are found eagerly, in one pass; they take 8
    bytes a user.
    """
    check_count(n, name="n")
    seed = seed_of(rng)
    key = fresh_seed(interactions, seed)
    cuts = interactions.map_blocks(_drawn_cuts, "user_items", n, key, name="split-block")
    mask = Drawn(inside=True, seed=key, n=n, cuts=np.concatenate(cuts))
    return halves(interactions, f"any:{n}", mask, seed=seed)


def _last_cuts(view: Interactions, side: Side, start: int, stop: int, n: int) -> tuple[Longs, Ints]:
    """Return for each user the (time, item) at which the last n begin; never if too few."""
    block = view.read_rows(side, start, stop, timed=True)
    times = np.full(block.n_rows, np.iinfo(np.int64).max)
    items = np.full(block.n_rows, np.iinfo(np.int32).max, np.int32)
    if block.timestamps is not None:
        order = np.lexsort((block.indices, block.timestamps, rows_of(block.indptr)))
        long = np.flatnonzero(np.diff(block.indptr) > n)
        first = order[block.indptr[long + 1] - n]
        times[long], items[long] = block.timestamps[first], block.indices[first]
    return times, items


def _drawn_cuts(
    view: Interactions, side: Side, start: int, stop: int, n: int, seed: int
) -> NDArray[np.float64]:
    """Return for each user the n-th least hash; less than any if there are too few."""
    block = view.read_rows(side, start, stop)
    rows = rows_of(block.indptr)
    draw = cell_uniform(seed, rows + np.int32(start), block.indices)
    cuts = np.full(block.n_rows, -1.0)
    long = np.flatnonzero(np.diff(block.indptr) > n)
    cuts[long] = draw[np.lexsort((draw, rows))[block.indptr[long] + n - 1]]
    return cuts
