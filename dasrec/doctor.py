"""What is installed and to be had here, on the scheduler and on the workers, and what is wrong."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import dask
import psutil
from dask.system import CPU_COUNT
from dask.utils import parse_timedelta
from threadpoolctl import threadpool_info

from dasrec import blocks, files
from dasrec.cluster import MEMORY_LIMIT, connect
from dasrec.errors import DasrecError
from dasrec.memory import gigabytes

PACKAGES = ("dasrec", "dask", "distributed", "zarr", "numpy", "scipy", "numba", "pyarrow", "xarray")

_OBJECT_BYTES = 2**20
_LEAST_DISK = 10**9
_LEAST_TCP = 11  # seconds; below, connections of distributed fail on an assertion
_MOST_SKEW = 5.0  # seconds; object stores refuse requests from a clock that is minutes off
_TRIES = 3  # of each clock: the quickest answer says the most


def facts() -> dict[str, Any]:
    """Return what this process runs on, JSON-able: versions, cores, memory, disk, BLAS."""
    spill = files.spill_folder()
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "cores": CPU_COUNT,
        "threads": CPU_COUNT,
        "machine_bytes": MEMORY_LIMIT,
        "memory_limit_bytes": MEMORY_LIMIT,
        "memory_available_bytes": psutil.virtual_memory().available,
        "spill": spill,
        "disk_free_bytes": shutil.disk_usage(spill).free,
        "tcp_timeout": dask.config.get("distributed.comm.timeouts.tcp"),
        "blas": [
            {"library": each["internal_api"], "threads": each["num_threads"]}
            for each in threadpool_info()
            if each["user_api"] == "blas"
        ],
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def worker_facts(dask_worker: Any) -> dict[str, Any]:
    """Return the facts of a worker: its threads, its memory limit and where it spills."""
    spill = os.fspath(dask_worker.local_directory)
    limit = dask_worker.memory_manager.memory_limit
    return {
        **facts(),
        "threads": dask_worker.state.nthreads,
        "memory_limit_bytes": limit,
        "spill": spill,
        "disk_free_bytes": shutil.disk_usage(spill).free,
    }


def examine(
    spec: str | Mapping[str, Any] = "threads", *, store: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Compare this process with the scheduler and the workers of a cluster, eagerly.

    Parameters
    ----------
    spec : str or mapping
        As for :func:`dasrec.cluster.connect`.
    store : path or fsspec URL, optional
        A folder that every process writes a megabyte to, reads it again and removes it.

    Returns
    -------
    dict
        ``client``, ``scheduler`` (None for threads) and ``workers`` (by address) with the facts of
        each, and ``faults``: one sentence for each thing that is wrong, with its remedy.

    Raises
    ------
    InputError, ClusterError
        There is no such cluster.
    """
    faults: list[str] = []
    with connect(spec, check=False) as client:
        here, scheduler = facts(), None
        there: dict[str, Any] = {}
        if client is not None:
            scheduler = _asked(client, faults)
            there = _of_workers(client, faults)
        if store is not None:
            here["store"] = try_store(files.absolute(store))
            _try_stores(client, files.absolute(store), there)
        if client is None or (there and not faults):
            kernels = blocks.run(_kernel_works, [()], name="doctor-kernel", progress=False)
            if not all(kernels):
                faults.append("the compiled kernels give wrong results; reinstall numba and numpy")
    found = {"client": here, "scheduler": scheduler, "workers": there}
    return {**found, "faults": [*faults, *_faults(here, scheduler, there)]}


def _asked(client: Any, faults: list[str]) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = client.run_on_scheduler(facts)
    except ImportError as error:
        faults.append(f"the scheduler has no dasrec ({error}); install it there, or use its image")
        return None
    found["clock_skew_seconds"] = _skew(lambda: client.run_on_scheduler(time.time))
    return found


def _of_workers(client: Any, faults: list[str]) -> dict[str, Any]:
    answers = client.run(worker_facts, on_error="return")
    for address, answer in sorted(answers.items()):
        if isinstance(answer, ImportError):
            faults.append(f"{address} has no dasrec ({answer}); install it there, or use its image")
        elif isinstance(answer, Exception):
            faults.append(f"{address} does not answer: {answer!r}")
    if not answers:
        faults.append("the cluster has no workers; start some, and see their log")
    there = {address: each for address, each in answers.items() if isinstance(each, dict)}
    for address, each in there.items():
        each["clock_skew_seconds"] = _skew(partial(_clock, client, address))
    return there


def _clock(client: Any, address: str) -> float:
    return float(client.run(time.time, workers=[address])[address])


def _skew(ask: Callable[[], float]) -> float:
    """Return by how many seconds another clock is ahead, for certain: 0 if it may be equal."""
    least = []
    for _ in range(_TRIES):
        before = time.time()
        answer = ask()
        after = time.time()
        least.append(answer - min(max(answer, before), after))
    return min(least, key=abs)


def try_store(place: str) -> dict[str, Any]:
    """Write, read and remove a megabyte in a folder; return the speeds, or what is wrong."""
    url, content = files.join(place, f".doctor-{files.token()}"), os.urandom(_OBJECT_BYTES)
    try:
        if files.is_local(place) and not files.exists(place):
            return {"fault": "is not there; make it, or mount it on every host"}
        try:
            start = time.perf_counter()
            with files.writing(url):
                files.replace(url, content)
            written = time.perf_counter()
            same = files.read_bytes(url) == content
            read = time.perf_counter()
        finally:
            files.remove(url)
    except (DasrecError, OSError) as error:
        return {"fault": str(error)}
    if not same:
        return {"fault": "gives back other bytes than were written"}
    return {
        "write_bytes_per_second": _OBJECT_BYTES / (written - start),
        "read_bytes_per_second": _OBJECT_BYTES / (read - written),
    }


def _try_stores(client: Any, place: str, there: dict[str, Any]) -> None:
    """Let every worker write, and say whether it sees what this process has written."""
    if not there:
        return
    mark = files.join(place, f".doctor-{files.token()}")
    try:
        try:
            files.replace(mark, b"here")
        except (DasrecError, OSError):
            mark = ""  # already told of this process
        for address, found in client.run(_try_from_worker, place, mark, workers=[*there]).items():
            there[address]["store"] = found
    finally:
        if mark:
            files.remove(mark)


def _try_from_worker(place: str, mark: str) -> dict[str, Any]:
    found = try_store(place)
    if "fault" not in found and mark and not files.exists(mark):
        return {"fault": "is another folder than here; use a file system or bucket that all share"}
    return found


def _faults(
    here: dict[str, Any], scheduler: dict[str, Any] | None, there: dict[str, Any]
) -> Iterator[str]:
    others = ({"the scheduler": scheduler} if scheduler else {}) | there
    for name, version in here["versions"].items():
        for address, other in others.items():
            if (found := other["versions"][name]) != version:
                yield f"{name} is {version} here and {found} on {address}; install the same"
    for address, other in others.items():
        if _minor(here["python"]) != _minor(other["python"]):
            yield (
                f"Python is {here['python']} here and {other['python']} on {address}; "
                "tasks cannot be read across minor versions; use the same"
            )
        if abs(skew := other["clock_skew_seconds"]) > _MOST_SKEW:
            yield f"the clock of {address} is off by {skew:+.1f} s; run NTP there and here"
    for address, each in ({"here": here} | others).items():
        yield from _own_faults(address, each)
    for host in sorted({each["host"] for each in there.values()}):
        yield from _crowded(host, [each for each in there.values() if each["host"] == host])


def _own_faults(address: str, each: dict[str, Any]) -> Iterator[str]:
    where = "here" if address == "here" else f"on {address}"
    if each["disk_free_bytes"] < _LEAST_DISK:
        yield (
            f"{each['spill']} {where} has {gigabytes(each['disk_free_bytes'])} free; free space, "
            "or spill elsewhere (temporary-directory of Dask)"
        )
    if parse_timedelta(each["tcp_timeout"], default="seconds") < _LEAST_TCP:
        yield (
            f"distributed.comm.timeouts.tcp is {each['tcp_timeout']} {where}; set 12s, or at "
            f"least {_LEAST_TCP}s: below, connections fail"
        )
    if fault := each.get("store", {}).get("fault"):
        yield f"the store {where}: {fault}"


def _crowded(host: str, workers: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Say that workers of one host may hold more than it has."""
    total = sum(each["memory_limit_bytes"] or 0 for each in workers)
    has = max(each["machine_bytes"] for each in workers)
    if total > has:
        yield (
            f"{len(workers)} workers on {host} may hold {gigabytes(total)} and it has "
            f"{gigabytes(has)}; lower their --memory-limit"
        )


def _minor(version: str) -> str:
    return version.rpartition(".")[0]


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
