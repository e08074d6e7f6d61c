"""Clusters that last as long as they are used: processes here, hosts by SSH, those of others."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator
from typing import Any

from dask.system import CPU_COUNT
from distributed import LocalCluster, SSHCluster
from distributed.deploy.cluster import Cluster

from dasrec import files
from dasrec.cluster.spec import Local, Manager, Ssh, Workers
from dasrec.errors import ClusterError, InputError

# a terminal sends Ctrl-C to the workers too; this process is who stops them
_LEAVE_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"


@contextlib.contextmanager
def local(spec: Local) -> Iterator[Any]:
    """Give worker processes of this machine."""
    if spec.spill is not None:
        files.make_folder(spec.spill)
    options = {
        "n_workers": spec.workers,
        "threads_per_worker": spec.threads or max(1, CPU_COUNT // spec.workers),
        "dashboard_address": ":0",
        "preload": [_LEAVE_CTRL_C],
        **_given(spec),
    }
    cluster = LocalCluster(**options)
    try:
        yield cluster
    finally:
        _close(cluster)


def _close(cluster: Any) -> None:
    """Close a local cluster, also one that has stumbled over the death of a worker."""
    try:
        cluster.close()
    except KeyError:  # it was told of the death of one that it did not know; what is left is closed
        cluster._watch_worker_status_task = None
        cluster.sync(Cluster._close, cluster)


@contextlib.contextmanager
def by_ssh(spec: Ssh) -> Iterator[Any]:
    """Give a scheduler on the first host and workers on the others.

    Raises
    ------
    InputError
        asyncssh is not installed.
    ClusterError
        A host cannot be reached, or Dask does not start there.
    """
    if importlib.util.find_spec("asyncssh") is None:
        msg = 'kind ssh needs asyncssh, which is not installed; pip install "dasrec[ssh]"'
        raise InputError(msg)
    threads = {} if spec.threads is None else {"nthreads": spec.threads}
    options: dict[str, Any] = {
        "connect_options": spec.connect,
        "worker_options": {"n_workers": spec.workers, **threads, **_given(spec)},
        "scheduler_options": {"port": 0, "dashboard_address": ":0"},
        "remote_python": spec.python,
    }
    with _begun(lambda: SSHCluster(spec.hosts, **options), f"hosts {', '.join(spec.hosts)}") as c:
        yield c


@contextlib.contextmanager
def by_name(spec: Manager) -> Iterator[Any]:
    """Give a cluster of any manager.

    Raises
    ------
    InputError
        There is no such class.
    ClusterError
        It refuses what it is given, or does not start.
    """
    module, _, name = spec.kind.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        msg = f"cluster has kind {spec.kind!r}: {error}; expected the dotted name of a class"
        raise InputError(msg) from error
    with _begun(lambda: kind(**(spec.model_extra or {})), spec.kind) as cluster:
        if spec.workers is not None:
            cluster.scale(spec.workers)
        yield cluster


def _given(spec: Workers) -> dict[str, Any]:
    given = {"memory_limit": spec.memory, "local_directory": spec.spill}
    return {key: value for key, value in given.items() if value is not None}


@contextlib.contextmanager
def _begun(start: Any, what: str) -> Iterator[Any]:
    try:
        cluster = start()
    except Exception as error:  # of libraries that have nothing in common
        msg = f"{what}: no cluster came up: {error!r}"
        raise ClusterError(msg) from error
    with cluster:
        yield cluster
