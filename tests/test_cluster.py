"""Every kind of cluster is asked for in one way, told apart, prepared, checked and cleared away."""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import dask
import httpx
import pytest
import yaml
from distributed import LocalCluster
from threadpoolctl import threadpool_info

from dasrec import ClusterError, InputError, MismatchError, blocks
from dasrec.cluster import connect, kubernetes, managers, parse, workers
from dasrec.cluster.spec import Kubernetes, Local, Manager, Scheduler, Ssh, Threads
from tests import ssh_server
from tests.snippets import DOCS, python_blocks

TCP = "distributed.comm.timeouts.tcp"
POD = {"kind": "kubernetes", "image": "dasrec:1"}


# -- what is asked for -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("threads", Threads(kind="threads")),
        ({"kind": "threads"}, Threads(kind="threads")),
        ("processes:3", Local(kind="local", workers=3)),
        ({"kind": "local", "workers": 3}, Local(kind="local", workers=3)),
        ("tcp://host:8786", Scheduler(kind="scheduler", address="tcp://host:8786")),
        (
            {"kind": "local", "threads": 1, "memory": "1GiB"},
            Local(kind="local", threads=1, memory=2**30),
        ),
        ({"kind": "ssh", "hosts": ["a", "b"]}, Ssh(kind="ssh", hosts=["a", "b"])),
        (POD, Kubernetes(kind="kubernetes", image="dasrec:1")),
        (
            {"kind": "dask_jobqueue.SLURMCluster", "workers": 4, "cores": 8},
            Manager(kind="dask_jobqueue.SLURMCluster", workers=4, cores=8),
        ),
    ],
)
def test_a_cluster_is_asked_for_in_words_or_as_a_mapping(given: Any, wanted: Any) -> None:
    assert parse(given) == wanted


def test_a_file_holds_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("kind: local\nworkers: 2\nmemory: 1GiB\n")
    assert parse(str(path)) == Local(kind="local", workers=2, memory=2**30)
    for content, message in (
        ("[1, 2]", "holds list; expected a mapping with a kind"),
        ("a: b: c", "is no YAML"),
        ("kind: local\nworkers: many", "workers: Input should be a valid integer"),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=message):
            parse(str(path))
    with pytest.raises(InputError, match=r"nothing.yaml is not there; expected a YAML file"):
        parse(str(tmp_path / "nothing.yaml"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nonsense", r"cluster is 'nonsense'; expected threads, processes:N, an address like tcp:"),
        ("processes:0", r"cluster is 'processes:0'; expected"),
        ("processes:two", r"cluster is 'processes:two'; expected"),
        (7, r"cluster is 7; expected"),
        ({"workers": 2}, r"cluster has kind None; expected one of threads, local, scheduler, kub"),
        ({"kind": "slurm"}, r"cluster has kind 'slurm'; expected one of .*, or a dotted name"),
        (
            {"kind": "local", "workers": 0},
            r"local cannot be used: workers: .*greater than 0. It takes: workers, threads, memory",
        ),
        ({"kind": "local", "memory": "much"}, r"memory: .*"),
        ({"kind": "local", "wrokers": 2}, r"wrokers: Extra inputs are not permitted"),
        ({"kind": "scheduler", "address": "host"}, r"address: .*an address is like tcp://host"),
        ({"kind": "ssh", "hosts": ["one"]}, r"hosts: List should have at least 2 items"),
        ({**POD, "name": "Has Spaces"}, r"name: String should match pattern"),
        ({**POD, "resources": {"most": {}}}, r"resources.most"),
        ({"kind": "a..b"}, r"kind: String should match pattern"),
    ],
)
def test_what_cannot_be_is_told(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message), connect(given):
        raise AssertionError


def test_an_error_tells_no_secrets() -> None:
    with pytest.raises(InputError) as caught:
        parse({"kind": "ssh", "hosts": "a", "connect": {"password": "hunter2"}, "secret": "abc"})
    assert "hosts" in str(caught.value)
    assert not {"hunter2", "abc"} & set(str(caught.value).replace("'", " ").split())


# -- workers ---------------------------------------------------------------------------------------


def test_silent_hosts_are_given_up_soon_but_not_too_soon() -> None:
    for given, used in (("30s", "12s"), ("20s", "20s"), ("11s", "11s")):
        with dask.config.set({TCP: given}):
            with workers.patient():
                assert dask.config.get(TCP) == used
            assert dask.config.get(TCP) == given
    refused = pytest.raises(InputError, match=r"timeouts.tcp is 10s; below 11s every connection")
    with dask.config.set({TCP: "10s"}), refused, connect("processes:1"):
        raise AssertionError


@pytest.mark.slow
def test_processes_of_this_machine_are_as_asked_for(tmp_path: Path) -> None:
    spill = tmp_path / "spill"
    asked = {"kind": "local", "workers": 1, "threads": 3, "memory": "700MB", "spill": str(spill)}
    with connect(asked) as client:
        assert client is not None
        (found,) = client.scheduler_info()["workers"].values()
        assert (found["nthreads"], found["memory_limit"]) == (3, 700_000_000)
        assert found["local_directory"].startswith(str(spill))
        (environment,) = client.run(lambda: dict(os.environ)).values()
        assert workers.ENVIRONMENT.items() <= environment.items()
    assert not list(spill.rglob("worker-*"))


@pytest.fixture
def others() -> Iterator[LocalCluster]:
    """Run a cluster that somebody else has started, in this process."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as cluster:
        yield cluster


def plugins(cluster: LocalCluster) -> list[str]:
    (worker,) = cluster.workers.values()
    of_the_page = "dasrec-io"  # which stays, as the page does
    return [name for name in worker.plugins if name.startswith("dasrec") and name != of_the_page]


def blas_threads() -> list[int]:
    return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]


def test_workers_of_others_are_prepared_while_we_are_there(
    others: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, ...]] = []
    before = blas_threads()
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    monkeypatch.setattr("dasrec.memory._tune", lambda *option: calls.append(option))
    with connect(others.scheduler_address) as client:
        assert blocks.active_client() is client
        assert len(plugins(others)) == 1
        assert calls == [(-3, 2**25)]
        assert set(blas_threads()) == {1}
        with connect({"kind": "scheduler", "address": others.scheduler_address}):
            assert len(plugins(others)) == 2
        assert len(plugins(others)) == 1
    assert plugins(others) == []
    assert blas_threads() == before
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1000000")
    with connect(others.scheduler_address):
        assert len(calls) == 2  # by the second connection, none by this one


def no_dasrec() -> str:
    msg = "No module named 'dasrec'"
    raise ModuleNotFoundError(msg)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (lambda: "0.0.1", r"dasrec is .+ here and 0.0.1 on \S+; install the same on both"),
        (no_dasrec, r"\S+ has no dasrec \(No module named 'dasrec'\); install the version"),
    ],
)
def test_workers_with_another_dasrec_are_refused(
    others: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
    version: Callable[[], str],
    message: str,
) -> None:
    monkeypatch.setattr(workers, "_version", version)
    with pytest.raises(MismatchError, match=message), connect(others.scheduler_address):
        raise AssertionError
    assert plugins(others) == []
    with connect(others.scheduler_address, check=False) as client:
        assert client is not None


def test_nobody_answers() -> None:
    refused = pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9")
    soon = dask.config.set({"distributed.comm.timeouts.connect": "1s"})
    with soon, refused, connect("tcp://127.0.0.1:9"):
        raise AssertionError


# -- managers --------------------------------------------------------------------------------------


def test_any_manager_by_name() -> None:
    asked = {
        "kind": "distributed.LocalCluster",
        "workers": 2,
        "n_workers": 0,
        "threads_per_worker": 1,
        "processes": False,
        "dashboard_address": ":0",
    }
    with connect(asked) as client:
        assert client is not None
        client.wait_for_workers(2, timeout=30)
        assert blocks.run(pow, [(2, 3), (3, 2)], name="test-manager") == [8, 9]
    assert client.status == "closed"


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"kind": "no_such.Cluster"}, InputError, "kind 'no_such.Cluster': No module named"),
        ({"kind": "distributed.NoCluster"}, InputError, "has no attribute 'NoCluster'; expected"),
        (
            {"kind": "distributed.LocalCluster", "protocol": "carrier-pigeon://"},
            ClusterError,
            "distributed.LocalCluster: no cluster came up",
        ),
    ],
)
def test_a_manager_that_is_not_there_or_fails(asked: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message), connect(asked):
        raise AssertionError


def test_ssh_gets_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Ssh(kind="ssh", hosts=["a", "b"], workers=2, memory=10**9, connect={"username": "me"})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused = pytest.raises(InputError, match=r"needs asyncssh.*dasrec\[ssh\]")
    with refused, managers.by_ssh(asked):
        raise AssertionError
    seen: list[Any] = []

    class Cluster:
        def __init__(self, hosts: list[str], **options: Any) -> None:
            seen.append((hosts, options))

        def __enter__(self) -> Cluster:
            return self

        def __exit__(self, *error: object) -> None:
            seen.append("closed")

    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(managers, "SSHCluster", Cluster)
    with managers.by_ssh(asked) as cluster:
        assert isinstance(cluster, Cluster)
    (hosts, options), closed = seen
    assert (hosts, closed) == (["a", "b"], "closed")
    assert options["connect_options"] == {"username": "me"}
    assert options["worker_options"] == {"n_workers": 2, "memory_limit": 10**9}


@pytest.mark.slow
def test_hosts_that_are_reached_by_ssh(tmp_path: Path) -> None:
    with ssh_server.serving(tmp_path) as options:
        hosts = {"kind": "ssh", "hosts": ["127.0.0.1", "127.0.0.1"], "connect": options}
        with connect({**hosts, "workers": 2, "threads": 1, "memory": "500MB"}) as client:
            assert client is not None
            client.wait_for_workers(2, timeout=60)
            workers = client.scheduler_info()["workers"].values()
            assert [each["memory_limit"] for each in workers] == [500_000_000] * 2
            pids = {*client.run(os.getpid).values(), client.run_on_scheduler(os.getpid)}
            assert len(pids) == 3
            assert blocks.run(pow, [(2, 3)] * 4, name="test-ssh") == [8] * 4
            assert {*client.run(os.getenv, "OMP_NUM_THREADS").values()} == {"1"}
        wrong = {**options, "client_keys": []}
        refused = pytest.raises(ClusterError, match=r"hosts 127.0.0.1.*no cluster came up")
        with refused, connect({**hosts, "connect": wrong}):
            raise AssertionError


# -- Kubernetes ------------------------------------------------------------------------------------


class FakeCluster:
    """Stands in for KubeCluster: begins as its next outcome says."""

    outcomes: ClassVar[list[Any]] = []
    made: ClassVar[list[Any]] = []

    def __init__(self, **options: Any) -> None:
        self.options, self.closed = options, 0
        self.refusals: list[Exception] = []
        self.made.append(self)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        if isinstance(outcome, threading.Event):
            outcome.wait(30)

    def close(self, timeout: float) -> None:
        assert timeout > 0
        self.closed += 1
        if self.refusals:
            raise self.refusals.pop(0)

    @property
    def name(self) -> str:
        return str(self.options["custom_cluster_spec"]["metadata"]["name"])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeCluster]:
    monkeypatch.setattr(kubernetes, "_kube_cluster", lambda: FakeCluster)
    monkeypatch.setattr(FakeCluster, "outcomes", [])
    monkeypatch.setattr(FakeCluster, "made", [])
    return FakeCluster


def asked(**fields: Any) -> Kubernetes:
    found = parse({**POD, **fields})
    assert isinstance(found, Kubernetes)
    return found


def test_a_cluster_that_sticks_is_tried_again_under_a_new_name(
    fake: type[FakeCluster], caplog: pytest.LogCaptureFixture
) -> None:
    fake.outcomes += [TimeoutError("not actioned"), httpx.ReadError("cut"), None]
    with caplog.at_level(logging.WARNING, "dasrec"), kubernetes.running(asked()) as cluster:
        assert cluster is fake.made[2]
        assert cluster.closed == 0
    names = [each.name for each in fake.made]
    assert len(set(names)) == 3
    assert all(name.startswith("dasrec-") for name in names)
    assert [each.closed for each in fake.made] == [1, 1, 1]
    assert "did not come up: TimeoutError('not actioned')" in caplog.text
    assert "did not come up: ReadError('cut')" in caplog.text
    assert all(each.options["resource_timeout"] == 20 for each in fake.made)


def test_no_cluster_comes_up(fake: type[FakeCluster]) -> None:
    fake.outcomes += [TimeoutError("not actioned")] * 2
    refused = pytest.raises(ClusterError, match=r"no cluster came up in 2 tries.*operator of dask")
    with refused, kubernetes.running(asked(tries=2)):
        raise AssertionError
    assert [each.closed for each in fake.made] == [1, 1]


def test_a_pod_that_is_never_scheduled_is_given_up(fake: type[FakeCluster]) -> None:
    stuck = threading.Event()
    fake.outcomes += [stuck, None]
    try:
        with kubernetes.running(asked(patience=1)) as cluster:
            assert cluster is fake.made[1]
        assert [each.closed for each in fake.made] == [1, 1]
    finally:
        stuck.set()


@pytest.mark.parametrize("error", [ValueError("no credentials"), RuntimeError("no CRDs")])
def test_what_would_not_get_better_is_not_tried_again(
    fake: type[FakeCluster], error: Exception
) -> None:
    fake.outcomes += [error]
    refused = pytest.raises(ClusterError, match=f"cannot be made: .*{error}.*Check KUBECONFIG")
    with refused, kubernetes.running(asked()):
        raise AssertionError
    assert len(fake.made) == 1


def test_a_failure_inside_deletes_the_cluster(fake: type[FakeCluster]) -> None:
    fake.outcomes += [None]
    with pytest.raises(ZeroDivisionError), kubernetes.running(asked()):
        raise ZeroDivisionError
    assert fake.made[0].closed == 1


def test_a_cluster_is_up_with_its_last_part_whatever_its_phase_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The operator may leave the phase at "Pending", for which ``KubeCluster`` would wait."""
    objects = pytest.importorskip("dask_kubernetes.operator._objects")
    answers, asked_for = [False, False, True], []

    class Group:
        async def exists(self) -> bool:
            return answers.pop(0)

    async def group(name: str, *, namespace: str) -> Group:
        asked_for.append((name, namespace))
        return Group()

    monkeypatch.setattr(objects, "DaskWorkerGroup", group)
    kind = kubernetes._kube_cluster()
    assert hasattr(kind.__base__, "_wait_for_controller")
    cluster = SimpleNamespace(name="dasrec-1", namespace="here")
    asyncio.run(kind._wait_for_controller(cluster))
    assert asked_for == [("dasrec-1-default", "here")]
    assert answers == []
    answers.append(False)
    monkeypatch.setattr(kubernetes, "_ACTIONED", -1)
    with pytest.raises(TimeoutError, match="the operator made no workers"):
        asyncio.run(kind._wait_for_controller(cluster))


@pytest.mark.parametrize("times", [1, 2])
def test_a_cluster_that_is_slow_to_go_is_no_failure(
    fake: type[FakeCluster], caplog: pytest.LogCaptureFixture, times: int
) -> None:
    fake.outcomes += [None]
    with caplog.at_level(logging.WARNING, "dasrec"), kubernetes.running(asked()) as cluster:
        cluster.refusals += [TimeoutError("deleting")] * times
    assert cluster.closed == 2
    told = f"{cluster.name} was told to go and may still be there: TimeoutError('deleting')"
    assert (told in caplog.text) == (times == 2)


def test_pods_come_to_where_we_are_unless_told(
    fake: type[FakeCluster], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr(kubernetes, "_POD_NAMESPACE", tmp_path / "namespace")
    found = []
    for content, fields in (("", {}), ("here", {}), ("here", {"namespace": "there"})):
        if content:
            (tmp_path / "namespace").write_text(content)
        fake.outcomes += [None]
        with kubernetes.running(asked(**fields)) as cluster:
            found.append(cluster.options["namespace"])
    assert found == [None, "here", "there"]


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["env"]}


def test_pods_are_described_as_asked_for() -> None:
    spec = asked(workers=4, threads=2, memory="3GiB", spill="/spill", env={"AWS_REGION": "eu"})
    found = kubernetes.describe(spec, "dasrec-1")
    parts = found["spec"]
    assert found["metadata"]["name"] == "dasrec-1"
    assert parts["worker"]["replicas"] == 4
    assert parts["scheduler"]["service"]["selector"]["dask.org/cluster-name"] == "dasrec-1"
    (scheduler,) = parts["scheduler"]["spec"]["containers"]
    (worker,) = parts["worker"]["spec"]["containers"]
    assert scheduler["image"] == worker["image"] == "dasrec:1"
    assert scheduler["args"] == ["dask", "scheduler", "--host", "0.0.0.0"]
    assert worker["args"][:4] == ["dask", "worker", "--name", "$(DASK_WORKER_NAME)"]
    assert "--nthreads 2 --memory-limit 3221225472" in " ".join(worker["args"])
    assert worker["resources"] == {
        "requests": {"cpu": "2", "memory": "3221225472"},
        "limits": {"memory": "3221225472"},
    }
    assert worker["volumeMounts"] == [{"name": "spill", "mountPath": "/spill"}]
    for container in (scheduler, worker):
        assert environment(container)["OMP_NUM_THREADS"] == "1"
        assert environment(container)["DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP"] == "12s"
        assert environment(container)["AWS_REGION"] == "eu"
    own = {"limits": {"cpu": "1"}}
    (worker,) = kubernetes.describe(asked(resources=own), "a")["spec"]["worker"]["spec"][
        "containers"
    ]
    assert worker["resources"] == own


def test_pods_see_the_volumes_that_are_named() -> None:
    parts = kubernetes.describe(asked(volumes={"/data": "a", "/x": "b"}, spill="/s"), "n")["spec"]
    for part in ("scheduler", "worker"):
        pod = parts[part]["spec"]
        claims = {
            each["name"]: each["persistentVolumeClaim"]["claimName"]
            for each in pod["volumes"]
            if each["name"] != "spill"
        }
        seen = {each["name"]: each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
        assert ("spill" in seen) == (part == "worker")
        assert {seen[name]: claim for name, claim in claims.items()} == {"/data": "a", "/x": "b"}
    with pytest.raises(InputError, match=r"volumes.data"):
        asked(volumes={"data": "a"})


def test_the_operator_takes_what_is_described() -> None:
    """By its own definition of a DaskCluster, closed to what it does not know."""
    jsonschema = pytest.importorskip("jsonschema")
    operator = pytest.importorskip("dask_kubernetes.operator")
    (path,) = Path(operator.__file__).parent.glob("deployment/**/crds/daskcluster.yaml")
    definition = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)  # it is large
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

    def close(node: Any) -> None:
        if isinstance(node, dict):
            if "properties" in node and not node.get("x-kubernetes-preserve-unknown-fields"):
                node.setdefault("additionalProperties", False)
            for each in node.values():
                close(each)
        elif isinstance(node, list):
            for each in node:
                close(each)

    schema["properties"] |= {name: {} for name in ("apiVersion", "kind", "metadata")}
    close(schema)
    more = {"spill": "/spill", "volumes": {"/data": "claim"}}
    found = kubernetes.describe(asked(threads=1, memory="1GiB", **more), "dasrec-1")
    jsonschema.validate(found, schema)
    found["spec"]["worker"]["spec"]["containers"][0]["argz"] = []
    with pytest.raises(jsonschema.ValidationError, match="argz"):
        jsonschema.validate(found, schema)


def test_a_spec_of_the_user_is_kept_but_for_its_name() -> None:
    own = kubernetes.describe(asked(), "own")
    own["spec"]["worker"]["spec"]["containers"][0]["env"] = [
        {"name": "OMP_NUM_THREADS", "value": "2"},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
    ]
    own["spec"]["scheduler"]["spec"]["nodeSelector"] = {"disk": "ssd"}
    before = copy.deepcopy(own)
    found = kubernetes.describe(asked(spec=own), "dasrec-2")
    assert own == before
    assert found["metadata"]["name"] == "dasrec-2"
    assert found["spec"]["scheduler"]["spec"]["nodeSelector"] == {"disk": "ssd"}
    (worker,) = found["spec"]["worker"]["spec"]["containers"]
    assert worker["env"][:2] == before["spec"]["worker"]["spec"]["containers"][0]["env"]
    assert {"name": "MKL_NUM_THREADS", "value": "1"} in worker["env"]
    with pytest.raises(InputError, match=r"spec is no DaskCluster; expected spec.scheduler.spec"):
        kubernetes.describe(asked(spec={"kind": "DaskCluster"}), "a")


def test_pods_need_an_image() -> None:
    refused = pytest.raises(InputError, match="has no image; name one that holds dasrec")
    with refused, connect({"kind": "kubernetes"}):
        raise AssertionError


def test_the_notebook_of_the_page_on_kubernetes_fits_where_its_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (code,) = python_blocks(DOCS / "kubernetes.md")
    asked: list[int] = []
    monkeypatch.setenv("DASREC_CLUSTER", "processes:1")

    def fit(store: int) -> None:
        asked.extend(blocks.run(pow, [(store, 2)], name="test-page"))
        assert blocks.active_client() is not None

    exec(code, {"model": SimpleNamespace(fit=fit), "store": 3})
    assert asked == [9]


def test_a_local_cluster_that_stumbles_over_a_death_is_closed_all_the_same() -> None:
    with connect("processes:1") as client:
        assert client is not None
        cluster = client.cluster
        cluster.sync(_tell_of_the_death_of_nobody, cluster)
    assert cluster.status.name == "closed"


async def _tell_of_the_death_of_nobody(cluster: Any) -> None:
    cluster._watch_worker_status_task.cancel()
    cluster._watch_worker_status_task = asyncio.ensure_future(_stumble())


async def _stumble() -> None:
    raise KeyError(9)
