"""What a fit holds in memory and what in files: blocks that are kept, and where factors are."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from shutil import disk_usage
from typing import Any, Literal, cast

import numpy as np
from dask.tokenize import tokenize

from dasrec import blocks, files
from dasrec.errors import BudgetError, InputError
from dasrec.features import Features
from dasrec.interactions import Interactions
from dasrec.journal import resuming
from dasrec.memory import block_cells, check_fits, gigabytes
from dasrec.plan import Plan, room
from dasrec.schema import ITEM_USERS, USER_ITEMS
from dasrec.typing import CsrBlock, Side

logger = logging.getLogger(__name__)


class BlockCache:
    """Blocks of one view, those made first, as many as fit into some bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fit = ""
        self._blocks: dict[Any, tuple[Any, ...]] = {}
        self._left = 0

    def read(
        self,
        view: Interactions,
        side: Side,
        rows: tuple[int, int],
        *,
        fit: str,
        limit: int,
        timed: bool = False,
    ) -> CsrBlock:
        """Return a block of a view, decoded."""
        make = partial(view.read_rows, side, *rows, timed=timed)
        found: CsrBlock = self.get((side, *rows, timed), make, fit=fit, limit=limit)
        return found

    def get(self, key: Any, make: Callable[[], Any], *, fit: str, limit: int) -> Any:
        """Return the tuple of a key, made if it is not kept; another ``fit`` begins anew.

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

    def may_keep(self, key: Any, size: int, *, fit: str, limit: int) -> bool:
        """Say whether the tuple of a key is kept, or would be if it takes so many bytes."""
        with self._lock:
            if fit != self._fit:
                return size <= limit
            return key in self._blocks or size <= self._left

    def clear(self) -> None:
        """Forget all blocks."""
        with self._lock:
            self._fit, self._left = "", 0
            self._blocks.clear()


CACHE = BlockCache()


@dataclass(frozen=True)
class Medium:
    """Where the factors of one fit are, and what each process may hold.

    Attributes
    ----------
    fit : str
        Names the view whose blocks may be kept.
    cache_bytes : int
        For decoded blocks.
    place : path or fsspec URL, or None
        Where generations of factors lie, for all workers; None: in memory, and the caller sends
        them to workers.
    cells : int or None
        Whose factors a task reads at a time; None: a process reads all that are held fixed.
    """

    fit: str = ""
    cache_bytes: int = 0
    place: str | None = None
    cells: int | None = None


MANY_FACTORS = 128  # beyond, fetching limits conjugate gradients, and 16 bits a number are kept
CELL_BYTES = 40  # of a block that is being solved
TASK_BYTES = 2**24  # factors of the row that is being solved
LEAST_CELLS = 2**16  # whose factors are read at a time
_COPIES = 2  # of what a process holds of factors, as files: the last iteration, and the one before
_MARK_BYTES = 5  # of each row of the other side, while those that are needed are told

FactorsIn = Literal["memory", "files", "ranges"]


@dataclass(frozen=True, repr=False)
class FitPlan(Plan):
    """What :func:`plan_fit` foresees.

    Attributes
    ----------
    factors : int
        Numbers of a vector: of gradient descent with biases and what the optimizer keeps.
    n_tasks : int
        Blocks of both sides, or strata: the tasks of one iteration.
    factors_in : {"memory", "files", "ranges"}
        Where factors are: all in memory; in files, of which a process reads one side as a whole; or
        in files, of which a task reads what its cells need.
    factor_bytes : int
        What a process holds of factors and features, and what a half-sweep makes of them.
    cells_at_once : int
        Whose factors a task holds: those of a block, or of a part of one.
    cache_bytes : int
        For blocks that are kept decoded; the others are read from the store in each iteration.
    data_bytes : int
        All blocks of both sides.
    peak_bytes, limit_bytes : int
        Most resident memory of this process, and what ``memory`` allows, or what there is.
    """

    factors: int
    n_tasks: int
    factors_in: FactorsIn
    factor_bytes: int
    cells_at_once: int
    cache_bytes: int
    data_bytes: int
    peak_bytes: int
    limit_bytes: int


def plan_fit(
    interactions: Interactions,
    *,
    factors: int | None = None,
    model: Any = None,
    memory: str | int | None = None,
    checkpoint: bool = False,
    features: Sequence[Features] = (),
) -> FitPlan:
    """Foresee tasks and memory of a fit; no block is read.

    Parameters
    ----------
    interactions : Interactions
    factors : int, optional
        Of alternating least squares.
    model : Model that is fitted in iterations, optional
        Instead of ``factors`` and ``features``: what fitting this one takes.
    memory : bytes or text like "2GB", optional
        As :class:`dasrec.Training`; without it, what the machine has.
    checkpoint : bool
        Whether the fit is to have one: factors that do not fit in memory lie in files beside it.
    features : sequence of Features
        Those that the model is to use; with them all factors are held in memory.

    Raises
    ------
    BudgetError
        All factors need more, or, with a checkpoint, those of the longest row in each thread; the
        message says how much.
    InputError
        Neither or both of ``factors`` and ``model`` are given, or the model is not fitted in
        iterations.
    """
    if model is not None and getattr(model, "stepwise", False) and factors is None:
        return cast(FitPlan, model.plan(interactions, memory=memory, checkpoint=checkpoint))
    if factors is None or model is not None:
        msg = (
            f"factors={factors!r} and model={model!r} were given; expected factors of least "
            "squares, or a model that is fitted in iterations"
        )
        raise InputError(msg)
    return plan_sweeps(interactions, factors, memory, checkpoint=checkpoint, features=features)


def plan_sweeps(
    interactions: Interactions,
    factors: int,
    memory: str | int | None,
    *,
    checkpoint: bool,
    features: Sequence[Features],
) -> FitPlan:
    """Foresee a fit by alternating least squares, as :func:`plan_fit` says."""
    base, limit, threads = room(memory)
    if blocks.active_client() is not None:
        base = 0  # what this process holds says nothing of a worker, whose limit is the least
    sides = sorted([interactions.n_users, interactions.n_items])
    n_stored = interactions.n_stored
    base += threads * (CELL_BYTES * block_cells(n_stored) + TASK_BYTES)
    factors_in: FactorsIn = "memory"
    held, cells = _factor_bytes(interactions, factors), block_cells(n_stored)
    held += sum(_feature_bytes(each, factors) for each in features)
    if checkpoint and not features and base + held > limit:
        factors_in, held, cells = _in_files(interactions, factors, limit - base, threads)
    need = base + held
    remedy = "use fewer factors, or drop rare users and items with min_user and min_item"
    if not checkpoint and not features:
        remedy = f"pass checkpoint=, so that they lie in files, {remedy}"
    check_fits(
        need,
        limit=limit,
        what=f"fitting {factors} factors of {interactions.n_users:,} users "
        f"and {interactions.n_items:,} items",
        remedy=remedy,
    )
    n_tasks = sum(len(interactions.cuts(side)) - 1 for side in (USER_ITEMS, ITEM_USERS))
    data = 16 * n_stored + 8 * (sum(sides) + n_tasks)
    # without a limit half of the machine is left to others
    spare = limit - need if memory is not None else limit // 2 - need
    cache = max(0, min(data, spare))
    return FitPlan(
        factors=factors,
        n_tasks=n_tasks,
        factors_in=factors_in,
        factor_bytes=held,
        cells_at_once=cells,
        cache_bytes=cache,
        data_bytes=data,
        peak_bytes=need + cache,
        limit_bytes=limit,
    )


def _factor_bytes(interactions: Interactions, factors: int) -> int:
    """Return what a fit holds of factors when all are in memory."""
    smaller, larger = sorted([interactions.n_users, interactions.n_items])
    # of the larger side: where it starts, the solution, that in the basis, and maybe in 16 bits a
    # number; of the other also the basis
    halves = 7 if factors > MANY_FACTORS else 6
    return 2 * (factors + 1) * (halves * larger + 4 * smaller)


def _feature_bytes(features: Features, factors: int) -> int:
    """Return what features take in a fit: all of them, their weights, vectors filled up by them."""
    stored = 16 * features.n_stored + 8 * features.n_rows
    weights = 48 * (factors + 1) * features.n_features
    return stored + weights + 4 * (factors + 1) * features.n_rows


def _in_files(
    interactions: Interactions, factors: int, room: int, threads: int
) -> tuple[FactorsIn, int, int]:
    """Return how files are read, what is held of them, and for how many cells at once."""

    def longest() -> int:
        counts = interactions.stored_counts(interactions.n_users, interactions.n_items)
        return max(int(each.max(initial=1)) for each in counts)

    larger, cells = max(interactions.n_users, interactions.n_items), interactions.n_stored
    return in_files(larger, cells, longest, factors=factors, room=room, threads=threads)


def in_files(
    larger: int,
    n_stored: int,
    longest: Callable[[], int],
    *,
    factors: int,
    room: int,
    threads: int,
) -> tuple[FactorsIn, int, int]:
    """Return how files of factors are read, what is held of them, and for how many cells at once.

    ``larger`` is how many rows the larger side has, ``longest`` tells the cells of the longest row.
    """
    row, cells = 4 * (factors + 1), block_cells(n_stored)
    whole = (row + 4) * larger
    if whole <= room:
        return "files", whole, cells
    marks = (4 + threads * _MARK_BYTES) * larger
    fitting = (room - marks) // (threads * row)
    cells = max(longest(), min(cells, max(LEAST_CELLS, fitting)))
    return "ranges", marks + threads * row * cells, cells


@contextlib.contextmanager
def opened_medium(
    interactions: Interactions,
    *,
    factors: int,
    memory: str | int | None,
    checkpoint: str | os.PathLike[str] | None,
    features: Sequence[Features],
    monitored: bool,
) -> Iterator[Medium]:
    """Plan a fit and give the medium of its factors, which goes when it ends.

    On a cluster of this host factors are in files of a temporary folder, which cost less than
    messages; on another beside the checkpoint, if there is one and all workers reach it, and the
    caller holds none. Either way nothing is lost with a worker.

    Raises
    ------
    BudgetError
        They do not fit, or are to be measured although they do not fit in memory.
    InputError
        They do not fit in memory, and not all workers reach the checkpoint.
    """
    plan = plan_fit(
        interactions,
        factors=factors,
        memory=memory,
        checkpoint=bool(checkpoint),
        features=features,
    )
    in_memory = plan.factors_in == "memory"
    if monitored and not in_memory:
        msg = (
            f"a monitor needs all factors in memory, and {gigabytes(plan.limit_bytes)} are too few "
            "for that; give more memory, or leave out the monitor"
        )
        raise BudgetError(msg)
    # fits side by side on the same data share their blocks
    medium = Medium(tokenize(interactions), plan.cache_bytes)
    with contextlib.ExitStack() as stack:
        stack.callback(CACHE.clear)
        on_cluster = blocks.active_client() is not None and not features
        if on_cluster and in_memory and blocks.are_near():
            place = stack.enter_context(_place_here())
            if blocks.reaches(place) and disk_usage(place).free > _COPIES * plan.factor_bytes:
                medium = replace(medium, place=place)
        elif checkpoint and (on_cluster or not in_memory):
            place = stack.enter_context(_place_beside(os.fspath(checkpoint)))
            if blocks.reaches(place):
                cells = plan.cells_at_once if plan.factors_in == "ranges" else None
                medium = replace(medium, place=place, cells=cells)
            elif not in_memory:
                msg = (
                    f"factors do not fit in memory, and not all workers reach {place}, where they "
                    "are to lie; choose a checkpoint that they reach as they reach the store"
                )
                raise InputError(msg)
        logger.info("factors are in %s: %s", "files" if medium.place else "memory", plan)
        yield medium


@contextlib.contextmanager
def _place_here() -> Iterator[str]:
    """Give an empty folder of this host; it is removed, as is what fits that were killed left."""
    user = getattr(os, "getuid", os.getpid)()  # others may not write into what is one user's
    with resuming(files.join(files.spill_folder(), f"dasrec-factors-{user}"), None) as journal:
        place = journal.path("factors")
        files.make_folder(place)
        yield place


@contextlib.contextmanager
def _place_beside(checkpoint: str) -> Iterator[str]:
    """Give an empty folder that no other fit uses, and remove it."""
    whole = f"{checkpoint}-factors"
    with resuming(whole, "fit") as journal:
        place = journal.path("factors")
        files.remove(place)  # of a fit that was killed
        files.make_folder(place)
        try:
            yield place
        finally:
            files.remove(place)
    if not files.names(whole):
        files.remove(whole)
