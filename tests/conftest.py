"""What several tests share: data folders, a small cluster, and a scheduler that refuses to work."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

import dask
import pytest
from distributed import Client, LocalCluster
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# what a shell runs in the background ignores Ctrl-C, and so would all that the tests start
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("default", deadline=None, max_examples=20)
# a run that fails must fail again
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that use the cluster into one group, after all others.

    Its client is the default for everything that Dask computes while it lives; run last, it does
    not take over the tests that mean to run without a client.
    """
    on_cluster = [item for item in items if "cluster_client" in getattr(item, "fixturenames", ())]
    for item in on_cluster:
        item.add_marker(pytest.mark.xdist_group("cluster"))
    items.sort(key=lambda item: item in on_cluster)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of public data sets, or skip the test."""
    given = os.environ.get("DASREC_DATA_DIR")
    folder = Path(given) if given else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(
            f"NOT TESTED ON PUBLIC DATA: no folder {folder}; "
            "set DASREC_DATA_DIR to the folder that holds the data sets"
        )
    return folder


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Yield a cluster of two worker processes with one thread each."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        memory_limit="1GiB",
        dashboard_address=":0",
        local_directory=str(tmp_path_factory.mktemp("workers")),
    ) as cluster:
        yield cluster


@pytest.fixture
def cluster_client(two_processes: LocalCluster) -> Iterator[Client]:
    """Yield the active client of that cluster; tests that do not ask for it run in threads."""
    with Client(two_processes) as client:
        yield client


def refuse_to_compute(graph: Any, keys: Any, **options: Any) -> NoReturn:
    """Stand in for a Dask scheduler."""
    message = f"something was computed that should have stayed lazy: {keys!r}"
    raise AssertionError(message)


@pytest.fixture
def raising_scheduler() -> Callable[[], AbstractContextManager[Any]]:
    """Return a context in which every ``compute`` and ``persist`` of Dask fails.

    Use it as ``with raising_scheduler(): ...`` around calls that must stay lazy. Tasks submitted
    to a client directly are not seen.
    """
    return lambda: dask.config.set(scheduler=refuse_to_compute)
