"""Sorting, collapsing and cutting the rows of one sparse block."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Longs = NDArray[np.int64]
Ints = NDArray[np.int32]
Floats = NDArray[np.float32]

_WORD_BITS = 64


@njit(cache=True, nogil=True)
def places(keys: Ints, n_keys: int) -> tuple[Ints, Longs]:
    """Return where each key stands once ``keys`` (values in 0..n_keys-1) are sorted stably.

    A counting sort, in linear time. With few keys it is quicker to read in order and to write to a
    few places, :func:`scatter`, than to gather by an order from all over.

    Returns
    -------
    place : int32, shape (len(keys),)
    offsets : int64, shape (n_keys + 1,)
        Key ``j`` stands at places ``offsets[j]`` to ``offsets[j + 1] - 1``.
    """
    offsets = np.zeros(n_keys + 1, np.int64)
    for key in keys:
        offsets[key + 1] += 1
    for j in range(n_keys):
        offsets[j + 1] += offsets[j]
    following = offsets[:-1].copy()
    place = np.empty(keys.shape[0], np.int32)
    for position in range(keys.shape[0]):
        key = keys[position]
        place[position] = following[key]
        following[key] += 1
    return place, offsets


@njit(cache=True, nogil=True)
def scatter(values: NDArray[Any], place: Ints) -> NDArray[Any]:
    """Return ``out`` with ``out[place] = values``; ``place`` names each position once."""
    out = np.empty_like(values)
    for position in range(place.shape[0]):
        out[place[position]] = values[position]
    return out


@njit(cache=True, nogil=True)
def gather(values: NDArray[Any], order: NDArray[np.integer]) -> NDArray[Any]:
    """Return ``values[order]``; NumPy takes longer, since it makes an order of int64 first."""
    out = np.empty(order.shape[0], values.dtype)
    for position in range(order.shape[0]):
        out[position] = values[order[position]]
    return out


@njit(cache=True, nogil=True)
def count_rows(rows: Ints, first: int, stop: int) -> Longs:
    """Return how many cells each of the rows ``first:stop`` has, int64, in one pass."""
    counts = np.zeros(stop - first, np.int64)
    for row in rows:
        counts[row - first] += 1
    return counts


@njit(cache=True, nogil=True)
def split_numbers(numbers: Ints, cuts: Longs) -> tuple[Ints, Ints]:
    """Return the bucket of each number, and the number counted from the first of its bucket.

    Parameters
    ----------
    numbers : int32, shape (n,)
    cuts : int64, ascending from 0
        Bucket ``b`` has the numbers from ``cuts[b]`` to ``cuts[b + 1] - 1``.

    Returns
    -------
    buckets, within : int32, shape (n,)
    """
    bucket_of = np.empty(cuts[-1], np.int32)
    for bucket in range(cuts.shape[0] - 1):
        bucket_of[cuts[bucket] : cuts[bucket + 1]] = bucket
    buckets, within = np.empty(numbers.shape[0], np.int32), np.empty(numbers.shape[0], np.int32)
    for i in range(numbers.shape[0]):
        buckets[i] = bucket_of[numbers[i]]
        within[i] = numbers[i] - cuts[buckets[i]]
    return buckets, within


@njit(cache=True, nogil=True)
def _sorted_words(
    rows: Ints, columns: Ints, row_bits: int, column_bits: int, place_bits: int
) -> NDArray[np.uint64]:
    """Pack row, column and place into words and sort them: a radix sort by 11 bits at a time."""
    n = rows.shape[0]
    words, other = np.empty(n, np.uint64), np.empty(n, np.uint64)
    for i in range(n):
        cell = (np.uint64(rows[i]) << np.uint64(column_bits)) | np.uint64(columns[i])
        words[i] = (cell << np.uint64(place_bits)) | np.uint64(i)
    shift = place_bits  # places ascend already, and each step is stable
    while shift < place_bits + column_bits + row_bits:
        following = np.zeros(2049, np.int64)
        for i in range(n):
            following[np.int64((words[i] >> np.uint64(shift)) & np.uint64(2047)) + 1] += 1
        for digit in range(2048):
            following[digit + 1] += following[digit]
        for i in range(n):
            slot = np.int64((words[i] >> np.uint64(shift)) & np.uint64(2047))
            other[following[slot]] = words[i]
            following[slot] += 1
        words, other = other, words
        shift += 11
    return words


@njit(cache=True, nogil=True)
def _unpack(words: NDArray[np.uint64], place_bits: int) -> tuple[Ints, Longs]:
    """Return the places in sorted words, and where each distinct cell begins."""
    n, n_starts = words.shape[0], 0
    order, starts = np.empty(n, np.int32), np.empty(n, np.int64)
    mask = (np.uint64(1) << np.uint64(place_bits)) - np.uint64(1)
    for k in range(n):
        order[k] = np.int32(words[k] & mask)
        if k == 0 or (words[k] ^ words[k - 1]) > mask:
            starts[n_starts] = k
            n_starts += 1
    return order, starts[:n_starts].copy()


@njit(cache=True, nogil=True)
def _sort_runs(order: Ints, starts: Longs, timestamps: Longs) -> None:
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
) -> tuple[Ints, Longs]:
    """Order cells by (row, column, timestamp), stably, and find those that repeat another.

    Rows lie in 0..shape[0]-1 and columns in 0..shape[1]-1, and there are fewer than 2**31 cells.
    A radix sort: linear time, but for runs of duplicates that come with falling timestamps, and for
    shapes so large that row, column and place together have more than 64 bits.

    Returns
    -------
    order : int32, shape (n,)
    starts : int64, shape (n_distinct,)
        Where each distinct (row, column) begins in the order.
    """
    bits = [max(0, size - 1).bit_length() for size in (*shape, len(rows))]
    if sum(bits) <= _WORD_BITS:
        order, starts = _unpack(_sorted_words(rows, columns, *bits), bits[-1])
    else:
        order = np.lexsort((columns, rows)).astype(np.int32)
        cells = np.stack([rows[order], columns[order]])
        starts = np.flatnonzero((np.diff(cells, prepend=-1) != 0).any(axis=0))
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


@njit(cache=True, nogil=True)
def has(indptr: Longs, indices: Ints, row: int, column: int) -> Any:
    """Say whether a row has a column, by search: columns ascend within a row."""
    first, length = indptr[row], indptr[row + 1] - indptr[row]
    while length > 1:
        half = length >> 1
        # a choice of two numbers instead of a branch, guessed wrong every second time
        first = first + half if indices[first + half] <= column else first
        length -= half
    return length > 0 and indices[first] == column
