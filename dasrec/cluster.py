"""Where work runs: threads or processes here, or a scheduler elsewhere; and what is there."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import shutil
from collections.abc import Iterator
from typing import Any

import dask
import psutil
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster
from threadpoolctl import threadpool_info

from dasrec import blocks
from dasrec.dashboard import show
from dasrec.errors import InputError

# a terminal sends Ctrl-C to the workers too; this process is who stops them
_LEAVE_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
# Dask makes workers give memory back at once, and glibc then asks the system anew for each array of
# over 128 kB, which takes as long as working on it; 32 MB is the most that glibc allows
_ALLOCATOR = {"distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 32 * 2**20}
PACKAGES = ("dasrec", "dask", "distributed", "zarr", "numpy", "scipy", "numba", "pyarrow", "xarray")


@contextlib.contextmanager
def connect(spec: str = "threads") -> Iterator[Client | None]:
    """Run what stands inside on the cluster that ``spec`` names.

    Parameters
    ----------
    spec : str
        ``threads`` for threads of this process, ``processes:N`` for N worker processes here, or the
        address of a scheduler, for instance ``tcp://host:8786``.

    Yields
    ------
    distributed.Client, or None for threads

    Raises
    ------
    InputError
        The spec is none of these, or no scheduler answers at the address.
    """
    if spec == "threads":
        yield None
    elif (n := _processes(spec)) > 0:
        threads = max(1, CPU_COUNT // n)
        with (
            dask.config.set(_ALLOCATOR),
            LocalCluster(
                n_workers=n,
                threads_per_worker=threads,
                dashboard_address=":0",
                preload=[_LEAVE_CTRL_C],
            ) as cluster,
            Client(cluster) as client,
        ):
            show(client)
            yield client
    elif "://" in spec:
        with _client_of(spec) as client:
            show(client)
            yield client
    else:
        msg = (
            f"cluster is {spec!r}; expected threads, processes:N or an address like tcp://host:8786"
        )
        raise InputError(msg)


def _processes(spec: str) -> int:
    """Return N of ``processes:N``, 0 if the spec is another."""
    kind, _, n = spec.partition(":")
    return int(n) if kind == "processes" and n.isdecimal() else 0


def _client_of(address: str) -> Client:
    try:
        return Client(address, timeout=10)
    except (OSError, TimeoutError, ValueError) as error:
        msg = f"no Dask scheduler answers at {address} ({error}); check the address and the network"
        raise InputError(msg) from error


def facts() -> dict[str, Any]:
    """Return what this process runs on, JSON-able: versions, cores, memory, disk, BLAS."""
    return {
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "cores": CPU_COUNT,
        "memory_available_bytes": psutil.virtual_memory().available,
        "disk_free_bytes": shutil.disk_usage(".").free,
        "blas": [
            {"library": each["internal_api"], "threads": each["num_threads"]}
            for each in threadpool_info()
            if each["user_api"] == "blas"
        ],
    }


def examine(spec: str = "threads") -> dict[str, Any]:
    """Compare this process with the workers of a cluster.

    Returns
    -------
    dict
        ``client`` and ``workers`` (by address) with the facts of each, and ``faults``: one sentence
        for each package whose version differs somewhere; empty when all is well.
    """
    with connect(spec) as client:
        here = facts()
        there = {} if client is None else client.run(facts)
        kernels = blocks.run(_kernel_works, [()], name="doctor-kernel", progress=False)
    faults = [
        f"{name} is {version} here and {worker['versions'][name]} on {address}; install the same"
        for address, worker in there.items()
        for name, version in here["versions"].items()
        if worker["versions"][name] != version
    ]
    if not all(kernels):
        faults.append("the compiled kernels give wrong results; reinstall numba and numpy")
    return {"client": here, "workers": there, "faults": faults}


def _kernel_works() -> bool:
    """Solve one row whose answer is known: (1 + 3) x = 4."""
    import numpy as np

    from dasrec.kernels.solve import solve_rows

    one = np.ones(1, np.float32)
    solved, _ = solve_rows(
        np.array([0, 1]),
        np.zeros(1, np.int32),
        one,
        np.array([4.0], np.float32),
        one[:, None],
        np.zeros(1, np.float32),
        np.array([3.0], np.float32),
    )
    return bool(abs(solved[0, 0] - 1) < 1e-6)
