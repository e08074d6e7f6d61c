"""What a long job has finished, kept beside its scratch files, so that the same call goes on."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from dask.tokenize import TokenizationError, tokenize

from dasrec import blocks, files, memory
from dasrec.errors import DasrecError
from dasrec.typing import Task

logger = logging.getLogger(__name__)
fcntl: Any
try:
    import fcntl
except ImportError:  # not on Windows, where a job that was killed begins anew
    fcntl = None


class Shared(NamedTuple):
    """A value that every process reads once from a file, so that no dead worker takes it along."""

    path: str

    def load(self) -> Any:
        """Return the value."""
        return _load(self.path)


@lru_cache(maxsize=8)
def _load(path: str) -> Any:
    return pickle.loads(files.read_bytes(path))


class Journal:
    """A folder of scratch files, and a record of each finished task and what it returned.

    Parameters
    ----------
    folder : path or fsspec URL that all workers reach
    at_once : most tasks that one process may run at a time; None for all its threads
    resumable : whether the same job would find it again

    Notes
    -----
    A task that a dead worker or a dead caller had finished is not run again, so it may remove its
    input. Records are pickles: like the scheduler's messages, they must come from nobody else.
    """

    def __init__(self, folder: str, *, at_once: int | None = None, resumable: bool = False) -> None:
        self.folder = folder
        self.at_once = at_once
        self.resumable = resumable
        self._remover = ThreadPoolExecutor(1, "dasrec-remove")
        files.make_folder(files.join(folder, "done"))

    def path(self, name: str) -> str:
        """Return the place of a scratch file or folder."""
        return files.join(self.folder, name)

    def share(self, value: Any, name: str) -> Shared:
        """Put a value where tasks can :meth:`Shared.load` it."""
        place = self.path(f"{name}.pickle")
        with files.writing(place):
            files.replace(place, pickle.dumps(value, protocol=5), durable=False)
        return Shared(place)

    def run(
        self,
        task: Task,
        arguments: Sequence[tuple[Any, ...]],
        *,
        name: str,
        spent: Sequence[tuple[str, ...]] = (),
    ) -> list[Any]:
        """Run ``task(*a)`` for every ``a`` as :func:`blocks.run` does, but for what is done.

        ``spent[i]`` are scratch folders that nobody needs once task ``i`` is done.
        """
        records = [self.path(f"done/{name}-{number}") for number in range(len(arguments))]
        known = files.names(self.path("done"))
        todo = [number for number in range(len(records)) if f"{name}-{number}" not in known]
        if len(todo) < len(records):
            logger.info(
                "%s of %s tasks of %s were done already",
                len(records) - len(todo),
                len(records),
                name,
            )
        removes = spent or [()] * len(records)
        calls = [(records[each], removes[each], task, *arguments[each]) for each in todo]
        fresh = blocks.run(_recorded, calls, name=name, at_once=self.at_once)
        memory.release()  # what threads leave cut up would add up over the steps
        results = dict(zip(todo, fresh, strict=True))
        return [
            results[number] if number in results else _recorded(record, remove, task)
            for number, (record, remove) in enumerate(zip(records, removes, strict=True))
        ]

    def drop(self, folders: Sequence[str]) -> None:
        """Remove scratch files that no task needs any more, while others go on.

        What cannot be removed is met again when the whole folder is.
        """
        for folder in folders:
            self._remover.submit(files.remove, folder)

    def close(self) -> None:
        """Wait until nothing is removed any more."""
        self._remover.shutdown()


def _recorded(record: str, spent: tuple[str, ...], task: Task, *arguments: Any) -> Any:
    """Run a task unless its record is there, write the record, then remove what it has used up."""
    try:
        result = pickle.loads(files.read_bytes(record))
    except FileNotFoundError:
        result = task(*arguments)
        with files.writing(record):
            files.replace(record, pickle.dumps(result, protocol=5), durable=False)
    for folder in spent:
        files.remove(folder)
    return result


def job_key(*details: Any) -> str | None:
    """Name a job by all that it depends on, so that the same call finds what a killed one left.

    None if that cannot be told, since part of it is a function that Dask cannot compare.
    """
    boot = Path("/proc/sys/kernel/random/boot_id")
    # scratch is not synced to the disk, so it must not outlive the machine
    machine = boot.read_text() if boot.exists() else ""
    try:
        token = tokenize(machine, version("dasrec"), *details, ensure_deterministic=True)
    except TokenizationError:
        return None
    return str(token)[:12]


@contextlib.contextmanager
def resuming(url: str, key: str | None, *, at_once: int | None = None) -> Iterator[Journal]:
    """Give the journal of the job ``key`` at ``url``, with what a killed run of it left there.

    It is removed when the job ends or is refused; after Ctrl-C or the loss of workers it stays, as
    after a kill. Only one run at a time has it: another one, a job without a key, and one on an
    object store, where nobody can tell whether a writer is alive, begin anew in a folder of their
    own. What dead runs of other jobs have left is removed.
    """
    lock = _locked(files.join(url, f"scratch-{key}")) if key else None
    resumable = lock is not None
    name = f"scratch-{key if resumable else files.token()}"
    folder = files.join(url, name)
    if not resumable:
        lock = _locked_anew(url, name)
    for other in files.names(url):
        if other.startswith("scratch-") and other != name and is_free(files.join(url, other)):
            files.remove(files.join(url, other))
    keep = False
    try:
        with contextlib.closing(Journal(folder, at_once=at_once, resumable=resumable)) as journal:
            yield journal
    except DasrecError:
        raise
    except BaseException:
        keep = resumable
        raise
    finally:
        if not keep:
            files.remove(folder)
        if lock:
            os.close(lock)


def _locked_anew(url: str, name: str) -> int | None:
    """Make a local folder and lock it before anybody can see it and take it for a dead run's."""
    draft = files.join(url, f"new-{name}")
    lock = _locked(draft)
    if lock:
        Path(draft).rename(files.join(url, name))
    elif files.is_local(draft):
        files.remove(draft)
    return lock


def is_free(folder: str) -> bool:
    """Say whether a scratch folder belongs to no live run, as far as anybody can tell."""
    lock = _locked(folder)
    if lock:
        os.close(lock)
    return lock is not None


def _locked(folder: str) -> int | None:
    """Lock a local folder until the returned descriptor is closed or this process dies."""
    if fcntl is None or not files.is_local(folder):
        return None
    files.make_folder(folder)
    descriptor = os.open(Path(folder) / "lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
