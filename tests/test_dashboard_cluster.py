"""The page on schedulers of their own: with worker processes, preloaded, and without dasrec."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

import dasrec
from dasrec import ImplicitALS, Training
from dasrec.cluster import connect
from dasrec.dashboard import PAGES, show
from tests.browser import make_store

pytestmark = pytest.mark.slow


def look(dask_scheduler: Any) -> list[dict[str, Any]]:
    """Return what the scheduler keeps of its jobs."""
    return [
        {
            "name": job.name,
            "status": job.status,
            "objective": [each["objective"] for each in job.records],
            "memory": job.memory,
            "read": job.read,
            "peak": max((each.memory for each in job.samples), default=0),
            "stages": {name: (run.done, run.blocks) for name, run in job.stages.items()},
        }
        for job in dask_scheduler.plugins["dasrec"].state.jobs.values()
    ]


def test_worker_processes_tell_of_every_iteration_block_and_byte(tmp_path: Path) -> None:
    with connect("processes:2") as client:
        assert client is not None
        data = make_store(tmp_path, n_events=100_000)
        split = dasrec.split_random(data, 0.2, rng=0)
        model = ImplicitALS(factors=8, iterations=6, rng=0)
        # slow enough to be seen: workers tell twice a second what they hold
        training = Training(
            callbacks=[lambda _: time.sleep(0.7)], checkpoint=tmp_path / "model", memory="900MB"
        )
        model.fit(split.train, training=training)
        dasrec.evaluate(model, split)
        jobs = {job["name"]: job for job in client.run_on_scheduler(look)}
    assert {"ingest", "fit implicit-als", "evaluate"} <= jobs.keys()
    assert {job["status"] for job in jobs.values()} == {"done"}
    fit = jobs["fit implicit-als"]
    assert fit["objective"] == model.history_["objective"].values.tolist()
    assert fit["memory"] == 900_000_000
    assert fit["peak"] > 50e6
    assert fit["read"] > 1e6  # factors in files, and blocks
    done, blocks = fit["stages"]["als-user-sweep"]
    assert done == blocks > 1


@contextlib.contextmanager
def scheduler(*options: str) -> Iterator[tuple[str, str]]:
    """Run ``dask scheduler`` and a worker; yield addresses of the scheduler and its dashboard."""
    dask = [sys.executable, "-m", "dask"]
    command = [*dask, "scheduler", "--port", "0", "--dashboard-address", ":0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        said = ""
        try:
            assert process.stderr is not None
            while not (place := re.search(r"dashboard at:\s+(\S+)", said)):
                line = process.stderr.readline()
                assert line, said
                said += line
            found = re.search(r"Scheduler at:\s+(\S+)", said)
            assert found, said
            worker = subprocess.Popen(
                [*dask, "worker", found[1], "--no-dashboard", "--nthreads", "1"],
                stderr=subprocess.DEVNULL,
            )
            try:
                yield found[1], place[1].rpartition("/")[0]
            finally:
                worker.terminate()
                worker.wait()
        finally:
            process.terminate()


def test_a_scheduler_may_preload_the_page() -> None:
    with scheduler("--preload", "dasrec.dashboard") as (address, dashboard), connect(address):
        with urllib.request.urlopen(dashboard + PAGES[0], timeout=60) as answer:
            text = answer.read().decode()
    assert '<div class="dasrec">' in text
    assert text.count('<a href="dasrec">') == 1


def test_a_scheduler_without_dasrec_and_its_worker_go_on(caplog: pytest.LogCaptureFixture) -> None:
    hidden = "import sys; sys.modules['dasrec'] = sys.modules['dasrec.dashboard'] = None"
    with scheduler("--preload", hidden) as (address, _), Client(address) as client:
        assert show(client) is None
        assert client.submit(divmod, 7, 2).result(60) == (3, 1)
    assert "the dashboard gets no page of dasrec" in caplog.text
