"""Hosts that die, links that are cut and schedulers that are lost in the middle of a fit.

Each host is a network namespace with a real ``dask scheduler`` or ``dask worker`` in it, made by
the tool that DASREC_NETNS names; this takes root.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import dasrec
from dasrec import ImplicitALS, Interactions
from dasrec.testing import planted_matrix
from tests.conftest import ROOT

pytestmark = [pytest.mark.hosts, pytest.mark.slow, pytest.mark.timeout(600)]

ADDRESS = "tcp://10.77.0.10:8786"
HOSTS = ("sched", "w1", "w2", "w3")
ITERATIONS = 40
SCRIPT = """
    import sys

    import dasrec
    from dasrec.cluster import connect

    data, out, checkpoint = dasrec.open_interactions(sys.argv[1]), sys.argv[2], sys.argv[3:]
    training = dasrec.Training(log=f"{out}.log")
    if checkpoint:
        training = dasrec.Training(log=f"{out}.log", checkpoint=checkpoint[0], resume=True)
    try:
        with connect("{address}") as client:
            client.wait_for_workers(3, timeout=150)
            model = dasrec.ImplicitALS(factors=20, iterations={iterations}, rng=0)
            model.fit(data, training=training).save(out)
            print("workers:", len(client.run(bool)))
    except dasrec.DasrecError as error:
        sys.exit(f"Error: {error}")
"""


class Hosts:
    """A scheduler, three workers and a host for the client, on one switch."""

    def __init__(self, tool: str, home: Path) -> None:
        self._tool = tool
        self._touched: set[str] = set()
        self.patience = "60s"  # for so long a client looks for a scheduler that is lost
        self.environment = {
            **os.environ,
            "K8S_NETNS": f"dasrec{os.getpid()}",
            "K8S_HOME": str(home),
            "PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
            "NTHREADS": "1",
            "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
        }

    def __call__(self, *arguments: str) -> None:
        """Do something to hosts."""
        command = [self._tool, *arguments]
        subprocess.run(command, env=self.environment, check=True, timeout=90)
        if arguments[0] in ("kill", "cut"):
            self._touched.add(arguments[1])

    def client(self, *command: str) -> subprocess.Popen[str]:
        """Start something on the client's host."""
        return subprocess.Popen(
            [self._tool, "exec", "client", *command],
            env={
                **self.environment,
                "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": self.patience,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def mend(self) -> None:
        """Bring back what has been killed or cut off; of a scheduler the workers, too."""
        touched = HOSTS if "sched" in self._touched else sorted(self._touched - {"client"})
        for host in touched:
            self("heal", host)
            self("kill", host)
        for host in touched:
            self("start", host)
        self._touched.clear()
        self.patience = "60s"

    def namespaces(self) -> list[str]:
        """Return what there is of ours on this machine."""
        listed = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
        return [line for line in listed.splitlines() if self.environment["K8S_NETNS"] in line]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    tool = os.environ.get("DASREC_NETNS")
    if not tool or os.geteuid() != 0:
        pytest.skip(
            "NOT TESTED ON SEVERAL HOSTS: this takes root, and DASREC_NETNS, the path of a tool "
            "that makes hosts of network namespaces"
        )
    made = Hosts(tool, tmp_path_factory.mktemp("network"))
    try:
        made("up", "3")
        yield made
    finally:
        made("down")
    assert made.namespaces() == []


@pytest.fixture
def hosts(network: Hosts) -> Iterator[Hosts]:
    yield network
    network.mend()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 400):
        made = dasrec.interactions_from_scipy(
            planted_matrix(), tmp_path_factory.mktemp("hosts") / "data"
        )
    assert len(made.cuts("user_items")) > 3
    return made


@pytest.fixture(scope="module")
def wanted(data: Interactions) -> list[Any]:
    """Return what a fit on threads gives."""
    return learned(ImplicitALS(factors=20, iterations=ITERATIONS, rng=0).fit(data))


def learned(model: Any) -> list[Any]:
    arrays = (*model.scoring_vectors(), model.history_["objective"].values)
    return [each.tobytes() for each in arrays]


def n_done(out: Path) -> int:
    log = Path(f"{out}.log")
    return len(log.read_text().splitlines()) if log.exists() else 0


def fit(hosts: Hosts, *places: object) -> subprocess.Popen[str]:
    script = textwrap.dedent(SCRIPT).replace("{address}", ADDRESS)
    script = script.replace("{iterations}", str(ITERATIONS))
    return hosts.client(sys.executable, "-c", script, *map(str, places))


def run(
    hosts: Hosts, data: Interactions, out: Path, *checkpoint: Path, then: Callable[[], Any]
) -> tuple[int, str]:
    """Fit, do something once a quarter is done, and return the exit status and what was said."""
    with fit(hosts, data.url, out, *checkpoint) as process:
        try:
            deadline = time.monotonic() + 200
            while n_done(out) < ITERATIONS // 4 and time.monotonic() < deadline:
                assert process.poll() is None, process.communicate()
                time.sleep(0.01)
            then()
            assert ITERATIONS // 4 <= n_done(out) < ITERATIONS
            said, _ = process.communicate(timeout=200)
        finally:
            if process.poll() is None:
                hosts("kill", "client")
    return process.returncode, said


def check_whole(out: Path, wanted: list[Any], data: Interactions) -> None:
    """See that the model is that of an undisturbed fit, and that nothing else lies around."""
    model = dasrec.load_model(out)
    assert learned(model) == wanted
    lines = Path(f"{out}.log").read_text().splitlines()
    assert json.loads(lines[-1])["iteration"] == ITERATIONS
    assert not [each for each in out.parent.iterdir() if each.name.endswith("-factors")]
    assert dasrec.verify(data.url) == []


def cut_for_a_moment(hosts: Hosts) -> None:
    hosts("cut", "w2")
    time.sleep(4)
    hosts("heal", "w2")


@pytest.mark.parametrize(
    ("event", "left"), [("kill", 2), ("cut", 2), ("a moment", 3)], ids=["killed", "cut", "blinked"]
)
def test_a_host_is_lost_in_mid_fit(
    hosts: Hosts, data: Interactions, wanted: list[Any], tmp_path: Path, event: str, left: int
) -> None:
    def lose() -> None:
        cut_for_a_moment(hosts) if event == "a moment" else hosts(event, "w2")

    out = tmp_path / "model"
    status, said = run(hosts, data, out, then=lose)
    assert status == 0, said
    assert f"workers: {left}" in said
    check_whole(out, wanted, data)


def test_a_healed_host_works_again(
    hosts: Hosts, data: Interactions, wanted: list[Any], tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    status, said = run(hosts, data, first, then=lambda: hosts("cut", "w1"))
    assert status == 0, said
    hosts.mend()
    status, said = run(hosts, data, second, then=lambda: hosts("kill", "w2"))
    assert status == 0, said
    assert "workers: 2" in said
    for out in (first, second):
        check_whole(out, wanted, data)


def test_a_scheduler_that_comes_back_goes_on(
    hosts: Hosts, data: Interactions, wanted: list[Any], tmp_path: Path
) -> None:
    def restart() -> None:
        hosts("kill", "sched")
        hosts.mend()

    out = tmp_path / "model"
    status, said = run(hosts, data, out, then=restart)
    assert status == 0, said
    assert "workers: 3" in said
    check_whole(out, wanted, data)


def test_a_scheduler_that_is_lost_is_told_and_the_fit_resumed(
    hosts: Hosts, data: Interactions, wanted: list[Any], tmp_path: Path
) -> None:
    out, checkpoint = tmp_path / "model", tmp_path / "checkpoint"
    hosts.patience = "15s"
    status, said = run(hosts, data, out, checkpoint, then=lambda: hosts("kill", "sched"))
    assert status == 1
    assert "Error: the scheduler was lost, and all that was under way" in said, said
    assert not out.exists()
    kept = dasrec.load_model(checkpoint)
    assert 0 < len(kept.history_["iteration"]) < ITERATIONS
    hosts.mend()
    with fit(hosts, data.url, out, checkpoint) as process:
        said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    check_whole(out, wanted, data)


def test_a_client_that_is_killed_leaves_the_cluster_to_the_next(
    hosts: Hosts, data: Interactions, wanted: list[Any], tmp_path: Path
) -> None:
    out, checkpoint = tmp_path / "model", tmp_path / "checkpoint"
    status, _ = run(hosts, data, out, checkpoint, then=lambda: hosts("kill", "client"))
    assert status == 128 + signal.SIGKILL
    with fit(hosts, data.url, out, checkpoint) as process:
        said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    check_whole(out, wanted, data)
