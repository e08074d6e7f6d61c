"""Biases that move in time: how far users drift, and what an item is worth in each bin of time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dasrec.errors import InputError
from dasrec.interactions import Interactions
from dasrec.kernels.stochastic import BEND
from dasrec.schema import ITEM_USERS, USER_ITEMS
from dasrec.strata import shares_of
from dasrec.typing import Floats, Longs, Side

Doubles = NDArray[np.float64]


class Times(NamedTuple):
    """What the times of a view are.

    Attributes
    ----------
    span : int64, shape (2,): the first and the last, microseconds since 1970
    middles : float32, shape (n_users,): mean time of each user, as a share of the span
    counts : float32, shape (n_items, n_bins): cells of each item in each bin
    """

    span: Longs
    middles: Floats
    counts: Floats


def check_times(interactions: Interactions) -> None:
    """Refuse a store without times."""
    if not interactions.has_timestamps:
        msg = (
            f"{interactions.url} has no timestamps, and time_bins needs them; write it again from "
            "a log with a timestamp column, or leave out time_bins"
        )
        raise InputError(msg)


def read_times(interactions: Interactions, n_bins: int) -> Times:
    """Read the times of all cells: a pass over each orientation."""
    parts = interactions.map_blocks(_means, USER_ITEMS, name="times-block", progress=False)
    ends = np.array([part[1] for part in parts if part[1] is not None], np.int64)
    span = np.array([ends[:, 0].min(), ends[:, 1].max()], np.int64)
    middles = shares_of(np.concatenate([part[0] for part in parts]), span)
    told = span, n_bins
    counts = interactions.map_blocks(_bins, ITEM_USERS, told, name="bins-block", progress=False)
    return Times(span, middles, np.concatenate(counts))


def deviation(shares: Floats, middles: Floats) -> Floats:
    """Return how far moments are from the middles of users, bent as Koren does."""
    away = shares - middles
    return np.asarray(np.sign(away) * np.abs(away) ** BEND, np.float32)


def bins_of(shares: Floats, n_bins: int) -> Longs:
    """Return the bins that moments are in, as kernels find them."""
    return np.minimum((shares * np.float32(n_bins)).astype(np.int64), n_bins - 1)


def _means(
    view: Interactions, side: Side, start: int, stop: int
) -> tuple[Doubles, tuple[int, int] | None]:
    block = view.read_rows(side, start, stop, timed=True)
    assert block.timestamps is not None  # check_times was asked
    counts = np.diff(block.indptr)
    if not len(block.timestamps):
        return np.zeros(len(counts)), None
    sums = np.concatenate([[0.0], np.cumsum(block.timestamps / 1e6)])  # seconds
    means = (sums[block.indptr[1:]] - sums[block.indptr[:-1]]) / np.maximum(counts, 1) * 1e6
    return means, (int(block.timestamps.min()), int(block.timestamps.max()))


def _bins(view: Interactions, side: Side, start: int, stop: int, told: tuple[Longs, int]) -> Floats:
    span, n_bins = told
    block = view.read_rows(side, start, stop, timed=True)
    assert block.timestamps is not None
    rows = np.repeat(np.arange(stop - start), np.diff(block.indptr))
    cells = rows * n_bins + bins_of(shares_of(block.timestamps, span), n_bins)
    counts = np.bincount(cells, minlength=(stop - start) * n_bins)
    return counts.reshape(-1, n_bins).astype(np.float32)
