"""Sorting, collapsing and cutting the rows of one sparse block."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Longs = NDArray[np.int64]
Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


@njit(cache=True, nogil=True)
def places(keys: Ints, n_keys: int) -> tuple[Longs, Longs]:
    """Return where each key stands once ``keys`` (values in 0..n_keys-1) are sorted stably.

    A counting sort, in linear time. With few keys it is quicker to read in order and to write to a
    few places, :func:`scatter`, than to gather by an order from all over.

    Returns
    -------
    place : int64, shape (len(keys),)
    offsets : int64, shape (n_keys + 1,)
        Key ``j`` stands at places ``offsets[j]`` to ``offsets[j + 1] - 1``.
    """
    offsets = np.zeros(n_keys + 1, np.int64)
    for key in keys:
        offsets[key + 1] += 1
    for j in range(n_keys):
        offsets[j + 1] += offsets[j]
    following = offsets[:-1].copy()
    place = np.empty(keys.shape[0], np.int64)
    for position in range(keys.shape[0]):
        key = keys[position]
        place[position] = following[key]
        following[key] += 1
    return place, offsets


@njit(cache=True, nogil=True)
def scatter(values: NDArray[Any], place: Longs) -> NDArray[Any]:
    """Return ``out`` with ``out[place] = values``; ``place`` names each position once."""
    out = np.empty_like(values)
    for position in range(place.shape[0]):
        out[place[position]] = values[position]
    return out


@njit(cache=True, nogil=True)
def _radix_order(rows: Ints, columns: Ints, n_rows: int, n_columns: int) -> Longs:
    """Order by (row, column), stably: by column first, carrying the row along, then by row."""
    n = rows.shape[0]
    by_column, by_row = np.zeros(n_columns + 1, np.int64), np.zeros(n_rows + 1, np.int64)
    for i in range(n):
        by_column[columns[i] + 1] += 1
        by_row[rows[i] + 1] += 1
    for j in range(n_columns):
        by_column[j + 1] += by_column[j]
    for j in range(n_rows):
        by_row[j + 1] += by_row[j]
    half = np.empty(n, np.int64)  # row and place in one word: one random access the less
    for i in range(n):
        j = columns[i]
        half[by_column[j]] = (np.int64(rows[i]) << 32) | i
        by_column[j] += 1
    order = np.empty(n, np.int64)
    for k in range(n):
        j = half[k] >> 32
        order[by_row[j]] = half[k] & 0xFFFFFFFF
        by_row[j] += 1
    return order


@njit(cache=True, nogil=True)
def _runs(order: Longs, rows: Ints, columns: Ints) -> Longs:
    """Return where each distinct (row, column) begins in the order."""
    starts = np.empty(order.shape[0], np.int64)
    n = 0
    row = column = np.int32(-1)
    for k in range(order.shape[0]):
        i = order[k]
        if rows[i] != row or columns[i] != column:
            row, column = rows[i], columns[i]
            starts[n] = k
            n += 1
    return starts[:n].copy()


@njit(cache=True, nogil=True)
def _sort_runs(order: Longs, starts: Longs, timestamps: Longs) -> None:
    """Sort each run by time, in place and stably; runs are short."""
    for run in range(starts.shape[0]):
        first = starts[run]
        stop = starts[run + 1] if run + 1 < starts.shape[0] else order.shape[0]
        for i in range(first + 1, stop):
            cell, j = order[i], i - 1
            while j >= first and timestamps[order[j]] > timestamps[cell]:
                order[j + 1] = order[j]
                j -= 1
            order[j + 1] = cell


def sort_cells(
    rows: Ints, columns: Ints, timestamps: Longs | None, *, shape: tuple[int, int]
) -> tuple[Longs, Longs]:
    """Order cells by (row, column, timestamp), stably, and find those that repeat another.

    Rows lie in 0..shape[0]-1 and columns in 0..shape[1]-1, and there are fewer than 2**31 cells.
    Two counting sorts: linear time in cells, rows and columns, but for runs of duplicates that come
    with falling timestamps.

    Returns
    -------
    order : int64, shape (n,)
    starts : int64, shape (n_distinct,)
        Where each distinct (row, column) begins in the order.
    """
    order = _radix_order(rows, columns, *shape)
    starts = _runs(order, rows, columns)
    if timestamps is not None and starts.shape[0] < order.shape[0]:
        _sort_runs(order, starts, timestamps)
    return order, starts


def cut_sessions(rows: Ints, timestamps: Longs, n_rows: int, gap: int) -> tuple[Ints, Longs, Longs]:
    """Cut the events of each row wherever they pause for longer than ``gap``.

    Returns
    -------
    sessions : int32, shape (n,)
        The session of each event, numbered by row and time.
    counts : int64, shape (n_rows,)
        Sessions of each row.
    starts : int64, shape (n_sessions,)
        The first timestamp of each session.
    """
    order = np.lexsort((timestamps, rows))
    ordered, times = rows[order], timestamps[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (ordered[1:] != ordered[:-1]) | (times[1:] - times[:-1] > gap)
    sessions = np.empty(len(order), np.int32)
    sessions[order] = np.cumsum(new) - 1
    return sessions, np.bincount(ordered[new], minlength=n_rows), times[new]


def collapse(starts: Longs, values: Floats, policy: str) -> Floats:
    """Make one value of each run of duplicates.

    Parameters
    ----------
    starts : int64, shape (n_runs,)
        Where each run begins in ``values``; runs are in order of time.
    values : float32, shape (n,)
    policy : {"last", "first", "sum", "max", "mean"}

    Returns
    -------
    float32, shape (n_runs,); sums are taken in float64, and infinite where float32 is too small.
    """
    if policy == "first":
        return np.asarray(values[starts])
    ends = np.append(starts, values.shape[0])[1:]
    if policy == "last":
        return np.asarray(values[ends - 1])
    if policy == "max":
        return np.asarray(np.maximum.reduceat(values, starts))
    totals = np.add.reduceat(values.astype(np.float64), starts)
    if policy == "mean":
        totals /= ends - starts
    with np.errstate(over="ignore"):
        return totals.astype(np.float32)


def rows_of(indptr: Longs) -> Ints:
    """Return the row number of every stored cell, int32, shape (indptr[-1] - indptr[0],)."""
    return np.repeat(np.arange(indptr.shape[0] - 1, dtype=np.int32), np.diff(indptr))


def indptr_of(counts: Longs) -> Longs:
    """Return the int64 row pointer of rows with these stored counts."""
    indptr = np.zeros(counts.shape[0] + 1, np.int64)
    np.cumsum(counts, out=indptr[1:])
    return indptr


def kept_indptr(indptr: Longs, keep: NDArray[np.bool_]) -> Longs:
    """Return the row pointer that is left when only the cells marked in ``keep`` stay."""
    before = np.concatenate(([0], np.cumsum(keep, dtype=np.int64)))
    return np.asarray(before[indptr - indptr[0]])


def cut_rows(indptr: Longs, target: int) -> Longs:
    """Cut rows into blocks of about ``target`` stored cells each; a row is never split.

    Real activity follows a power law, so equal numbers of rows would give very unequal work.

    Returns
    -------
    int64, shape (n_blocks + 1,): block ``b`` holds rows ``cuts[b]:cuts[b + 1]``, never none.
    """
    n_rows = indptr.shape[0] - 1
    cuts = [0]
    while cuts[-1] < n_rows:
        goal = indptr[cuts[-1]] + target
        stop = int(np.searchsorted(indptr, goal, side="right")) - 1
        cuts.append(min(max(stop, cuts[-1] + 1), n_rows))
    return np.array(cuts, np.int64)
