"""What kernels share that say themselves which vector instructions they are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils

WIDE = bool(llvm.get_host_cpu_features().get("avx512f"))

LANES = 16 if WIDE else 8
"""Numbers of float32 in a vector register."""

FLOAT, INT, WORD = ir.FloatType(), ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, LANES)
ZEROS = ir.Constant(VECTOR, [0.0] * LANES)

functions: Any = cgutils  # which has no types


def at(builder: Any, base: Any, n_bytes: Any, kind: Any) -> Any:
    """Return the pointer to what lies ``n_bytes`` behind an address."""
    return builder.inttoptr(builder.add(base, n_bytes), kind.as_pointer())


def multiply_add(builder: Any, kind: Any, factors: tuple[Any, Any], total: Any) -> Any:
    """Emit total + a b, with one rounding where the machine can."""
    name = f"llvm.fmuladd.{'f32' if kind == FLOAT else f'v{LANES}f32'}"
    form = ir.FunctionType(kind, [kind] * 3)
    return builder.call(
        functions.get_or_insert_function(builder.module, form, name), [*factors, total]
    )


def prefetch(builder: Any, address: Any, *, levels: int = 3) -> None:
    """Ask for the cache line at an address, without waiting; with 2 levels not into L1."""
    word, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer, word, word, word])
    ask = functions.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    line = builder.inttoptr(address, pointer)
    builder.call(ask, [line, word(0), word(levels), word(1)])  # to read; data


def choose(builder: Any, one: Any, other: Any, places: Sequence[int]) -> Any:
    """Return the vector of the lanes at some places of two vectors, the first one's come first."""
    mask = ir.Constant(ir.VectorType(INT, len(places)), list(places))
    return builder.shuffle_vector(one, other, mask)


def repeat(
    builder: Any, n: Any, before: Sequence[Any], body: Callable[[Any, list[Any]], Sequence[Any]]
) -> Sequence[Any]:
    """Emit a loop of n > 0 turns; each gets its number and what the last one returned."""
    entry, loop, done = builder.block, *(builder.append_basic_block() for _ in range(2))
    builder.branch(loop)
    builder.position_at_end(loop)
    turn = builder.phi(WORD)
    carried = [builder.phi(value.type) for value in before]
    after = body(turn, carried)
    following = builder.add(turn, WORD(1))
    for phi, first, later in zip(
        [turn, *carried], [WORD(0), *before], [following, *after], strict=True
    ):
        phi.add_incoming(first, entry)
        phi.add_incoming(later, builder.block)
    builder.cbranch(builder.icmp_unsigned("<", following, n), loop, done)
    builder.position_at_end(done)
    return after


def add_lanes(builder: Any, vectors: list[Any]) -> Any:
    """Return the sums over the lanes of each vector, side by side; there are 1, 2, 4 .. of them."""
    width, group = LANES, LANES  # lanes of a vector, and those that still belong to one sum
    while group > 1:
        alone, half = len(vectors) == 1, group // 2
        pairs = [(vectors[0], vectors[0])] if alone else zip(*[iter(vectors)] * 2, strict=True)
        first = [lane for lane in range(width if alone else 2 * width) if lane % group < half]
        second = [lane + half for lane in first]
        vectors = [
            builder.fadd(choose(builder, one, other, first), choose(builder, one, other, second))
            for one, other in pairs
        ]
        width, group = width // 2 if alone else width, half
    return vectors[0]
