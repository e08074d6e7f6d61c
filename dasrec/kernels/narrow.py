"""Rows of numbers in 16 bits each: integers in units of a power of two, one unit a row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dasrec.kernels.rows import Floats

Shorts = NDArray[np.int16]

Narrow = tuple[Shorts, Floats]
"""Integers, int16, shape (n_rows, k), and the unit of each row, float32."""

LARGEST = np.float32(2**15 - 1)

_FRACTION = 23  # bits of a float32 before its exponent
_ABSOLUTE = 2**31 - 1  # all bits but the sign
_NO_NUMBER = 255  # the exponent of what is infinite or not a number


@njit(cache=True, nogil=True)
def _find_unit(bits: Any) -> Any:
    """Return the bits of the unit in which the largest number of a row has 15 bits."""
    most = 0
    for p in range(bits.shape[0]):
        most = max(most, bits[p] & _ABSOLUTE)
    exponent = most >> _FRACTION
    # an exponent below 1 would not be a power of two
    return (exponent if exponent == _NO_NUMBER else max(exponent - 14, 1)) << _FRACTION


@njit(cache=True, nogil=True)
def _integer(value: np.float32, inverse: np.float32) -> Any:
    return min(max(np.rint(value * inverse), -LARGEST), LARGEST)


@njit(cache=True, nogil=True)
def round_rows(rows: Floats) -> None:
    """Round numbers to what :func:`narrow_rows` can hold, in place.

    That changes a number by at most 2^-15 of the largest one of its row. A row with what is no
    number, or infinite, becomes that all over, or zero.

    Parameters
    ----------
    rows : float32, shape (n_rows, k)
    """
    unit = np.empty(1, np.int32)
    for row in rows:
        unit[0] = _find_unit(row.view(np.int32))
        scale = unit.view(np.float32)[0]
        inverse = np.float32(1) / scale
        for p in range(row.shape[0]):
            row[p] = _integer(row[p], inverse) * scale


@njit(cache=True, nogil=True)
def narrow_rows(rows: Floats, numbers: Shorts, units: Floats) -> None:
    """Write rows in 16 bits a number; what :func:`round_rows` left comes through unchanged.

    Parameters
    ----------
    rows : float32, shape (n_rows, k), all finite
    numbers : int16, shape (n_rows, k), to be filled
    units : float32, shape (n_rows,), to be filled: ``rows`` is ``numbers * units[:, None]``
    """
    bits = units.view(np.int32)
    for i in range(rows.shape[0]):
        bits[i] = _find_unit(rows[i].view(np.int32))
        inverse = np.float32(1) / units[i]
        for p in range(rows.shape[1]):
            numbers[i, p] = np.int16(_integer(rows[i, p], inverse))
