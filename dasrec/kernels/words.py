"""Numbers of 64 bits cut into a low and a high word, and put together again."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Longs = NDArray[np.int64]
Words = NDArray[np.uint32]
Highs = NDArray[np.unsignedinteger[Any]]


@njit(cache=True, nogil=True)
def split_words(values: Longs, low: np.int64, words: Words, highs: Highs) -> None:
    """Fill ``words`` with the low 32 bits of ``values - low``, and ``highs`` with what is above.

    Modulo 2**64, so that no difference is too large. In one pass: NumPy takes four times as long.
    """
    for i in range(values.shape[0]):
        above = np.uint64(values[i]) - np.uint64(low)
        words[i] = np.uint32(above & np.uint64(0xFFFFFFFF))
        highs[i] = above >> np.uint64(32)


@njit(cache=True, nogil=True)
def join_words(words: Words, highs: Highs, low: np.int64) -> Longs:
    """Return what :func:`split_words` was given."""
    values = np.empty(words.shape[0], np.int64)
    for i in range(words.shape[0]):
        above = (np.uint64(highs[i]) << np.uint64(32)) | np.uint64(words[i])
        values[i] = np.int64(above + np.uint64(low))
    return values
