"""Half-sweeps: one side of a factorisation is held fixed, every row of the other is solved."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from dask.system import CPU_COUNT
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dasrec import blocks
from dasrec.errors import InputError
from dasrec.interactions import Interactions
from dasrec.kernels.conjugate import refine_rows
from dasrec.kernels.solve import solve_rows
from dasrec.memory import block_cells, check_fits
from dasrec.plan import room
from dasrec.schema import ITEM_USERS, USER_ITEMS
from dasrec.typing import CsrBlock, Floats, Side

_ROWS = 2**14  # that are multiplied at a time: the same bits whatever the number of threads


@dataclass(frozen=True)
class Half:
    """What a half-sweep holds fixed, where it starts, and the objective of each row.

    sum_j c_j (t_j - v_j . x)^2 + x' diag(base) x + scale (n + shift)^exponent |x|^2

    Attributes
    ----------
    vectors : float32, shape (n_columns, k): v, in the basis R
    base : float32, shape (k,)
    rotation : float32, shape (k, k), or None: R; rows start, and are solved, in it
    offsets : float32, shape (n_columns,), or None: explicit: what is predicted without x
    start : float32, shape (n_rows, k), not in R yet, or None: zeros
    tolerance : float or None: of conjugate gradients; None solves exactly
    """

    vectors: Floats
    base: Floats
    rotation: Floats | None
    offsets: Floats | None
    scale: float
    shift: float
    exponent: float
    start: Floats | None = None
    tolerance: float | None = None


@dataclass(frozen=True)
class Swept:
    """One side after a half-sweep; ``gap`` is what its objective may be above its least value."""

    vectors: Floats
    loss: float
    penalty: float
    gap: float


class BlockCache:
    """Blocks of one fit, those made first, as many as fit into some bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fit = ""
        self._blocks: dict[Any, tuple[Any, ...]] = {}
        self._left = 0

    def read(
        self, view: Interactions, side: Side, rows: tuple[int, int], *, fit: str, limit: int
    ) -> CsrBlock:
        """Return a block of a view, decoded."""
        found: CsrBlock = self.get(
            (side, *rows), partial(view.read_rows, side, *rows), fit=fit, limit=limit
        )
        return found

    def get(self, key: Any, make: Callable[[], Any], *, fit: str, limit: int) -> Any:
        """Return the tuple of a key, made if it is not kept; another fit than the last begins anew.

        Its arrays count as what it takes.
        """
        if not limit:
            return make()
        with self._lock:
            if fit != self._fit:
                self._fit, self._left = fit, limit
                self._blocks.clear()
            found = self._blocks.get(key)
        if found is None:
            found = make()
            size = sum(part.nbytes for part in found if isinstance(part, np.ndarray))
            with self._lock:
                # what is there stays: to put out the oldest would put out all, since each sweep
                # goes through them in the same order
                if fit == self._fit and size <= self._left:
                    self._blocks[key] = found
                    self._left -= size
        return found

    def clear(self) -> None:
        """Forget all blocks."""
        with self._lock:
            self._fit, self._left = "", 0
            self._blocks.clear()


CACHE = BlockCache()

_CELL_BYTES = 40  # of a block that is being solved
_TASK_BYTES = 2**24  # factors of the row that is being solved


@dataclass(frozen=True)
class FitPlan:
    """What :func:`plan_fit` foresees.

    Attributes
    ----------
    factors : int
    n_tasks : int
        Blocks of both sides: the tasks of one iteration.
    factor_bytes : int
        Both factor matrices, and what a half-sweep makes of them.
    cache_bytes : int
        For blocks that are kept decoded; the others are read from the store in each iteration.
    data_bytes : int
        All blocks of both sides.
    peak_bytes, limit_bytes : int
        Most resident memory of this process, and what ``memory`` allows, or what there is.
    """

    factors: int
    n_tasks: int
    factor_bytes: int
    cache_bytes: int
    data_bytes: int
    peak_bytes: int
    limit_bytes: int

    def as_record(self) -> dict[str, Any]:
        """Return the plan as a dict for JSON."""
        return asdict(self)


def plan_fit(
    interactions: Interactions, *, factors: int, memory: str | int | None = None
) -> FitPlan:
    """Foresee tasks and memory of fitting by alternating least squares; nothing is read.

    Parameters
    ----------
    interactions : Interactions
    factors : int
    memory : bytes or text like "2GB", optional
        As :class:`dasrec.Training`; without it, what the machine has.

    Raises
    ------
    BudgetError
        Factors and one block a thread need more; the message says how much.
    """
    base, limit, threads = room(memory)
    if blocks.active_client() is not None:
        base = 0  # what this process holds says nothing of a worker, whose limit is the least
    sides = sorted([interactions.n_users, interactions.n_items])
    # of the larger side: where it starts, its blocks, and the whole; of the other also the basis
    vectors = 4 * (factors + 1) * (3 * sides[1] + 2 * sides[0])
    n_stored = interactions.n_stored
    need = base + vectors + threads * (_CELL_BYTES * block_cells(n_stored) + _TASK_BYTES)
    check_fits(
        need,
        limit=limit,
        what=f"fitting {factors} factors of {interactions.n_users:,} users "
        f"and {interactions.n_items:,} items",
        remedy="use fewer factors, or drop rare users and items with min_user and min_item",
    )
    n_tasks = sum(len(interactions.cuts(side)) - 1 for side in (USER_ITEMS, ITEM_USERS))
    data = 16 * n_stored + 8 * (sum(sides) + n_tasks)
    # without a limit half of the machine is left to others
    spare = limit - need if memory is not None else limit // 2 - need
    cache = max(0, min(data, spare))
    return FitPlan(
        factors=factors,
        n_tasks=n_tasks,
        factor_bytes=vectors,
        cache_bytes=cache,
        data_bytes=data,
        peak_bytes=need + cache,
        limit_bytes=limit,
    )


def gram(vectors: Floats) -> NDArray[np.float64]:
    """Return V'V, float64, shape (k, k); the same bits however many threads the machine has."""
    total = np.zeros((vectors.shape[1], vectors.shape[1]))
    for part in _by_rows(lambda part: part.T @ part, vectors):
        total += part
    return total


def rotate(vectors: Floats, rotation: Floats) -> Floats:
    """Return the product of both; the same bits however many threads the machine has."""
    return np.concatenate(list(_by_rows(lambda part: part @ rotation, vectors)))


def eigenbasis(vectors: Floats) -> tuple[NDArray[np.float64], Floats]:
    """Return the eigenvalues of V'V, none negative, and its eigenvectors in float32."""
    with threadpool_limits(1, "blas"):
        values, rotation = np.linalg.eigh(gram(vectors))
    return np.maximum(values, 0), rotation.astype(np.float32)


def _by_rows(multiply: Callable[[Floats], Floats], vectors: Floats) -> Iterator[Floats]:
    vectors = np.require(vectors, requirements=("C", "A"))  # else NumPy multiplies without BLAS
    parts = [vectors[first : first + _ROWS] for first in range(0, len(vectors), _ROWS)]
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(CPU_COUNT) as pool:
        yield from pool.map(multiply, parts)


def sweep(
    view: Interactions, side: Side, half: Half, *, fit: str = "", cache_bytes: int = 0
) -> Swept:
    """Solve all rows of one side, block by block.

    ``fit`` names the job whose blocks may be kept in ``cache_bytes`` of each process.
    """
    name = "als-user-sweep" if side == USER_ITEMS else "als-item-sweep"
    parts = view.map_blocks(
        sweep_block, side, blocks.share(half), fit, cache_bytes, name=name, progress=False
    )
    return Swept(
        np.concatenate([part.vectors for part in parts]),
        sum(part.loss for part in parts),
        sum(part.penalty for part in parts),
        sum(part.gap for part in parts),
    )


def sweep_block(
    view: Interactions, side: Side, start: int, stop: int, half: Half, fit: str, cache_bytes: int
) -> Swept:
    """Solve the rows of one block."""
    block = CACHE.read(view, side, (start, stop), fit=fit, limit=cache_bytes)
    if half.offsets is None:
        if (block.data < 0).any():
            msg = f"{view.url} holds negative weights; implicit feedback needs weights >= 0"
            raise InputError(msg)
        weights, targets = block.data, np.ones_like(block.data)
    else:
        weights, targets = np.ones_like(block.data), block.data - half.offsets[block.indices]
    counts = np.diff(block.indptr).astype(np.float64)
    ridge = half.scale * (counts + half.shift) ** half.exponent
    rows = (block.indptr, block.indices, weights, targets)
    floor = np.finfo(np.float32).tiny
    vectors, loss, gap = _solve(rows, half, np.maximum(ridge, floor).astype(np.float32), start)
    penalty = float(ridge @ np.square(vectors, dtype=np.float64).sum(axis=1))
    return Swept(vectors, float(loss.sum()), penalty, float(gap.sum()))


def _solve(
    rows: tuple[NDArray[np.int64], NDArray[np.int32], Floats, Floats],
    half: Half,
    ridge: Floats,
    first: int,
) -> tuple[Floats, NDArray[np.float64], NDArray[np.float64]]:
    if half.tolerance is None:
        vectors, loss = solve_rows(*rows, half.vectors, half.base, ridge)
        return vectors, loss, np.zeros(1)
    if half.start is None:
        start = np.zeros((len(ridge), half.vectors.shape[1]), np.float32)
    else:
        start = half.start[first : first + len(ridge)]
        if half.rotation is not None:
            start = start @ half.rotation
    found: tuple[Floats, NDArray[np.float64], NDArray[np.float64]] = refine_rows(
        rows, half.vectors, half.base, ridge, start, half.tolerance
    )
    return found
