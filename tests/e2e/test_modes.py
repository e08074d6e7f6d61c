"""The chart in each of its modes: installed, checked, upgraded, and gone without a trace."""

from __future__ import annotations

import json

import pytest

from tests.charts import ROOT, Object
from tests.e2e.kube import Namespace, merge, wait_for

NIGHTLY = ROOT / "workflows" / "nightly.yaml"
SMALLER = ["log.source=/data/events.csv", "fit.factors=16", "fit.iterations=5"]
SIMULATE = """
from dasrec.datasets import simulate_log
simulate_log("/data/events.csv", 50_000, n_users=500, n_items=300, rng=0)
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
    changes = " ".join(f"--set {each}" for each in settings("alone"))
    shell = f"cat > /tmp/nightly.yaml; dasrec run /tmp/nightly.yaml {changes}"
    space.exec("look", "sh", "-c", shell, text=NIGHTLY.read_text("utf-8"))
    return digest(space, "alone")


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


@pytest.mark.parametrize("way", ["operator", "plain"])
def test_a_job(space: Namespace, expected: str, way: str, has_operator: bool) -> None:
    if way == "operator" and not has_operator:
        pytest.skip("NOT TESTED WITH THE OPERATOR: the cluster does not know its types")
    kind = "daskjob" if way == "operator" else "job"
    pod = ["{}-runner"] if way == "operator" else ["-l", "job-name={}"]
    given = values(way, mode="job", operator={"use": "auto" if way == "operator" else "never"})
    for revision, verb in ((1, "install"), (2, "upgrade")):
        space.helm(verb, way, given)
        run = f"{way}-dasrec-r{revision}"
        outcome = ended(space, kind, run)
        said = space.kubectl("logs", *(each.format(run) for each in pod), check=False)
        assert outcome in ("Successful", "Complete"), said
        # the second run finds everything done
        assert ("Nothing has changed" in said) == (revision == 2), said
    assert status(space, way)["state"] == "done"
    assert digest(space, way) == expected
    space.check(way)
    end(space, way)


def test_a_wrong_workflow_is_not_tried_again(space: Namespace, operator: None) -> None:
    given = values("wrong", mode="job", workflow={"set": [*settings("wrong"), "fit.factor=16"]})
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


def test_a_cluster_without_the_operator(space: Namespace) -> None:
    """`helm test` compares factors of the cluster with those of threads."""
    given: Object = {"mode": "cluster", "operator": {"use": "never"}}
    space.helm("install", "plain", given, "--wait", "--timeout", "10m")
    space.check("plain")
    space.helm("upgrade", "plain", merge(given, {"worker": {"replicas": 3}}), "--wait")
    space.ready("worker", 3)
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


NOTEBOOK = """
import os, sys, numpy as np, dasrec
from dasrec.cluster import connect
factors, store = [], dasrec.open_interactions(sys.argv[1])
for where in ("threads", os.environ["DASREC_CLUSTER"]):
    with connect(where):
        model = dasrec.ImplicitALS(factors=8, iterations=2, rng=0).fit(store)
    factors.append(model.user_factors_.values)
assert np.array_equal(*factors)
print("the same")
"""


def test_a_notebook_makes_a_cluster(space: Namespace, expected: str, operator: None) -> None:
    command = ["python", "-m", "http.server", "8888"]
    given: Object = {"mode": "notebook", "notebook": {"command": command}}
    space.helm("install", "note", given, "--wait", "--timeout", "10m")
    (pod,) = space.ready("notebook", 1)
    name = pod["metadata"]["name"]
    said = space.exec(name, "python", "-c", NOTEBOOK, "/data/alone/store")
    assert "the same" in said
    wait_for("its cluster to go", lambda: not space.objects("daskclusters"))
    end(space, "note")
