"""What an ingest will take, told before anything runs, and kept to while it does."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NoReturn

import psutil
from dask.utils import parse_bytes

from dasrec import blocks, store
from dasrec.cards import Card, Carded, sketch_share
from dasrec.errors import BudgetError, InputError
from dasrec.events import Events
from dasrec.memory import block_cells, gigabytes, limit, piece_rows, readable

# Measured as peaks of resident memory over what the process held before, on logs of integers and of
# strings, with benchmarks/ingest.py.
_WARM_BYTES = 130 * 10**6  # compiled kernels, and what the allocators keep
_SCAN_ROW_BYTES = 200
_BLOCK_CELL_BYTES = 80
_SHARD_CELL_BYTES = 40
_HELD_ID_BYTES = 30
_SCRATCH_ROW_BYTES = 24
STORED_CELL_BYTES = 3
_STORED_TIME_BYTES = 6


class Plan(Carded):
    """Base of the plans, dataclasses that say how many tasks there are and how memory peaks."""

    n_tasks: int
    peak_bytes: int
    limit_bytes: int

    def as_record(self) -> dict[str, Any]:
        """Return the plan as a dict for JSON."""
        record: dict[str, Any] = asdict(self)  # type: ignore[call-overload]  # subclasses are
        return record

    def readable(self) -> dict[str, Any]:
        """Return the plan with its bytes as people read them."""
        return readable(self.as_record())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.n_tasks:,} tasks, {self._peak()}>"

    def _peak(self) -> str:
        return f"peak {gigabytes(self.peak_bytes)} of {gigabytes(self.limit_bytes)}"

    def _card(self) -> Card:
        facts = {key.replace("_", " "): value for key, value in self.readable().items()}
        sketch = sketch_share(self.peak_bytes, self.limit_bytes, self._peak())
        return Card(type(self).__name__, facts, sketches=(sketch,))


@dataclass(frozen=True, repr=False)
class IngestPlan(Plan):
    """What :func:`plan_ingest` foresees.

    Attributes
    ----------
    source : str
    n_rows : int
        Rows of the log, counted where the files say it, else judged by their first lines.
    n_parts, n_tasks : int
        Parts that are read by one task each, and tasks of all steps.
    scratch_bytes, store_bytes : int
        Disk that is taken while it runs, and for good.
    at_once : int
        Tasks that run at a time in this process, or in each worker.
    peak_bytes : int
        Most resident memory of this process, or of each worker.
    limit_bytes : int
        What ``memory`` allows, or what there is.
    """

    source: str
    n_rows: int
    n_parts: int
    n_tasks: int
    scratch_bytes: int
    store_bytes: int
    at_once: int
    peak_bytes: int
    limit_bytes: int


def plan_ingest(events: Events, *, memory: str | int | None = None) -> IngestPlan:
    """Foresee tasks, bytes and peak memory of writing these events, reading no more than heads.

    Parameters
    ----------
    events : Events
    memory : bytes or text like "2GB", optional
        As :func:`dasrec.write_interactions`.

    Raises
    ------
    BudgetError
        One task alone needs more; the message says how much.
    InputError
        ``memory`` is no size, or the rows of the log cannot be told: a Dask DataFrame.

    Examples
    --------
    >>> import pandas as pd
    >>> from dasrec import read_events
    >>> log = pd.DataFrame({"u": range(1000), "i": range(1000)})
    >>> plan_ingest(read_events(log, user="u", item="i")).n_rows
    1000
    """
    n_rows = events.count_rows()
    if n_rows is None:
        msg = f"the rows of {events.source} are not known before it is computed; pass files"
        raise InputError(msg)
    n_parts = len(events.sources)
    task, (base, most_bytes, threads) = _task_bytes(n_rows, n_parts), room(memory)
    at_once = _fitting(task, base, most_bytes, threads)
    n_blocks = -(-n_rows // block_cells(n_rows))
    n_shards = -(-n_rows // store.SHARD_CELLS)
    stored = STORED_CELL_BYTES + _STORED_TIME_BYTES * events.has_timestamps
    return IngestPlan(
        source=events.source,
        n_rows=n_rows,
        n_parts=n_parts,
        n_tasks=2 * n_parts + 2 + n_blocks + 2 * n_shards,
        scratch_bytes=_SCRATCH_ROW_BYTES * n_rows,
        store_bytes=2 * stored * n_rows,
        at_once=at_once,
        peak_bytes=base + at_once * task,
        limit_bytes=most_bytes,
    )


def allowed_tasks(events: Events, memory: str | int | None) -> int | None:
    """Return how many tasks may run at a time; None for as many as there are threads.

    Raises
    ------
    BudgetError
        Not even one.
    """
    if memory is None:
        return None
    task = _task_bytes(events.count_rows(), len(events.sources))
    base, most_bytes, threads = room(memory)
    at_once = _fitting(task, base, most_bytes, threads)
    if blocks.active_client() is not None and at_once < threads:
        _refuse(
            base + threads * task,
            most_bytes,
            f"start workers with at most {at_once} threads, or give them more",
        )
    return at_once


def check_held(n_ids: int, budget: str | int | None) -> None:
    """Refuse if what the caller holds of each user and item is more than it may."""
    if budget is not None:
        base, most_bytes, _ = room(budget)
        if (need := base + _HELD_ID_BYTES * n_ids) > most_bytes:
            _refuse(need, most_bytes, f"there are {n_ids:,} users and items; give it more")


def _task_bytes(n_rows: int | None, n_parts: int) -> int:
    """Return what the largest task needs."""
    # of a log whose rows are not known a part may be as large as a piece
    piece = piece_rows()
    rows = piece if n_rows is None else min(piece, -(-n_rows // max(1, n_parts)))
    cells = piece if n_rows is None else block_cells(n_rows)
    shard = store.SHARD_CELLS if n_rows is None else min(store.SHARD_CELLS, n_rows)
    return max(_SCAN_ROW_BYTES * rows, _BLOCK_CELL_BYTES * cells, _SHARD_CELL_BYTES * shard)


def room(budget: str | int | None) -> tuple[int, int, int]:
    """Return what a process holds before it begins, what it may hold, and how many threads it has.

    On a cluster each worker may hold the same; there what counts is that of the smallest.
    """
    base = psutil.Process().memory_info().rss + _WARM_BYTES
    client = blocks.active_client()
    threads, limits = blocks.n_threads(), [limit() + base - _WARM_BYTES]
    if client is not None:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        threads = max((int(each["nthreads"]) for each in workers), default=1)
        limits = [int(each["memory_limit"]) for each in workers if each["memory_limit"]] or limits
    if budget is not None:
        limits.append(parsed_bytes(budget))
    return base, min(limits), threads


def parsed_bytes(budget: str | int) -> int:
    """Return a size, given in bytes or as a text like "2GB"."""
    try:
        return int(parse_bytes(budget))
    except (AttributeError, TypeError, ValueError) as error:
        msg = f'memory is {budget!r}; expected bytes or a text like "2GB"'
        raise InputError(msg) from error


def _fitting(task: int, base: int, most_bytes: int, threads: int) -> int:
    fitting = min(threads, (most_bytes - base) // task)
    if fitting < 1:
        _refuse(base + task, most_bytes, "give it more, or cut the log into smaller row groups")
    return fitting


def _refuse(need: int, most_bytes: int, remedy: str) -> NoReturn:
    msg = (
        f"to ingest this log takes {gigabytes(need)} a process, and memory is "
        f"{gigabytes(most_bytes)}; {remedy}"
    )
    raise BudgetError(msg)
