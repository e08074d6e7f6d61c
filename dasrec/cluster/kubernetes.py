"""Clusters of pods by the operator of dask-kubernetes."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dasrec import files
from dasrec.cluster.spec import Kubernetes
from dasrec.cluster.workers import pod_environment
from dasrec.errors import ClusterError, InputError

logger = logging.getLogger(__name__)

_ACTIONED = 20  # seconds in which the operator sees a cluster; now and then it never does
_CLOSING = 60  # seconds
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@contextlib.contextmanager
def running(spec: Kubernetes) -> Iterator[Any]:
    """Give a ``KubeCluster`` that is up; it is deleted afterwards.

    Raises
    ------
    InputError
        dask-kubernetes is not installed, or there is neither an image nor a spec.
    ClusterError
        There is no way to the API server, or no cluster came up.
    """
    cluster = _made(spec)
    try:
        yield cluster
    finally:
        _delete(cluster)


def _delete(cluster: Any) -> None:
    """Delete a cluster; if it is slow to go, say so, for what was done on it stands."""
    for _ in range(2):
        try:
            cluster.close(timeout=_CLOSING)
        except _passing() as error:
            failure = error
        else:
            return
    logger.warning(
        "cluster %s was told to go and may still be there: %r. See what kubectl get daskclusters "
        "says, and that the operator of dask-kubernetes runs",
        cluster.name,
        failure,
    )


def _made(spec: Kubernetes) -> Any:
    """Return the first cluster that comes up; one that sticks is tried again under a new name."""
    if spec.image is None and spec.spec is None:
        msg = "cluster of kind kubernetes has no image; name one that holds dasrec, or give a spec"
        raise InputError(msg)
    kind = _kube_cluster()
    for left in reversed(range(spec.tries)):
        name = f"{spec.name}-{files.token()[:6]}"
        options = _options(spec, name)
        try:
            return _begin(kind, patience=spec.patience, **options)
        except _passing() as error:
            logger.warning("cluster %s did not come up: %r", name, error)
            if not left:
                msg = (
                    f"no cluster came up in {spec.tries} tries, the last was {name}: {error!r}. "
                    "See that the operator of dask-kubernetes runs and watches the namespace, that "
                    "the image can be pulled, and that the pods fit on the nodes"
                )
                raise ClusterError(msg) from error
        except Exception as error:  # of kr8s, httpx and dask-kubernetes, which share no base
            msg = (
                f"cluster {name} cannot be made: {error!r}. Check KUBECONFIG "
                "or the service account, the namespace, and that the operator is installed"
            )
            raise ClusterError(msg) from error
    raise AssertionError  # the last try returns or raises


def _kube_cluster() -> Any:
    """Return the class of clusters that are up once the operator has made their last part.

    ``KubeCluster`` itself waits for the phase "Running". A Service may be up, and the operator
    write so, before it has made the other parts; then it writes "Pending", and nothing follows.
    """
    try:
        from dask_kubernetes.operator import KubeCluster
        from dask_kubernetes.operator._objects import DaskWorkerGroup
    except ImportError as error:
        msg = f'kind kubernetes needs more ({error}); pip install "dasrec[kubernetes]"'
        raise InputError(msg) from error

    class Cluster(KubeCluster):  # type: ignore[misc]  # its library has no types
        async def _wait_for_controller(self) -> None:
            last = await DaskWorkerGroup(f"{self.name}-default", namespace=self.namespace)
            end = time.monotonic() + _ACTIONED
            while not await last.exists():
                if time.monotonic() > end:
                    msg = f"the operator made no workers within {_ACTIONED} s"
                    raise TimeoutError(msg)
                await asyncio.sleep(0.25)

    return Cluster


def _passing() -> tuple[type[Exception], ...]:
    """Return the errors after which another try is worth it: of requests that were begun, too."""
    import httpx

    cut_off = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
    return (TimeoutError, httpx.TimeoutException, *cut_off)


def _options(spec: Kubernetes, name: str) -> dict[str, Any]:
    return {
        "custom_cluster_spec": describe(spec, name),
        "namespace": spec.namespace or _pod_namespace(),
        "resource_timeout": _ACTIONED,
        "shutdown_on_close": True,
        "quiet": True,
    }


def _pod_namespace() -> str | None:
    """Return the namespace of the pod that we are in, which kr8s would take for "default"."""
    if "KUBECONFIG" in os.environ or not _POD_NAMESPACE.exists():
        return None
    return _POD_NAMESPACE.read_text("utf-8").strip()


def _begin(kind: Any, *, patience: float, **options: Any) -> Any:
    """Start a cluster within some time; what fails or takes longer is deleted.

    dask-kubernetes waits for ever for a pod that is never scheduled, so it waits in a thread.
    """
    cluster, failures = kind.__new__(kind), list[BaseException]()

    def start() -> None:
        try:
            cluster.__init__(**options)
        except BaseException as error:  # noqa: BLE001 - raised again by who waits
            failures.append(error)

    starter = threading.Thread(target=start, daemon=True, name="dasrec-kubernetes")
    starter.start()
    try:
        starter.join(patience)
        if starter.is_alive():
            msg = f"it was not up after {patience} s"
            raise TimeoutError(msg)
        if failures:
            raise failures[0]
    except BaseException:
        # it may have been deleted already, or never have come to be
        with contextlib.suppress(Exception):
            cluster.close(timeout=_CLOSING)
        raise
    return cluster


def describe(spec: Kubernetes, name: str) -> dict[str, Any]:
    """Return the DaskCluster to be made: that of the user under our name, or one of our own.

    Containers get the environment that dasrec needs, where they do not set it themselves.
    """
    found = copy.deepcopy(spec.spec) if spec.spec is not None else _default(spec, name)
    found.setdefault("metadata", {})["name"] = name
    try:
        parts = [found["spec"][part]["spec"]["containers"] for part in ("scheduler", "worker")]
    except (KeyError, TypeError) as error:
        msg = (
            "spec is no DaskCluster; expected spec.scheduler.spec.containers and "
            "spec.worker.spec.containers in it"
        )
        raise InputError(msg) from error
    service = found["spec"]["scheduler"].setdefault("service", {})
    # the Service must lead to this cluster alone
    service.setdefault("selector", {})["dask.org/cluster-name"] = name
    for container in (each for part in parts for each in part):
        present = container.get("env") or []
        names = {each["name"] for each in present}
        wanted = {**pod_environment(), **spec.env}
        container["env"] = present + [
            {"name": key, "value": value} for key, value in wanted.items() if key not in names
        ]
    return found


def _default(spec: Kubernetes, name: str) -> dict[str, Any]:
    from dask_kubernetes.operator import make_cluster_spec

    found: dict[str, Any] = make_cluster_spec(
        name, image=spec.image, n_workers=spec.workers, worker_command=["dask", "worker"]
    )
    (scheduler,) = found["spec"]["scheduler"]["spec"]["containers"]
    (worker,) = found["spec"]["worker"]["spec"]["containers"]
    # dask-kubernetes still names a command that distributed has dropped
    scheduler["args"] = ["dask", "scheduler", "--host", "0.0.0.0"]
    worker["args"] = ["dask", "worker", "--name", "$(DASK_WORKER_NAME)", "--no-dashboard"]
    worker["ports"] = []
    if spec.threads is not None:
        worker["args"] += ["--nthreads", str(spec.threads)]
    if spec.memory is not None:
        worker["args"] += ["--memory-limit", str(spec.memory)]
    for part in ("scheduler", "worker"):
        for n, (folder, claim) in enumerate(spec.volumes.items()):
            source = {"persistentVolumeClaim": {"claimName": claim}}
            _mount(found["spec"][part]["spec"], f"volume-{n}", folder, source)
    if spec.spill is not None:
        worker["args"] += ["--local-directory", spec.spill]
        _mount(found["spec"]["worker"]["spec"], "spill", spec.spill, {"emptyDir": {}})
    worker["resources"] = spec.resources or _resources(spec)
    scheduler["resources"] = {}
    return found


def _mount(pod: dict[str, Any], name: str, folder: str, source: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    container.setdefault("volumeMounts", []).append({"name": name, "mountPath": folder})
    pod.setdefault("volumes", []).append({"name": name, **source})


def _resources(spec: Kubernetes) -> dict[str, dict[str, str]]:
    """Return what pods ask for: threads as cores, and the memory that they may hold."""
    wanted = {}
    if spec.threads is not None:
        wanted["cpu"] = str(spec.threads)
    limits = {}
    if spec.memory is not None:
        wanted["memory"] = limits["memory"] = str(spec.memory)
    return {key: value for key, value in (("requests", wanted), ("limits", limits)) if value}
