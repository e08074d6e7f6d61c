"""Hashes: of cells, for randomness that no order or cluster changes; of ids, to number them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dasrec.kernels.csr import gather

STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)

Rows = tuple[NDArray[np.int64], NDArray[np.int32]]
"""Row pointer and columns."""


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
            state = mix(state + np.asarray([number], np.uint64) + STEP)
    return int(state[0] >> np.uint64(1))


@njit(cache=True, nogil=True)
def mixed(state: np.uint64) -> np.uint64:
    """Do to one word what :func:`mix` does to an array: for kernels."""
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))


@njit(cache=True, nogil=True)
def word(key: int, number: int) -> Any:
    """Return 63 bits of a number under a key of :func:`key_of`, another key: for kernels."""
    state = np.uint64(key) + (np.uint64(number) + np.uint64(1)) * STEP
    return np.int64(mixed(state) >> np.uint64(1))


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
        state = mix((rows.astype(np.uint64) + np.uint64(1)) * STEP)
        state = mix(state + (columns.astype(np.uint64) + np.uint64(1)) * STEP)
        state = mix(state + values.view(np.uint32).astype(np.uint64))
        if timestamps is not None:
            state = mix(state + timestamps.view(np.uint64))
    return state


def seed_word(seed: int) -> np.uint64:
    """Return the word that stands for a seed."""
    with np.errstate(over="ignore"):
        return np.uint64(mix(np.asarray([seed], np.uint64) + STEP)[0])


def cell_uniform(
    seed: int, rows: NDArray[np.int32], columns: NDArray[np.int32] | None = None
) -> NDArray[np.float64]:
    """Return a uniform number in [0, 1) for each (row, column), or for each row alone.

    The number depends on nothing but ``seed`` and the cell itself.
    """
    with np.errstate(over="ignore"):
        state = mix(seed_word(seed) + (rows.astype(np.uint64) + np.uint64(1)) * STEP)
        if columns is not None:
            state = mix(state + (columns.astype(np.uint64) + np.uint64(1)) * STEP)
    return np.asarray((state >> np.uint64(11)) * 2.0**-53)


@njit(cache=True, nogil=True)
def draw_others(
    key: np.uint64, users: NDArray[np.int32], taken: Rows, also: Rows, n_items: int, n: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Draw items of each user that are in neither of two rows, each once and all equally likely.

    Parameters
    ----------
    key : uint64, from :func:`seed_word`
    users : int32, shape (m,): numbers; nothing else about a user changes the draws
    taken, also : (indptr, indices), int64 and int32: one row a user
    n_items : int
    n : int

    Returns
    -------
    indptr : int64, shape (m + 1,)
    items : int32, one row a user, in the order of drawing: n, or all that there are if fewer

    Notes
    -----
    Draw j is item ``floor(h n_items / 2^32)``, with h the upper half of the hash of (user, j);
    those that are taken, or were drawn before, do not count. Cost: O(n) a user while n is well
    below n_items; 4 n_items bytes.
    """
    m = users.shape[0]
    indptr, items = np.zeros(m + 1, np.int64), np.empty(m * min(n, n_items), np.int32)
    last = np.full(n_items, -1, np.int32)  # the last row that an item is not free for
    end = 0
    for row in range(m):
        free = n_items
        for begins, columns in (taken, also):
            for cell in range(begins[row], begins[row + 1]):
                free -= last[columns[cell]] != row
                last[columns[cell]] = row
        stop = end + min(n, free)
        state = mixed(key + (np.uint64(users[row]) + np.uint64(1)) * STEP)
        draw = np.uint64(0)
        while end < stop:
            draw += np.uint64(1)
            word = mixed(state + draw * STEP) >> np.uint64(32)
            item = np.int32((word * np.uint64(n_items)) >> np.uint64(32))
            if last[item] != row:
                last[item] = row
                items[end] = item
                end += 1
        indptr[row + 1] = end
    return indptr, items[:end].copy()


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
        slot = np.int64((np.uint64(value) * STEP) >> shift)
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
                slot = np.int64((np.uint64(distinct[code]) * STEP) >> shift)
                while slots[slot] >= 0:
                    slot = (slot + 1) & last
                slots[slot] = code
    return codes, distinct[:n].copy()


@njit(cache=True, nogil=True)
def _ranks(distinct: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Rank distinct integers and sort them: a radix sort of as many 11-bit digits as they need."""
    n, low = distinct.shape[0], np.uint64(distinct.min())
    span = np.uint64(distinct.max()) - low  # modulo 2**64, so no difference is too large
    order, other = np.arange(n, dtype=np.int32), np.empty(n, np.int32)
    keys, moved = np.empty(n, np.uint64), np.empty(n, np.uint64)
    for i in range(n):
        keys[i] = np.uint64(distinct[i]) - low
    shift = np.uint64(0)
    while shift < np.uint64(64) and (span >> shift) > np.uint64(0):
        following = np.zeros(2049, np.int64)
        for i in range(n):
            following[np.int64((keys[i] >> shift) & np.uint64(2047)) + 1] += 1
        for digit in range(2048):
            following[digit + 1] += following[digit]
        for i in range(n):  # keys move along: to look them up by order would cost twice as much
            slot = np.int64((keys[i] >> shift) & np.uint64(2047))
            other[following[slot]], moved[following[slot]] = order[i], keys[i]
            following[slot] += 1
        order, other, keys, moved = other, order, moved, keys
        shift += np.uint64(11)
    ranks, ascending = np.empty(n, np.int32), np.empty(n, np.int64)
    for place in range(n):
        ranks[order[place]] = place
        ascending[place] = np.int64(keys[place] + low)
    return ranks, ascending


@njit(cache=True, nogil=True)
def _renumber(codes: NDArray[np.int32], ranks: NDArray[np.int32]) -> NDArray[np.int64]:
    """Replace codes by their ranks, and count these."""
    counts = np.zeros(ranks.shape[0], np.int64)
    for i in range(codes.shape[0]):
        rank = ranks[codes[i]]
        codes[i] = rank
        counts[rank] += 1
    return counts


def number_ids(
    values: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Number integers without gaps in ascending order.

    Returns
    -------
    codes : int32, shape (n,)
    distinct : int64, ascending; ``distinct[codes]`` are the values
    counts : int64, how often each occurs
    """
    codes, distinct = _first_codes(values)
    if not len(distinct):
        return codes, distinct, distinct
    ranks, ascending = _ranks(distinct)
    return codes, ascending, _renumber(codes, ranks)


@njit(cache=True, nogil=True)
def _few(bits: NDArray[np.int32]) -> tuple[NDArray[np.uint8], NDArray[np.int32], int]:
    slots, book = np.full(1024, -1, np.int16), np.empty(256, np.int32)
    codes = np.empty(bits.shape[0], np.uint8)
    n = 0
    for i in range(bits.shape[0]):
        slot = np.int64((np.uint64(np.uint32(bits[i])) * STEP) >> np.uint64(54))
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
    return gather(ranks, codes) if n else codes, book[:n][order].view(np.float32)
