"""Workers that run out of memory or of disk: what is said, what stays, and that it goes on."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
from distributed import Client

import dasrec
from dasrec import ClusterError, DiskError, blocks
from dasrec.cluster import connect

pytestmark = pytest.mark.slow

COLUMNS = {"user": "user", "item": "item", "value": "value", "timestamp": "when"}
SMALL = {"kind": "local", "workers": 2, "threads": 1, "memory": "600MB"}


def take(number: int, poison: int) -> int:
    """Hold far more memory than a worker has, if this is the poison block."""
    if number == poison:
        held = [np.ones(2**24) for _ in range(64)]
        return int(sum(each.sum() for each in held))
    return number


@pytest.mark.timeout(300)
def test_a_block_that_is_too_large_for_every_worker_is_named() -> None:
    # four workers by default, which takes twice as long to start
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}), connect(SMALL):
        message = r"block 5 of test-poison ended 2 workers.*give workers more memory or fewer"
        with pytest.raises(ClusterError, match=message):
            blocks.run(take, [(number, 5) for number in range(8)], name="test-poison")
        found = blocks.run(take, [(number, -1) for number in range(8)], name="test-well")
    assert found == list(range(8))


def log(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = 20_000
    return pd.DataFrame(
        {
            "user": rng.integers(0, 500, n),
            "item": rng.integers(0, 300, n),
            "value": rng.integers(1, 6, n).astype(float),
            "when": rng.integers(1_500_000_000, 1_600_000_000, n),
        }
    )


def write(place: Path, log: Path) -> dasrec.Interactions:
    events = dasrec.clean(dasrec.read_events(log, **COLUMNS))
    return dasrec.write_interactions(events, place, overwrite=True)


def contents(view: dasrec.Interactions) -> list[Any]:
    matrix = view.to_scipy()
    return [each.tobytes() for each in (matrix.indptr, matrix.indices, matrix.data)]


def limit_files(size: int) -> None:
    """Let this process write no file that is longer, as if its disk were full."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size if size else most, most))


def test_a_full_disk_on_one_worker_leaves_what_was_there(
    tmp_path: Path, cluster_client: Client
) -> None:
    for number in range(2):
        (tmp_path / f"log-{number}").mkdir()
        for part in range(3):
            path = tmp_path / f"log-{number}" / f"{part}.csv"
            log(10 * number + part).to_csv(path, index=False)
    place = tmp_path / "store"
    before = contents(write(place, tmp_path / "log-0"))
    names = {path.name for path in place.iterdir()}
    full = next(iter(cluster_client.scheduler_info()["workers"]))
    cluster_client.run(limit_files, 10_000, workers=[full])
    try:
        message = r"cannot write to \S+: File too large; nothing half-written is left in use"
        with pytest.raises(DiskError, match=message):
            write(place, tmp_path / "log-1")
    finally:
        cluster_client.run(limit_files, 0)
    assert contents(dasrec.open_interactions(place)) == before
    assert {path.name for path in place.iterdir()} == names
    with blocks.alone():
        wanted = contents(write(tmp_path / "wanted", tmp_path / "log-1"))
    assert contents(write(place, tmp_path / "log-1")) == wanted
    assert dasrec.verify(place) == []
