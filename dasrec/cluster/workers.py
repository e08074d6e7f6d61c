"""What dasrec needs of workers: set before they start, else by a plugin; and checked."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
from collections.abc import Iterator
from typing import Any

import dask
from dask.utils import parse_timedelta
from distributed import Client, WorkerPlugin
from threadpoolctl import threadpool_limits

from dasrec import files, memory
from dasrec.cluster.spec import LEAST_TCP_TIMEOUT, TCP_TIMEOUT
from dasrec.errors import InputError, MismatchError

logger = logging.getLogger(__name__)

_TCP = "distributed.comm.timeouts.tcp"
_UNSET = "30s"  # by Dask's own defaults

ENVIRONMENT = {
    # blocks are what runs side by side; BLAS with threads of its own would only be in their way
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Dask makes workers give memory back at once, and glibc then asks the system anew for each
    # array of over 128 kB, which takes as long as working on it; 32 MB is the most that it allows
    "MALLOC_MMAP_THRESHOLD_": str(memory.LARGEST_KEPT),
}
"""Environment variables of every worker process that we start."""

FRACTIONS = {"target": 0.6, "spill": 0.7, "pause": 0.8, "terminate": 0.95}
"""Of the memory limit: where a worker spills by what it stores, by what it holds, takes no more
tasks, and is replaced before the system kills it."""


def settings() -> dict[str, Any]:
    """Return the settings of Dask for workers that inherit those of this process."""
    return {f"distributed.nanny.pre-spawn-environ.{key}": v for key, v in ENVIRONMENT.items()}


def pod_environment() -> dict[str, str]:
    """Return the environment of pods, which inherit nothing from here."""
    memory_fractions = {
        f"DASK_DISTRIBUTED__WORKER__MEMORY__{name.upper()}": str(share)
        for name, share in FRACTIONS.items()
    }
    return {
        **ENVIRONMENT,
        **memory_fractions,
        "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": TCP_TIMEOUT,
    }


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """Give silent hosts up after 12 s, unless the user has said when.

    Raises
    ------
    InputError
        The user has said so soon that no connection would work.
    """
    given = dask.config.get(_TCP)
    if parse_timedelta(given, default="seconds") < LEAST_TCP_TIMEOUT:
        msg = (
            f"{_TCP} is {given}; below {LEAST_TCP_TIMEOUT}s every connection of Dask fails; set at "
            f"least {TCP_TIMEOUT}, here and on scheduler and workers"
        )
        raise InputError(msg)
    with dask.config.set({_TCP: TCP_TIMEOUT if given == _UNSET else given}):
        yield


class Prepare(WorkerPlugin):
    """Sets what can still be set in a worker that somebody else has started."""

    def setup(self, worker: Any) -> None:
        """Leave BLAS one thread, and let large arrays come from the heap."""
        del worker
        self._limits = threadpool_limits(1, "blas")
        memory.keep_large()

    def teardown(self, worker: Any) -> None:
        """Give BLAS its threads back."""
        del worker
        self._limits.restore_original_limits()


@contextlib.contextmanager
def prepared(client: Client) -> Iterator[None]:
    """Have the workers of somebody else, those to come too, prepared while this stands.

    Raises
    ------
    MismatchError
        A worker cannot import dasrec.
    """
    name = f"dasrec-{files.token()}"
    try:
        client.register_plugin(Prepare(), name=name)
    except ImportError as error:
        raise MismatchError(_lacking("a worker", error)) from error
    try:
        yield
    finally:
        # a scheduler that is gone has taken the plugin along
        if client.status == "running":
            with contextlib.suppress(OSError, ValueError, TimeoutError):
                client.unregister_worker_plugin(name)


def check(client: Client) -> None:
    """Refuse workers that have another dasrec, or none: they could not read our tasks.

    Raises
    ------
    MismatchError
    """
    ours = importlib.metadata.version("dasrec")
    for address, found in client.run(_version, on_error="return").items():
        if isinstance(found, ImportError):
            raise MismatchError(_lacking(address, found))
        if isinstance(found, str) and found != ours:
            msg = (
                f"dasrec is {ours} here and {found} on {address}; install the same on both, or use "
                "the same image; `dasrec doctor` compares the other packages"
            )
            raise MismatchError(msg)


def _version() -> str:
    return importlib.metadata.version("dasrec")


def _lacking(who: str, error: ImportError) -> str:
    return f"{who} has no dasrec ({error}); install the version that is used here, or use its image"
