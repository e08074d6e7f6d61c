"""The doctor looks at every process of a cluster, and names what is wrong with its remedy."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from distributed import LocalCluster

from dasrec import InputError, MismatchError, doctor, files
from dasrec.cli import main
from dasrec.cluster import connect

HERE = {
    "host": "a",
    "python": "3.12.1",
    "versions": {"dasrec": "1", "numpy": "2"},
    "machine_bytes": 8 * 10**9,
    "memory_limit_bytes": 4 * 10**9,
    "spill": "/tmp",
    "disk_free_bytes": 10**11,
    "tcp_timeout": "12s",
}
OTHER = {**HERE, "host": "b", "clock_skew_seconds": 0.0}


@pytest.fixture
def address() -> Iterator[str]:
    """Run a cluster in this process and give its address."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as cluster:
        yield str(cluster.scheduler_address)


def test_all_is_well_here(tmp_path: Path) -> None:
    found = doctor.examine(store=tmp_path)
    assert found["faults"] == []
    assert (found["scheduler"], found["workers"]) == (None, {})
    assert set(found["client"]["versions"]) == set(doctor.PACKAGES)
    assert min(found["client"]["store"].values()) > 0
    assert list(tmp_path.iterdir()) == []


def test_every_process_is_looked_at(address: str, tmp_path: Path) -> None:
    found = doctor.examine(address, store=tmp_path)
    assert found["faults"] == []
    (worker,) = found["workers"].values()
    assert worker["threads"] == 1
    for each in (worker, found["scheduler"]):
        assert each["versions"] == found["client"]["versions"]
        assert each["clock_skew_seconds"] == 0
    assert worker["store"].keys() == found["client"]["store"].keys()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"versions": {"dasrec": "1", "numpy": "1"}}, "numpy is 2 here and 1 on w1; install the"),
        ({"python": "3.13.1"}, "Python is 3.12.1 here and 3.13.1 on w1; tasks cannot be read"),
        ({"python": "3.12.9"}, None),
        ({"clock_skew_seconds": -7.0}, "the clock of w1 is off by -7.0 s; run NTP"),
        ({"clock_skew_seconds": 4.0}, None),
        ({"disk_free_bytes": 10**8}, "/tmp on w1 has 0.10 GB free; free space, or spill"),
        ({"tcp_timeout": "10s"}, "timeouts.tcp is 10s on w1; set 12s, or at least 11s"),
        ({"store": {"fault": "is full"}}, "the store on w1: is full"),
        ({"memory_limit_bytes": 9 * 10**9}, "1 workers on b may hold 9.00 GB and it has 8.00 GB"),
        ({"memory_limit_bytes": None}, None),
    ],
)
def test_a_fault_is_named_with_its_remedy(change: dict[str, Any], fault: str | None) -> None:
    found = list(doctor._faults(HERE, OTHER, {"w1": {**OTHER, **change}}))
    assert len(found) == (fault is not None)
    assert all(each.startswith(fault) or fault in each for each in found if fault)


def test_workers_of_one_host_are_added_up() -> None:
    (fault,) = doctor._faults(HERE, None, {f"w{n}": OTHER for n in range(3)})
    assert fault.startswith("3 workers on b may hold 12.00 GB and it has 8.00 GB; lower their")


@pytest.mark.parametrize(("ahead", "wanted"), [(0.0, 0), (100.0, 100), (-100.0, -100)])
def test_a_clock_is_compared_within_the_time_that_it_takes_to_ask(
    ahead: float, wanted: float
) -> None:
    def ask() -> float:
        time.sleep(0.01)
        return time.time() + ahead

    assert doctor._skew(ask) == pytest.approx(wanted, abs=0.2)
    assert ahead or doctor._skew(ask) == 0


# -- the store -------------------------------------------------------------------------------------


def test_a_store_that_cannot_be_used_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = doctor.examine(store=tmp_path / "nothing")
    (fault,) = missing["faults"]
    assert fault == "the store here: is not there; make it, or mount it on every host"
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "file").touch()
    (fault,) = doctor.examine(store=tmp_path / "file")["faults"]
    assert fault.startswith("the store here: ")
    with monkeypatch.context() as patch:
        patch.setattr(files, "read_bytes", lambda url: b"other")
        (fault,) = doctor.examine(store=tmp_path)["faults"]
    assert fault == "the store here: gives back other bytes than were written"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_workers_do_not_share_is_told(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "exists", lambda url: ".doctor-" not in url)
    monkeypatch.setattr(files, "remove", lambda url: Path(url).unlink(missing_ok=True))
    (fault,) = doctor.examine(address, store=tmp_path)["faults"]
    assert "is another folder than here; use a file system or bucket that all share" in fault
    assert list(tmp_path.iterdir()) == []


# -- clusters that are not well --------------------------------------------------------------------


def test_no_workers_are_told() -> None:
    with LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster:
        (fault,) = doctor.examine(cluster.scheduler_address)["faults"]
    assert fault == "the cluster has no workers; start some, and see their log"


def fail(error: Exception) -> Callable[..., Any]:
    def failing(dask_worker: Any = None) -> Any:
        raise error

    return failing


def test_processes_without_dasrec_are_told(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = ModuleNotFoundError("No module named 'dasrec'")
    monkeypatch.setattr(doctor, "worker_facts", fail(lacking))
    (fault,) = doctor.examine(address)["faults"]
    assert fault.startswith("inproc://")
    assert "has no dasrec (No module named 'dasrec'); install it there, or use its image" in fault
    monkeypatch.setattr(doctor, "worker_facts", fail(RuntimeError("broken")))
    (fault,) = doctor.examine(address)["faults"]
    assert "does not answer: RuntimeError('broken')" in fault


def test_the_command_has_a_table_and_json(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["doctor", "--store", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "All is well." in result.output
    assert "Versions" in result.output
    result = CliRunner().invoke(main, ["doctor", "--store", str(tmp_path / "no"), "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["faults"] == [
        "the store here: is not there; make it, or mount it on every host"
    ]


def test_the_command_takes_a_cluster_on_either_side(address: str) -> None:
    for arguments in (["doctor", "--cluster", address], ["--cluster", address, "doctor"]):
        result = CliRunner().invoke(main, [*arguments, "--json"])
        assert result.exit_code == 0, result.output
        assert len(json.loads(result.stdout)["workers"]) == 1
    result = CliRunner().invoke(main, ["doctor", "--cluster", "nonsense"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: cluster is 'nonsense'; expected threads")


PRELOAD = """
import importlib.metadata

OLD = {"dasrec": "0.0.1", "xarray": "2001.1.0"}


def version(name, found=importlib.metadata.version):
    return OLD.get(name) or found(name)


importlib.metadata.version = version
"""


@pytest.mark.slow
def test_a_worker_with_other_versions_is_told_and_refused(tmp_path: Path) -> None:
    (tmp_path / "preload.py").write_text(PRELOAD)
    with LocalCluster(n_workers=0, dashboard_address=":0") as cluster:
        address = str(cluster.scheduler_address)
        command = [sys.executable, "-m", "dask", "worker", address, "--no-dashboard"]
        command += ["--nthreads", "1", "--local-directory", str(tmp_path)]
        command += ["--no-nanny", "--preload", str(tmp_path / "preload.py")]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as worker:
            try:
                deadline = time.monotonic() + 120
                while not cluster.scheduler.workers and time.monotonic() < deadline:
                    time.sleep(0.1)
                assert cluster.scheduler.workers
                arguments = ["doctor", "--cluster", address, "--json"]
                result = CliRunner().invoke(main, arguments, catch_exceptions=False)
                refused = pytest.raises(MismatchError, match=r"dasrec is \S+ here and 0.0.1 on")
                with refused, connect(address):
                    raise AssertionError
            finally:
                worker.terminate()
    assert result.exit_code == 1
    faults = json.loads(result.stdout)["faults"]
    assert len(faults) == 2
    assert "dasrec is" in faults[0]
    assert "and 0.0.1 on tcp://" in faults[0]
    assert "xarray is" in faults[1]
    assert all(fault.endswith("; install the same") for fault in faults)


def test_no_cluster_no_diagnosis() -> None:
    with pytest.raises(InputError, match="cluster has kind 'moon'"):
        doctor.examine({"kind": "moon"})
