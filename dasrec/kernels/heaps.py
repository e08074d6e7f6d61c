"""The n best entries of each row, as a heap of numbers that order by score and then by item."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

Keys = NDArray[np.uint64]
"""Heaps, shape (m, n): the worst entry of each row comes first."""

_SIGN, _LEAST = np.uint32(1 << 31), np.uint32(0xFF800000)  # bits of -0 and of -inf
_LAST = 2**31 - 1


def _emit_float(_: Any, word: Any) -> Any:
    def emit(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), emit


_as_float: Any = intrinsic(_emit_float)  # the number that has some bits


@njit(cache=True, nogil=True)
def key_of(bits: Any, item: Any) -> Any:
    """Return a score, by its bits, and its item as one number: better entries have larger ones."""
    if bits == _SIGN:  # -0 is 0
        bits = np.uint32(0)
    ordered = ~bits if bits & _SIGN else bits | _SIGN
    return (np.uint64(ordered) << np.uint64(32)) | np.uint64(_LAST - item)


@njit(cache=True, nogil=True)
def empty_heaps(m: int, n: int) -> Keys:
    """Return heaps of no entries; -inf is not better than none, and neither is NaN."""
    return np.full((m, n), key_of(_LEAST, -1), np.uint64)


@njit(cache=True, nogil=True)
def push(heaps: Keys, row: int, key: Any) -> None:
    """Put an entry in place of the root of a heap, which is its worst."""
    n, parent, child = heaps.shape[1], 0, 1
    while child < n:
        if child + 1 < n:
            child += heaps[row, child + 1] < heaps[row, child]
        if key < heaps[row, child]:
            break
        heaps[row, parent] = heaps[row, child]
        parent, child = child, 2 * child + 1
    heaps[row, parent] = key


@njit(cache=True, nogil=True)
def worst_of(heaps: Keys, row: int) -> Any:
    """Return the score at the root of a heap."""
    ordered = np.uint32(heaps[row, 0] >> np.uint64(32))
    return _as_float(np.uint32(ordered & ~_SIGN if ordered & _SIGN else ~ordered))


@njit(cache=True, nogil=True)
def unpack(heaps: Keys) -> tuple[Ints, Floats]:
    """Return the entries of heaps, best first, then empty places: items (-1) and scores (-inf)."""
    found, bits = np.empty(heaps.shape, np.int32), np.empty(heaps.shape, np.uint32)
    last = heaps.shape[1] - 1
    for row in range(heaps.shape[0]):
        keys = np.sort(heaps[row])
        for place in range(last + 1):
            key = keys[last - place]
            ordered = np.uint32(key >> np.uint64(32))
            found[row, place] = _LAST - np.int64(key & np.uint64(0xFFFFFFFF))
            bits[row, place] = ordered & ~_SIGN if ordered & _SIGN else ~ordered
    return found, bits.view(np.float32)
