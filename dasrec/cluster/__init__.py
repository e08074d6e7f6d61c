"""Where work runs: threads or processes here, a scheduler elsewhere, or a cluster made for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError
from typing import Any

import dask
from distributed import Client
from distributed.system import MEMORY_LIMIT

from dasrec import blocks
from dasrec.cluster import kubernetes, managers, workers
from dasrec.cluster.spec import (
    Kubernetes,
    Local,
    Manager,
    Scheduler,
    Spec,
    Ssh,
    Threads,
    parse,
)
from dasrec.dashboard import show
from dasrec.errors import ClusterError, InputError

__all__ = ["MEMORY_LIMIT", "connect", "parse"]

_FIRST_WORKER = 300  # seconds until the first worker that we asked for comes


@contextlib.contextmanager
def connect(
    spec: str | Mapping[str, Any] = "threads", *, check: bool = True
) -> Iterator[Client | None]:
    """Run what stands inside on the cluster that ``spec`` names.

    Parameters
    ----------
    spec : str or mapping
        ``threads`` for threads of this process, ``processes:N`` for N worker processes here, the
        address of a scheduler, for instance ``tcp://host:8786``, or the path of a YAML file with a
        mapping. A mapping has a ``kind``: ``threads``, ``local``, ``scheduler``, ``kubernetes``,
        ``ssh``, or the dotted name of a cluster manager; ``docs/conventions.md`` lists the fields.
    check : bool
        Whether to refuse workers that have another dasrec.

    Yields
    ------
    distributed.Client, or None for threads

    Raises
    ------
    InputError
        The spec is none of these, or no scheduler answers at the address.
    ClusterError
        No cluster came up, it has no workers, or its scheduler is lost.
    MismatchError
        Its workers have another dasrec or none.

    Notes
    -----
    What is started for the block ends with it, also when it fails or is interrupted.
    """
    parsed = parse(spec)
    if isinstance(parsed, Threads):
        yield None
        return
    with workers.patient(), _client(parsed) as client:
        if getattr(parsed, "workers", None) and not isinstance(parsed, Local):
            _await_workers(client)
        if check and not isinstance(parsed, Local):
            workers.check(client)
        show(client)
        try:
            yield client
        except CancelledError as error:
            if client.status == "running" and not blocks.lost_scheduler(error):
                raise
            raise ClusterError(blocks.LOST) from error


@contextlib.contextmanager
def _client(spec: Spec) -> Iterator[Client]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(workers.settings()))
        match spec:
            case Scheduler(address=address):
                client = stack.enter_context(_client_of(address))
            case Kubernetes():
                client = stack.enter_context(Client(stack.enter_context(kubernetes.running(spec))))
            case Ssh():
                client = stack.enter_context(Client(stack.enter_context(managers.by_ssh(spec))))
            case Local():
                client = stack.enter_context(Client(stack.enter_context(managers.local(spec))))
            case Manager():
                client = stack.enter_context(Client(stack.enter_context(managers.by_name(spec))))
        if isinstance(spec, (Scheduler, Manager)):
            stack.enter_context(workers.prepared(client))
        yield client


def _client_of(address: str) -> Client:
    try:
        return Client(address)
    except (OSError, TimeoutError, ValueError) as error:
        msg = f"no Dask scheduler answers at {address} ({error}); check the address and the network"
        raise InputError(msg) from error


def _await_workers(client: Client) -> None:
    """Wait for the first worker that was asked for; others may come while work goes on."""
    try:
        client.wait_for_workers(1, timeout=_FIRST_WORKER)
    except TimeoutError as error:
        msg = f"no worker came within {_FIRST_WORKER} s; see the logs of scheduler and workers"
        raise ClusterError(msg) from error
