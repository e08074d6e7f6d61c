"""The only room that puts work on Dask: block tasks, shared values, and the shuffle of cells."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import dask.array as da
import dask.threaded
import numpy as np
from dask.base import compute, get_scheduler, tokenize
from dask.callbacks import Callback
from dask.delayed import Delayed, delayed
from dask.system import CPU_COUNT
from scipy import sparse
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from dasrec import files
from dasrec.errors import ClusterError
from dasrec.typing import Longs, Task

logger = logging.getLogger(__name__)

_TRIES = 4  # while workers die
_PAUSE = 0.5  # until the scheduler knows that one has died
_NO_SCHEDULER = "scheduler-connection-lost"  # why distributed cancels what it was asked for
LOST = (
    "the scheduler was lost, and all that was under way; what is in stores and checkpoints is "
    "still there. See that the cluster is back, then run the same call again (a fit with "
    "resume=True)"
)

TOPIC = "dasrec"
"""Of the events that :func:`tell` gives to a scheduler."""

_PATIENCE = 2.0  # seconds for the last event of a job, if the scheduler does not answer

_ALONE: ContextVar[bool] = ContextVar("alone", default=False)
_JOB: ContextVar[str] = ContextVar("job", default="")
_TURNS: WeakKeyDictionary[Any, asyncio.Lock] = WeakKeyDictionary()
_NEAR: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


class _OneBlasThread(threading.local):
    """BLAS has one thread within; to enter costs milliseconds, but nothing further within."""

    def __init__(self) -> None:
        self._depth = 0
        self._limits: Any = None

    def __enter__(self) -> None:
        if self._depth == 0:
            self._limits = threadpool_limits(1, "blas")
            self._limits.__enter__()
        self._depth += 1

    def __exit__(self, *error: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._limits.__exit__(*error)


ONE_BLAS_THREAD = _OneBlasThread()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Let this thread run what stands inside by itself: block tasks one after the other, no Dask.

    For a task that has block tasks of its own: it leaves other cores and workers to its siblings,
    and does not wait for a worker that waits for it.
    """
    before = _ALONE.set(True)
    try:
        with ONE_BLAS_THREAD:
            yield
    finally:
        _ALONE.reset(before)


def n_threads() -> int:
    """Return how many threads the caller may use in this process."""
    return 1 if _ALONE.get() else CPU_COUNT


def active_client() -> Any | None:
    """Return the ``distributed`` client that Dask would use now, or None."""
    if _ALONE.get():
        return None
    client = getattr(_scheduler(), "__self__", None)
    return client if hasattr(client, "scatter") else None


def _scheduler() -> Any:
    """Return what Dask would compute with now, or None for what each collection prefers."""
    # Dask would look for a client, and import distributed for it, which takes a third of a second
    if "distributed" not in sys.modules and not dask.config.get("scheduler", None):
        return None
    return get_scheduler()


def tell(event: str, *, wait: bool = False, **facts: Any) -> None:
    """Let the scheduler of the active client, if there is one, know what the dashboard shows.

    Parameters
    ----------
    event : str
    wait : bool
        Until it is there, for two seconds; else it costs some 0.1 ms here, and goes in its turn.
    facts : texts, numbers and lists of them
    """
    client = active_client()
    if client is None:
        return
    message = {"event": event, "job": _JOB.get(), "client": client.id, **facts}
    with contextlib.suppress(OSError, TimeoutError, RuntimeError):  # nobody needs it that much
        sent = asyncio.run_coroutine_threadsafe(_send(client, message), client.loop.asyncio_loop)
        if wait:
            sent.result(_PATIENCE)


async def _send(client: Any, message: dict[str, Any]) -> None:
    # over several connections one event would overtake another
    async with _TURNS.setdefault(client, asyncio.Lock()):
        if client.scheduler is not None:  # as it is of a client that has given its scheduler up
            await client.log_event(TOPIC, message)


@contextlib.contextmanager
def job(name: str) -> Iterator[None]:
    """Let what runs inside be one job on the dashboard, unless it is part of one already."""
    if _JOB.get():
        yield
        return
    before, end = _JOB.set(files.token()), "failed"
    tell("begin", name=name)
    try:
        yield
        end = "done"
    except KeyboardInterrupt:
        end = "stopped"
        raise
    finally:
        tell("end", wait=True, how=end)
        _JOB.reset(before)


def share_memory() -> bool:
    """Say whether all block tasks will be threads of this process, as when there is no client."""
    return _ALONE.get() or _scheduler() in (None, dask.threaded.get)


def are_near() -> bool:
    """Say whether all workers are on this host, and all that may come: others cannot connect.

    Workers that are threads of this process and have a scheduler count as far: what is sent to them
    costs nothing.
    """
    client = active_client()
    if client is not None and client not in _NEAR:
        address = client.scheduler_info(n_workers=1)["address"]
        host = address.removeprefix("tcp://").removeprefix("tls://")
        _NEAR[client] = host.startswith(("127.", "[::1]"))
    return client is None or _NEAR[client]


class Shared:
    """A value on the cluster, which workers copy from each other, and on the caller's side too."""

    def __init__(self, client: Any, value: Any) -> None:
        self._client = client
        self._value = value
        self.future: Any = None
        self.spread()

    def spread(self) -> None:
        """Put it on one worker.

        To put it on all of them before it is used would wait for ever for one that dies meanwhile.
        """
        for left in reversed(range(_TRIES)):
            try:
                # in a list, since a tuple by itself would be scattered element by element
                (self.future,) = self._client.scatter([self._value], hash=False)
            except OSError:  # the worker has died; the next one is another
                if not left or not _has_scheduler(self._client):
                    raise
                time.sleep(_PAUSE)
            else:
                return


def share(value: Any) -> Any:
    """Let all workers have one copy of a large value each; pass what comes back to :func:`run`.

    Without a client the value itself comes back, since threads share it anyway.
    """
    client = active_client()
    return value if client is None else Shared(client, value)


class Outcome(int):
    """Stands among the arguments of a task for what the task of this number returns."""


def run(
    task: Task,
    arguments: Sequence[tuple[Any, ...]],
    *,
    name: str,
    progress: bool = True,
    at_once: int | None = None,
    wanted: int = 0,
    rows: int = 0,
) -> list[Any]:
    """Run ``task(*a)`` for every ``a`` and return the results in order.

    Parameters
    ----------
    task : function of an importable module
    arguments : one tuple a task; Dask collections and shared values in it are resolved, and so is
        an :class:`Outcome` of a task before it
    name : how the tasks read on the dashboard, for instance ``als-user-sweep``
    progress : whether to show a bar, once a run takes more than a second
    at_once : most tasks at a time without a client; by default as many as there are cores
    wanted : of how many of the last tasks the results are returned; 0 for all
    rows : how many rows of a matrix all tasks go through, for the dashboard; 0 if that is not known

    Notes
    -----
    Goes to the active client, else to the threaded scheduler (or whatever ``dask.config`` says).
    BLAS runs one thread a task. When a task fails or the caller is interrupted, the rest is
    cancelled. Shared values that died with their workers are shared again, and all tasks repeated;
    so they are when the scheduler was lost and is back.

    Raises
    ------
    ClusterError
        The scheduler is lost, or a task has ended several workers, as one that is too large does.
    """
    if _ALONE.get():
        found: list[Any] = []
        for each in arguments:
            found.append(task(*_resolved(each, found)))
        return found[-wanted:]
    bar = tqdm(
        total=len(arguments), desc=name, delay=1, disable=None if progress else True, leave=False
    )
    with bar, ONE_BLAS_THREAD:
        client = active_client()
        if client is None:
            tasks, label = _delayed(task, arguments, name)
            return _run_here(tasks[-wanted:], label, bar, at_once or CPU_COUNT)
        shared = {id(a): a for each in arguments for a in each if isinstance(a, Shared)}
        for left in reversed(range(_TRIES)):
            try:
                tasks, label = _delayed(task, arguments, name)
                tell("run", name=name, label=label, blocks=len(tasks), rows=rows)
                return _run_on(client, tasks[-wanted:], label, bar)
            except CancelledError as error:
                if not _has_scheduler(client):
                    raise ClusterError(LOST) from error
                if not left or not (shared or lost_scheduler(error)):
                    raise
                logger.warning("%s: %s", name, _again(error))
            bar.reset()
            for value in shared.values():
                value.spread()
    raise AssertionError  # the last try returns or raises


def lost_scheduler(error: CancelledError) -> bool:
    """Say whether something was cancelled because the scheduler was lost."""
    return _NO_SCHEDULER in str(error)


def _again(error: CancelledError) -> str:
    if lost_scheduler(error):
        return "the scheduler was lost and is back; all tasks are repeated"
    return "workers died with what all tasks need; it is shared again"


def _has_scheduler(client: Any) -> bool:
    """Wait while the client looks for a scheduler that it has lost; say whether there is one."""
    while client.status == "connecting":
        time.sleep(_PAUSE)
    return bool(client.status == "running")


def _delayed(
    task: Task, arguments: Sequence[tuple[Any, ...]], name: str
) -> tuple[list[Delayed], str]:
    """Describe the tasks, and return what their keys begin with."""
    label = f"{name}-{files.token()}"
    call, tasks = delayed(task, pure=False, traverse=False), list[Delayed]()
    for i, each in enumerate(arguments):
        # the number comes last: the dashboard groups tasks by what stands before it
        tasks.append(call(*_resolved(each, tasks), dask_key_name=f"{label}-{i}"))
    return tasks, label


def _resolved(arguments: tuple[Any, ...], before: Sequence[Any]) -> list[Any]:
    """Put in what is shared, and what the tasks before return."""
    known = [before[one] if isinstance(one, Outcome) else one for one in arguments]
    return [one.future if isinstance(one, Shared) else one for one in known]


def _run_here(tasks: list[Delayed], label: str, bar: Any, at_once: int) -> list[Any]:
    def advance(key: Any, *_: Any) -> None:
        if str(key).startswith(label):
            bar.update()

    with Callback(posttask=advance):
        if not share_memory():
            return list(compute(*tasks))
        pool = ThreadPoolExecutor(at_once, thread_name_prefix="dasrec")
        try:
            return list(compute(*tasks, scheduler=dask.threaded.get, pool=pool))
        finally:
            # after an error or Ctrl-C nothing may go on writing behind the caller's back
            pool.shutdown(wait=True, cancel_futures=True)


def _run_on(client: Any, tasks: list[Delayed], label: str, bar: Any) -> list[Any]:
    futures = client.compute(tasks)
    for future in futures:
        future.add_done_callback(lambda _: bar.update())
    try:
        return list(client.gather(futures))  # raises the first error at once
    except BaseException as error:
        if type(error).__name__ == "CommClosedError":  # the scheduler went while it was answering
            raise CancelledError(_NO_SCHEDULER) from error
        if client.status != "running":
            raise  # who is left works for nobody
        tell("broken", label=label)
        client.cancel(futures, force=True)
        # what a worker has begun cannot be stopped; it must not go on writing behind our back
        while any(client.run(_is_busy, label, on_error="ignore").values()):
            time.sleep(0.05)
        if type(error).__name__ == "KilledWorker":
            raise ClusterError(_killed(error, label)) from error
        raise


def _killed(error: Any, label: str) -> str:
    block = str(error.task).removeprefix(f"{label}-")
    return (
        f"block {block} of {label.rpartition('-')[0]} ended {error.allowed_failures + 1} workers, "
        f"the last of them {error.last_worker.address}: most likely it took more memory than they "
        "have. What was there before is still there; give workers more memory or fewer threads, "
        "or see their logs, then run the same call again"
    )


def _is_busy(label: str, dask_worker: Any) -> bool:
    state = dask_worker.state
    # what is ready begins unless it hears first that it is not wanted any more
    tasks = [*state.executing, *(task for task in state.tasks.values() if task.state == "ready")]
    return any(str(task.key).startswith(label) for task in tasks)


def stack(
    task: Task, arguments: Sequence[tuple[Any, ...]], *, heights: Longs, width: int, name: str
) -> da.Array:
    """Return a lazy Dask array whose row block ``b`` is the CSR array ``task(*arguments[b])``."""
    label = f"{name}-{tokenize(arguments)}"
    graph = {(label, b, 0): (task, *each) for b, each in enumerate(arguments)}
    chunks = (tuple(int(height) for height in heights), (width,))
    meta = sparse.csr_array((0, 0), dtype=np.float32)
    return da.Array(graph, label, chunks, meta=meta)


def lazy(source: Any, chunks: tuple[int, ...]) -> da.Array:
    """Return a Dask array of something that can be sliced, and that is read when it is used."""
    array: da.Array = da.from_array(source, chunks=chunks, name=f"factors-{files.token()}")
    return array


def reaches(place: str) -> bool:
    """Say whether all workers of the active client, if there is one, see the same files."""
    client = active_client()
    return client is None or all(client.run(files.exists, place).values())


def track(n: int, *, name: str) -> Iterator[int]:
    """Count to ``n`` behind a progress bar, which shows once it takes more than a second."""
    hidden = True if _ALONE.get() else None
    yield from tqdm(range(n), desc=name, delay=1, disable=hidden, leave=False)
