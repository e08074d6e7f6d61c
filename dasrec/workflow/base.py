"""What all of a workflow shares: exit statuses, keys of steps, and being ended by a signal."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import hashlib
import json
import signal
import threading
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from dasrec.errors import BusyError, DasrecError, DiskError

DONE, FAULT, REFUSED, LATER, INTERRUPTED, TERMINATED = 0, 1, 2, 75, 130, 143
"""Exit statuses: done; a fault of dasrec's own; the same call would be refused again (bad input);
the same call may work later (EX_TEMPFAIL); ended by Ctrl-C; ended by SIGTERM."""

Facts = dict[str, Any]

_FINAL = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
_PASSING = (
    BusyError,
    DiskError,
    OSError,
    TimeoutError,
    MemoryError,
    asyncio.CancelledError,
    concurrent.futures.CancelledError,
    concurrent.futures.BrokenExecutor,
)


class Terminated(KeyboardInterrupt):
    """SIGTERM came: whatever Ctrl-C does is done."""


def exit_status(error: BaseException | None) -> int:
    """Return the exit status that tells a scheduler what to do about an error.

    What comes of the network, a disk or a lost worker may work later, also where dasrec has put it
    in words of its own; a file that is not there, or that may not be read, stays so.
    """
    match error:
        case None:
            return DONE
        case Terminated():
            return TERMINATED
        case KeyboardInterrupt():
            return INTERRUPTED
    cause: BaseException | None = error
    while cause is not None:
        from_dask = type(cause).__module__.partition(".")[0] == "distributed"
        if from_dask or (isinstance(cause, _PASSING) and not isinstance(cause, _FINAL)):
            return LATER
        cause = cause.__cause__
    return REFUSED if isinstance(error, (DasrecError, *_FINAL)) else FAULT


def key_of(*details: Any) -> str:
    """Name a result by all that it depends on, the version of dasrec too."""
    text = json.dumps([version("dasrec"), *details], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end what stands inside as Ctrl-C would, where signals can be had."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough; what is begun is cleaned up
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
