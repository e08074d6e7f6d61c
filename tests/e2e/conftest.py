"""A cluster, a namespace with a volume, and a pod in it from which to look around.

======================== =========================================================================
KUBECONFIG               names the cluster; without it all tests here skip
DASREC_E2E_IMAGE         the image that its nodes have or can pull (localhost/dasrec:test)
DASREC_E2E_STORAGE_CLASS of volumes that several nodes mount; without it a folder of the node is one
DASREC_E2E_CUT           a command that takes a node's name and cuts its network
DASREC_E2E_HEAL          a command that takes a node's name and undoes that
DASREC_E2E_S3            the address of an S3 server that pods reach and that takes any key
======================== =========================================================================
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator

import pytest

from tests.charts import Object
from tests.e2e.kube import Namespace, merge, run, wait_for

IMAGE = os.environ.get("DASREC_E2E_IMAGE", "localhost/dasrec:test")
SMALL = {"requests": {"cpu": "50m", "memory": "200Mi"}, "limits": {"memory": "2Gi"}}
SECURITY = {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run all in one process: they share a cluster."""
    for item in items:
        if item.path.parent.name == "e2e":
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(900))
            item.add_marker(pytest.mark.xdist_group("e2e"))


@pytest.fixture(scope="session")
def has_operator() -> bool:
    """Return whether the cluster has the operator's types; skip if there is no cluster."""
    if "KUBECONFIG" not in os.environ:
        pytest.skip("NOT TESTED ON KUBERNETES: set KUBECONFIG, and have kubectl on the PATH")
    run("kubectl", "version")  # a cluster that is named must answer
    return "kubernetes.dask.org/v1" in run("kubectl", "api-versions").split()


@pytest.fixture(scope="session")
def operator(has_operator: bool) -> None:
    """Skip the test if the cluster has no operator."""
    if not has_operator:
        pytest.skip("NOT TESTED WITH THE OPERATOR: the cluster does not know its types")


@pytest.fixture(scope="session")
def nodes(has_operator: bool) -> list[str]:
    """Return the names of all nodes that take pods."""
    found = json.loads(run("kubectl", "get", "nodes", "-o", "json"))["items"]
    return [each["metadata"]["name"] for each in found if "taints" not in each["spec"]]


def pod(name: str, *command: str, **spec: object) -> Object:
    """Describe a pod of the image that sees the volume at /data."""
    container = {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "Never" if IMAGE.startswith("localhost/") else "IfNotPresent",
        "command": list(command),
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "env": [{"name": "NUMBA_CACHE_DIR", "value": "/data/.cache/numba"}],
    }
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "containers": [container],
            "volumes": [volume],
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            **spec,
        },
    }


@pytest.fixture(scope="session")
def space(has_operator: bool, nodes: list[str]) -> Iterator[Namespace]:
    """Yield a namespace with the claim ``data`` and the pod ``look``, which has it at /data.

    All tests share it, and with it the kernels that are compiled on the volume.
    """
    name = f"dasrec-e2e-{uuid.uuid4().hex[:6]}"
    repository, _, tag = IMAGE.rpartition(":")
    pull = "Never" if IMAGE.startswith("localhost/") else "IfNotPresent"
    values: Object = {
        "image": {"repository": repository, "tag": tag, "pullPolicy": pull},
        "storage": {"pvc": {"existingClaim": "data"}},
        "tolerationSeconds": 5,
        **{part: {"resources": SMALL} for part in ("worker", "scheduler", "job", "notebook")},
    }
    run("kubectl", "create", "namespace", name)
    here = Namespace(name, values, has_operator=has_operator)
    folder = _claim(here)
    try:
        root = {"runAsUser": 0} if folder else SECURITY
        # a folder of the node belongs to root
        here.create(**pod("prepare", "chmod", "777", "/data", securityContext=root))
        _await_phase(here, "prepare", "Succeeded")
        fixed = {"nodeName": nodes[0], "securityContext": SECURITY}
        here.create(**pod("look", "sleep", "100000", **fixed))
        _await_phase(here, "look", "Running")
        here.kubectl("delete", "pod", "prepare")
        yield here
    finally:
        if folder:
            run(*("kubectl", "-n", name, "delete", "pod", "look", "--ignore-not-found"))
            above = [{"name": "data", "hostPath": {"path": "/tmp"}}]
            wipe = ("rm", "-r", f"/data/{name}")
            here.create(**pod("wipe", *wipe, securityContext={"runAsUser": 0}, volumes=above))
            _await_phase(here, "wipe", "Succeeded")
        run("kubectl", "delete", "namespace", name, "--timeout=180s")
        if folder:
            run("kubectl", "delete", "pv", name)


def _claim(here: Namespace) -> str:
    """Make the claim; return the node's folder that it is, if it is one."""
    given = os.environ.get("DASREC_E2E_STORAGE_CLASS")
    size = {"storage": "1Gi"}
    spec: Object = {"accessModes": ["ReadWriteMany"], "resources": {"requests": size}}
    folder = "" if given else f"/tmp/{here.name}"
    if folder:
        run(
            *("kubectl", "create", "-f", "-"),
            text=json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolume",
                    "metadata": {"name": here.name},
                    "spec": {
                        "capacity": size,
                        "accessModes": ["ReadWriteMany"],
                        "persistentVolumeReclaimPolicy": "Retain",
                        "hostPath": {"path": folder, "type": "DirectoryOrCreate"},
                    },
                }
            ),
        )
        spec = merge(spec, {"volumeName": here.name})
    here.create(
        apiVersion="v1",
        kind="PersistentVolumeClaim",
        metadata={"name": "data"},
        spec={**spec, "storageClassName": given or ""},
    )
    return folder


def _await_phase(here: Namespace, name: str, phase: str) -> None:
    def look() -> bool:
        found = here.kubectl("get", "pod", name, "-o", "jsonpath={.status.phase}")
        assert found != "Failed" or phase == "Failed", here.logs(name)
        return found == phase

    wait_for(f"pod {name} {phase}", look)
