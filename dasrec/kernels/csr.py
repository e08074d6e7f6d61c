"""Sorting, collapsing and cutting the rows of one sparse block."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Longs = NDArray[np.int64]
Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


@njit(cache=True, nogil=True)
def counting_sort(keys: Ints, n_keys: int) -> tuple[Longs, Longs]:
    """Order ``keys`` (values in 0..n_keys-1) stably in linear time.

    Returns
    -------
    order : int64, shape (len(keys),)
        ``keys[order]`` is sorted; equal keys keep their order.
    offsets : int64, shape (n_keys + 1,)
        Key ``j`` stands at ``order[offsets[j]:offsets[j + 1]]``.
    """
    offsets = np.zeros(n_keys + 1, np.int64)
    for key in keys:
        offsets[key + 1] += 1
    for j in range(n_keys):
        offsets[j + 1] += offsets[j]
    place = offsets[:-1].copy()
    order = np.empty(keys.shape[0], np.int64)
    for position in range(keys.shape[0]):
        key = keys[position]
        order[place[key]] = position
        place[key] += 1
    return order, offsets


@njit(cache=True, nogil=True)
def _sort_runs(order: Longs, rows: Ints, columns: Ints, timestamps: Longs) -> None:
    """Sort each run of one (row, column) by time, in place and stably; runs are short."""
    for i in range(1, order.shape[0]):
        cell, j = order[i], i - 1
        while (
            j >= 0
            and timestamps[order[j]] > timestamps[cell]
            and rows[order[j]] == rows[cell]
            and columns[order[j]] == columns[cell]
        ):
            order[j + 1] = order[j]
            j -= 1
        order[j + 1] = cell


def sort_cells(
    rows: Ints, columns: Ints, timestamps: Longs | None, *, shape: tuple[int, int]
) -> Longs:
    """Return the stable order by (row, column, timestamp); equal ones stay as they arrived.

    Rows lie in 0..shape[0]-1 and columns in 0..shape[1]-1. Two counting sorts: linear time, but for
    runs of duplicates that come with falling timestamps.
    """
    by_column, _ = counting_sort(columns, shape[1])
    by_row, _ = counting_sort(rows[by_column], shape[0])
    order = by_column[by_row]
    if timestamps is not None:
        _sort_runs(order, rows, columns, timestamps)
    return order


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


def run_starts(rows: Ints, columns: Ints) -> Longs:
    """Return where each distinct (row, column) begins in arrays sorted by them."""
    if rows.shape[0] == 0:
        return np.empty(0, np.int64)
    new = (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])
    return np.concatenate(([0], np.flatnonzero(new) + 1)).astype(np.int64)


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
