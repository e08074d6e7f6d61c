"""A namespace of a real cluster: kubectl and Helm in it, waiting, and commands in pods."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

from tests.charts import CHART, Object, helm

WAIT = 400.0
"""Seconds for what usually takes a few: machines that test may be slow."""

# what Kubernetes itself puts into every namespace
_OWN = ("serviceaccount/default", "configmap/kube-root-ca.crt", "secret/default-token")
_KINDS = "all,pvc,configmap,secret,serviceaccount,role,rolebinding,networkpolicy,pdb,ingress"
_DASK = "daskclusters,daskworkergroups,daskjobs,daskautoscalers"


def run(*command: str, text: str | None = None, check: bool = True) -> str:
    """Run a command and return what it prints; if it fails, what it says."""
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if check and done.returncode:
        msg = f"{' '.join(command)[:400]}: status {done.returncode}\n{done.stdout}{done.stderr}"
        raise AssertionError(msg)
    return done.stdout


def wait_for(what: str, look: Callable[[], Any], *, seconds: float = WAIT) -> Any:
    """Look until there is something, and return it."""
    end = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > end:
            msg = f"{what}: not within {seconds:.0f} s"
            raise AssertionError(msg)
        time.sleep(0.3)
    return found


class Namespace:
    """One namespace.

    Parameters
    ----------
    name : str
    values : values that every chart in it gets
    has_operator : bool
    """

    def __init__(self, name: str, values: Object, *, has_operator: bool) -> None:
        self.name, self.values, self.has_operator = name, values, has_operator
        self.kubectl_path = shutil.which("kubectl") or "kubectl"

    def kubectl(self, *arguments: str, text: str | None = None, check: bool = True) -> str:
        return run(self.kubectl_path, "-n", self.name, *arguments, text=text, check=check)

    def create(self, **manifest: Any) -> None:
        self.kubectl("create", "-f", "-", text=json.dumps(manifest))

    def objects(self, kinds: str, selector: str = "") -> list[Object]:
        found = self.kubectl("get", kinds, "-l", selector, "-o", "json", "--ignore-not-found")
        items: list[Object] = json.loads(found)["items"] if found else []
        return items

    def pods(self, component: str, *, on: str | None = None) -> list[Object]:
        """Return the pods of a part of the chart that run, on one node or any."""
        return [
            each
            for each in self.objects("pods", f"app.kubernetes.io/component={component}")
            if each["status"]["phase"] == "Running"
            and "deletionTimestamp" not in each["metadata"]
            and on in (None, each["spec"]["nodeName"])
        ]

    def ready(self, component: str, n: int) -> list[Object]:
        """Return the pods of a part once there are so many, all ready."""

        def look() -> list[Object]:
            found = [
                each
                for each in self.pods(component)
                if all(
                    one["ready"] for one in each["status"].get("containerStatuses", [{"ready": 0}])
                )
            ]
            return found if len(found) == n else []

        return list(wait_for(f"{n} {component} ready", look))

    def helm(self, verb: str, release: str, values: Object, *options: str) -> str:
        """Install or upgrade the chart."""
        given = json.dumps(merge(self.values, values))
        merged = ["-f", "-", *options]
        return run(*(helm(), verb, release, str(CHART), "-n", self.name, *merged), text=given)

    def uninstall(self, release: str) -> None:
        run(helm(), "uninstall", release, "-n", self.name, "--wait")

    def check(self, release: str) -> None:
        """Run ``helm test``; if it fails, say what its pod says."""
        done = subprocess.run(
            [helm(), "test", release, "-n", self.name, "--timeout", "10m"],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pods = self.objects("pods", "app.kubernetes.io/component=check")
            raise AssertionError(done.stdout + done.stderr + "".join(map(self.account, pods)))

    def account(self, pod: Object) -> str:
        """Return what became of a pod and what its containers said, those that ran."""
        name, spec = pod["metadata"]["name"], pod["spec"]
        said = self.kubectl("describe", "pod", name, check=False)
        for each in [*spec.get("initContainers", []), *spec["containers"]]:
            container = each["name"]
            logs = self.kubectl("logs", name, "-c", container, "--tail=-1", check=False)
            said += f"\n-- {container}\n{logs}"
        return said

    def left(self) -> list[str]:
        """Return what is in the namespace, but for what Kubernetes puts there."""
        kinds = f"{_KINDS},{_DASK}" if self.has_operator else _KINDS
        names = self.kubectl("get", kinds, "-o", "name", "--ignore-not-found").split()
        return [each for each in names if not each.startswith(_OWN)]

    def wait_until_gone(self, release: str) -> None:
        """Wait until nothing is left whose name begins with that of a release."""

        def gone() -> bool:
            return not [each for each in self.left() if each.split("/")[1].startswith(release)]

        wait_for(f"nothing of {release} left", gone)

    def evict(self, pod: str) -> None:
        """Ask Kubernetes to move a pod away, as a drain does."""
        known = run(self.kubectl_path, "api-versions").split()
        version = "policy/v1" if "policy/v1" in known else "policy/v1beta1"
        metadata = {"name": pod, "namespace": self.name}
        eviction = {"apiVersion": version, "kind": "Eviction", "metadata": metadata}
        path = f"/api/v1/namespaces/{self.name}/pods/{pod}/eviction"
        self.kubectl("create", "--raw", path, "-f", "-", text=json.dumps(eviction))

    def node_is_ready(self, node: str) -> bool:
        found = json.loads(self.kubectl("get", "node", node, "-o", "json"))
        return any(
            each["type"] == "Ready" and each["status"] == "True"
            for each in found["status"]["conditions"]
        )

    def exec(self, pod: str, *command: str, text: str | None = None) -> str:
        return self.kubectl("exec", "-i", pod, "--", *command, text=text)

    def logs(self, pod: str) -> str:
        return self.kubectl("logs", pod, "--all-containers", check=False)


def merge(*parts: Object) -> Object:
    """Merge nested values, the later before the earlier."""
    merged: Object = {}
    for part in parts:
        for key, value in part.items():
            both = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = merge(merged[key], value) if both else value
    return merged
