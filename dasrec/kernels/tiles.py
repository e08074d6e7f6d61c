"""Factors of a row's cells in one tile, and products with it, eight cells at a time.

What LLVM makes of loops takes twice as long: it looks anew for each few cells whether arrays
overlap, and adds up the lanes of one sum after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from dasrec.kernels.lanes import (
    LANES,
    VECTOR,
    WORD,
    ZEROS,
    add_lanes,
    at,
    choose,
    multiply_add,
    prefetch,
    repeat,
)
from dasrec.kernels.rows import AHEAD, LINE, Floats, Ints, fetch_near

TOGETHER = 8
"""Cells at a time: their sums, or their weights, just fit into the registers of AVX2."""

Fixed = tuple[Any, Floats]
"""Factors, of float32 or int16, and the unit of each row of them: what is held fixed."""

_NUMBER = 4  # bytes


@njit(cache=True, nogil=True)
def padded(n: int, to: int) -> int:
    """Return the least multiple of ``to`` that is at least n."""
    return n + -n % to


@njit(cache=True, nogil=True)
def make_room(n_rows: int, k: int) -> Floats:
    """Return so many rows of at least k numbers, which fill vector registers and lines.

    They hold anything but for what fills them up, which is 0.
    """
    width = padded(k, LANES)
    room = np.empty(n_rows * width + LINE // _NUMBER, np.float32)
    first = (-room.ctypes.data % LINE) // _NUMBER
    found = room[first : first + n_rows * width].reshape(n_rows, width)
    found[:, k:] = 0
    return found


def _load(builder: Any, base: Any, n_bytes: Any, kind: Any = VECTOR) -> Any:
    return builder.load(at(builder, base, n_bytes, kind), align=_NUMBER)


@intrinsic
def _multiply(_: Any, tile: Any, width: Any, x: Any, c: Any, d: Any, dots: Any, out: Any) -> Any:
    """Set ``dots`` of eight cells to V x and add V' c (d - V x) to ``out``; all are addresses."""

    def emit(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        tile, width, x, c, d, dots, out = arguments
        row_bytes = builder.mul(width, WORD(_NUMBER))
        rows = [builder.add(tile, builder.mul(row_bytes, WORD(i))) for i in range(TOGETHER)]
        n_vectors = builder.udiv(width, WORD(LANES))

        def multiply(turn: Any, sums: list[Any]) -> list[Any]:
            place = builder.mul(turn, WORD(_NUMBER * LANES))
            part = _load(builder, x, place)
            return [
                multiply_add(builder, VECTOR, (_load(builder, row, place), part), total)
                for row, total in zip(rows, sums, strict=True)
            ]

        sums = repeat(builder, n_vectors, [ZEROS] * TOGETHER, multiply)
        found, cells = add_lanes(builder, list(sums)), ir.VectorType(ir.FloatType(), TOGETHER)
        builder.store(found, at(builder, dots, WORD(0), cells), align=_NUMBER)
        missed = builder.fsub(_load(builder, d, WORD(0), cells), found)
        weights = builder.fmul(_load(builder, c, WORD(0), cells), missed)
        spread = [choose(builder, weights, weights, [i] * LANES) for i in range(TOGETHER)]

        def add(turn: Any, _: list[Any]) -> list[Any]:
            place = builder.mul(turn, WORD(_NUMBER * LANES))
            total = _load(builder, out, place)
            for row in rows:  # the next eight come while these are added up
                line = builder.add(builder.add(row, place), builder.mul(row_bytes, WORD(TOGETHER)))
                prefetch(builder, line)
            for row, weight in zip(rows, spread, strict=True):
                total = multiply_add(builder, VECTOR, (_load(builder, row, place), weight), total)
            builder.store(total, at(builder, out, place, VECTOR), align=_NUMBER)
            return []

        repeat(builder, n_vectors, [], add)
        return WORD(0)

    return types.uint64(*[types.uint64] * 7), emit


@njit(cache=True, nogil=True)
def multiply(tile: Floats, x: Floats, c: Floats, d: Floats, dots: Floats, out: Floats) -> None:
    """Set ``dots`` to V x and add V' c (d - V x) to ``out``.

    Parameters
    ----------
    tile : float32, shape (n, k), of :func:`make_room`: V; n is a multiple of eight
    x, out : float32, shape (k,)
    c, d, dots : float32, shape (n,)
    """
    n, width = tile.shape
    for i in range(0, n, TOGETHER):
        cell = np.uint64(_NUMBER * i)
        _multiply(  # type: ignore[call-arg]
            np.uint64(tile.ctypes.data) + cell * np.uint64(width),
            np.uint64(width),
            np.uint64(x.ctypes.data),
            np.uint64(c.ctypes.data) + cell,
            np.uint64(d.ctypes.data) + cell,
            np.uint64(dots.ctypes.data) + cell,
            np.uint64(out.ctypes.data),
        )


@njit(cache=True, nogil=True)
def gather(tile: Floats, fixed: Fixed, indices: Ints) -> None:
    """Fill a tile of :func:`make_room` with the factors of cells, and rows that are left with 0."""
    factors, units = fixed
    n, k = indices.shape[0], factors.shape[1]
    for i in range(min(AHEAD, n)):
        fetch_near(factors, indices[i])
    for i in range(n):
        if i + AHEAD < n:
            fetch_near(factors, indices[i + AHEAD])
        source, unit, target = factors[indices[i]], units[indices[i]], tile[i]
        for p in range(k):
            target[p] = unit * np.float32(source[p])
    tile[n:, :k] = 0
