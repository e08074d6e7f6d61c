"""One run at a time in a place: locks of the system, leases on object stores."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from dasrec import files
from dasrec.errors import BusyError, DiskError
from dasrec.workflow import lock
from dasrec.workflow.lock import held

HOLD = "import sys, time; from dasrec.workflow.lock import held\n" + (
    "with held(sys.argv[1], name='other'):\n    print('held', flush=True)\n    time.sleep(60)"
)


@pytest.fixture(params=["disk", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return an empty place on a disk, and one that is no disk."""
    if request.param == "disk":
        yield str(tmp_path / "place")
        return
    yield f"memory://{tmp_path.name}/place"
    fsspec.filesystem("memory").store.clear()


def test_a_second_run_is_refused_and_a_later_one_not(place: str) -> None:
    for _ in range(2):
        with held(place, name="one") as check:
            check()
            with (
                pytest.raises(BusyError, match=r"the run one \(process \d+ on .*\) is at work in"),
                held(place, name="two"),
            ):
                pass
    assert len(files.names(place)) == 1


def test_a_second_run_waits_if_it_is_told_to(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_PAUSE", 0.01)
    order, begun = [], threading.Event()

    def first() -> None:
        with held(place, name="one"):
            begun.set()
            time.sleep(0.2)
            order.append("one")

    thread = threading.Thread(target=first)
    thread.start()
    begun.wait()
    with held(place, name="two", wait=True):
        order.append("two")
    thread.join()
    assert order == ["one", "two"]


def test_a_lock_goes_with_its_holder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=rf"the run other \(process {process.pid} on"):
            held(str(tmp_path), name="two").__enter__()
        process.kill()
        process.wait()
        with held(str(tmp_path), name="two"):
            pass


# -- leases ----------------------------------------------------------------------------------------


@pytest.fixture
def far(tmp_path: Path) -> Iterator[str]:
    yield f"memory://{tmp_path.name}/far"
    fsspec.filesystem("memory").store.clear()


def test_a_lease_of_a_dead_holder_ends(far: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = {"name": "dead", "host": "h", "pid": 1, "until": time.time() + 0.3}
    files.create(files.join(far, "lease-00000001.json"), json.dumps(dead))
    with pytest.raises(BusyError, match="the run dead"):
        held(far, name="two").__enter__()
    monkeypatch.setattr(lock, "_PAUSE", 0.05)
    with held(far, name="two", wait=True):
        assert files.names(far) == {"lease-00000002.json"}


def test_a_lease_is_renewed(far: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEASE_SECONDS", 0.3)
    with held(far, name="one") as check:
        time.sleep(0.9)
        check()
        with pytest.raises(BusyError):
            held(far, name="two").__enter__()


def test_who_has_lost_a_lease_does_not_go_on(far: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEASE_SECONDS", 0.3)
    with held(far, name="one") as check:
        files.create(files.join(far, "lease-00000002.json"), "{}")
        deadline = time.monotonic() + 10
        while check.__self__._lost is None and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(BusyError, match="another run is at work"):
            check()
    assert files.names(far) == {"lease-00000001.json", "lease-00000002.json"}


def test_a_lease_that_cannot_be_renewed_is_over(far: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, content: bytes) -> None:
        msg = "the server is gone"
        raise DiskError(msg)

    monkeypatch.setattr(lock, "LEASE_SECONDS", 0.3)
    with held(far, name="one") as check:
        monkeypatch.setattr(files, "replace", refuse)
        time.sleep(0.4)
        with pytest.raises(BusyError, match="could not be renewed in time"):
            check()


def test_of_many_that_see_a_lease_end_one_takes_over(far: str) -> None:
    dead = {"name": "dead", "host": "h", "pid": 1, "until": 0.0}
    files.create(files.join(far, "lease-00000007.json"), json.dumps(dead))
    ready, won, lost = threading.Barrier(8), list[int](), list[BusyError]()

    def race() -> None:
        ready.wait()
        try:
            with held(far, name="one"):
                won.append(1)
                time.sleep(0.5)
        except BusyError as error:
            lost.append(error)

    threads = [threading.Thread(target=race) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (len(won), len(lost)) == (1, 7)
