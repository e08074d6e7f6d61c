"""A job that dies goes on where it stopped, and ends as if nothing had happened."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster

import dasrec
from dasrec import InputError, files
from dasrec.datasets import simulate_events
from dasrec.journal import Journal, is_free, resuming
from dasrec.upkeep import verify

# -- records ---------------------------------------------------------------------------------------


def double(folder: str, number: int) -> int:
    """Leave a mark in the folder each time, so that runs can be counted."""
    Path(folder, f"ran-{number}-{files.token()}").touch()
    if Path(folder, f"refuse-{number}").exists():
        raise ZeroDivisionError
    return 2 * number


def times_run(folder: Path, number: int) -> int:
    return len(list(folder.glob(f"ran-{number}-*")))


def test_what_is_done_is_not_done_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(str(tmp_path / "journal"))
    calls = [(str(tmp_path), number) for number in range(4)]
    (tmp_path / "refuse-2").touch()
    with pytest.raises(ZeroDivisionError):
        journal.run(double, calls, name="double")
    (tmp_path / "refuse-2").unlink()
    with caplog.at_level(logging.INFO, "dasrec"):
        assert journal.run(double, calls, name="double") == [0, 2, 4, 6]
    assert "tasks of double were done already" in caplog.text
    assert times_run(tmp_path, 2) == 2
    assert times_run(tmp_path, 0) == 1
    # another kind of task has records of its own
    assert journal.run(double, calls, name="again") == [0, 2, 4, 6]
    assert times_run(tmp_path, 0) == 2


def test_what_a_task_has_used_up_is_removed_once_it_is_done(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "journal"))
    inputs = [tmp_path / f"input-{number}" for number in range(3)]
    for folder in inputs:
        folder.mkdir()
    (tmp_path / "refuse-1").touch()
    calls = [(str(tmp_path), number) for number in range(3)]
    with pytest.raises(ZeroDivisionError):
        journal.run(double, calls, name="double", spent=[(str(each),) for each in inputs])
    assert inputs[1].exists()
    (tmp_path / "refuse-1").unlink()
    journal.run(double, calls, name="double", spent=[(str(each),) for each in inputs])
    assert not any(folder.exists() for folder in inputs)


def test_shared_values_are_read_once_a_process(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "journal"))
    shared = journal.share(np.arange(5), "numbers")
    assert shared.load().tolist() == [0, 1, 2, 3, 4]
    assert shared.load() is shared.load()


# -- who has it ------------------------------------------------------------------------------------


def left(url: Path) -> list[str]:
    return sorted(path.name for path in url.glob("scratch-*"))


def test_an_interrupted_job_finds_its_journal_again(tmp_path: Path) -> None:
    def begin() -> None:
        with resuming(str(tmp_path), "one") as journal:
            assert journal.resumable
            Path(journal.path("mark")).touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin()
    assert left(tmp_path) == ["scratch-one"]
    with resuming(str(tmp_path), "one") as journal:
        assert Path(journal.path("mark")).exists()
    assert left(tmp_path) == []


def test_a_refused_job_leaves_nothing(tmp_path: Path) -> None:
    def begin() -> None:
        with resuming(str(tmp_path), "one"):
            message = "no"
            raise InputError(message)

    with pytest.raises(InputError):
        begin()
    assert left(tmp_path) == []


def test_two_runs_of_one_job_do_not_share(tmp_path: Path) -> None:
    with resuming(str(tmp_path), "one") as first, resuming(str(tmp_path), "one") as second:
        assert first.folder != second.folder
        assert not second.resumable
        assert not is_free(first.folder)
        with resuming(str(tmp_path), "other"), resuming(str(tmp_path), None):
            # live runs are left alone
            assert Path(first.folder).exists()
            assert Path(second.folder).exists()
            assert len(left(tmp_path)) == 4
    assert list(tmp_path.iterdir()) == []


def test_what_dead_runs_of_other_jobs_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "scratch-dead").mkdir()
    assert is_free(str(tmp_path / "scratch-dead"))
    with resuming(str(tmp_path), "one"):
        assert left(tmp_path) == ["scratch-one"]


def test_without_a_key_or_locks_a_job_begins_anew(tmp_path: Path) -> None:
    with resuming(str(tmp_path), None) as journal:
        assert not journal.resumable
    url = f"memory://{files.token()}"
    with resuming(url, "one") as journal:
        assert not journal.resumable
        assert not journal.folder.endswith("scratch-one")
    assert not files.exists(journal.folder)


def test_where_files_cannot_be_locked_a_job_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError

    monkeypatch.setattr("dasrec.journal.fcntl.flock", refuse)
    for key in ("one", None):
        with resuming(str(tmp_path), key) as journal:
            assert not journal.resumable
            assert Path(journal.folder).exists()
    assert not list(tmp_path.glob("new-*"))


# -- ingest ----------------------------------------------------------------------------------------

COLUMNS = {"user": "user", "item": "item", "value": "value", "timestamp": "timestamp"}
N_PARTS = 6
MOMENTS = 10
N_RECORDS = 23  # but for that of the last task, after which there is hardly time to kill

SCRIPT = """
    import sys
    import dasrec

    events = dasrec.read_events(sys.argv[1], **{columns})
    events = dasrec.clean(events, dedupe="sum", min_user=2)
    dasrec.write_interactions(events, sys.argv[2])
"""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    whole = simulate_events(60_000, n_users=3000, n_items=400, rng=3)
    for number, part in enumerate(np.array_split(np.arange(len(whole)), N_PARTS)):
        whole.iloc[part].to_csv(folder / f"{number}.csv", index=False)
    return folder


def ingest(log: Path, url: Path) -> dasrec.Interactions:
    events = dasrec.clean(dasrec.read_events(str(log), **COLUMNS), dedupe="sum", min_user=2)
    return dasrec.write_interactions(events, url)


def content(url: Path) -> dict[str, bytes]:
    """Return the files of the one group that a store has, and what its version says of it."""
    (group,) = url.glob("state-*")
    found = {
        str(path.relative_to(group)): path.read_bytes()
        for path in sorted(group.rglob("*"))
        if path.is_file()
    }
    facts = dasrec.store.read_pointer(str(url), "interactions").facts
    return {**found, "facts": repr(facts).encode()}


@pytest.fixture(scope="module")
def wanted(log: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return content(Path(ingest(log, tmp_path_factory.mktemp("whole") / "store").url))


def n_records(url: Path) -> int:
    return len(list(url.glob("scratch-*/done/*")))


def wait_for_records(url: Path, n: int, alive: Any) -> None:
    deadline = time.monotonic() + 60
    while n_records(url) < n and alive() and time.monotonic() < deadline:
        time.sleep(0.001)


@pytest.mark.slow
def test_a_killed_ingest_goes_on_at_ten_random_moments(
    log: Path, wanted: dict[str, bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = textwrap.dedent(SCRIPT).replace("{columns}", repr(COLUMNS))
    moments = np.random.default_rng(5).choice(np.arange(1, N_RECORDS), MOMENTS, replace=False)
    resumed = 0
    for number, moment in enumerate(sorted(moments.tolist())):
        url = tmp_path / str(number)
        with subprocess.Popen(
            [sys.executable, "-c", script, str(log), str(url)], start_new_session=True
        ) as process:
            wait_for_records(url, moment, lambda process=process: process.poll() is None)
            with suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(process.pid, signal.SIGKILL)
        caplog.clear()
        done = n_records(url)
        with caplog.at_level(logging.INFO, "dasrec"):
            ended = process.returncode == 0
            store = dasrec.open_interactions(url) if ended else ingest(log, url)
        if done:
            resumed += "were done already" in caplog.text
        assert content(url) == wanted
        assert sorted(path.name[:5] for path in url.iterdir()) == ["state", "versi", "zarr."]
        assert verify(store.url) == []
    assert resumed >= MOMENTS - 3  # some may have ended before they could be killed


def test_a_log_that_has_changed_is_read_anew(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "log"
    copy.mkdir()
    for path in log.glob("*.csv"):
        (copy / path.name).write_bytes(path.read_bytes())

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dasrec.cells, "_reduce", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ingest(copy, tmp_path / "store")
    first = pd.read_csv(copy / "0.csv")
    first["value"] = 6 - first["value"]  # as long as before
    before = (copy / "0.csv").stat()
    first.to_csv(copy / "0.csv", index=False)
    assert (copy / "0.csv").stat().st_size == before.st_size
    assert ingest(copy, tmp_path / "store").url
    assert content(tmp_path / "store") == content(Path(ingest(copy, tmp_path / "fresh").url))


@pytest.mark.slow
def test_ingest_survives_the_death_of_a_worker_at_ten_random_moments(
    log: Path, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    moments = np.random.default_rng(6).choice(np.arange(1, N_RECORDS), MOMENTS, replace=False)
    for number, moment in enumerate(sorted(moments.tolist())):
        url = tmp_path / str(number)
        # a cluster of its own for each: nannies that lose many workers may give up on one
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
            Client(cluster) as client,
        ):
            pid = list(client.run(os.getpid).values())[number % 2]

            def kill(url: Path = url, moment: int = moment, pid: int = pid) -> None:
                wait_for_records(url, moment, lambda: True)
                os.kill(pid, signal.SIGKILL)

            killer = threading.Thread(target=kill)
            killer.start()
            store = ingest(log, url)
            killer.join()
        assert content(url) == wanted
        assert verify(store.url) == []
