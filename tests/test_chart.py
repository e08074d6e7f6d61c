"""The chart, rendered by Helm itself in every mode: what it refuses and what its objects hold."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.charts import (
    CHART,
    ROOT,
    Object,
    by_kind,
    containers,
    pods,
    render,
    run_helm,
    template,
    validate,
)

FILE = 'workflow.file="steps: []"'
MODES = ("job", "cron", "cluster", "notebook")
# values that turn on what is off by default, or the other way
FULL = (
    FILE,
    'workflow.set=["a=1"]',
    "image={'repository': 'r/dasrec', 'tag': '1', 'pullSecrets': ['pull']}".replace("'", '"'),
    "job.activeDeadlineSeconds=60",
    'cron.timeZone="Europe/Madrid"',
    'storage={"kind": "object", "object": {"url": "s3://b/p", "endpoint": "http://s3", '
    '"existingSecret": "keys"}}',
    'serviceAccount.annotations={"role": "r"}',
    'notebook.existingSecret="token"',
    'affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": '
    '{"nodeSelectorTerms": [{"matchExpressions": [{"key": "k", "operator": "Exists"}]}]}}}',
    'tolerations=[{"key": "k", "operator": "Exists"}]',
    'priorityClassName="low"',
    'podAnnotations={"a": "b"}',
    'podLabels={"team": "t"}',
    'env=[{"name": "A", "value": "b"}]',
    'worker.nodeSelector={"disk": "ssd"}',
    'networkPolicy.allowFrom=[{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]',
    'metrics={"serviceMonitor": {"enabled": true, "labels": {"release": "p"}}, '
    '"podMonitor": {"enabled": true}}',
    'ingress={"enabled": true, "host": "d.example", "className": "c", "tlsSecret": "t"}',
)


# all in the slow tests, the oldest, the newest and one between in each run
VERSIONS = [
    pytest.param(f"1.{n}", marks=[] if n in (25, 31, 37) else pytest.mark.slow)
    for n in range(25, 38)
]


def rendered(mode: str, *settings: str, **options: Any) -> list[Object]:
    return render(f'mode="{mode}"', FILE, *settings, **options)


@pytest.fixture(scope="module", params=[(m, o) for m in MODES for o in (False, True)], ids=str)
def chart(request: pytest.FixtureRequest) -> tuple[str, bool, list[Object]]:
    """Return a mode, whether there is an operator, and the objects."""
    mode, operator = request.param
    return mode, operator, rendered(mode, operator=operator)


def test_helm_finds_no_fault() -> None:
    done = run_helm("lint", "--strict", str(CHART), "--set-json", FILE)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_objects_are_valid(version: str) -> None:
    found = {}
    for mode in MODES:
        for settings in ((), FULL):
            for operator in (False, True):
                options = {"version": f"{version}.0", "operator": operator}
                for each in rendered(mode, *settings, **options):
                    found[json.dumps(each)] = each
    kinds = {each["kind"] for each in found.values()}
    assert {"DaskJob", "DaskCluster", "CronJob", "Job", "Role", "NetworkPolicy"} <= kinds
    for each in found.values():
        validate(each, version)


def test_the_validation_sees_what_is_wrong() -> None:
    (job,) = by_kind(rendered("job", operator=True), "DaskJob")
    job["spec"]["cluster"]["spec"]["worker"]["spec"]["containers"][0]["comand"] = ["dask"]
    with pytest.raises(Exception, match="comand"):
        validate(job, "1.33")
    (claim,) = by_kind(rendered("job"), "PersistentVolumeClaim")
    claim["spec"]["size"] = "1Gi"
    with pytest.raises(Exception, match="size"):
        validate(claim, "1.33")


def test_old_servers_get_the_versions_that_they_know() -> None:
    of = {each["kind"]: each["apiVersion"] for each in rendered("cron", version="1.20.2")}
    assert of["CronJob"] == "batch/v1beta1"
    of = {each["kind"]: each["apiVersion"] for each in rendered("cron", version="1.33.0")}
    assert of["CronJob"] == "batch/v1"
    assert of["PodDisruptionBudget"] == "policy/v1"


WHO_MAKES = {
    ("job", True): {"DaskJob"},
    ("job", False): {"Deployment", "Job"},
    ("cron", True): {"CronJob"},
    ("cron", False): {"Deployment", "CronJob"},
    ("cluster", True): {"DaskCluster"},
    ("cluster", False): {"Deployment"},
    ("notebook", True): {"Deployment"},
    ("notebook", False): {"Deployment"},
}


def test_each_mode_makes_its_objects(chart: tuple[str, bool, list[Object]]) -> None:
    mode, operator, objects = chart
    makers = {"DaskJob", "DaskCluster", "Deployment", "Job", "CronJob"}
    assert {each["kind"] for each in objects} & makers == WHO_MAKES[mode, operator]
    names = [each["metadata"]["name"] for each in by_kind(objects, "Deployment")]
    wanted = [] if operator else ["rel-dasrec-scheduler", "rel-dasrec-worker"]
    assert sorted(names) == sorted(wanted + ["rel-dasrec-notebook"] * (mode == "notebook"))


def test_the_operator_may_be_chosen() -> None:
    assert by_kind(rendered("job", 'operator.use="always"'), "DaskJob")
    assert not by_kind(rendered("job", 'operator.use="never"', operator=True), "DaskJob")


def test_pods_are_restricted(chart: tuple[str, bool, list[Object]]) -> None:
    _, _, objects = chart
    seen = list(pods(objects))
    assert len(seen) >= 2
    for _, spec in seen:
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for each in containers(spec):
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert each["image"] == "dasrec:0.1.0"
            assert each["resources"]["limits"]["memory"]
        for volume in spec["volumes"]:
            if "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"], volume


def test_pods_compute_as_dasrec_wants_it(chart: tuple[str, bool, list[Object]]) -> None:
    _, _, objects = chart
    for _, spec in pods(objects):
        assert spec["enableServiceLinks"] is False
        assert {each["tolerationSeconds"] for each in spec["tolerations"]} == {30}
        for each in containers(spec):
            variables = {one["name"]: one.get("value") for one in each["env"]}
            assert len(variables) == len(each["env"])
            assert variables["OMP_NUM_THREADS"] == variables["OPENBLAS_NUM_THREADS"] == "1"
            assert variables["MALLOC_MMAP_THRESHOLD_"] == "33554432"
            assert variables["DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP"] == "12s"
            assert {"tmp", "data"} <= {mount["name"] for mount in each["volumeMounts"]}


def test_servers_are_probed_and_workers_spread_and_spill() -> None:
    for operator in (False, True):
        of = dict(
            (labels["app.kubernetes.io/component"], spec)
            for labels, spec in pods(rendered("cluster", operator=operator))
        )
        for name in ("scheduler", "worker"):
            (container,) = of[name]["containers"]
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert container[probe]["httpGet"] == {"path": "/health", "port": "http-dashboard"}
        worker = of["worker"]
        (spread,) = worker["topologySpreadConstraints"]
        assert spread["topologyKey"] == "kubernetes.io/hostname"
        assert {"name": "spill", "emptyDir": {"sizeLimit": "20Gi"}} in worker["volumes"]
        assert "--local-directory=/spill" in worker["containers"][0]["command"]


def matches(selector: Object, labels: Object) -> bool:
    return selector.items() <= labels.items()


def test_selectors_find_their_pods(chart: tuple[str, bool, list[Object]]) -> None:
    _, operator, objects = chart
    labels = [each for each, _ in pods(objects)]
    # the operator adds these
    clusters = [each for each in objects if each["kind"] in ("DaskCluster", "DaskJob")]
    for each in labels if operator and clusters else []:
        each["dask.org/cluster-name"] = clusters[0]["metadata"]["name"]
    for each in by_kind(objects, "Service"):
        found = [one for one in labels if matches(each["spec"]["selector"], one)]
        name = each["metadata"]["name"].removeprefix("rel-dasrec-")
        assert [one["app.kubernetes.io/component"] for one in found] == [name]
        assert all(port["protocol"] == "TCP" for port in each["spec"]["ports"])
    for each in by_kind(objects, "PodDisruptionBudget"):
        selector = each["spec"]["selector"]["matchLabels"]
        assert sum(matches(selector, one) for one in labels) == 1
    (policy,) = by_kind(objects, "NetworkPolicy")
    selector = policy["spec"]["podSelector"]["matchLabels"]
    assert all(matches(selector, one) for one in labels)
    admitted = str(policy["spec"]["ingress"])
    assert ("dask-operator" in admitted) == operator


def test_only_who_makes_clusters_has_rights(chart: tuple[str, bool, list[Object]]) -> None:
    mode, operator, objects = chart
    makes = operator and mode in ("cron", "notebook")
    kinds = {each["kind"] for each in objects}
    assert ("Role" in kinds) == ("RoleBinding" in kinds) == makes
    assert not kinds & {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
    for labels, spec in pods(objects):
        runner = labels["app.kubernetes.io/component"] in ("notebook", "run", "check")
        assert spec["automountServiceAccountToken"] == (makes and runner)
        assert spec["serviceAccountName"] == "rel-dasrec" + "-clusters" * (makes and runner)
    for each in by_kind(objects, "Role"):
        assert all("*" not in rule["verbs"] + rule["resources"] for rule in each["rules"])


@pytest.mark.parametrize("mode", ["cron", "notebook"])
def test_a_run_makes_clusters_like_those_of_the_chart(mode: str) -> None:
    objects = rendered(mode, operator=True)
    (file,) = [each for each in by_kind(objects, "ConfigMap") if "cluster.yaml" in each["data"]]
    made = yaml.safe_load(file["data"]["cluster.yaml"])
    validate(made["spec"] | {"metadata": {"name": "x"}}, "1.33")
    (stands,) = by_kind(rendered("cluster", operator=True), "DaskCluster")
    made["spec"]["spec"]["scheduler"]["service"]["selector"] = {}
    stands["spec"]["scheduler"]["service"]["selector"] = {}
    assert made["spec"]["spec"] == stands["spec"]
    (runner,) = [
        spec
        for labels, spec in pods(objects)
        if "-clusters" in spec["serviceAccountName"]
        and labels["app.kubernetes.io/component"] != "check"
    ]
    assert {"name": "config", "mountPath": "/etc/dasrec", "readOnly": True} in (
        runner["containers"][0]["volumeMounts"]
    )


def test_names_are_unique_and_short(chart: tuple[str, bool, list[Object]]) -> None:
    mode, operator, objects = chart
    names = [(each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(set(names)) == len(names)
    long = render(f'mode="{mode}"', FILE, f'fullnameOverride="{"x" * 60}"', operator=operator)
    for each in long:
        assert len(each["metadata"]["name"]) <= (
            53 if each["kind"] in ("DaskJob", "DaskCluster") else 63
        )


@pytest.mark.parametrize("operator", [False, True])
@pytest.mark.parametrize("mode", ["job", "cron"])
def test_the_run(mode: str, operator: bool) -> None:
    makes = mode == "cron" and operator
    where = "/etc/dasrec/cluster.yaml" if makes else "tcp://rel-dasrec-scheduler:8786"
    command = ["dasrec", "--cluster", where, "run", "/etc/dasrec/workflow.yaml", "--resume"]
    objects = rendered(mode, 'workflow.set=["a=1"]', operator=operator)
    file = by_kind(objects, "ConfigMap")[0]
    assert file["data"] == {"workflow.yaml": "steps: []"}
    (run,) = [s for labels, s in pods(objects) if labels["app.kubernetes.io/component"] == "run"]
    assert run["containers"][0]["command"][-8:] == [*command, "--set", "a=1"]
    assert run["restartPolicy"] == "Never"
    assert ("initContainers" in run) == (not makes)
    (config,) = [each["projected"] for each in run["volumes"] if each["name"] == "config"]
    assert config["sources"][0] == {"configMap": {"name": file["metadata"]["name"]}}


def test_a_cron_may_use_a_cluster_that_stands() -> None:
    objects = rendered("cron", "cron.ownCluster=false", operator=True)
    assert by_kind(objects, "DaskCluster")
    assert not by_kind(objects, "Role")


def test_a_changed_cluster_gets_a_new_name_and_a_scaled_one_does_not() -> None:
    def name(*settings: str) -> str:
        (cluster,) = by_kind(rendered("cluster", *settings, operator=True), "DaskCluster")
        return str(cluster["metadata"]["name"])

    assert name() == name("worker.replicas=5")
    assert len({name(), name("worker.threads=2"), name('podLabels={"a": "b"}')}) == 3


def test_object_storage() -> None:
    objects = rendered(
        "job",
        'storage={"kind": "object", "object": {"url": "s3://b/p", "existingSecret": "keys"}}',
        'storage.object.endpoint="http://s3:9000"',
    )
    assert not by_kind(objects, "PersistentVolumeClaim")
    for _, spec in pods(objects):
        for each in containers(spec):
            variables = {one["name"]: one.get("value") for one in each["env"]}
            assert variables["DASREC_ROOT"] == "s3://b/p"
            assert variables["AWS_ENDPOINT_URL"] == "http://s3:9000"
            assert each["envFrom"] == [{"secretRef": {"name": "keys"}}]


def test_kernels_are_kept_where_there_is_a_volume() -> None:
    kept, own = "/data/.cache/numba", "/tmp/numba"
    for setting, folder in (
        ("", kept),
        ("storage.keepKernels=false", own),
        ('storage.kind="none"', own),
    ):
        for _, spec in pods(rendered("job", *filter(None, [setting]))):
            for each in containers(spec):
                variables = {one["name"]: one.get("value") for one in each["env"]}
                assert variables["NUMBA_CACHE_DIR"] == folder


def test_storage_stays_unless_told() -> None:
    (claim,) = by_kind(rendered("job"), "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    (claim,) = by_kind(rendered("job", "storage.pvc.keep=false"), "PersistentVolumeClaim")
    assert "annotations" not in claim["metadata"]
    assert not by_kind(rendered("job", 'storage.pvc.existingClaim="mine"'), "PersistentVolumeClaim")


def test_the_ingress_is_off_and_warns() -> None:
    assert not by_kind(rendered("cluster"), "Ingress")
    done = run_helm(
        *("install", "rel", str(CHART), "--dry-run=client", "--set-json", 'mode="cluster"'),
        *("--set-json", 'ingress={"enabled": true, "host": "d.example"}'),
    )
    assert "WARNING: the ingress is on" in done.stdout, done.stderr


def test_autoscaling() -> None:
    on = 'autoscale={"enabled": true, "minimum": 0, "maximum": 4}'
    objects = rendered("cluster", on, operator=True)
    (scaler,) = by_kind(objects, "DaskAutoscaler")
    (cluster,) = by_kind(objects, "DaskCluster")
    assert scaler["spec"]["cluster"] == cluster["metadata"]["name"]
    for mode, operator in (("job", True), ("cluster", False)):
        done = template(f'mode="{mode}"', FILE, on, operator=operator)
        assert done.returncode != 0
        assert "autoscale.enabled needs the operator and mode cron or cluster" in done.stderr


REFUSED = {
    'dask.tcpTimeout="10s"': "tcpTimeout",
    'dask.tcpTimeout="9999ms"': "tcpTimeout",
    "dask.tcpTimeout=12": "tcpTimeout",
    'dask.workerTtl="30s"': "workerTtl",
    'worker.replicas="2"': "replicas",
    "worker.replicas=-1": "replicas",
    "worker.replica=2": "replica",
    "workers={}": "workers",
    'mode="jobs"': "mode",
    "operator.use=true": "use",
    'image.digest="latest"': "digest",
    'worker.resources={"requests": {"memory": "1Gi"}, "limits": null}': "limits",
    'storage.object.url="s3://key@bucket"': "url",
    'workflow.set=["x"]': "set",
    "podSecurity.runAsUser=0": "runAsUser",
    'env=[{"name": "A", "value": 1}]': "env",
    'affinity={"nodeAfinity": {}}': "nodeAfinity",
    'cron.schedule="daily"': "schedule",
}


@pytest.mark.parametrize("setting", REFUSED)
def test_the_schema_refuses(setting: str) -> None:
    done = template(FILE, setting)
    assert done.returncode != 0
    assert "schema" in done.stderr
    assert REFUSED[setting] in done.stderr


def test_what_templates_refuse() -> None:
    assert "there is nothing to run" in template().stderr
    assert "storage.object.url is empty" in template(FILE, 'storage.kind="object"').stderr


def test_the_schema_is_closed_and_knows_every_value() -> None:
    schema = yaml.safe_load((CHART / "values.schema.json").read_text("utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    allowed_open = {"global", "limited", "propertyNames"}

    def walk(node: Any, key: str) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object" and key not in allowed_open:
                assert "additionalProperties" in node, f"{key} is open: {node}"
            for name, each in node.items():
                walk(each, name)
        elif isinstance(node, list):
            for each in node:
                walk(each, key)

    walk(schema, "values")
    assert set(schema["properties"]) - {"global"} == set(values)
    for key, value in values.items():
        known = schema["properties"][key].get("properties")
        if known is not None and key != "affinity":
            assert set(known) == set(value), key


def test_the_readme_is_what_the_values_say() -> None:
    command = [sys.executable, str(CHART.parent / "readme.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_one_version_everywhere() -> None:
    import dasrec

    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["appVersion"] == dasrec.__version__


def test_the_dockerfile_names_no_host_and_no_root() -> None:
    text = (ROOT / "deploy" / "docker" / "Dockerfile").read_text("utf-8")
    assert "http" not in text
    assert "\nUSER 10001:10001\n" in text
    assert text.count("FROM ${BASE}") == 3
