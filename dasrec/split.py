"""Splits into what a model may learn from and what it is tested on: masks on the store, no copy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasrec.checks import check_count, check_fraction, seed_of
from dasrec.errors import InputError
from dasrec.interactions import Interactions
from dasrec.kernels.csr import rows_of
from dasrec.kernels.hashing import cell_uniform
from dasrec.typing import Bools, Ids, Ints, Longs, Rng, Side, Transform

_BINS = 2**16


@dataclass(frozen=True)
class Split:
    """A division of one store.

    Attributes
    ----------
    spec : str
        What was asked for, for instance ``time:0.2``.
    train : Interactions
        What a model may be fitted on.
    seen : Interactions
        What is known of each user when lists are made: ``train``, and for users held out from
        training the part of their rows that a model may fold in.
    test : Interactions
        What is to be found.
    seed : int or None
        What a random split was drawn with; None where nothing is random.
    """

    spec: str
    train: Interactions
    seen: Interactions
    test: Interactions
    seed: int | None = None

    @property
    def folds_in(self) -> bool:
        """Whether users are tested that no model was trained on."""
        return self.seen != self.train

    def transform(self, transform: Transform) -> Split:
        """Return the split whose three views have other weights when read, lazily.

        Parameters
        ----------
        transform : Transform
            Fitted on ``train``, and on nothing else.
        """
        return replace(
            self,
            train=self.train.transform(transform),
            seen=self.seen.transform(transform),
            test=self.test.transform(transform),
        )


@dataclass(frozen=True)
class _Part:
    """Base of the masks: ``inside`` picks the part itself or the rest of the store."""

    inside: bool
    needs_timestamp = False

    def describe(self) -> dict[str, Any]:
        """Return the mask's name and its fields."""
        return {"mask": type(self).__name__} | asdict(self)


@dataclass(frozen=True)
class After(_Part):
    """Interactions later than a moment, int64 microseconds since 1970."""

    cut: int
    needs_timestamp = True

    def __call__(self, users: Ints, items: Ints, timestamps: Longs | None) -> Bools:
        """Mark them."""
        if timestamps is None:
            msg = "a split by time needs timestamps"
            raise InputError(msg)
        return np.equal(timestamps > self.cut, self.inside)


@dataclass(frozen=True)
class Sampled(_Part):
    """Interactions whose keyed hash falls into [low, high)."""

    seed: int
    low: float
    high: float

    def __call__(self, users: Ints, items: Ints, timestamps: Longs | None) -> Bools:
        """Mark them."""
        draw = cell_uniform(self.seed, users, items)
        return np.equal((draw >= self.low) & (draw < self.high), self.inside)


@dataclass(frozen=True)
class OfUsers(_Part):
    """Interactions of a sampled share of users; ``targets`` narrows it to a share of their rows."""

    seed: int
    share: float
    targets: float = 1.0

    def __call__(self, users: Ints, items: Ints, timestamps: Longs | None) -> Bools:
        """Mark them."""
        chosen = cell_uniform(self.seed, users) < self.share
        if self.targets < 1:
            chosen &= cell_uniform(self.seed + 1, users, items) < self.targets
        return np.equal(chosen, self.inside)


@dataclass(frozen=True, eq=False)
class Last(_Part):
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
class Listed(_Part):
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


def split_by_time(interactions: Interactions, fraction: float = 0.2) -> Split:
    """Test on the latest ``fraction`` of all interactions, as a running service would.

    The moment is found eagerly, in a few passes over the timestamps; interactions at the very same
    moment stay together, so the share may be a little smaller.

    Raises
    ------
    InputError
        The store has no timestamps, or all of them are equal.
    """
    check_fraction(fraction, name="fraction")
    cut = _time_quantile(interactions, 1 - fraction)
    return _halves(interactions, f"time:{fraction}", After(inside=True, cut=cut))


def split_last_n(interactions: Interactions, n: int = 1) -> Split:
    """Test on the last ``n`` interactions of each user who has more than ``n``.

    Training then knows what others did later than some tested moments: figures come out better than
    in a running service. :func:`split_by_time` does not have this leak.
    """
    check_count(n, name="n")
    parts = _timed(interactions).map_blocks(_last_cuts, "user_items", n, name="split-block")
    times = np.concatenate([part[0] for part in parts])
    items = np.concatenate([part[1] for part in parts])
    return _halves(
        interactions, f"last:{n}", Last(inside=True, n=n, cut_times=times, cut_items=items)
    )


def split_random(interactions: Interactions, fraction: float = 0.2, *, rng: Rng = None) -> Split:
    """Test on a random ``fraction`` of the interactions, each drawn on its own by a keyed hash."""
    check_fraction(fraction, name="fraction")
    seed = seed_of(rng)
    mask = Sampled(inside=True, seed=seed, low=0.0, high=fraction)
    return _halves(interactions, f"random:{fraction}", mask, seed=seed)


def split_folds(interactions: Interactions, folds: int = 5, *, rng: Rng = None) -> Iterator[Split]:
    """Yield ``folds`` splits; each interaction is tested in exactly one."""
    check_count(folds, name="folds", least=2)
    seed = seed_of(rng)
    for fold in range(folds):
        mask = Sampled(inside=True, seed=seed, low=fold / folds, high=(fold + 1) / folds)
        yield _halves(interactions, f"fold:{fold + 1}/{folds}", mask, seed=seed)


def split_users(
    interactions: Interactions, fraction: float = 0.1, *, targets: float = 0.2, rng: Rng = None
) -> Split:
    """Hold out a random ``fraction`` of users from training altogether (strong generalisation).

    A share ``targets`` of their interactions is to be found; the rest is what a model may fold in.
    """
    check_fraction(fraction, name="fraction")
    check_fraction(targets, name="targets")
    seed = seed_of(rng)
    goal = OfUsers(inside=True, seed=seed, share=fraction, targets=targets)
    return Split(
        spec=f"users:{fraction}",
        train=interactions.where(OfUsers(inside=False, seed=seed, share=fraction)),
        seen=interactions.where(_rest(goal)),
        test=interactions.where(goal),
        seed=seed,
    )


def parse_split(interactions: Interactions, text: str, *, rng: Rng = None) -> Split:
    """Make the split that a text names: ``time:0.2``, ``random:0.2``, ``last:1``, ``users:0.1``."""
    kind, _, amount = text.partition(":")
    try:
        if kind == "time":
            return split_by_time(interactions, float(amount))
        if kind == "random":
            return split_random(interactions, float(amount), rng=rng)
        if kind == "last":
            return split_last_n(interactions, int(amount))
        if kind == "users":
            return split_users(interactions, float(amount), rng=rng)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
    msg = f"split is {text!r}; expected time:0.2, random:0.2, last:1 or users:0.1"
    raise InputError(msg)


def _rest(mask: Any) -> Any:
    """Return the mask of everything else."""
    return type(mask)(**{**mask.__dict__, "inside": not mask.inside})


def _halves(interactions: Interactions, spec: str, mask: Any, *, seed: int | None = None) -> Split:
    train = interactions.where(_rest(mask))
    return Split(spec=spec, train=train, seen=train, test=interactions.where(mask), seed=seed)


def _timed(interactions: Interactions) -> Interactions:
    if not interactions.has_timestamps:
        msg = (
            f"{interactions.url} has no timestamps; write it again from a log with a timestamp "
            "column, or split at random"
        )
        raise InputError(msg)
    return interactions


def _time_quantile(interactions: Interactions, share: float) -> int:
    """Find the least moment up to which ``share`` of them happened, by refining histograms."""
    ends = _timed(interactions).map_blocks(_time_ends, "user_items", name="split-block")
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    if low >= high:
        msg = f"all timestamps of {interactions.url} are equal; expected a log that spans some time"
        raise InputError(msg)
    latest: int = high
    # a little less, since 1 - 0.7 is a little more than 0.3
    goal = share * sum(end[2] for end in ends) * (1 - 1e-12)
    while True:
        width = (high - low) // _BINS + 1
        parts = interactions.map_blocks(
            _time_histogram, "user_items", low, width, name="split-block"
        )
        # a histogram counts what lies before its first bin in its first place
        below = np.cumsum(np.sum(parts, axis=0))
        place = int(np.searchsorted(below[1:], goal))
        low, high = low + place * width, low + (place + 1) * width - 1
        if width == 1:
            return min(int(low), latest - 1)


def _time_ends(view: Interactions, side: Side, start: int, stop: int) -> tuple[int, int, int]:
    times = view.read_rows(side, start, stop, timed=True).timestamps
    if times is None or len(times) == 0:
        return np.iinfo(np.int64).max, 0, 0
    return int(times.min()), int(times.max()), len(times)


def _time_histogram(
    view: Interactions, side: Side, start: int, stop: int, low: int, width: int
) -> NDArray[np.int64]:
    times = view.read_rows(side, start, stop, timed=True).timestamps
    bins = (
        np.zeros(0, np.int64)
        if times is None
        else np.clip((times - low) // width + 1, 0, _BINS + 1)
    )
    return np.bincount(bins, minlength=_BINS + 2)


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
    return _halves(interactions, f"listed:{name}", Listed(inside=True, name=name, keys=keys))
