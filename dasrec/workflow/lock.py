"""One run at a time: a lock of the system on a local disk, a lease on an object store."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dasrec import files
from dasrec.errors import BusyError, DasrecError

logger = logging.getLogger(__name__)
fcntl: Any
try:
    import fcntl
except ImportError:  # not on Windows, where a lease does it too
    fcntl = None

LEASE_SECONDS = 90.0
"""How long a lease is good for; a third of it is between two renewals."""

_PAUSE = 0.5
_LOCK, _LEASE = "run.lock", "lease-"

Check = Callable[[], None]
"""Raises BusyError if somebody else has taken over meanwhile."""


@contextlib.contextmanager
def held(place: str, *, name: str, wait: bool = False) -> Iterator[Check]:
    """Hold a place for one run, until it ends or dies.

    On a local disk the system has the lock and frees it when the holder dies. On an object store it
    is a lease, which the holder renews; a dead one's is over after :data:`LEASE_SECONDS`.

    Parameters
    ----------
    place : path or fsspec URL
    name : of the run, for others to read
    wait : whether to wait for another run to end

    Yields
    ------
    function that raises BusyError once a lease was lost: the holder could not renew it in time

    Raises
    ------
    BusyError
        Another run has it.
    """
    local = fcntl is not None and files.is_local(place)
    take = _take_lock if local else _take_lease
    said = False
    while True:
        try:
            lock = take(place, {"name": name, "host": socket.gethostname(), "pid": os.getpid()})
            break
        except BusyError as error:
            if not wait:
                raise
            if not said:
                logger.warning("%s; waiting for it", error)
            said = True
            time.sleep(_PAUSE)
    try:
        yield lock.check
    finally:
        lock.free()


def _busy(place: str, facts: Any) -> BusyError:
    who = "another run"
    if isinstance(facts, dict) and "pid" in facts:
        who = f"the run {facts['name']} (process {facts['pid']} on {facts['host']})"
    msg = f"{who} is at work in {place}; wait until it ends, or pass wait=True (--wait)"
    return BusyError(msg)


class _Lock:
    """A lock of the system on a file, which goes when this process does."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def check(self) -> None:
        """Nobody can take it away."""

    def free(self) -> None:
        os.close(self._descriptor)


def _take_lock(place: str, facts: dict[str, Any]) -> _Lock:
    files.make_folder(place)
    with files.writing(place):
        descriptor = os.open(Path(place) / _LOCK, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(facts).encode(), 0)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 4096, 0)
        os.close(descriptor)
        raise _busy(place, _parsed(holder)) from error
    except BaseException:
        os.close(descriptor)
        raise
    return _Lock(descriptor)


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:  # it is just being written
        return None


class _Lease:
    """The newest of some numbered files, each of which exactly one run can have made.

    Who takes over makes the next number, so that of two that see the same lease end one succeeds.
    """

    def __init__(self, place: str, number: int, facts: dict[str, Any]) -> None:
        self.url = files.join(place, f"{_LEASE}{number:08}.json")
        self._place, self._number, self._facts = place, number, facts
        self._lost: DasrecError | None = None
        self._until = time.time() + LEASE_SECONDS
        files.create(self.url, self._content(self._until))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def _content(self, until: float) -> str:
        return json.dumps({**self._facts, "token": files.token(), "until": until})

    def _renew(self) -> None:
        while not self._ended.wait(LEASE_SECONDS / 3):
            until = time.time() + LEASE_SECONDS
            try:
                if max(_numbers(self._place), default=0) > self._number:
                    self._lost = _busy(self._place, None)
                    return
                files.replace(self.url, self._content(until).encode())
            except DasrecError as error:  # the next time will do, if it comes soon enough
                logger.warning("the lease could not be renewed: %s", error)
            else:
                self._until = until

    def check(self) -> None:
        """Refuse to go on without the lease."""
        if self._lost is not None:
            raise self._lost
        if time.time() > self._until:
            msg = f"the lease on {self._place} is over: it could not be renewed in time; run again"
            raise BusyError(msg)

    def free(self) -> None:
        self._ended.set()
        self._thread.join()
        if self._lost is None:
            with contextlib.suppress(DasrecError):  # it will be over by itself
                files.replace(self.url, self._content(0.0).encode())


def _numbers(place: str) -> list[int]:
    """Return the numbers of all leases that were ever taken and not yet removed."""
    found = [name.removeprefix(_LEASE) for name in files.names(place) if name.startswith(_LEASE)]
    return sorted(int(name.removesuffix(".json")) for name in found if name.endswith(".json"))


def _take_lease(place: str, facts: dict[str, Any]) -> _Lease:
    numbers = _numbers(place)
    number = numbers[-1] if numbers else 0
    if number:
        holder = _parsed(files.read_bytes(files.join(place, f"{_LEASE}{number:08}.json")))
        if time.time() < (holder or {}).get("until", 0.0):
            raise _busy(place, holder)
    try:
        with files.writing(place):
            lease = _Lease(place, number + 1, facts)
    except FileExistsError as error:
        raise _busy(place, None) from error
    for old in numbers:
        files.remove(files.join(place, f"{_LEASE}{old:08}.json"))
    return lease
