"""Random dirty logs, cut at random, against a twin that cleans row by row."""

from __future__ import annotations

import errno
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dasrec
from dasrec import DiskError, InputError, Interactions, memory, store, vocabulary
from dasrec.datasets import simulate_events
from tests import references
from tests.references import Event
from tests.strategies import cuts, dirty_logs

COLUMNS = {"user": "user", "item": "item", "value": "value", "timestamp": "timestamp"}
POLICIES = ("last", "first", "sum", "max", "mean")


def frame_of(log: list[Event]) -> pd.DataFrame:
    rows = [(row.user or None, row.item or None, row.value, row.timestamp) for row in log]
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype="str")


def cut_frame(frame: pd.DataFrame, at: list[int]) -> dd.DataFrame:
    """Return the frame in parts that begin where ``at`` says; parts may be empty."""
    parts = [frame.iloc[start:stop] for start, stop in itertools.pairwise(at)]
    lazy = dd.from_map(lambda part: part, parts, meta=frame.iloc[:0])
    assert lazy.npartitions == len(at) - 1
    return lazy


def cells_of(found: Interactions) -> dict[tuple[Any, Any], references.Cell]:
    block = found.read_rows("user_items", 0, found.n_users, timed=True)
    rows = np.repeat(np.arange(found.n_users), np.diff(block.indptr))
    pairs = zip(found.user_ids.ids[rows], found.item_ids.ids[block.indices], strict=True)
    assert block.timestamps is not None
    values = zip(block.data.tolist(), block.timestamps.tolist(), strict=True)
    return dict(zip(pairs, (references.Cell(*each) for each in values), strict=True))


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Event], list[int], bool]:
    whole_ids = draw(st.booleans())
    log = draw(dirty_logs(whole_ids=whole_ids))
    return log, draw(cuts(len(log))), whole_ids


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    case=cases(),
    dedupe=st.sampled_from(POLICIES),
    least=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    cells=st.sampled_from([2, 2**14]),
    ids=st.sampled_from([2, 2**16]),
)
def test_a_store_is_what_the_twin_makes(
    case: tuple[list[Event], list[int], bool],
    dedupe: str,
    least: tuple[int, int],
    cells: int,
    ids: int,
) -> None:
    log, at, whole_ids = case
    options = {"dedupe": dedupe, "min_user": least[0], "min_item": least[1]}
    expected = references.ingest(log, whole_ids=whole_ids, **options)
    kind = "int64" if whole_ids else "string"
    events = dasrec.read_events(cut_frame(frame_of(log), at), **COLUMNS, ids=kind)
    events = dasrec.clean(events, bad_rows="drop", **options)
    with (
        tempfile.TemporaryDirectory() as folder,
        # blocks of two cells and ranges of two ids, so that every seam is crossed
        mock.patch.object(memory, "LEAST_BLOCK_CELLS", cells),
        mock.patch.object(vocabulary, "ID_ROWS", ids),
        mock.patch.object(vocabulary, "MERGE_ROWS", 2 * ids),
        mock.patch.object(store, "SHARD_CELLS", 8),
        mock.patch.object(store, "CHUNK_CELLS", 4),
    ):
        if len(expected.user_ids) < 2 or len(expected.item_ids) < 2:
            with pytest.raises(InputError):
                dasrec.write_interactions(events, f"{folder}/store")
            assert not Path(folder, "store").exists()
            return
        found = dasrec.write_interactions(events, f"{folder}/store")
        assert found.user_ids.ids.tolist() == expected.user_ids
        assert found.item_ids.ids.tolist() == expected.item_ids
        assert cells_of(found) == expected.cells
        turned = found.read_rows("item_users", 0, found.n_items).to_scipy()
        assert (turned.T != found.to_scipy()).nnz == 0
        audit = found.audit
        steps = list(zip(audit["rows_in"].values, audit["rows_out"].values, strict=True))
        assert [step for step in steps if step[0] != step[1]] == [
            step for step in expected.audit if step[0] != step[1]
        ]
        assert dasrec.verify(f"{folder}/store") == []
        assert not list(Path(folder, "store").glob("scratch-*"))


@pytest.fixture
def log() -> pd.DataFrame:
    return simulate_events(2_000, n_users=80, n_items=40, rng=3)


def test_duplicates_can_be_refused(tmp_path: Path, log: pd.DataFrame) -> None:
    events = dasrec.clean(dasrec.read_events(log, **COLUMNS), dedupe="error")
    with pytest.raises(InputError, match="repeat a user and an item"):
        dasrec.write_interactions(events, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


PLACES = [
    "dasrec.files.write_column",
    "dasrec.store.write_cells",
    "dasrec.store.Draft.write_ids",
    "dasrec.files.create",
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, log: pd.DataFrame, place: str, there: bool
) -> None:
    target = tmp_path / "store"
    events = dasrec.read_events(log, **COLUMNS)
    if there:
        dasrec.write_interactions(events, target)
    before = contents(tmp_path)
    full = OSError(errno.ENOSPC, "No space left on device")

    def failing(*_: Any, **__: Any) -> Iterator[None]:
        raise full

    with mock.patch(place, failing), pytest.raises(OSError, match="No space left") as caught:
        dasrec.write_interactions(events, target, overwrite=there)
    assert isinstance(caught.value, DiskError) or place.endswith(("write_cells", "write_ids"))
    assert contents(tmp_path) == before
    if there:
        assert dasrec.verify(target) == []


@pytest.mark.parametrize(
    "task", ["scan._scan", "cells._encode", "cells._reduce", "cells._write_shard"]
)
def test_ctrl_c_in_a_task_leaves_what_was_there(
    tmp_path: Path, log: pd.DataFrame, task: str
) -> None:
    target = tmp_path / "store"
    events = dasrec.read_events(log, **COLUMNS)
    dasrec.write_interactions(events, target)
    before = contents(tmp_path)
    with (
        mock.patch(f"dasrec.{task}", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        dasrec.write_interactions(events, target, overwrite=True)
    assert contents(tmp_path) == before


def test_a_cluster_of_processes_writes_the_same_store(
    tmp_path: Path, log: pd.DataFrame, cluster_client: Any
) -> None:
    events = dasrec.read_events(dd.from_pandas(log, npartitions=4), **COLUMNS)
    with mock.patch.object(memory, "LEAST_BLOCK_CELLS", 200):
        there = dasrec.write_interactions(events, tmp_path / "there")
        with dask.config.set(scheduler="threads"):
            here = dasrec.write_interactions(events, tmp_path / "here")
    assert len(here.cuts("user_items")) > 4
    assert (here.user_hash, here.item_hash) == (there.user_hash, there.item_hash)
    assert cells_of(here) == cells_of(there)
