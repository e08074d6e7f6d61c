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

from dasrec.errors import BusyError, DasrecError

DONE, FAULT, REFUSED, LATER, INTERRUPTED, TERMINATED = 0, 1, 2, 75, 130, 143
"""Exit statuses: done; a fault of dasrec's own; the same call would be refused again (bad input);
the same call may work later (EX_TEMPFAIL); ended by Ctrl-C; ended by SIGTERM."""

Facts = dict[str, Any]

_FINAL = (
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
)
_PASSING = (
    BusyError,
    OSError,
    TimeoutError,
    asyncio.CancelledError,
    concurrent.futures.CancelledError,
    concurrent.futures.BrokenExecutor,
)


class Terminated(KeyboardInterrupt):
    """SIGTERM came: whatever Ctrl-C does is done."""


def exit_status(error: BaseException | None) -> int:
    """Return the exit status that tells a scheduler what to do about an error.

    What comes of the network, a full disk or a lost worker may work later, also where dasrec has
    put it in words of its own; a file that is not there, or that may not be touched, stays so.
    """
    match error:
        case None:
            return DONE
        case Terminated():
            return TERMINATED
        case KeyboardInterrupt():
            return INTERRUPTED
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    if any(isinstance(each, _FINAL) for each in chain):
        return REFUSED
    if any(isinstance(each, _PASSING) or _is_of_dask(each) for each in chain):
        return LATER
    return REFUSED if isinstance(error, DasrecError) else FAULT


def _is_of_dask(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == "distributed"


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
