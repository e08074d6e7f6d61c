"""Tasks give their results in order, here and on a cluster; what fails stops the rest."""

from __future__ import annotations

import itertools
import operator
import os
import pickle
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from threadpoolctl import threadpool_info, threadpool_limits

from dasrec import ClusterError, DiskError, InputError, StoreError, blocks, files
from dasrec.buckets import Pieces, read_bucket, write_buckets
from dasrec.cluster import connect
from tests import references
from tests.strategies import cuts, sparse_matrices

# what runs on the cluster stands within tests: such functions travel by value


def slow_first(number: int, n: int) -> int:
    """Return at once, but for the first numbers."""
    time.sleep(0.02 * max(0, 4 - number))
    return n * number


def press_ctrl_c() -> None:
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


# -- here ------------------------------------------------------------------------------------------


def test_results_come_in_order_of_arguments() -> None:
    found = blocks.run(slow_first, [(number, 10) for number in range(20)], name="test")
    assert found == list(range(0, 200, 10))


def test_no_arguments_give_no_results() -> None:
    assert blocks.run(slow_first, [], name="test") == []


def test_collections_among_the_arguments_are_computed() -> None:
    lazy = da.arange(6, chunks=2).sum()
    assert blocks.run(lambda total, more: total + more, [(lazy, 1), (lazy, 2)], name="test") == [
        16,
        17,
    ]


def test_tasks_run_side_by_side_in_threads() -> None:
    barrier = threading.Barrier(2, timeout=10)
    found = blocks.run(lambda _: barrier.wait(), [(0,), (1,)], name="test")
    assert sorted(found) == [0, 1]


def test_the_configured_scheduler_is_used() -> None:
    with dask.config.set(scheduler="synchronous"):
        found = blocks.run(lambda _: threading.get_ident(), [(0,), (1,)], name="test")
    assert set(found) == {threading.get_ident()}


def test_tests_can_see_that_something_is_computed(
    raising_scheduler: Callable[[], AbstractContextManager[Any]],
) -> None:
    with raising_scheduler(), pytest.raises(AssertionError, match="should have stayed lazy"):
        blocks.run(slow_first, [(0, 0)], name="test")


def test_blas_has_one_thread_within_tasks() -> None:
    def threads(_: int) -> list[int]:
        return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]

    found = blocks.run(threads, [(0,), (1,)], name="test")
    assert found[0] == found[1] == [1] * len(found[0])
    assert found[0]  # NumPy brings one


def test_quick_runs_show_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    blocks.run(slow_first, [(0, 0)], name="test")
    assert list(blocks.track(3, name="test")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("error", [InputError("a"), DiskError(28, "full"), KeyError("x")])
def test_an_error_is_the_one_that_the_task_raised(error: Exception) -> None:
    def fail(number: int) -> int:
        if number == 3:
            raise error
        return number

    with pytest.raises(type(error)) as caught:
        blocks.run(fail, [(number,) for number in range(6)], name="test")
    assert caught.value.args == error.args


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_error_stops_the_rest_and_nothing_goes_on_behind(error: type[BaseException]) -> None:
    began, ended = [], []

    def work(number: int) -> None:
        began.append(number)
        if len(began) == 3:
            raise error
        time.sleep(0.05)
        ended.append(number)

    with pytest.raises(error):
        blocks.run(work, [(number,) for number in range(200)], name="test")
    seen = len(began), len(ended)
    assert len(began) < 100
    assert len(ended) == len(began) - 1  # what had begun was waited for
    time.sleep(0.15)
    assert (len(began), len(ended)) == seen


def test_ctrl_c_stops_the_rest() -> None:
    began = []

    def work(number: int) -> None:
        began.append(number)
        if len(began) == 3:
            press_ctrl_c()
        time.sleep(0.05)

    with pytest.raises(KeyboardInterrupt):
        blocks.run(work, [(number,) for number in range(200)], name="test")
    assert len(began) < 100


def test_a_value_is_shared_as_it_is() -> None:
    value = (np.arange(3), "x")
    assert blocks.active_client() is None
    assert blocks.share(value) is value


# -- pieces ----------------------------------------------------------------------------------------


@given(st.data(), st.integers(1, 5))
def test_buckets_are_gathered_in_order_of_arrival(data: st.DataObject, n_buckets: int) -> None:
    buckets = data.draw(st.lists(st.integers(0, n_buckets - 1), max_size=40))
    edges = data.draw(cuts(len(buckets)))
    types = {"value": np.float32, "place": np.int64}
    with tempfile.TemporaryDirectory() as folder:
        pieces: list[Pieces] = []
        for number, (start, stop) in enumerate(itertools.pairwise(edges)):
            place = np.arange(start, stop)
            columns = {"value": place.astype(np.float32) / 2, "place": place}
            keys = np.array(buckets[start:stop], np.int32)
            pieces.append(
                write_buckets(files.join(folder, str(number)), keys, n_buckets, columns.items())
            )
        assert len(pieces) > 1
        for bucket in range(n_buckets):
            found = read_bucket(pieces, bucket)
            wanted = [place for place, each in enumerate(buckets) if each == bucket]
            assert found["place"].tolist() == wanted
            assert found["value"].tolist() == [place / 2 for place in wanted]
            assert {name: each.dtype for name, each in found.items()} == types


# -- lazy arrays -----------------------------------------------------------------------------------


@given(sparse_matrices(least=2), st.data())
def test_blocks_are_stacked_into_a_lazy_array(
    matrix: sparse.csr_array, data: st.DataObject
) -> None:
    edges = sorted({0, matrix.shape[0], *data.draw(cuts(matrix.shape[0]))})
    rows = list(itertools.pairwise(edges))
    lazy = blocks.stack(
        lambda a, b: matrix[a:b], rows, heights=np.diff(edges), width=matrix.shape[1], name="x"
    )
    assert lazy.numblocks == (len(rows), 1)
    assert lazy.shape == matrix.shape
    assert lazy.dtype == np.float32
    for number, (start, stop) in enumerate(rows):
        block = lazy.blocks[number].compute()
        assert isinstance(block, sparse.csr_array)
        assert references.rows_as_sets(block) == references.rows_as_sets(matrix[start:stop])
    assert (lazy.compute() != matrix).nnz == 0


def test_equal_arguments_give_equal_names() -> None:
    def name(*arguments: tuple[int, int]) -> str:
        lazy = blocks.stack(slow_first, arguments, heights=np.array([1]), width=1, name="rows")
        return str(lazy.name)

    assert name((0, 1)) == name((0, 1)) != name((0, 2))
    assert name((0, 1)).startswith("rows-")


# -- on a cluster ----------------------------------------------------------------------------------


def test_a_cluster_gives_results_in_order(cluster_client: Any) -> None:
    def process(number: int) -> tuple[int, int]:
        time.sleep(0.02 * max(0, 4 - number))
        return number, os.getpid()

    assert blocks.active_client() is cluster_client
    found = blocks.run(process, [(number,) for number in range(20)], name="test-cluster")
    assert [number for number, _ in found] == list(range(20))
    processes = {pid for _, pid in found}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_a_shared_value_is_copied_once_to_every_worker(cluster_client: Any) -> None:
    for value in (np.arange(1000), ("a", np.arange(10)), {"a": 1}):
        shared = blocks.share(value)
        found = blocks.run(
            lambda number, each: (number, pickle.dumps(each)),
            [(number, shared) for number in range(4)],
            name="test-shared",
        )
        assert [number for number, _ in found] == [0, 1, 2, 3]
        assert {content for _, content in found} == {pickle.dumps(value)}
        assert len(cluster_client.who_has([shared.future])[shared.future.key]) <= 2


def test_what_died_with_all_that_had_it_is_shared_again(caplog: pytest.LogCaptureFixture) -> None:
    with connect("processes:2") as client:
        assert client is not None
        while len(client.cluster.scheduler_info["workers"]) < 2:
            time.sleep(0.01)  # else the cluster would stumble over workers of whom it never knew
        shared = blocks.share(np.arange(1000))
        before = client.run(os.getpid)
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        while set(client.run(os.getpid, on_error="ignore").values()) & set(before.values()):
            time.sleep(0.01)
        client.wait_for_workers(2)
        found = blocks.run(
            lambda values, n: int(values.sum()) + n,
            [(shared, n) for n in range(4)],
            name="test-lost",
        )
    assert found == [499500 + n for n in range(4)]
    assert "test-lost: workers died with what all tasks need; it is shared again" in caplog.text


@pytest.mark.parametrize("status", ["running", "closed"])
def test_a_scheduler_that_is_lost_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: str
) -> None:
    client, outcomes = SimpleNamespace(status="connecting"), ["scheduler-connection-lost", ""]
    timer = threading.Timer(0.1, lambda: setattr(client, "status", status))

    def run_on(*_: Any) -> list[int]:
        if reason := outcomes.pop(0):
            timer.start()
            raise CancelledError(reason)
        return [1]

    monkeypatch.setattr(blocks, "_PAUSE", 0.01)
    monkeypatch.setattr(blocks, "active_client", lambda: client)
    monkeypatch.setattr(blocks, "_run_on", run_on)
    monkeypatch.setattr(blocks, "tell", lambda *_, **__: None)
    if status == "closed":
        with pytest.raises(ClusterError, match="the scheduler was lost, and all that was under"):
            blocks.run(pow, [(1, 1)], name="test-lost")
    else:
        assert blocks.run(pow, [(1, 1)], name="test-lost") == [1]
        assert "test-lost: the scheduler was lost and is back; all tasks are re" in caplog.text
    timer.join()


class Remote:
    """Stands for a client, of which the address of its scheduler is asked for once."""

    def __init__(self, address: str) -> None:
        self.addresses = [address]

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        assert n_workers == 1
        return {"address": self.addresses.pop()}


@pytest.mark.parametrize(
    ("address", "near"),
    [
        ("tcp://127.0.0.1:8786", True),
        ("tls://127.0.0.1:8786", True),
        ("tcp://[::1]:8786", True),
        ("inproc://127.0.0.1/12/1", False),
        ("tcp://10.0.0.7:8786", False),
        ("tcp://[fe80::1]:8786", False),
        ("ucx://12.127.0.1:8786", False),
    ],
)
def test_workers_are_near_where_the_scheduler_listens_to_nobody_else(
    monkeypatch: pytest.MonkeyPatch, address: str, near: bool
) -> None:
    client = Remote(address)
    monkeypatch.setattr(blocks, "active_client", lambda: client)
    assert [blocks.are_near(), blocks.are_near()] == [near, near]


def test_a_cluster_of_this_host_is_near(cluster_client: Client) -> None:
    assert blocks.active_client() is cluster_client
    assert blocks.are_near()
    with blocks.alone():
        assert blocks.are_near()


def test_what_somebody_else_has_cancelled_is_not_done_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    who = "somebody"

    def run_on(*_: Any) -> list[int]:
        raise CancelledError(who)

    monkeypatch.setattr(blocks, "active_client", lambda: SimpleNamespace(status="running"))
    monkeypatch.setattr(blocks, "_run_on", run_on)
    monkeypatch.setattr(blocks, "tell", lambda *_, **__: None)
    with pytest.raises(CancelledError, match="somebody"):
        blocks.run(pow, [(1, 1)], name="test-cancelled")


@pytest.mark.parametrize(
    "error", [InputError("message"), StoreError("message"), DiskError("message")]
)
def test_errors_come_back_from_a_cluster_as_they_are(cluster_client: Any, error: Exception) -> None:
    def fail(number: int) -> int:
        if number == 3:
            raise error
        return number

    with pytest.raises(type(error), match=r"^message$"):
        blocks.run(fail, [(number,) for number in range(6)], name="test-error")


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert true()


@pytest.mark.parametrize("how", ["error", "ctrl-c"])
def test_what_fails_on_a_cluster_stops_the_rest_and_nothing_goes_on_behind(
    cluster_client: Any, tmp_path: Path, how: str
) -> None:
    shared = blocks.share("a dependency, so that all tasks are sent to the workers at once")

    def work(number: int, folder: str, how: str, _: str) -> None:
        Path(folder, f"began-{number}").touch()
        if how == "error" and len(list(Path(folder).iterdir())) > 3:
            Path(folder, f"ended-{number}").touch()
            raise ZeroDivisionError
        time.sleep(0.5)
        Path(folder, f"ended-{number}").touch()

    if how == "ctrl-c":
        timer = threading.Timer(1, press_ctrl_c)
        timer.start()
    with pytest.raises(ZeroDivisionError if how == "error" else KeyboardInterrupt):
        blocks.run(work, [(n, str(tmp_path), how, shared) for n in range(40)], name="test-stop")
    left = sorted(path.name for path in tmp_path.iterdir())
    began = sum(name.startswith("began") for name in left)
    ended = sum(name.startswith("ended") for name in left)
    assert 0 < began < 20
    assert ended == began  # what had begun was waited for
    time.sleep(0.7)
    assert sorted(path.name for path in tmp_path.iterdir()) == left
    wait_until(lambda: not any(cluster_client.processing().values()))
    # and the cluster is as good as new
    assert blocks.run(lambda n: n, [(1,), (2,)], name="test-again") == [1, 2]


# -- alone -----------------------------------------------------------------------------------------


def test_alone_tasks_run_one_after_the_other_in_the_same_thread(
    raising_scheduler: Callable[[], AbstractContextManager[Any]],
) -> None:
    """Without Dask, and for this thread only."""
    with raising_scheduler(), blocks.alone():
        found = blocks.run(lambda n: (n, threading.get_ident()), [(0,), (1,)], name="test")
        assert blocks.n_threads() == 1
        with blocks.alone():
            assert list(blocks.track(2, name="test")) == [0, 1]
        assert blocks.n_threads() == 1
        with ThreadPoolExecutor(1) as pool:
            others = pool.submit(blocks.n_threads).result()
    assert found == [(0, threading.get_ident()), (1, threading.get_ident())]
    assert blocks.n_threads() == others == blocks.CPU_COUNT


def test_alone_ends_with_an_error_too() -> None:
    with pytest.raises(ZeroDivisionError), blocks.alone():
        blocks.run(lambda: 1 // 0, [()], name="test")
    assert blocks.n_threads() == blocks.CPU_COUNT


def blas_threads() -> set[int]:
    return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}


def test_blas_is_limited_once_until_the_outermost_ends() -> None:
    with (
        threadpool_limits(2, "blas"),
        mock.patch.object(blocks, "threadpool_limits", wraps=threadpool_limits) as limits,
    ):
        assert blas_threads() == {2}
        with blocks.ONE_BLAS_THREAD:
            with blocks.alone(), blocks.ONE_BLAS_THREAD:
                assert blas_threads() == {1}
            blocks.run(slow_first, [(5, 0)], name="test")
            assert blas_threads() == {1}
        assert limits.call_count == 1
        assert blas_threads() == {2}


@pytest.mark.slow
def test_a_task_of_a_cluster_may_have_block_tasks_of_its_own(cluster_client: Client) -> None:
    """It does not wait for a worker, though all of them are taken."""

    def outer(n: int) -> list[int]:
        with blocks.alone():
            assert blocks.active_client() is None
            shared = blocks.share(n)
            return blocks.run(lambda m: shared * m, [(1,), (2,)], name="inner")

    with cluster_client.as_current():
        found = blocks.run(outer, [(n,) for n in range(6)], name="outer")
    assert found == [[n, 2 * n] for n in range(6)]


# -- tasks that wait for others --------------------------------------------------------------------


def sums(**options: Any) -> list[Any]:
    """Run Fibonacci's: each task waits for the two before it."""
    later = [(blocks.Outcome(i), blocks.Outcome(i + 1)) for i in range(6)]
    return blocks.run(operator.add, [(1, 0), (0, 1), *later], name="sum", **options)


def test_a_task_takes_what_others_return() -> None:
    assert sums() == [1, 1, 2, 3, 5, 8, 13, 21]
    assert sums(wanted=2) == [13, 21]


def test_alone_a_task_takes_what_those_before_have_returned() -> None:
    with blocks.alone():
        assert sums() == [1, 1, 2, 3, 5, 8, 13, 21]
        assert sums(wanted=2) == [13, 21]


@pytest.mark.slow
def test_a_task_takes_what_others_return_on_a_cluster(cluster_client: Any) -> None:
    assert sums(wanted=3) == [8, 13, 21]
    shared = (blocks.share(2), blocks.share(3))
    assert blocks.run(operator.add, [shared, (1, blocks.Outcome(0))], name="sum", wanted=1) == [6]


def test_a_scheduler_that_goes_while_it_answers_is_lost() -> None:
    class CommClosedError(OSError):
        """As that of distributed is called."""

    def gather(_: Any) -> Any:
        raise CommClosedError

    client = SimpleNamespace(compute=list, gather=gather, status="running")
    with pytest.raises(CancelledError) as caught:
        blocks._run_on(client, [], "sweep", None)
    assert blocks.lost_scheduler(caught.value)
