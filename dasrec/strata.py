"""Epochs of stochastic gradient descent over strata: blocks of users by groups of items.

Tasks that run side by side share no user and no item, so none waits for another, and what they do
does not depend on how many of them there are at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from dask.tokenize import tokenize

from dasrec import blocks, files
from dasrec.interactions import Interactions
from dasrec.kernels.hashing import key_of, mix
from dasrec.kernels.stochastic import deal
from dasrec.medium import CACHE, BlockCache, FitPlan
from dasrec.memory import check_fits
from dasrec.plan import room
from dasrec.schema import USER_ITEMS
from dasrec.typing import CsrBlock, Floats, Ints, Longs

TASK_CELLS = 2**19
"""Stored cells of a task: some 20 ms of work at 64 factors."""

LEAST_ITEMS = 16
"""Items of a group: enough to find one that a user does not know."""

COPIES = 3
"""Of the vectors of users: as they are, as they were, and at their best; of items also dealt."""

_MOST_GROUPS = 256
_CELL_BYTES = 40  # of a block that is being dealt
_TIMES_BYTES = 40  # more, where times are dealt too
_DEALT_BYTES = 12  # of a cell that has been

DEALT = BlockCache()


class Stratum(NamedTuple):
    """What a task sees: the cells of some users and a group of items, and what the users know.

    Attributes
    ----------
    rows, columns : int32: user and item of each cell, from the first of each
    values : float32
    indptr, indices : all cells of these users, by the numbers of items in the store
    names : int32: these numbers, of the items of the group
    key : int: of everything that the task draws
    times : float32 or None: of each cell, if they were asked for, as a share of their span
    """

    rows: Ints
    columns: Ints
    values: Floats
    indptr: Longs
    indices: Ints
    names: Ints
    key: int
    times: Floats | None = None


@dataclass(frozen=True)
class Strata:
    """How a fit is cut: users once, by stored cells; items anew in each epoch, at random.

    Attributes
    ----------
    user_cuts : int64, shape (n_groups + 1,)
    known : int32: the items that have cells; others are in no stratum
    user_counts, item_counts : int64: cells of each
    seed : int
    fit : str: names the view whose blocks are kept
    cache_bytes : int: for decoded blocks, and again for dealt ones
    span : int64, shape (2,), or None: the first and the last time, where steps take times
    """

    user_cuts: Longs
    known: Ints
    user_counts: Longs
    item_counts: Longs
    seed: int
    fit: str
    cache_bytes: int
    span: Longs | None = None

    @property
    def n_groups(self) -> int:
        """How many blocks of users there are, and of items."""
        return len(self.user_cuts) - 1

    @property
    def size(self) -> int:
        """Return how many items a group has; the last may have fewer."""
        return -(-len(self.known) // self.n_groups)


class _Epoch(NamedTuple):
    """What all tasks of an epoch share."""

    fit: str
    deal: str  # names what is dealt in it
    cache_bytes: int
    places: Ints  # where each item stands
    names: Ints  # and which item stands there
    size: int
    n_groups: int
    seed: int
    number: int
    pure: bool  # whether tasks leave what they are given as it is
    span: Longs | None


class Done(NamedTuple):
    """What a task gives to the next ones, and the loss that its users have met so far."""

    users: Floats
    items: Floats
    loss: float


Step = Callable[[Stratum, Floats, Floats, Any], float]
"""Changes the vectors of users and items in place by a rule, and returns the loss that it met."""


def cut_strata(view: Interactions, *, seed: int, cache_bytes: int) -> Strata:
    """Cut a view by its cells alone, so that the cut depends on no cluster and no store."""
    users, items = view.counts(USER_ITEMS), view.counts("item_users")
    known = np.flatnonzero(items).astype(np.int32)
    n = count_groups(int(users.sum()), len(known), len(users))
    ends = np.searchsorted(np.cumsum(users), np.linspace(0, users.sum(), n + 1)[1:-1], "right")
    cuts = np.unique([0, *ends, len(users)]).astype(np.int64)
    # fits side by side on the same data share their blocks
    return Strata(cuts, known, users, items, seed, tokenize(view), cache_bytes)


def count_groups(n_cells: int, n_items: int, n_users: int) -> int:
    """Return how many blocks each side is cut into: an even number, or 1 where there is little."""
    wanted = 2 * math.ceil(math.sqrt(n_cells / TASK_CELLS) / 2)
    return max(1, min(wanted, _MOST_GROUPS, n_items // LEAST_ITEMS, n_users))


def run_epoch(
    view: Interactions,
    strata: Strata,
    step: Step,
    state: tuple[Floats, Floats],
    rule: Any,
    number: int,
) -> tuple[Floats, float]:
    """Take a step at every cell; change the users in place, return the items and the loss.

    Parameters
    ----------
    view : Interactions
    strata : Strata
    step : function of an importable module
    state : float32, shapes (n_users, d) and (n_items, d)
    rule : what ``step`` takes
    number : int
        Of the epoch: it draws groups and orders anew.

    Notes
    -----
    Gemulla, Nijkamp, Haas and Sismanis, "Large-scale matrix factorization with distributed
    stochastic gradient descent", KDD 2011, doi:10.1145/2020408.2020426. There groups stay as they
    are; here items meet in another group each time, so that any two are compared. Without a client
    all tasks work on the same two arrays; with one, they pass their rows of both on.
    """
    users, items = state
    order, epoch = _open_epoch(view, strata, number)
    dealt = items[order]  # so that groups are slices
    n = strata.n_groups
    edges = [min(g * strata.size, len(order)) for g in range(n + 1)]
    parts = [
        (users[start:stop], dealt[a:b])
        for (start, stop), (a, b) in zip(
            pairwise(strata.user_cuts.tolist()), pairwise(edges), strict=True
        )
    ]
    given = [blocks.share(part) for part in parts]
    arguments = _plan_turns(view, strata, given, (step, epoch, rule))
    rows = {"rows": len(users), "wanted": n}
    found = blocks.run(run_task, arguments, name="gradient-stratum", progress=False, **rows)
    for block, task in enumerate(found):
        parts[block][0][...], parts[(block + n - 1) % n][1][...] = task.users, task.items
    changed = items.copy()
    changed[order] = dealt
    return changed, sum(task.loss for task in found)


def _plan_turns(
    view: Interactions, strata: Strata, parts: Sequence[Any], shared: tuple[Step, _Epoch, Any]
) -> list[tuple[Any, ...]]:
    """Let every block of users take its turn with every group of items, the next one each time.

    A task waits for two others: who had its users, and who had its items.
    """
    n = strata.n_groups
    given = blocks.share(view) if view.masks or view.transforms else view
    shared = blocks.share(shared)
    arguments: list[tuple[Any, ...]] = []
    for turn in range(n):
        for block in range(n):
            before = (turn - 1) * n
            pair = (
                (blocks.Outcome(before + block), blocks.Outcome(before + (block + 1) % n))
                if turn
                else (parts[block], parts[block])
            )
            arguments.append((given, _rows(strata, block), (block + turn) % n, *pair, shared))
    return arguments


def map_users(
    view: Interactions, strata: Strata, task: Callable[[CsrBlock], Any], *, timed: bool = False
) -> list[Any]:
    """Return ``task`` of each block of users, in order; blocks are kept as far as they fit."""
    given = blocks.share(view) if view.masks or view.transforms else view
    keep = {"fit": strata.fit, "limit": strata.cache_bytes, "timed": timed}
    arguments = [(given, _rows(strata, block)[1:], keep, task) for block in range(strata.n_groups)]
    return blocks.run(_of_users, arguments, name="users-block", progress=False)


def _of_users(
    view: Interactions,
    rows: tuple[int, int],
    keep: dict[str, Any],
    task: Callable[[CsrBlock], Any],
) -> Any:
    return task(CACHE.read(view, USER_ITEMS, rows, **keep))


def _rows(strata: Strata, block: int) -> tuple[int, int, int]:
    return block, int(strata.user_cuts[block]), int(strata.user_cuts[block + 1])


def _open_epoch(view: Interactions, strata: Strata, number: int) -> tuple[Ints, _Epoch]:
    """Deal the items out to groups."""
    key = np.uint64(key_of(strata.seed, number))
    with np.errstate(over="ignore"):
        words = mix(key + mix(strata.known.astype(np.uint64)))
    order = strata.known[np.argsort(words, kind="stable")]
    places = np.zeros(view.n_items, np.int32)
    places[order] = np.arange(len(order), dtype=np.int32)
    return order, _Epoch(
        strata.fit,
        files.token(),
        strata.cache_bytes,
        places,
        order,
        strata.size,
        strata.n_groups,
        strata.seed,
        number,
        blocks.active_client() is not None,
        strata.span,
    )


def run_task(
    view: Interactions,
    users_of: tuple[int, int, int],
    group: int,
    before: Done | tuple[Floats, Floats],
    beside: Done | tuple[Floats, Floats],
    shared: tuple[Step, _Epoch, Any],
) -> Done:
    """Take the steps of one stratum, with the users of one task before and the items of another."""
    step, epoch, rule = shared
    users, items = before[0], beside[1]
    if epoch.pure:
        users, items = users.copy(), items.copy()
    loss = before.loss if isinstance(before, Done) else 0.0
    return Done(
        users, items, loss + step(_stratum(view, users_of, group, epoch), users, items, rule)
    )


def _stratum(
    view: Interactions, users_of: tuple[int, int, int], group: int, epoch: _Epoch
) -> Stratum:
    """Find the cells of some users and a group of items."""
    number, start, stop = users_of
    fit, limit = epoch.fit, epoch.cache_bytes
    timed = epoch.span is not None
    block = CACHE.read(view, USER_ITEMS, (start, stop), fit=fit, limit=limit, timed=timed)
    key = key_of(epoch.seed, epoch.number, number)
    make = partial(_dealt, block, epoch, key)
    size = (_DEALT_BYTES + 4 * timed) * len(block.indices) + 8 * (epoch.n_groups + 1)
    if DEALT.may_keep(number, size, fit=epoch.deal, limit=limit):
        offsets, *cells = DEALT.get(number, make, fit=epoch.deal, limit=limit)
        cells = [each[offsets[group] : offsets[group + 1]] for each in cells]
    else:  # as often as there are groups
        _, *cells = make(group)
    return Stratum(
        cells[0],
        cells[1],
        cells[2],
        block.indptr,
        block.indices,
        # what workers are sent may not be written to: kernels would be compiled once more for that,
        # and round otherwise
        epoch.names[group * epoch.size : (group + 1) * epoch.size].copy(),
        key_of(key, group),
        cells[3] if timed else None,
    )


def _dealt(block: CsrBlock, epoch: _Epoch, key: int, only: int = -1) -> tuple[Any, ...]:
    """Deal out cells, and their times in the same order."""
    told = epoch.places, epoch.size, epoch.n_groups, key, only
    found: tuple[Any, ...] = deal(block[:3], *told)
    if epoch.span is None:
        return found
    shares = shares_of(block.timestamps, epoch.span)
    return *found, deal((block.indptr, block.indices, shares), *told)[3]


def shares_of(times: Any, span: Longs) -> Floats:
    """Return times as shares of their span, from 0 to 1; float32."""
    first, last = (float(each) for each in span)
    shares = (np.asarray(times, np.float64) - first) / max(last - first, 1.0)
    return np.clip(shares, 0, 1).astype(np.float32)


def plan_epochs(
    interactions: Interactions,
    *,
    width: int,
    copies: int = COPIES,
    memory: str | int | None = None,
    timed: bool = False,
) -> FitPlan:
    """Foresee tasks and memory of fitting vectors of a width by gradient descent; nothing is read.

    Raises
    ------
    BudgetError
        Vectors and one block a thread need more; the message says how much.
    """
    base, limit, threads = room(memory)
    if blocks.active_client() is not None:
        base = 0  # what this process holds says nothing of a worker, whose limit is the least
    n_users, n_items, n = interactions.n_users, interactions.n_items, interactions.n_stored
    n_groups = count_groups(n, n_items, n_users)
    vectors = 4 * width * (copies * (n_users + n_items) + n_items)
    cells = -(-n // n_groups)
    need = base + vectors + threads * (_CELL_BYTES + _TIMES_BYTES * timed) * cells
    check_fits(
        need,
        limit=limit,
        what=f"fitting vectors of {width} numbers for {n_users:,} users and {n_items:,} items",
        remedy="use fewer factors, or drop rare users and items with min_user and min_item",
    )
    data = (24 + 12 * timed) * n + 16 * n_users  # decoded, and dealt
    # without a limit half of the machine is left to others
    spare = limit - need if memory is not None else limit // 2 - need
    cache = max(0, min(data, spare))
    return FitPlan(
        factors=width,
        n_tasks=n_groups**2,
        factors_in="memory",
        factor_bytes=vectors,
        cells_at_once=cells,
        cache_bytes=cache,
        data_bytes=data,
        peak_bytes=need + cache,
        limit_bytes=limit,
    )
