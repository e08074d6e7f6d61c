"""The chart as Helm renders it, and what Kubernetes says of such objects."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "deploy" / "helm" / "dasrec"
OPERATOR = "kubernetes.dask.org/v1"
Object = dict[str, Any]


def helm() -> str:
    """Return the path of Helm, or skip the test."""
    found = shutil.which("helm") or shutil.which("helm", path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip("CHART NOT TESTED: no helm on the PATH; .ci/get-helm DIR puts one into DIR")
    return found


def run_helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([helm(), *arguments], capture_output=True, text=True)


def template(
    *settings: str, version: str = "1.33.0", operator: bool = False
) -> subprocess.CompletedProcess[str]:
    """Render the chart with some values, each ``key=JSON``, as for a server of this version."""
    options = [word for setting in settings for word in ("--set-json", setting)]
    options += ["--api-versions", OPERATOR] if operator else []
    place = ["rel", str(CHART), "--namespace", "ns", "--kube-version", version]
    return run_helm("template", *place, *options)


def render(*settings: str, version: str = "1.33.0", operator: bool = False) -> list[Object]:
    """Return the objects of a rendered chart."""
    done = template(*settings, version=version, operator=operator)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def pods(objects: list[Object]) -> Iterator[tuple[Object, Object]]:
    """Yield labels and spec of every pod that these objects lead to."""
    for each in objects:
        spec = each.get("spec", {})
        if each["kind"] == "Pod":
            yield each["metadata"]["labels"], spec
        elif each["kind"] == "CronJob":
            yield from _pod_of(spec["jobTemplate"]["spec"]["template"])
        elif each["kind"] in ("DaskCluster", "DaskJob"):
            cluster = spec["cluster"]["spec"] if "cluster" in spec else spec
            for part in (cluster["scheduler"], cluster["worker"], spec.get("job")):
                if part is not None:
                    yield from _pod_of(part)
        elif "template" in spec:
            yield from _pod_of(spec["template"])


def _pod_of(template: Object) -> Iterator[tuple[Object, Object]]:
    yield template["metadata"]["labels"], template["spec"]


def containers(spec: Object) -> list[Object]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def by_kind(objects: list[Object], kind: str) -> list[Object]:
    return [each for each in objects if each["kind"] == kind]


@cache
def operator_types() -> dict[str, Object]:
    """Return the schemas of the operator's types, closed: what they do not name is an error."""
    folder = resources.files("dask_kubernetes") / "operator/deployment/helm"
    found = {}
    for file in (folder / "dask-kubernetes-operator" / "crds").iterdir():
        spec = yaml.safe_load(file.read_text("utf-8"))["spec"]
        schema = spec["versions"][0]["schema"]["openAPIV3Schema"]
        found[spec["names"]["kind"]] = _closed(schema)
    return found


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    is_open = schema.get("x-kubernetes-preserve-unknown-fields", False)
    if isinstance(schema.get("properties"), dict) and not is_open:
        closed.setdefault("additionalProperties", False)
    return closed


def validate(each: Object, version: str) -> None:
    """Check an object as strictly as this version of Kubernetes, or the operator, can be asked to.

    ``metadata`` of the operator's types is Kubernetes' own and open in their schemas.
    """
    group = each["apiVersion"].split("/")[0]
    if group == "kubernetes.dask.org":
        schema = operator_types()[each["kind"]]
        properties = {**schema["properties"], "apiVersion": {}, "kind": {}, "metadata": {}}
        jsonschema.Draft202012Validator({**schema, "properties": properties}).validate(each)
    elif group != "monitoring.coreos.com":
        kubernetes_validate.validate(each, version, strict=True)
