"""What kernels over rows of factors share: how they are fetched, sums over cells, and BLAS."""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numpy as np
from numba import njit, types
from numba.extending import get_cython_function_address, intrinsic
from numpy.typing import NDArray

from dasrec.kernels.lanes import prefetch

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

Rows = tuple[Longs, Ints, Floats, Floats]
"""Row pointer, columns, weights c and targets t of the stored cells."""

Cells = tuple[Ints, Floats, Floats]
"""Columns, c and t of one row."""

Sums = tuple[Floats, Floats, Floats, Floats]
"""Scratch for sums over a row: tile W, goal q, a system to factorise, W'W."""

OVERFLOW = "numbers overflow float32; scale the values down, for instance to at most 1000"
FAST = {"reassoc", "contract"}
"""Leaves the order of sums to the compiler, so that vector instructions can be used.

A loop that sums must not store as well: it would sum in one order where the arrays lie close to
each other, and in another where they do not, and so would the bits of the sum.
"""

TINY = float(np.finfo(np.float32).tiny)  # a gap below it cannot be divided by

TILE = 512
"""Rows of factors gathered at a time: 512 x 64 float32 is 128 KiB, which stays in the L2 cache."""

TILE_BYTES = 2**24
"""Factors of a row that are kept together while it is solved; of a longer row none are."""

AHEAD = 8
"""Cells whose factors are fetched before they are needed: memory answers in some 100 ns."""

BY_COLUMNS, BY_ROWS = ord("N"), ord("T")

LINE = 64
"""Bytes of a cache line."""


# -- factors ---------------------------------------------------------------------------------------


def _prefetcher(levels: int) -> Any:
    """Make what asks for the cache line at an address, and does not wait for it."""

    @intrinsic
    def ask(_: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            prefetch(builder, arguments[0], levels=levels)
            return context.get_dummy_value()

        return types.void(types.uintp), emit

    return ask


_prefetch, _prefetch_near = _prefetcher(3), _prefetcher(2)  # into all levels; into all but L1


@njit(cache=True, nogil=True)
def fetch(factors: Floats, row: int) -> None:
    """Ask for the factors of one column of the block."""
    n_bytes = factors.itemsize * factors.shape[1]
    start = factors.ctypes.data + np.uintp(row * n_bytes)
    for line in range((n_bytes + LINE - 1) // LINE):
        _prefetch(start + np.uintp(line * LINE))


@njit(cache=True, nogil=True)
def fetch_near(factors: Any, row: int) -> None:
    """Ask for the factors of one column, but no nearer than the L2 cache.

    Those of many would put each other out of L1 before they are needed.
    """
    n_bytes = factors.itemsize * factors.shape[1]
    start = factors.ctypes.data + np.uintp(row * n_bytes)
    for line in range((n_bytes + LINE - 1) // LINE):
        _prefetch_near(start + np.uintp(line * LINE))


@njit(cache=True, nogil=True, fastmath=FAST)
def gather_weighted(tile: Floats, goal: Floats, factors: Floats, cells: Cells) -> None:
    """Fill W = sqrt(c) V and q = sqrt(c) t for a row's cells."""
    indices, c, t = cells
    n, k = indices.shape[0], factors.shape[1]
    for i in range(min(AHEAD, n)):
        fetch(factors, indices[i])
    for i in range(n):
        if i + AHEAD < n:
            fetch(factors, indices[i + AHEAD])
        root = np.sqrt(c[i])
        goal[i] = root * t[i]
        source, target = factors[indices[i]], tile[i]
        for p in range(k):
            target[p] = root * source[p]


@njit(cache=True, nogil=True)
def some(cells: Cells, first: int, stop: int) -> Cells:
    """Return the cells from ``first`` to ``stop`` of a row."""
    return cells[0][first:stop], cells[1][first:stop], cells[2][first:stop]


# -- sums over the cells of a row ------------------------------------------------------------------


@njit(cache=True, nogil=True, fastmath=FAST)
def sum_up(sums: Sums, factors: Floats, cells: Cells, right: Floats) -> None:
    """Sum W'W and W'q over tiles of a row's cells, into ``sums`` and ``right``."""
    tile, goal, _, normal = sums
    k, n_cells = right.shape[0], cells[0].shape[0]
    right[:] = 0
    for first in range(0, n_cells, TILE):
        n = min(TILE, n_cells - first)
        gather_weighted(tile, goal, factors, some(cells, first, first + n))
        rank_update(BY_COLUMNS, tile[:n], normal, min(first, 1))
        for i in range(n):
            for p in range(k):
                right[p] += goal[i] * tile[i, p]


@njit(cache=True, nogil=True, fastmath=FAST)
def squares(cells: Cells) -> Any:
    """Return sum c t^2, in float32: infinite where numbers are too large for the solvers."""
    _, c, t = cells
    total = np.float32(0)
    for i in range(c.shape[0]):
        total += c[i] * t[i] * t[i]
    return total


@njit(cache=True, nogil=True, fastmath=FAST)
def row_loss(x: Floats, factors: Floats, cells: Cells) -> float:
    """Return sum of c (t - v . x)^2 over a row's cells, in float64."""
    indices, c, t = cells
    n, loss = indices.shape[0], 0.0
    for i in range(min(AHEAD, n)):
        fetch(factors, indices[i])
    for i in range(n):
        if i + AHEAD < n:
            fetch(factors, indices[i + AHEAD])
        source = factors[indices[i]]
        predicted = np.float32(0.0)
        for p in range(x.shape[0]):
            predicted += source[p] * x[p]
        error = float(t[i]) - float(predicted)
        loss += float(c[i]) * error * error
    return loss


@njit(cache=True, nogil=True, fastmath=FAST)
def row_squares(rows: Floats) -> Doubles:
    """Return the sum of squares of each row, in float64."""
    found = np.zeros(rows.shape[0])
    for i in range(rows.shape[0]):
        total = 0.0
        for value in rows[i]:
            total += np.float64(value) * np.float64(value)
        found[i] = total
    return found


# -- BLAS and LAPACK -------------------------------------------------------------------------------


def _routine(module: str, name: str, n_arguments: int) -> Any:
    """Make a routine of BLAS or LAPACK callable; by name, so that compiled code can be cached."""
    symbol = f"dasrec_{name}"
    llvm.add_symbol(symbol, get_cython_function_address(f"scipy.linalg.cython_{module}", name))
    return types.ExternalFunction(symbol, types.void(*[types.uintp] * n_arguments))


_ssyrk: Any = _routine("blas", "ssyrk", 10)
_sposv: Any = _routine("lapack", "sposv", 8)


@njit(cache=True, nogil=True)
def rank_update(way: int, tile: Floats, matrix: Floats, before: float) -> None:
    """Set the upper half of a matrix to ``before`` times itself and T'T, T being the tile.

    With the way ``BY_ROWS`` it is TT'. The tile may be some columns of a wider one, and the matrix
    wider than the result, which is in its corner then. BLAS takes arrays by columns, so that T is
    T' to it, and the upper half the lower.
    """
    n, k = tile.shape
    rows, inner = (n, k) if way == BY_ROWS else (k, n)
    words = np.array([rows, inner, tile.strides[0] // 4, matrix.shape[1]], np.int32)
    scales = np.array([1, before], np.float32)
    letters = np.array([ord("L"), way], np.int8)
    at = words.ctypes.data
    _ssyrk(
        letters.ctypes.data,
        letters.ctypes.data + 1,
        at,
        at + 4,
        scales.ctypes.data,
        tile.ctypes.data,
        at + 8,
        scales.ctypes.data + 4,
        matrix.ctypes.data,
        at + 12,
    )


@njit(cache=True, nogil=True)
def cholesky_solve(matrix: Floats, right: Floats, n: int) -> bool:
    """Solve ``matrix[:n, :n] x = right[:n]`` in place; False if it is not positive definite.

    Only the upper half of the matrix is read.
    """
    words = np.array([n, 1, matrix.shape[1], n, 0], np.int32)
    letter = np.array([ord("L")], np.int8)
    at = words.ctypes.data
    _sposv(
        letter.ctypes.data,
        at,
        at + 4,
        matrix.ctypes.data,
        at + 8,
        right.ctypes.data,
        at + 12,
        at + 16,
    )
    return bool(words[4] == 0)


@njit(cache=True, nogil=True)
def solve_normal(sums: Sums, base: Floats, level: float, right: Floats, x: Floats) -> bool:
    """Solve (W'W + diag(base) + level I) x = right; a singular system gets a tenfold level."""
    system, normal = sums[2], sums[3]
    k = x.shape[0]
    while level < np.inf:
        for i in range(k):
            system[i, :k] = normal[i, :k]
            system[i, i] += base[i] + level
        x[:] = right
        if cholesky_solve(system, x, k):
            return True
        level *= 10
    return False


@njit(cache=True, nogil=True, fastmath=FAST)
def solve_dual(sums: Sums, n: int, inverse: Floats, x: Floats) -> bool:
    """Solve for the n cells that are gathered: x = M^-1 W' y with (I + W M^-1 W') y = q.

    This overwrites W and q.
    """
    tile, goal, system, _ = sums
    k = x.shape[0]
    for p in range(k):
        x[p] = np.sqrt(inverse[p])
    for i in range(n):
        for p in range(k):
            tile[i, p] *= x[p]
    rank_update(BY_ROWS, tile[:n], system, 0)
    for i in range(n):
        system[i, i] += np.float32(1)
    if not cholesky_solve(system, goal, n):
        return False
    x[:] = 0
    for i in range(n):
        for p in range(k):
            x[p] += tile[i, p] * goal[i]
    for p in range(k):
        x[p] *= np.sqrt(inverse[p])
    return True
