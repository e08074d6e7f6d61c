"""The shared fixtures do what the tests rely on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import pytest
from distributed import Client

Context = Callable[[], AbstractContextManager[Any]]


def test_the_raising_scheduler_refuses_every_way_to_compute(raising_scheduler: Context) -> None:
    lazy = da.ones(4, chunks=2)
    with raising_scheduler():
        total = lazy.sum()
        for act in (total.compute, total.persist, lambda: dask.compute(total)):
            with pytest.raises(AssertionError, match="should have stayed lazy"):
                act()
    assert total.compute() == 4


@pytest.mark.slow
def test_the_cluster_is_the_default_and_can_be_refused(
    cluster_client: Client, raising_scheduler: Context
) -> None:
    lazy = da.ones(4, chunks=2)
    assert len(cluster_client.scheduler_info()["workers"]) == 2
    assert lazy.sum().compute() == 4
    with raising_scheduler(), pytest.raises(AssertionError, match="should have stayed lazy"):
        lazy.sum().compute()


def test_data_lie_in_a_folder(data_dir: Path) -> None:
    assert any(data_dir.iterdir())
