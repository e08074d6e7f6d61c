"""Hashes: of cells, for randomness that no order or cluster changes; of ids, to number them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit words: the finaliser of SplitMix64.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014,
    doi:10.1145/2660193.2660195.
    """
    with np.errstate(over="ignore"):
        state = (state ^ (state >> np.uint64(30))) * _FIRST
        state = (state ^ (state >> np.uint64(27))) * _SECOND
    return np.asarray(state ^ (state >> np.uint64(31)))


def key_of(*numbers: int) -> int:
    """Return 63 bits that change with each of some numbers: what keyed randomness starts from."""
    state = np.zeros(1, np.uint64)
    with np.errstate(over="ignore"):
        for number in numbers:
            state = mix(state + np.asarray([number], np.uint64) + _STEP)
    return int(state[0] >> np.uint64(1))


@njit(cache=True, nogil=True)
def word(key: int, number: int) -> Any:
    """Return 63 bits of a number under a key of :func:`key_of`, another key: for kernels."""
    state = np.uint64(key) + (np.uint64(number) + np.uint64(1)) * _STEP
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return np.int64((state ^ (state >> np.uint64(31))) >> np.uint64(1))


@njit(cache=True, nogil=True)
def below(bits: int, n: int) -> Any:
    """Turn the upper 32 bits of a word into a whole number from 0 to n - 1, n below 2**31."""
    return (bits >> 31) * n >> 32


def cell_words(
    rows: NDArray[np.int32],
    columns: NDArray[np.int32],
    values: NDArray[np.float32],
    timestamps: NDArray[np.int64] | None,
) -> NDArray[np.uint64]:
    """Return a word for each cell that changes with anything that the cell holds."""
    with np.errstate(over="ignore"):
        state = mix((rows.astype(np.uint64) + np.uint64(1)) * _STEP)
        state = mix(state + (columns.astype(np.uint64) + np.uint64(1)) * _STEP)
        state = mix(state + values.view(np.uint32).astype(np.uint64))
        if timestamps is not None:
            state = mix(state + timestamps.view(np.uint64))
    return state


def cell_uniform(
    seed: int, rows: NDArray[np.int32], columns: NDArray[np.int32] | None = None
) -> NDArray[np.float64]:
    """Return a uniform number in [0, 1) for each (row, column), or for each row alone.

    The number depends on nothing but ``seed`` and the cell itself.
    """
    with np.errstate(over="ignore"):
        key = mix(np.asarray([seed], np.uint64) + _STEP)
        state = mix(key + (rows.astype(np.uint64) + np.uint64(1)) * _STEP)
        if columns is not None:
            state = mix(state + (columns.astype(np.uint64) + np.uint64(1)) * _STEP)
    return np.asarray((state >> np.uint64(11)) * 2.0**-53)


@njit(cache=True, nogil=True)
def _first_codes(values: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number integers in order of appearance: open addressing, at most half of the slots taken."""
    bits = 12
    shift, last = np.uint64(64 - bits), (1 << bits) - 1
    slots = np.full(1 << bits, -1, np.int32)
    codes = np.empty(values.shape[0], np.int32)
    distinct = np.empty(values.shape[0], np.int64)
    n = 0
    for i in range(values.shape[0]):
        value = values[i]
        slot = np.int64((np.uint64(value) * _STEP) >> shift)
        while slots[slot] >= 0 and distinct[slots[slot]] != value:
            slot = (slot + 1) & last
        if slots[slot] < 0:
            slots[slot] = n
            distinct[n] = value
            n += 1
        codes[i] = slots[slot]
        if 2 * n > last:
            bits += 2
            shift, last = np.uint64(64 - bits), (1 << bits) - 1
            slots = np.full(1 << bits, -1, np.int32)
            for code in range(n):
                slot = np.int64((np.uint64(distinct[code]) * _STEP) >> shift)
                while slots[slot] >= 0:
                    slot = (slot + 1) & last
                slots[slot] = code
    return codes, distinct[:n].copy()


@njit(cache=True, nogil=True)
def _ranks(distinct: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Rank distinct integers and sort them: a radix sort of as many 11-bit digits as they need."""
    n = distinct.shape[0]
    low, high = distinct.min(), distinct.max()
    span = np.uint64(high) - np.uint64(low)  # modulo 2**64, so no difference is too large
    order, other = np.arange(n, dtype=np.int32), np.empty(n, np.int32)
    shift = np.uint64(0)
    while shift < np.uint64(64) and (span >> shift) > np.uint64(0):
        following = np.zeros(2049, np.int64)
        for i in range(n):
            key = np.uint64(distinct[order[i]]) - np.uint64(low)
            following[np.int64((key >> shift) & np.uint64(2047)) + 1] += 1
        for digit in range(2048):
            following[digit + 1] += following[digit]
        for i in range(n):
            key = np.uint64(distinct[order[i]]) - np.uint64(low)
            slot = np.int64((key >> shift) & np.uint64(2047))
            other[following[slot]] = order[i]
            following[slot] += 1
        order, other = other, order
        shift += np.uint64(11)
    ranks, ascending = np.empty(n, np.int32), np.empty(n, np.int64)
    for place in range(n):
        ranks[order[place]] = place
        ascending[place] = distinct[order[place]]
    return ranks, ascending


@njit(cache=True, nogil=True)
def _renumber(codes: NDArray[np.int32], ranks: NDArray[np.int32]) -> None:
    for i in range(codes.shape[0]):
        codes[i] = ranks[codes[i]]


def number_ids(
    values: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number integers without gaps in ascending order.

    Returns
    -------
    codes : int32, shape (n,)
    distinct : int64, ascending; ``distinct[codes]`` are the values
    """
    codes, distinct = _first_codes(values)
    if not len(distinct):
        return codes, distinct
    ranks, ascending = _ranks(distinct)
    _renumber(codes, ranks)
    return codes, ascending


@njit(cache=True, nogil=True)
def _few(bits: NDArray[np.int32]) -> tuple[NDArray[np.uint8], NDArray[np.int32], int]:
    slots, book = np.full(1024, -1, np.int16), np.empty(256, np.int32)
    codes = np.empty(bits.shape[0], np.uint8)
    n = 0
    for i in range(bits.shape[0]):
        slot = np.int64((np.uint64(np.uint32(bits[i])) * _STEP) >> np.uint64(54))
        while slots[slot] >= 0 and book[slots[slot]] != bits[i]:
            slot = (slot + 1) & 1023
        if slots[slot] < 0:
            if n == 256:
                return codes, book, 0
            slots[slot] = n
            book[n] = bits[i]
            n += 1
        codes[i] = slots[slot]
    return codes, book, n


def few_values(
    values: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Number at most 256 distinct values, bit for bit, in an order that is always the same.

    Returns
    -------
    codes : uint8, shape (n,)
    book : float32; ``book[codes]`` are the values, empty if there are more
    """
    codes, book, n = _few(np.ascontiguousarray(values).view(np.int32))
    order = np.argsort(book[:n])
    ranks = np.empty(256, np.uint8)
    ranks[order] = np.arange(n, dtype=np.uint8)
    return ranks[codes] if n else codes, book[:n][order].view(np.float32)
