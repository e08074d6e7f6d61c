"""What figures show of a store or a model, summed up block by block, on any cluster."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dasrec import blocks
from dasrec.checks import check_choice, check_count, check_duration
from dasrec.errors import InputError
from dasrec.factors import eigenbasis, map_rows
from dasrec.interactions import Interactions
from dasrec.kernels.grid import count_cells, count_steps
from dasrec.models import Model
from dasrec.schema import ITEM, ITEM_BIN, ITEM_ID, ITEM_USERS, TIME, USER, USER_BIN, USER_ITEMS
from dasrec.typing import Duration, Ints, Longs, Side

Order = Literal["activity", "number"]

_HOUR = 3600 * 10**6
_STEPS = (  # microseconds that people count by
    *(10**6 * each for each in (1, 10, 60, 600)),
    *(_HOUR * each for each in (1, 6, 24, 168, 720, 2160, 8760)),
)
_MOST_STEPS = 200  # of a span of time, unless a caller wants more
_LIMIT_STEPS = 100_000
_BIN_CELLS = 8  # of a bin on average: with fewer a picture is noise


def count_tails(interactions: Interactions) -> xr.Dataset:
    """Count the interactions of each user and of each item, eagerly.

    Returns
    -------
    xarray.Dataset
        int64 ``user_counts``, dims (user,), and ``item_counts``, dims (item,), in the order of the
        numbers. :func:`dasrec.report.long_tail` draws either.

    Notes
    -----
    Cost: of a whole store the row pointers are read, of a part of one all blocks of both sides.
    """
    counts = {
        "user_counts": (USER, interactions.counts(USER_ITEMS)),
        "item_counts": (ITEM, interactions.counts(ITEM_USERS)),
    }
    return xr.Dataset(counts, attrs=_facts(interactions))


def count_in_time(interactions: Interactions, *, step: Duration | None = None) -> xr.Dataset:
    """Count interactions and active users by equal steps of time, eagerly.

    Parameters
    ----------
    interactions : Interactions
    step : text like "1D", or timedelta, optional
        By default the least of second, minute, hour, day, week, 30, 90 and 365 days, and some
        between, that cuts the span of time into at most 200 steps.

    Returns
    -------
    xarray.Dataset
        int64 ``interactions`` and ``users`` (who have at least one), dims (time,), with the
        beginning of each step as ``time``, datetime64[us], UTC, whole multiples of the step since
        1970 (steps of a week begin on Thursdays). Attributes: ``step_seconds``, ``store``.
        :func:`dasrec.report.activity_curve` draws it.

    Raises
    ------
    InputError
        There are no timestamps or no interactions, or there would be more than 100,000 steps.

    Notes
    -----
    Cost: the timestamps are read twice, once for the span, and the rows once.
    """
    if not interactions.has_timestamps:
        msg = f"{interactions.url} has no timestamps; write it again from a log with a time column"
        raise InputError(msg)
    given = None if step is None else check_duration(step, name="step")
    spans = interactions.map_blocks(_span, USER_ITEMS, name="span-block", progress=False)
    known = [each for each in spans if each is not None]
    if not known:
        msg = f"{interactions.url} has no interactions in this part; nothing can be counted"
        raise InputError(msg)
    first, last = min(each[0] for each in known), max(each[1] for each in known)
    micros = given or next(
        (each for each in _STEPS if (last - first) // each < _MOST_STEPS - 1), _STEPS[-1]
    )
    start = first // micros * micros
    n_steps = (last - start) // micros + 1
    if n_steps > _LIMIT_STEPS:
        msg = f"step is {step!r}, which makes {n_steps:,} steps; expected at most {_LIMIT_STEPS:,}"
        raise InputError(msg)
    told = (start, micros, n_steps)
    parts = interactions.map_blocks(_step_counts, USER_ITEMS, *told, name="time-block")
    cells, users = (np.sum(part, axis=0) for part in zip(*parts, strict=True))
    begins = (start + micros * np.arange(n_steps)).astype("datetime64[us]")
    return xr.Dataset(
        {"interactions": (TIME, cells), "users": (TIME, users)},
        coords={TIME: begins},
        attrs={"step_seconds": micros / 1e6, **_facts(interactions)},
    )


def _span(view: Interactions, side: Side, start: int, stop: int) -> tuple[int, int] | None:
    times = view.read_times(side, start, stop)
    return (int(times.min()), int(times.max())) if len(times) else None


def _step_counts(
    view: Interactions, side: Side, start: int, stop: int, first: int, step: int, n_steps: int
) -> tuple[Longs, Longs]:
    block = view.read_rows(side, start, stop, timed=True)
    assert block.timestamps is not None  # they were asked for
    counts: tuple[Longs, Longs] = count_steps(block.indptr, block.timestamps, first, step, n_steps)
    return counts


def count_on_grid(
    interactions: Interactions,
    *,
    bins: tuple[int, int] | None = None,
    order: Order = "activity",
) -> xr.Dataset:
    """Count interactions on a grid of users and items, eagerly: the matrix as a small picture.

    Parameters
    ----------
    interactions : Interactions
    bins : (of users, of items), optional
        At most; of fewer users or items each has its own. By default two to three, as many as have
        some eight interactions each, up to 120 x 180.
    order : {"activity", "number"}
        Who has most interactions first, or in the order of the store.

    Returns
    -------
    xarray.Dataset
        int64 ``interactions`` and float64 ``density``, the share of the cells of a bin that are
        stored, dims (user_bin, item_bin). Coordinates ``first_user`` and ``first_item``: the rank
        or number, from 0, of the first in each bin. Attributes: ``n_users``, ``n_items``,
        ``order``, ``store``. :func:`dasrec.report.heat_map` draws it.

    Raises
    ------
    InputError
        ``bins`` are no whole numbers from 1 to 4,096, or ``order`` is unknown.

    Notes
    -----
    Cost: one pass over the blocks; a task returns a grid, 8 bytes a bin.
    """
    check_choice(order, name="order", choices=get_args(Order))
    if bins is None:
        half = min(60, max(2, round((interactions.n_stored / _BIN_CELLS / 6) ** 0.5)))
        bins = (2 * half, 3 * half)
    sides: tuple[tuple[Side, int], ...] = (
        (USER_ITEMS, interactions.n_users),
        (ITEM_USERS, interactions.n_items),
    )
    placed, edges = [], []
    for (side, size), given in zip(sides, bins, strict=True):
        n = min(check_count(given, name="bins", most=4096), size)
        rank = np.arange(size)
        if order == "activity":
            rank[np.argsort(-interactions.counts(side), kind="stable")] = np.arange(size)
        placed.append((rank * n // size).astype(np.int32))
        edges.append(-(-np.arange(n) * size // n))  # the first rank of each bin
    shared = blocks.share(placed)
    shape = (len(edges[0]), len(edges[1]))
    parts = interactions.map_blocks(_grid_counts, USER_ITEMS, shared, shape, name="grid-block")
    counts = np.sum(parts, axis=0)
    heights, widths = (
        np.diff(each, append=size) for each, (_, size) in zip(edges, sides, strict=True)
    )
    dims = (USER_BIN, ITEM_BIN)
    return xr.Dataset(
        {"interactions": (dims, counts), "density": (dims, counts / np.outer(heights, widths))},
        coords={"first_user": (USER_BIN, edges[0]), "first_item": (ITEM_BIN, edges[1])},
        attrs={
            "n_users": interactions.n_users,
            "n_items": interactions.n_items,
            "order": order,
            **_facts(interactions),
        },
    )


def _grid_counts(
    view: Interactions,
    side: Side,
    start: int,
    stop: int,
    placed: list[Ints],
    shape: tuple[int, int],
) -> Longs:
    block = view.read_rows(side, start, stop)
    users, items = placed
    counts: Longs = count_cells(block.indptr, block.indices, users[start:stop], items, shape)
    return counts


def place_items(
    model: Model, *, interactions: Interactions | None = None, most: int = 2000
) -> xr.Dataset:
    """Place items in a plane by the two directions in which their vectors differ most, eagerly.

    Parameters
    ----------
    model : Model
        With vectors of items, ``item_factors_``.
    interactions : Interactions, optional
        By whose counts the items are chosen and told apart; by default all are alike, and the first
        ones are taken.
    most : int
        Items that are placed: those with most interactions.

    Returns
    -------
    xarray.Dataset
        float64 ``x`` and ``y``, dims (item,), ``count``, int64, and ``item_id`` along ``item``.
        Attributes: ``model``; ``share_x`` and ``share_y``, of the variance of all items.
        :func:`dasrec.report.item_map` draws it.

    Raises
    ------
    InputError
        The model has no vectors of items, or fewer than two factors.
    MismatchError
        The model belongs to another store.

    Notes
    -----
    The two largest singular vectors of the item vectors less their mean, from the k x k matrix of
    their products, which is summed up over blocks of 16,384 rows: n_items k^2 multiply-adds. Each
    direction is turned so that its largest entry is positive.
    """
    model.check_fitted()
    factors: NDArray[Any] | None = getattr(getattr(model, "item_factors_", None), "values", None)
    if factors is None or factors.shape[1] < 2:
        msg = f"{model.name} has no vectors of items of two factors or more; expected some to draw"
        raise InputError(msg)
    check_count(most, name="most")
    counts = np.zeros(len(factors), np.int64)
    if interactions is not None:
        model.check_belongs(interactions)
        counts = interactions.counts(ITEM_USERS)
    used = counts > 0 if counts.any() else factors.any(axis=1)  # zeros would bend the mean
    mean = factors[used].mean(axis=0, dtype=np.float64).astype(np.float32)
    centred: Any = map_rows(np.subtract, factors[used], mean)
    values, directions = eigenbasis(centred)
    plane = directions[:, :-3:-1]
    peaks = plane[np.abs(plane).argmax(axis=0), [0, 1]]
    chosen = np.sort(np.argsort(-counts, kind="stable")[:most])
    chosen = chosen[used[chosen]]
    where = (factors[chosen] - mean).astype(np.float64) @ (plane * np.sign(peaks))
    shares = values[:-3:-1] / max(float(values.sum()), np.finfo(np.float64).tiny)
    return xr.Dataset(
        {"x": (ITEM, where[:, 0]), "y": (ITEM, where[:, 1]), "count": (ITEM, counts[chosen])},
        coords={ITEM_ID: (ITEM, model.item_ids_.ids_of(chosen))},
        attrs={"model": model.name, "share_x": float(shares[0]), "share_y": float(shares[1])},
    )


def _facts(interactions: Interactions) -> dict[str, Any]:
    return {"store": interactions.url}
