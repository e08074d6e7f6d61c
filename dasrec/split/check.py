"""What the parts of a split have in common, and what training knows too early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dasrec import blocks
from dasrec.errors import MismatchError
from dasrec.interactions import Interactions, marked
from dasrec.kernels.csr import rows_of
from dasrec.schema import PART, USER_ITEMS
from dasrec.split.base import ALWAYS, Split
from dasrec.typing import Bools, CsrBlock, Longs, Mask, Side


class _Pair(NamedTuple):
    """What is tested and what it must be kept apart from, each the masks of a view."""

    train: tuple[Mask, ...]
    test: tuple[Mask, ...]
    others: tuple[tuple[Mask, ...], ...]
    in_order: bool  # whether the masks keep training earlier


class _Found(NamedTuple):
    """What one block says of one pair."""

    counts: dict[str, int]
    trained_items: NDArray[np.uint8]  # packed bits
    tested_items: NDArray[np.uint8]
    newest: int
    oldest: int
    late: Longs  # tested times that training elsewhere may still turn out to be later than


def check_split(split: Split) -> xr.Dataset:
    """Compare the parts of a split, eagerly: what they share, and what training knows too early.

    Returns
    -------
    xarray.Dataset
        By ``part``: ``test``, and before it ``validation`` if there is one, each with its own
        training part.

        ``n_train``, ``n_test``, ``n_users``, ``n_items``
            Interactions of either; users and items that are tested.
        ``overlap``
            Tested interactions that are also in training, in what is known of the user, or in the
            other tested part: 0 unless the split was put together by hand.
        ``leakage``
            The share of tested interactions that are earlier than the newest training one; NaN
            without timestamps, or with nothing on one side.
        ``newest_train``, ``oldest_test``
            datetime64[us]; NaT likewise.
        ``cold_users``, ``cold_items``
            Those tested that have no interaction in training; of a split by users, all users.

        Attributes: those of :meth:`Split.describe`.

    Raises
    ------
    MismatchError
        The parts, put together by hand, are of different stores or versions.

    Notes
    -----
    Cost: the store is read once, by blocks of users, for all parts. A task holds a block; the
    caller n_items / 4 bytes a block and part, and 8 bytes for each tested interaction that is
    later than all training ones of its block. Masks that keep training earlier, as a split by time
    has them, spare the latter.
    """
    named = {"test": split}
    if split.validation is not None:
        named = {"validation": split.validation, "test": split}
    views = [view for each in named.values() for view in (each.train, each.seen, each.test)]
    if len({view.state for view in views}) > 1:
        msg = f"the parts of {split.spec} are of different stores or versions; make them of one"
        raise MismatchError(msg)
    pairs = [
        _pair(each, [other for other in named.values() if other is not each])
        for each in named.values()
    ]
    whole = replace(split.train, masks=(), transforms=())
    found = whole.map_blocks(_check_block, USER_ITEMS, blocks.share(pairs), name="split-block")
    rows = [_sum_up([block[number] for block in found]) for number in range(len(pairs))]
    return xr.Dataset(
        {name: (PART, np.array([row[name] for row in rows])) for name in rows[0]},
        coords={PART: list(named)},
        attrs=split.describe(),
    )


def _pair(split: Split, others: Sequence[Split]) -> _Pair:
    apart = [other.test.masks for other in others]
    if split.folds_in:
        apart.append(split.seen.masks)
    return _Pair(split.train.masks, split.test.masks, tuple(apart), split.leaks_time is False)


def _check_block(
    view: Interactions, side: Side, start: int, stop: int, pairs: Sequence[_Pair]
) -> list[_Found]:
    block = view.read_rows(side, start, stop, timed=view.has_timestamps)
    return [_compare(block, side, start, pair) for pair in pairs]


def _compare(block: CsrBlock, side: Side, start: int, pair: _Pair) -> _Found:
    train, test = (marked(masks, block, side, start) for masks in (pair.train, pair.test))
    shared = train.copy()
    for masks in pair.others:
        shared |= marked(masks, block, side, start)
    rows, n_items = rows_of(block.indptr), block.n_columns
    trained, tested = (_present(rows[cells], block.n_rows) for cells in (train, test))
    counts = {
        "n_train": int(train.sum()),
        "n_test": int(test.sum()),
        "n_users": int(tested.sum()),
        "overlap": int((shared & test).sum()),
        "cold_users": int((tested & ~trained).sum()),
        "early": 0,
    }
    newest, oldest, late = ALWAYS[0], ALWAYS[1], np.zeros(0, np.int64)
    if block.timestamps is not None:
        times = block.timestamps[test]
        newest = int(block.timestamps[train].max(initial=newest))
        oldest = int(times.min(initial=oldest))
        counts["early"] = int((times < newest).sum())
        late = late if pair.in_order else times[times >= newest]
    return _Found(
        counts,
        np.packbits(_present(block.indices[train], n_items)),
        np.packbits(_present(block.indices[test], n_items)),
        newest,
        oldest,
        late,
    )


def _present(numbers: Any, n: int) -> Bools:
    """Mark which of ``n`` numbers occur."""
    there = np.zeros(n, np.bool_)
    there[numbers] = True
    return there


def _sum_up(found: Sequence[_Found]) -> dict[str, Any]:
    """Return what all blocks say of one part, in the order in which it is shown."""
    total = {name: sum(each.counts[name] for each in found) for name in found[0].counts}
    trained, tested = (
        np.bitwise_or.reduce([getattr(each, f"{name}_items") for each in found])
        for name in ("trained", "tested")
    )
    newest, oldest = max(each.newest for each in found), min(each.oldest for each in found)
    early = total["early"] + sum(int((each.late < newest).sum()) for each in found)
    known = newest > ALWAYS[0] and oldest < ALWAYS[1]
    return {
        "n_train": total["n_train"],
        "n_test": total["n_test"],
        "n_users": total["n_users"],
        "n_items": int(np.bitwise_count(tested).sum()),
        "overlap": total["overlap"],
        "leakage": early / total["n_test"] if known else np.nan,
        "newest_train": _moment(newest if newest > ALWAYS[0] else None),
        "oldest_test": _moment(oldest if oldest < ALWAYS[1] else None),
        "cold_users": total["cold_users"],
        "cold_items": int(np.bitwise_count(tested & ~trained).sum()),
    }


def _moment(micros: int | None) -> np.datetime64:
    return np.datetime64("NaT", "us") if micros is None else np.datetime64(micros, "us")
