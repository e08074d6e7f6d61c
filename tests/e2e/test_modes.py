"""The chart in each of its modes: installed, checked, upgraded, and gone without a trace."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.charts import ROOT, Object, helm
from tests.e2e.conftest import IMAGE
from tests.e2e.kube import Namespace, merge, run, wait_for

NIGHTLY = ROOT / "workflows" / "nightly.yaml"
SMALLER = ["log.source=/data/log.csv", "fit.factors=16", "fit.iterations=5"]
SIMULATE = """
from dasrec.datasets import simulate_log
simulate_log("/data/log.csv", 50_000, n_users=500, n_items=300, rng=0)
"""
DIGEST = """
import hashlib, sys
from dasrec.workflow import promoted
model = promoted(sys.argv[1]).open_model()
for each in (model.user_factors_, model.item_factors_):
    print(hashlib.sha256(each.values.tobytes()).hexdigest())
"""


@pytest.fixture(scope="module", autouse=True)
def log(space: Namespace) -> None:
    """Put a log onto the volume."""
    space.exec("look", "python", "-c", SIMULATE)


@pytest.fixture(scope="module")
def expected(space: Namespace) -> str:
    """Run the workflow on threads and return the digest of its model."""
    return run_alone(space, "alone", SMALLER)


def run_alone(space: Namespace, place: str, changes: list[str]) -> str:
    options = " ".join(f"--set {each}" for each in (f"place=/data/{place}", *changes))
    shell = f"cat > /tmp/nightly.yaml; dasrec run /tmp/nightly.yaml {options}"
    space.exec("look", "sh", "-c", shell, text=NIGHTLY.read_text("utf-8"))
    return digest(space, place)


def digest(space: Namespace, place: str) -> str:
    return space.exec("look", "python", "-c", DIGEST, f"/data/{place}")


def status(space: Namespace, place: str) -> Object:
    found: Object = json.loads(space.exec("look", "cat", f"/data/{place}/runs/nightly/status.json"))
    return found


def settings(place: str) -> list[str]:
    return [f"place=/data/{place}", *SMALLER]


def values(place: str, **more: object) -> Object:
    """Return values of a chart that runs the nightly workflow in a place of its own."""
    workflow = {"file": NIGHTLY.read_text("utf-8"), "set": settings(place)}
    return merge({"workflow": workflow}, more)


def ended(space: Namespace, kind: str, name: str) -> str:
    """Wait for the end of a run, and return how it ended."""
    path = ".status.jobStatus" if kind == "daskjob" else ".status.conditions[*].type"

    def look() -> str:
        said = space.kubectl("get", kind, name, "-o", f"jsonpath={{{path}}}", check=False).split()
        return next((each for each in ("Successful", "Complete", "Failed") if each in said), "")

    return str(wait_for(f"{kind} {name} to end", look))


def end(space: Namespace, release: str) -> None:
    space.uninstall(release)
    space.wait_until_gone(release)


def test_a_job_without_the_operator(space: Namespace, expected: str) -> None:
    given = values("job", mode="job", operator={"use": "never"})
    for revision, verb in ((1, "install"), (2, "upgrade")):
        space.helm(verb, "job", given)
        run = f"job-dasrec-r{revision}"
        outcome = ended(space, "job", run)
        said = space.kubectl("logs", "-l", f"job-name={run}", "--tail=-1", check=False)
        assert outcome == "Complete", said
        # the second run finds everything done
        assert ("Nothing has changed" in said) == (revision == 2), said
    assert status(space, "job")["state"] == "done"
    assert digest(space, "job") == expected
    end(space, "job")


def test_a_wrong_workflow_is_not_tried_again(space: Namespace, operator: None) -> None:
    given = values("wrong", mode="job", workflow={"set": [*settings("wrong"), "fit.factor=16"]})
    # it does not come to work
    given = merge(given, {"worker": {"replicas": 0}, "job": {"waitForWorkers": 0}})
    space.helm("install", "wrong", given)
    assert ended(space, "daskjob", "wrong-dasrec-r1") == "Failed"
    said = space.logs("wrong-dasrec-r1-runner")
    assert "factor" in said
    assert "The run ended with status" not in said
    end(space, "wrong")


def test_a_cron(space: Namespace, expected: str, operator: None) -> None:
    """Its run makes a cluster by the operator, under its own rights, and takes it away."""
    space.helm("install", "cron", values("cron", mode="cron", cron={"suspend": True}))
    (cron,) = space.objects("cronjobs", "app.kubernetes.io/instance=cron")
    space.create(
        apiVersion="batch/v1",
        kind="Job",
        metadata={"name": "cron-now"},
        spec=cron["spec"]["jobTemplate"]["spec"],
    )
    outcome = ended(space, "job", "cron-now")
    assert outcome == "Complete", space.kubectl("logs", "-l", "job-name=cron-now")
    assert digest(space, "cron") == expected
    wait_for("its cluster to go", lambda: not space.objects("daskclusters"))
    space.kubectl("delete", "job", "cron-now")
    space.check("cron")
    end(space, "cron")


KEYS = {"AWS_ACCESS_KEY_ID": "e2e", "AWS_SECRET_ACCESS_KEY": "secret"}
BUCKET = """
import fsspec
files = fsspec.filesystem("s3")
files.mkdir("dasrec-e2e")
files.put("/data/log.csv", "dasrec-e2e/log.csv")
"""


def test_a_run_in_a_bucket(space: Namespace, expected: str) -> None:
    """Its pods have no volume, and their keys from a Secret."""
    server = os.environ.get("DASREC_E2E_S3")
    if server is None:
        pytest.skip("NOT TESTED IN A BUCKET: see DASREC_E2E_S3 in tests/e2e/conftest.py")
    literals = [f"--from-literal={key}={value}" for key, value in KEYS.items()]
    space.kubectl("create", "secret", "generic", "s3-keys", *literals)
    inside = ["env", f"AWS_ENDPOINT_URL={server}", *(f"{k}={v}" for k, v in KEYS.items())]
    space.exec("look", *inside, "python", "-c", BUCKET)
    place = "s3://dasrec-e2e/runs"
    bucket = {"url": place, "endpoint": server, "existingSecret": "s3-keys"}
    changes = [f"place={place}/one", *SMALLER, "log.source=s3://dasrec-e2e/log.csv"]
    given = values("bucket", mode="job", operator={"use": "never"}, worker={"replicas": 1})
    more: Object = {
        "storage": {"kind": "object", "object": bucket},
        "workflow": {"set": changes},
    }
    space.helm("install", "bucket", merge(given, more))
    outcome = ended(space, "job", "bucket-dasrec-r1")
    said = space.kubectl("logs", "-l", "job-name=bucket-dasrec-r1", "--tail=-1")
    assert outcome == "Complete", said
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in said
    assert space.exec("look", *inside, "python", "-c", DIGEST, f"{place}/one") == expected
    end(space, "bucket")
    space.kubectl("delete", "secret", "s3-keys")


def test_a_cluster_without_the_operator(space: Namespace) -> None:
    """`helm test` compares factors of the cluster with those of threads."""
    given: Object = {"mode": "cluster", "operator": {"use": "never"}}
    space.helm("install", "plain", given, "--wait", "--timeout", "10m")
    space.check("plain")
    ingress: Object = {"enabled": True, "host": "dasrec.example"}
    more: Object = {"worker": {"replicas": 3}, "ingress": ingress}
    assert "WARNING: the ingress is on" in space.helm(
        "upgrade", "plain", merge(given, more), "--wait"
    )
    space.ready("worker", 3)
    assert space.objects("ingresses")
    end(space, "plain")


def test_a_cluster_of_the_operator_is_scaled_and_replaced(space: Namespace, operator: None) -> None:
    space.helm("install", "of", {"mode": "cluster"}, "--wait")
    before = {each["metadata"]["name"] for each in space.ready("worker", 2)}
    space.check("of")
    space.helm("upgrade", "of", {"mode": "cluster", "worker": {"replicas": 3}}, "--wait")
    assert before < {each["metadata"]["name"] for each in space.ready("worker", 3)}
    # other pods are another cluster, which takes the place of the first
    space.helm("upgrade", "of", {"mode": "cluster", "podLabels": {"team": "t"}}, "--wait")

    def replaced() -> bool:
        names = {each["metadata"]["name"] for each in space.pods("worker")}
        return len(names) == 2 and not names & before

    wait_for("other workers", replaced)
    space.ready("worker", 2)
    end(space, "of")


def test_the_operator_takes_idle_workers_away(space: Namespace, operator: None) -> None:
    scale: Object = {"enabled": True, "minimum": 1, "maximum": 3}
    space.helm("install", "auto", {"mode": "cluster", "autoscale": scale}, "--wait")

    def scaled() -> bool:
        groups = space.objects("daskworkergroups")
        return [each["spec"]["worker"]["replicas"] for each in groups] == [1]

    wait_for("one worker", scaled)  # of the two that the chart asks for
    space.ready("worker", 1)
    end(space, "auto")


def notebook_code(name: str) -> str:
    """Return the code of a notebook."""
    cells = json.loads((ROOT / "notebooks" / name).read_text("utf-8"))["cells"]
    return "\n".join("".join(each["source"]) for each in cells if each["cell_type"] == "code")


def test_a_notebook_and_a_script_make_clusters(
    space: Namespace, expected: str, operator: None
) -> None:
    # as the first process of its pod Python would not heed SIGTERM
    command = ["timeout", "1h", "python", "-m", "http.server", "8888"]
    given: Object = {"mode": "notebook", "notebook": {"command": command}}
    space.helm("install", "note", given, "--wait", "--timeout", "10m")
    (pod,) = space.ready("notebook", 1)
    name = pod["metadata"]["name"]
    # the notebook that goes from a laptop to a cluster by one line, which its environment says
    code = notebook_code("7_cluster.ipynb")
    place = ("env", "DASREC_PLACE=/data/notebook")
    said = space.exec(name, *place, "python", "-", text=code)
    assert "/etc/dasrec/cluster.yaml" in said
    assert "the same bits" in said
    wait_for("its cluster to go", lambda: not space.objects("daskclusters"))
    for file in (NIGHTLY, ROOT / "workflows" / "kubernetes.py"):
        space.exec(name, "sh", "-c", f"cat > /tmp/{file.name}", text=file.read_text("utf-8"))
    options = ["--image", IMAGE, "--workers", "2", "--memory", "1GiB", "--volume", "data:/data"]
    changes = [word for each in settings("script") for word in ("--set", each)]
    script = ["python", "/tmp/kubernetes.py", "/tmp/nightly.yaml", *options, *changes]
    assert "this model is in use" in space.exec(name, *script)
    assert "nothing has changed" in space.exec(name, *script)
    assert digest(space, "script") == expected
    wait_for("its cluster to go", lambda: not space.objects("daskclusters"))
    end(space, "note")


def test_the_lines_of_the_readme(space: Namespace, operator: None, tmp_path: Path) -> None:
    """As they are, but that the image is on the nodes and ``docker`` is only asked for."""
    text = (ROOT / "README.md").read_text("utf-8").split("\n## Kubernetes\n")[1]
    (lines,) = re.findall(r"```sh\n(.*?)```", text.split("\n## ")[0], re.S)
    assert len(lines.splitlines()) == 10
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\necho "asked: docker $*"\n')
    docker.chmod(0o755)
    config = tmp_path / "config"
    config.write_text(run("kubectl", "config", "view", "--raw", "--flatten"))
    environment = {
        "IMAGE": IMAGE,
        "KUBECONFIG": str(config),
        "PATH": f"{tmp_path}:{os.environ['PATH']}:{Path(helm()).parent}",
    }
    here = [f"{name}={value}" for name, value in environment.items()]
    context = ("kubectl", "config", "set-context", "--current", f"--namespace={space.name}")
    run("env", *here, *context)
    said = run("env", "-C", str(ROOT), *here, "timeout", "600", "bash", "-eux", "-c", lines)
    for part in (f"build -f deploy/docker/Dockerfile -t {IMAGE} .", f"push {IMAGE}"):
        assert f"asked: docker {part}" in said
    assert "Nothing has changed" in said
    assert status(space, "nightly")["state"] == "done"
    assert digest(space, "nightly") == run_alone(space, "as-it-is", SMALLER[:1])
    space.wait_until_gone("nightly")
