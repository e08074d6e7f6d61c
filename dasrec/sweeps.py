"""Half-sweeps: one side of a factorisation is held fixed, every row of the other is solved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dasrec import blocks
from dasrec.checks import check_choice, check_number
from dasrec.errors import InputError
from dasrec.factors import Generation, Vectors, in_memory, narrow, put
from dasrec.features import Features, multiply
from dasrec.interactions import Interactions
from dasrec.kernels.conjugate import refine_rows
from dasrec.kernels.csr import cut_rows
from dasrec.kernels.narrow import Narrow
from dasrec.kernels.nonnegative import nonnegative_rows
from dasrec.kernels.rows import row_squares
from dasrec.kernels.solve import shift_rows, solve_rows
from dasrec.kernels.subspace import sweep_rows
from dasrec.medium import CACHE, MANY_FACTORS, Medium
from dasrec.schema import USER_ITEMS
from dasrec.typing import CsrBlock, Floats, Ints, Side

Solver = Literal["auto", "exact", "cg", "subspace"]

_FEW_FACTORS = 16  # with more of them conjugate gradients are quicker, whatever the rows
_PRECISE = 1e-8  # as exact as float32 goes
_NARROW = 1e-6  # a tolerance beside which it is nothing that vectors are rounded to 16 bits


def check_solver(solver: Solver, tolerance: float, *, nonnegative: bool) -> None:
    """Refuse a solver that is unknown, or that cannot keep factors from being negative."""
    check_choice(solver, name="solver", choices=get_args(Solver))
    check_number(tolerance, name="tolerance", above=0)
    check_choice(nonnegative, name="nonnegative", choices=(True, False))
    if nonnegative and solver != "auto":
        msg = f"solver is {solver!r} and nonnegative is True; expected 'auto': only one solver can"
        raise InputError(msg)


def may_round(solver: Solver, tolerance: float, *, factors: int, nonnegative: bool) -> bool:
    """Say whether the vectors that are held fixed may be rounded before rows are solved.

    They are fetched from all over memory, which limits conjugate gradients if they are long; of
    rounded ones it is half as much. They are the model's from then on: no row is solved for
    others than those that the objective is of.
    """
    iterative = factors > MANY_FACTORS and solver in ("auto", "cg")
    return iterative and not nonnegative and tolerance >= _NARROW


@dataclass(frozen=True)
class Prior:
    """Where the vectors of rows are drawn to: what their features say.

    Attributes
    ----------
    features : Features
    weights : float32, shape (n_features, k), in the basis in which rows are solved
    """

    features: Features
    weights: Floats

    def means(self, start: int, stop: int) -> Floats:
        """Return features times weights of rows ``start:stop``, float32, shape (n_rows, k)."""
        return multiply(self.features.read_rows(start, stop), self.weights)


@dataclass(frozen=True)
class Half:
    """What a half-sweep holds fixed, where it starts, and the objective of each row.

    sum_j c_j (t_j - v_j . x)^2 + x' diag(base) x + scale (n + shift)^exponent |x - prior|^2

    Attributes
    ----------
    vectors : float32, shape (n_columns, k), in memory or in files: v, in the basis R
    base : float32, shape (k,); with ``n_bounded``, float32, shape (k, k), not only its diagonal
    rotation : float32, shape (k, k), or None: R; rows start, and are solved, in it
    offsets : float32, shape (n_columns,), or None: explicit: what is predicted without x
    start : as vectors, shape (n_rows, k), but not in R yet; or None: zeros
    tolerance : float or None: what the objective of a row may be above its least value, in terms of
        what it is without x; None solves exactly
    prior : Prior or None: zeros
    subspace : bool: go over blocks of entries once, whatever is left then
    n_bounded : int: how many entries of a row, which come first, may not be negative
    rounded : bool: whether vectors are rounded, so that rows are solved by narrow ones
    narrow : vectors in 16 bits a number, which travel in their stead; or None
    """

    vectors: Vectors
    base: Floats
    rotation: Floats | None
    offsets: Floats | None
    scale: float
    shift: float
    exponent: float
    start: Vectors | None = None
    tolerance: float | None = None
    prior: Prior | None = None
    subspace: bool = False
    n_bounded: int = 0
    rounded: bool = False
    narrow: Narrow | None = None

    def solved_by(
        self, solver: Solver, tolerance: float, *, factors: int, nonnegative: bool
    ) -> Half:
        """Add how rows are solved, of a model with so many factors."""
        direct = solver == "exact"
        if solver == "auto" and not nonnegative:
            direct = factors <= _FEW_FACTORS
        return replace(
            self,
            tolerance=None if direct else tolerance,
            subspace=solver == "subspace",
            n_bounded=factors if nonnegative else 0,
        )

    def precise(self) -> Half:
        """Solve as exactly as float32 goes: no later sweep mends what is left undone."""
        if self.tolerance is None:
            return self
        return replace(self, tolerance=_PRECISE, subspace=False, rounded=False)

    def ridge(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how strongly rows of so many cells are drawn to their prior."""
        found: NDArray[np.float64] = self.scale * (counts + self.shift) ** self.exponent
        return found

    def start_of(self, first: int, stop: int) -> Floats:
        """Return where rows ``first:stop`` start, in R."""
        if self.start is None:
            return np.zeros((stop - first, len(self.base)), np.float32)
        rows = self.start[first:stop]
        return rows if self.rotation is None else rows @ self.rotation


Solved = tuple[Floats, NDArray[np.float64], NDArray[np.float64]]
"""Vectors of rows, their losses, and how far those may be from the least."""


@dataclass(frozen=True)
class Swept:
    """One side after a half-sweep; ``gap`` is what its objective may be above its least value.

    ``base`` is that of the half-sweep after it, which held these vectors fixed, if there was one.
    """

    vectors: Vectors
    loss: float
    penalty: float
    gap: float
    base: Floats | None = None


def sweep(view: Interactions, side: Side, half: Half, medium: Medium | None = None) -> Swept:
    """Solve all rows of one side, block by block."""
    medium = medium or Medium()
    target: Vectors | None = None
    if medium.place is not None:
        target = Generation.begin(medium.place, view.cuts(side).tolist(), len(half.base))
    elif blocks.share_memory():
        target = np.empty((int(view.cuts(side)[-1]), len(half.base)), np.float32)
    if half.rounded and isinstance(half.vectors, np.ndarray):
        half = replace(half, vectors=half.vectors[:0], narrow=narrow(half.vectors))
    name = "als-user-sweep" if side == USER_ITEMS else "als-item-sweep"
    shared = (blocks.share(half), target, medium)
    parts = view.map_blocks(sweep_block, side, *shared, name=name, progress=False)
    return Swept(
        np.concatenate([part.vectors for part in parts]) if target is None else target,
        sum(part.loss for part in parts),
        sum(part.penalty for part in parts),
        sum(part.gap for part in parts),
    )


def sweep_block(
    view: Interactions,
    side: Side,
    start: int,
    stop: int,
    half: Half,
    target: Vectors | None,
    medium: Medium,
) -> Swept:
    """Solve the rows of one block, and write them if there is a target."""
    block = CACHE.read(view, side, (start, stop), fit=medium.fit, limit=medium.cache_bytes)
    if half.offsets is None and (block.data < 0).any():
        msg = f"{view.url} holds negative weights; implicit feedback needs weights >= 0"
        raise InputError(msg)
    counts = np.diff(block.indptr).astype(np.float64)
    ridge = half.ridge(counts)
    level = np.maximum(ridge, np.finfo(np.float32).tiny).astype(np.float32)
    means = None
    if half.prior is not None:
        # rows without cells are no part of the objective, and have zeros while others are solved
        means = half.prior.means(start, stop) * (counts > 0)[:, None].astype(np.float32)
    cuts = [0, stop - start] if medium.cells is None else cut_rows(block.indptr, medium.cells)
    solved = [
        _solve(
            _rows(block, a, b),
            half,
            medium,
            level[a:b],
            half.start_of(start + a, start + b),
            None if means is None else means[a:b],
        )
        for a, b in pairwise(cuts)
    ]
    vectors, loss, gap = solved[0]
    if len(solved) > 1:
        vectors, loss, gap = (np.concatenate(parts) for parts in zip(*solved, strict=True))
    penalty = float(ridge @ row_squares(vectors if means is None else vectors - means))
    if target is not None:
        put(target, start, vectors)
        vectors = vectors[:0].copy()  # a view would keep them all
    return Swept(vectors, float(loss.sum()), penalty, float(gap.sum()))


def _rows(block: CsrBlock, start: int, stop: int) -> CsrBlock:
    """Return rows of a block as a smaller one."""
    cells = slice(block.indptr[start], block.indptr[stop])
    indptr = block.indptr[start : stop + 1] - cells.start
    return CsrBlock(indptr, block.indices[cells], block.data[cells], block.n_columns)


def _solve(
    block: CsrBlock,
    half: Half,
    medium: Medium,
    ridge: Floats,
    start: Floats,
    means: Floats | None,
) -> Solved:
    """Return the vectors of some rows, their losses, and how far those may be from the least."""
    if half.offsets is None:
        weights, targets = block.data, np.ones_like(block.data)
    else:
        weights, targets = np.ones_like(block.data), block.data - half.offsets[block.indices]
    held, indices = _held(half, block.indices, medium)
    rows, fixed = (block.indptr, indices, weights, targets), held[0]
    if half.tolerance is None or half.subspace:
        centers: Any = 0
        if means is not None:
            centers, targets = shift_rows(rows, fixed, half.base, ridge, means)
            rows = (*rows[:3], targets)
        if half.subspace:
            found = sweep_rows(rows, fixed, half.base, ridge, start - centers)
        else:
            found = (*solve_rows(*rows, fixed, half.base, ridge), np.zeros(len(ridge)))
        return found[0] + centers, *found[1:]
    system = (half.base, ridge, start, half.tolerance)
    if half.n_bounded:
        assert means is None
        return nonnegative_rows(rows, fixed, *system, half.n_bounded)
    return refine_rows(rows, held, *system, means)


def _held(half: Half, indices: Ints, medium: Medium) -> tuple[tuple[Any, Floats], Ints]:
    """Return factors among which are those of some cells, and where each cell finds its own.

    Factors are numbers and the unit of each row.
    """
    vectors = half.vectors
    if half.narrow is not None:
        return half.narrow, indices
    if not isinstance(vectors, Generation):
        return _in_ones(vectors), indices
    if medium.cells is None:
        return vectors.whole(narrow if half.rounded else _in_ones), indices
    used = np.zeros(len(vectors), np.bool_)
    used[indices] = True
    columns = np.flatnonzero(used)
    places = np.empty(len(vectors), np.int32)
    places[columns] = np.arange(len(columns), dtype=np.int32)
    if half.rounded:
        return narrow(vectors, columns), places[indices]
    return _in_ones(vectors.take(columns)), places[indices]


def _in_ones(vectors: Vectors) -> tuple[Floats, Floats]:
    return in_memory(vectors), np.ones(len(vectors), np.float32)
