"""Bytes that one task needs, block sizes from a budget, and refusal before anything starts."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from typing import Any

import psutil

from dasrec.errors import BudgetError

_trim: Any = None
_tune: Any = None
with contextlib.suppress(OSError, AttributeError):  # glibc alone has them
    _trim = ctypes.CDLL("libc.so.6").malloc_trim
    _tune = ctypes.CDLL("libc.so.6").mallopt

LARGEST_KEPT = 32 * 2**20
"""Bytes of the largest array that comes from the heap: the most that glibc allows."""

_TUNING = {
    # environment variable of glibc: number of the option, value
    "MALLOC_ARENA_MAX": (-8, 1),
    "MALLOC_MMAP_THRESHOLD_": (-3, LARGEST_KEPT),
    "MALLOC_TRIM_THRESHOLD_": (-1, 256 * 2**20),
}

READ_BYTES = 32 * 2**20
"""Bytes of a log that one task parses; parsing takes about eight times as much."""

BLOCK_CELLS = 2**20
"""Stored cells in a block: some 0.3 s of work at 64 factors, and 20 MB decoded."""

LEAST_BLOCK_CELLS = 2**14

TILE_CELLS = 2**15
"""Factors of items that users go through at a time: 128 KiB, which stay in the L2 cache."""

SCORE_CELLS = 2**22
"""Scores of whole rows that a task holds at a time, from a function or for AUC: 16 MiB."""

LISTED_CELLS = 2**18
"""Places of lists that a task holds at a time: with what is computed of them some 10 MB."""


def piece_rows() -> int:
    """Return how many rows of a binary format a task decodes at a time.

    A row of two ids, a value and a time has some 32 bytes.
    """
    return max(1, READ_BYTES // 32)


def block_cells(n_stored: int) -> int:
    """Return how many stored cells a block should have: at least 32 blocks when data allow it.

    It depends on the data alone, never on the cluster, so that results do not either.
    """
    return min(BLOCK_CELLS, max(LEAST_BLOCK_CELLS, -(-n_stored // 32)))


def listed_users(n: int) -> int:
    """Return how many users of a block get lists of ``n`` items at a time."""
    return max(1, LISTED_CELLS // n)


def limit() -> int:
    """Return the bytes that this process may still take from the machine."""
    return int(psutil.virtual_memory().available)


def share_heap() -> None:
    """Let all threads of this process allocate from one heap, which keeps some of what is freed.

    Memory that is new to a process costs time, and each thread would keep its own: an ingest takes
    about a tenth less of both so. Where the environment sets one of these options, all stay as they
    are. It helps threads that start later.
    """
    if _tune is not None and not any(name in os.environ for name in _TUNING):
        for option, value in _TUNING.values():
            _tune(option, value)


def keep_large() -> None:
    """Let arrays of up to 32 MB come from the heap, unless the environment says from which size.

    For workers of Dask, whose environment makes :func:`share_heap` leave all as it is.
    """
    name = "MALLOC_MMAP_THRESHOLD_"
    if _tune is not None and name not in os.environ:
        _tune(*_TUNING[name])


@contextlib.contextmanager
def from_heap() -> Iterator[None]:
    """Let arrays of any size come from the heap while the body runs, if the environment lets it.

    A long job takes arrays of one size again and again. Above :data:`LARGEST_KEPT` each would be
    new to the process, and the system zeroes what is new: for an ingest a twelfth of its time.
    ``MALLOC_MMAP_MAX_`` in the environment stays as it is.
    """
    if _tune is None or "MALLOC_MMAP_MAX_" in os.environ:
        yield
        return
    option, most = -4, 2**16  # as many mappings as glibc allows by itself
    _tune(option, 0)
    try:
        yield
    finally:
        _tune(option, most)
        release()


def release() -> None:
    """Give memory that the allocator keeps for later back to the system, where it can be asked to.

    Threads that come and go leave it cut up: an ingest then holds a third more than it uses.
    """
    if _trim is not None:
        _trim(0)


def check_fits(need: int, *, limit: int, what: str, remedy: str) -> None:
    """Refuse a step whose need in bytes is above ``limit``, saying what would help."""
    if need > limit:
        msg = f"{what} needs {gigabytes(need)} and {gigabytes(limit)} are available; {remedy}"
        raise BudgetError(msg)


def gigabytes(size: int) -> str:
    """Write a size as people read it."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def readable(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record, its bytes and seconds as people read them."""
    units = {"_bytes": gigabytes, "_seconds": "{:.3g} s".format}
    told = {key: tell for key in record for end, tell in units.items() if key.endswith(end)}
    return {key: told[key](value) if key in told else value for key, value in record.items()}
