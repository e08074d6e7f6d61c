"""What a fit takes on a cluster that is not there yet, for data that are not there yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from dasrec.checks import check_count, check_number
from dasrec.medium import CELL_BYTES, TASK_BYTES, FactorsIn, in_files
from dasrec.memory import block_cells, check_fits
from dasrec.plan import STORED_CELL_BYTES, Plan, parsed_bytes

CELL_RATE = 13e6
"""Cells that a core of two of a machine of 2024 solves for in a second at 64 factors."""

TASK_SECONDS = 0.002
"""What Dask's scheduler takes for a task, whatever the number of workers."""

_BASE_BYTES = 3 * 10**8  # libraries, compiled kernels and what Dask keeps
_DECODED_BYTES = 16
_CALLER_BYTES = 24  # of each user and item: its id, how many cells it has, where it is


class Sizes(NamedTuple):
    """How large a matrix is.

    Attributes
    ----------
    n_users, n_items, n_interactions : int
    longest_row : int
        Cells of the most active user or the most popular item.
    """

    n_users: int
    n_items: int
    n_interactions: int
    longest_row: int


class Workers(NamedTuple):
    """How large a cluster is.

    Attributes
    ----------
    n : int
        Worker processes, one a host.
    threads : int
        Of each.
    memory : bytes or text like "16GB"
        Of each.
    bandwidth : float
        Bytes a second from the store to each.
    """

    n: int
    threads: int = 4
    memory: str | int = "16GB"
    bandwidth: float = 1e9


@dataclass(frozen=True, repr=False)
class ScalePlan(Plan):
    """What :func:`plan_scale` foresees; bytes and seconds are those of one iteration.

    Attributes
    ----------
    store_bytes : int
        Both orientations, without times.
    n_tasks : int
        Blocks of both sides.
    factors_in : {"files", "ranges"}
        Whether a worker holds all factors of the side held fixed, or a task those that it needs.
    peak_bytes, limit_bytes : int
        Peak of a worker, without blocks that are kept decoded; and what it has.
    caller_bytes : int
        Ids and counts, on whoever calls.
    cell_bytes : int
        Of stored cells that are read, by all workers: those that do not stay decoded.
    factor_bytes : int
        Of factors that are read and written, by all workers; at most.
    compute_seconds, transfer_seconds, scheduler_seconds : float
        Cells by cores; bytes by bandwidth; tasks, which one scheduler hands out. They overlap:
        an iteration takes at least the longest, at most their sum.
    """

    store_bytes: int
    n_tasks: int
    factors_in: FactorsIn
    peak_bytes: int
    limit_bytes: int
    caller_bytes: int
    cell_bytes: int
    factor_bytes: int
    compute_seconds: float
    transfer_seconds: float
    scheduler_seconds: float


def plan_scale(
    sizes: Sizes, workers: Workers, *, factors: int = 64, cell_rate: float = CELL_RATE
) -> ScalePlan:
    """Foresee bytes, tasks and time of an iteration of least squares whose factors lie in files.

    Parameters
    ----------
    sizes : Sizes
    workers : Workers
    factors : int
    cell_rate : float
        Cells a second and core at 64 factors; ``benchmarks/scaling.py`` measures it. Time grows in
        proportion to factors.

    Raises
    ------
    InputError
        A number is out of its range.
    BudgetError
        A worker needs more memory; the message says how much.

    Examples
    --------
    >>> plan = plan_scale(Sizes(10**7, 10**6, 10**9, 10**6), Workers(8, 4, "16GB"))
    >>> plan.factors_in, plan.n_tasks, round(plan.compute_seconds)
    ('files', 1908, 5)
    """
    for name, value in {**sizes._asdict(), "workers": workers.n, "factors": factors}.items():
        check_count(value, name=name)
    check_count(workers.threads, name="threads")
    check_number(cell_rate, name="cell_rate", above=0)
    check_number(workers.bandwidth, name="bandwidth", above=0)
    limit, n = parsed_bytes(workers.memory), sizes.n_interactions
    n_tasks = 2 * -(-n // block_cells(n))
    room = limit - _BASE_BYTES
    room -= workers.threads * (CELL_BYTES * block_cells(n) + TASK_BYTES)
    factors_in, held, read = _factors(sizes, workers, factors, room)
    check_fits(
        limit - room + held,
        limit=limit,
        what=f"{factors} factors of {sizes.n_users:,} users and {sizes.n_items:,} items",
        remedy="take workers with more memory or fewer threads, or fewer factors",
    )
    kept = min(1.0, workers.n * (room - held) / (2 * n * _DECODED_BYTES))
    cells = round((1 - kept) * 2 * STORED_CELL_BYTES * n)
    moved = read + 4 * factors * (sizes.n_users + sizes.n_items)
    return ScalePlan(
        store_bytes=2 * STORED_CELL_BYTES * n,
        n_tasks=n_tasks,
        factors_in=factors_in,
        peak_bytes=limit - room + held,
        limit_bytes=limit,
        caller_bytes=_CALLER_BYTES * (sizes.n_users + sizes.n_items),
        cell_bytes=cells,
        factor_bytes=moved,
        compute_seconds=2 * n * factors / 64 / (cell_rate * workers.n * workers.threads),
        transfer_seconds=(cells + moved) / (workers.n * workers.bandwidth),
        scheduler_seconds=n_tasks * TASK_SECONDS,
    )


def _factors(sizes: Sizes, workers: Workers, factors: int, room: int) -> tuple[FactorsIn, int, int]:
    """Return how factors are read, what a worker holds of them, and what all read of both sides."""
    row, n = 4 * (factors + 1), sizes.n_interactions
    sides = sizes.n_users, sizes.n_items
    factors_in, held, _ = in_files(
        max(sides),
        n,
        lambda: sizes.longest_row,
        factors=factors,
        room=room,
        threads=workers.threads,
    )
    if factors_in == "files":
        return factors_in, held, workers.n * row * sum(sides)
    # each cell may need another row, each task may need all
    n_tasks = -(-n // block_cells(n))
    return factors_in, held, sum(row * min(n, n_tasks * side) for side in sides)
