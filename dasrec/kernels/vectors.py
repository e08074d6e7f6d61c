"""What kernels over rows of factors share: how memory is asked and sums are taken."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

FAST = {"reassoc", "contract"}
"""What of the order of sums the compiler may change, so that it can use vector instructions."""

AHEAD = 8
"""Cells whose factors are fetched before they are needed: memory answers in some 100 ns."""

_LINE = 64

functions: Any = cgutils  # which has no types


@intrinsic
def _prefetch(_: Any, address: Any) -> Any:
    """Ask for the cache line at an address, and do not wait for it."""

    def emit(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        word, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, word, word, word])
        ask = functions.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        # to read, to keep in all levels, data
        builder.call(ask, [builder.inttoptr(arguments[0], pointer), word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(types.uintp), emit


@njit(cache=True, nogil=True)
def fetch(factors: NDArray[np.float32], row: int) -> None:
    """Ask for a row of factors, and do not wait for it."""
    n_bytes = 4 * factors.shape[1]
    start = factors.ctypes.data + np.uintp(row * n_bytes)
    for line in range((n_bytes + _LINE - 1) // _LINE):
        _prefetch(start + np.uintp(line * _LINE))  # type: ignore[call-arg]
