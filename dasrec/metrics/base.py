"""What metrics see of one block of users, and the record that a metric is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from dasrec.kernels.csr import indptr_of, rows_of
from dasrec.kernels.ranking import ratio
from dasrec.typing import Bools, CsrBlock, Floats, Ints, Longs

Doubles = NDArray[np.float64]
Kind = Literal["ranking", "order", "values"]
Need = Literal["wins", "popularity", "directions", "groups"]


class Items(NamedTuple):
    """Facts of the items; None where no chosen metric asks for them."""

    inside: Bools
    """bool, shape (n_items,): which items are in question, all unless by item group."""
    popularity: Longs | None = None
    """int64, shape (n_items,): training interactions."""
    order: Ints | None = None
    """int32, shape (n_items,): how many items are more popular, equal ones by number."""
    n_trained: int = 0
    """How many users have a training interaction."""
    directions: Floats | None = None
    """float32, shape (n_items, d): item factors, of length 1."""
    groups: Ints | None = None
    """int32, shape (n_items,): numbers from 0, -1 for an item of no group."""


class Ranked(NamedTuple):
    """Lists of one block of users, cut at n; rows of all fields are the same users."""

    lists: Ints
    """int32, shape (n_users, n), -1 where nothing is listed."""
    hits: Bools
    """bool, the same shape."""
    truth: CsrBlock
    """What is to be found, at least one item a user."""
    seen: CsrBlock
    """What is known of each user."""
    items: Items
    wins: Doubles | None = None
    """float64, beside the cells of ``truth``: the share of other candidates with lower scores."""

    @property
    def n_truth(self) -> Longs:
        """How many items each user is to find."""
        return np.diff(self.truth.indptr)

    @property
    def n_listed(self) -> Longs:
        """How long each list is."""
        return (self.lists >= 0).sum(axis=1)

    @property
    def n_items(self) -> int:
        """How many items are in question."""
        return int(self.items.inside.sum())

    def cut(self, n: int) -> Self:
        """Return the first n places of each list."""
        return self._replace(lists=self.lists[:, :n], hits=self.hits[:, :n])

    def take(self, users: Bools) -> Self:
        """Return the marked users alone."""
        cells = np.repeat(users, self.n_truth)
        return self._replace(
            lists=self.lists[users],
            hits=self.hits[users],
            truth=_take_rows(self.truth, users),
            seen=_take_rows(self.seen, users),
            wins=None if self.wins is None else self.wins[cells],
        )

    def within(self, inside: Bools) -> Self:
        """Leave the marked items alone in question; ranks stay, and so do lengths asked for.

        Users who have nothing to find among them go.
        """
        listed = (self.lists >= 0) & inside[self.lists]
        cells = inside[self.truth.indices]
        found = self._replace(
            lists=np.where(listed, self.lists, -1).astype(np.int32),
            hits=self.hits & listed,
            truth=_keep_cells(self.truth, cells),
            seen=_keep_cells(self.seen, inside[self.seen.indices]),
            items=self.items._replace(inside=self.items.inside & inside),
            wins=None if self.wins is None else self.wins[cells],
        )
        return found.take(found.n_truth > 0)


class Predicted(NamedTuple):
    """Predictions for the test interactions of one block."""

    values: Floats
    predictions: Floats
    users: Ints
    """int32, beside them: the row of the user in the block."""
    items: Ints

    def take(self, users: Bools) -> Self:
        """Return those of the marked users."""
        return self._keep(users[self.users])

    def within(self, inside: Bools) -> Self:
        """Return those of the marked items."""
        return self._keep(inside[self.items])

    def _keep(self, cells: Bools) -> Self:
        return type(self)(
            self.values[cells], self.predictions[cells], self.users[cells], self.items[cells]
        )


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes
    ----------
    name : str
    kind : {"ranking", "order", "values"}
        Whether ``chunk`` takes a :class:`Ranked` for each n, a :class:`Ranked` whatever n is, or a
        :class:`Predicted`.
    chunk : callable
        Gives a float64 vector for a block; blocks are combined by adding, in block order.
    finalize : callable
        Makes the figure of the sum.
    formula, source : str
        As docs/metrics.md prints them; the source is where the definition comes from.
    values : callable or None
        Gives a float64 (n_users,) for a block, NaN where a user has no value, if the figure is the
        mean of these over users; None if it is not such a mean.
    needs : tuple of {"wins", "popularity", "directions", "groups"}
        What it reads that others do without.
    smaller : bool
        Whether less is better.
    whole : bool
        Whether it makes sense over all items only, so that it is not told apart by item group.
    """

    name: str
    kind: Kind
    chunk: Callable[[Any], Doubles]
    finalize: Callable[[Doubles], float]
    formula: str
    source: str
    values: Callable[[Any], Doubles] | None = None
    needs: tuple[Need, ...] = ()
    smaller: bool = False
    whole: bool = False


def user_mean(
    name: str,
    values: Callable[[Ranked], Doubles],
    formula: str,
    source: str,
    *,
    needs: tuple[Need, ...] = (),
    kind: Kind = "ranking",
) -> Metric:
    """Make the metric that is the mean of these values over the users who have one."""
    chunk = partial(_sum_values, values)
    return Metric(name, kind, chunk, mean, formula, source, values, needs)


def _sum_values(values: Callable[[Ranked], Doubles], block: Ranked) -> Doubles:
    each = values(block)
    has_one = ~np.isnan(each)
    return np.array([each[has_one].sum(), has_one.sum()])


def mean(total: Doubles) -> float:
    """Return a sum by its number, NaN of nothing."""
    return float(ratio(total[:1], total[1:])[0])


def shown(block: Ranked) -> Doubles:
    """Return how often each item is listed; NaN for those not in question."""
    counts = np.bincount(block.lists[block.lists >= 0], minlength=len(block.items.inside))
    return np.where(block.items.inside, counts, np.nan)


def tally(
    metric: Metric,
    block: Ranked | Predicted,
    lengths: Sequence[int],
    *,
    users: Sequence[Bools] = (),
    items: Sequence[Bools] = (),
) -> Doubles:
    """Measure one block, by group of users and of items if these are given.

    Parameters
    ----------
    users, items : sequences of bool arrays
        The members of each group among the users of the block and among all items.

    Returns
    -------
    float64, dims (user group, item group, length, what is summed)
        Those not asked for are missing; so is that of item groups where the metric is of all items.
    """
    if users:
        parts = [tally(metric, block.take(each), lengths, items=items) for each in users]
    elif items and not metric.whole:
        parts = [tally(metric, block.within(each), lengths) for each in items]
    elif metric.kind == "ranking":
        assert isinstance(block, Ranked)
        parts = [metric.chunk(block.cut(n)) for n in lengths]
    else:
        return metric.chunk(block)
    return np.stack(parts)


def _take_rows(block: CsrBlock, rows: Bools) -> CsrBlock:
    cells = np.repeat(rows, np.diff(block.indptr))
    counts = np.diff(block.indptr)[rows]
    return block._replace(
        indptr=indptr_of(counts), indices=block.indices[cells], data=block.data[cells]
    )


def _keep_cells(block: CsrBlock, cells: Bools) -> CsrBlock:
    counts = np.bincount(rows_of(block.indptr)[cells], minlength=block.n_rows)
    return block._replace(
        indptr=indptr_of(counts), indices=block.indices[cells], data=block.data[cells]
    )
