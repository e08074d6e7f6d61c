"""A store holds what a plain loop over the log says, however it is cut; failures leave nothing.

The twin is in references.py. What one process writes is the same, bit by bit, as what any other
partitioning writes; an error, a full disk, Ctrl-C and a kill leave the state before, or none.
"""

from __future__ import annotations

import csv
import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from zarr.storage import LocalStore

from dasrec import (
    DiskError,
    InputError,
    Interactions,
    StoreError,
    blocks,
    cells,
    clean,
    files,
    interactions_from_scipy,
    memory,
    numbering,
    open_interactions,
    read_events,
    scan,
    shards,
    store,
    verify,
    write_interactions,
)
from dasrec.events import Events
from tests import references
from tests.references import Event, Ingested
from tests.strategies import cuts, dirty_logs

POLICIES = ["last", "first", "sum", "max", "mean"]
COLUMNS = {"user": "who", "item": "what", "value": "stars", "timestamp": "when"}


@contextmanager
def small_blocks(cells_in_block: int = 3) -> Iterator[None]:
    """Make blocks, shards and vocabulary ranges so small that a few rows need several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "LEAST_BLOCK_CELLS", cells_in_block)
        patch.setattr(numbering, "ID_ROWS", 2)
        patch.setattr(numbering, "MERGE_ROWS", 4)
        patch.setattr(store, "CHUNK_CELLS", 4 * cells_in_block)
        patch.setattr(store, "SHARD_CELLS", 8 * cells_in_block)
        yield


def write_csv(path: Path, log: Sequence[Event]) -> str:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS.values())
        rows.writerows([each or "" for each in (e.user, e.item, e.value, e.timestamp)] for e in log)
    return str(path)


def events_of(
    folder: Path, log: Sequence[Event], edges: Sequence[int], *, whole_ids: bool, columns: Any
) -> Events:
    """Return the log as one file a part."""
    paths = [
        write_csv(folder / f"part-{number:02}.csv", log[start:stop])
        for number, (start, stop) in enumerate(pairwise(edges))
    ]
    events = read_events(paths, **columns, ids="int64" if whole_ids else "string")
    assert events.frame.npartitions == len(edges) - 1
    return events


def frame_of(log: Sequence[Event], edges: Sequence[int]) -> dd.DataFrame:
    """Return the log as a Dask DataFrame of text, cut at the edges."""
    rows = [[each or None for each in (e.user, e.item, e.value, e.timestamp)] for e in log]
    frame = pd.DataFrame(rows, columns=list(COLUMNS.values()), dtype="str")
    parts = [frame.iloc[start:stop] for start, stop in pairwise(edges)]
    return dd.from_map(lambda part: part, parts, meta=frame.iloc[:0])


def tree(folder: str | Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def content(found: Interactions) -> dict[str, bytes]:
    """Return the bytes of a store's one group."""
    (group,) = found.group_urls
    return tree(group)


def check_holds(found: Interactions, wanted: Ingested, *, timed: bool) -> None:
    """Compare a store with the twin: ids, both orientations, times, sizes and audit."""
    assert verify(found.url) == []
    assert found.user_ids.ids.tolist() == wanted.user_ids
    assert found.item_ids.ids.tolist() == wanted.item_ids
    assert (found.n_users, found.n_items) == (len(wanted.user_ids), len(wanted.item_ids))
    assert found.n_stored == len(wanted.cells)
    assert found.has_timestamps == timed
    for side in ("user_items", "item_users"):
        n_rows = found.n_users if side == "user_items" else found.n_items
        block = found.read_rows(side, 0, n_rows, timed=timed)
        assert block.data.dtype == np.float32
        assert block.indices.dtype == np.int32
        assert block.indptr.dtype == np.int64
        held = {}
        for row in range(n_rows):
            span = slice(block.indptr[row], block.indptr[row + 1])
            columns = block.indices[span].tolist()
            assert columns == sorted(set(columns))
            for place, column in zip(range(span.start, span.stop), columns, strict=True):
                user, item = (row, column) if side == "user_items" else (column, row)
                micros = int(block.timestamps[place]) if timed else 0
                pair = wanted.user_ids[user], wanted.item_ids[item]
                held[pair] = references.Cell(float(block.data[place]), micros)
        assert held == wanted.cells
    audit = found.audit
    steps = list(
        zip(audit["rows_in"].values.tolist(), audit["rows_out"].values.tolist(), strict=True)
    )
    assert steps == wanted.audit
    assert all(before[1] == after[0] for before, after in pairwise(steps))


# -- the twin --------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.data(), st.booleans(), st.booleans(), st.booleans())
def test_a_store_holds_what_the_twin_says(
    data: st.DataObject, whole_ids: bool, valued: bool, timed: bool
) -> None:
    log = data.draw(dirty_logs(whole_ids=whole_ids))
    rules: dict[str, Any] = {
        "dedupe": data.draw(st.sampled_from(POLICIES)),
        "min_user": data.draw(st.integers(1, 3)),
        "min_item": data.draw(st.integers(1, 3)),
        "value_range": data.draw(st.sampled_from([None, (0, 4), (-3, 2.5)])) if valued else None,
        "max_user": data.draw(st.sampled_from([None, 12, 3])),
    }
    left_out = {"value": valued, "timestamp": timed}
    columns = {name: each for name, each in COLUMNS.items() if left_out.get(name, True)}
    known = [
        Event(e.user, e.item, e.value if valued else "1", e.timestamp if timed else "0")
        for e in log
    ]
    wanted = references.ingest(known, whole_ids=whole_ids, **rules)
    enough = min(len(wanted.user_ids), len(wanted.item_ids)) > 1
    edges = data.draw(cuts(len(log)))
    with small_blocks(), tempfile.TemporaryDirectory() as name:
        written = []
        for number, parts in enumerate(([0, len(log)], edges)):
            folder = Path(name, str(number))
            folder.mkdir()
            if number == 1 and data.draw(st.booleans()):
                lazy = frame_of(log, parts)
                events = read_events(lazy, **columns, ids="int64" if whole_ids else "string")
                assert events.frame.npartitions == len(parts) - 1
            else:
                events = events_of(folder, log, parts, whole_ids=whole_ids, columns=columns)
            events = clean(events, bad_rows="drop", **rules)
            if not enough:
                with pytest.raises(InputError, match=r" left after cleaning; |has no rows; "):
                    write_interactions(events, folder / "store")
                assert not (folder / "store").exists()
                continue
            found = write_interactions(events, folder / "store")
            check_holds(found, wanted, timed=timed)
            if found.n_stored > 6 + max(found.counts("user_items")):
                assert len(found.cuts("user_items")) > 2  # several blocks, as intended
            written.append(found)
        if enough:
            assert content(written[0]) == content(written[1])
            assert written[0].user_hash == written[1].user_hash


@pytest.mark.parametrize("dedupe", ["last", "mean"])
def test_many_blocks_and_parts(tmp_path: Path, dedupe: str) -> None:
    draw = np.random.default_rng(5)
    log = [
        Event(f"u{u}", f"i{i}", str(v / 4), str(t))
        for u, i, v, t in zip(
            draw.zipf(1.5, 3000) % 70,
            draw.zipf(1.3, 3000) % 50,
            draw.integers(-8, 20, 3000),
            draw.integers(0, 300, 3000),
            strict=True,
        )
    ]
    wanted = references.ingest(log, dedupe=dedupe, min_user=4, min_item=6)
    assert len(wanted.cells) < len({(e.user, e.item) for e in log}) < len(log)
    written = []
    with small_blocks(64):
        for number, edges in enumerate(([0, 3000], [0, 1, 900, 900, 2500, 3000])):
            folder = tmp_path / str(number)
            folder.mkdir()
            events = events_of(folder, log, edges, whole_ids=False, columns=COLUMNS)
            cleaned = clean(events, dedupe=dedupe, min_user=4, min_item=6)
            written.append(write_interactions(cleaned, folder / "store"))
            check_holds(written[-1], wanted, timed=True)
    assert len(written[0].cuts("user_items")) > 5
    assert len(written[0].cuts("item_users")) > 5
    assert content(written[0]) == content(written[1])


def test_scheduler_threads_and_processes_write_the_same_bytes(
    tmp_path: Path, cluster_client: Any
) -> None:
    log = [Event(str(n * n % 17), str(n % 7), str(n % 5), str(n)) for n in range(400)]
    written = []
    for name in ("cluster", "here"):
        folder = tmp_path / name
        folder.mkdir()
        events = events_of(folder, log, [0, 90, 200, 400], whole_ids=True, columns=COLUMNS)
        if name == "cluster":
            assert blocks.active_client() is cluster_client
            written.append(write_interactions(clean(events), folder / "store"))
        else:
            with dask.config.set(scheduler="synchronous"):
                assert blocks.active_client() is None
                written.append(write_interactions(clean(events), folder / "store"))
        assert sorted(p.name for p in (folder / "store").iterdir())[1:] == [
            "version-00000001.json",
            "zarr.json",
        ]
    assert content(written[0]) == content(written[1])


def test_all_users_but_one_may_be_dropped_from_a_block(tmp_path: Path) -> None:
    # a giant, then users that are dropped: the last block of users has no row at all
    log = [Event("0", "1"), Event("1", "2")] + [Event("2", str(n)) for n in range(30)]
    log += [Event(f"{user}", "1") for user in range(3, 9) for _ in range(50)]
    events = events_of(tmp_path, log, [0, len(log)], whole_ids=True, columns=COLUMNS)
    with small_blocks():
        found = write_interactions(clean(events, max_user=40), tmp_path / "store")
    wanted = references.ingest(log, max_user=40, whole_ids=True)
    assert wanted.user_ids == [0, 1, 2]
    check_holds(found, wanted, timed=True)


@pytest.mark.parametrize("kind", ["int64", "string"])
def test_ids_come_out_as_they_went_in(tmp_path: Path, kind: str) -> None:
    users, items = (
        [[5, -3, 2**62], [7, 8, 9]] if kind == "int64" else [["007", "7", "ä"], ["a", "b", " "]]
    )
    log = pd.DataFrame({"u": users, "i": items})
    found = write_interactions(read_events(log, user="u", item="i"), tmp_path / "store")
    again = open_interactions(tmp_path / "store")
    assert found.user_ids.ids.tolist() == again.user_ids.ids.tolist() == sorted(users)
    assert again.item_ids.ids.tolist() == sorted(items)
    assert type(again.user_ids.ids.tolist()[0]) is type(users[0])


def test_an_audit_says_why_rows_went(tmp_path: Path) -> None:
    log = [
        Event("a", "x", "1", "1"),
        Event("a", "x", "2", "2"),
        Event("b", "y", "3", "3"),
        Event("b", "x", "9", "3"),
        Event("", "x", "3", "3"),
        Event("a", "y", "nan", "3"),
        Event("a", "y", "1", "-1"),
    ]
    events = events_of(tmp_path, log, [0, 7], whole_ids=False, columns=COLUMNS)
    cleaned = clean(events, bad_rows="drop", value_range=(0, 5))
    audit = write_interactions(cleaned, tmp_path / "store").audit
    table = [
        (str(step), int(a), int(b), str(why))
        for step, a, b, why in zip(
            audit["step"].values,
            audit["rows_in"].values,
            audit["rows_out"].values,
            audit["why"].values,
            strict=True,
        )
    ]
    assert table == [
        ("read", 7, 7, str(tmp_path / "part-00.csv")),
        ("bad rows", 7, 6, "user id is missing"),
        ("bad rows", 6, 6, "item id is missing"),
        ("bad rows", 6, 5, "value is not a finite number"),
        ("bad rows", 5, 4, "timestamp is missing, unparsable or before 1970"),
        ("range", 4, 3, "value from 0 to 5"),
        ("duplicates", 3, 2, "dedupe='last'"),
        ("core", 2, 2, "min_user=1, min_item=1"),
    ]


# -- bad input -------------------------------------------------------------------------------------

GOOD = [Event("a", "x"), Event("b", "y"), Event("b", "x")]


def refused(message: str) -> Any:
    return pytest.raises(InputError, match=re.escape(message))


def write_log(folder: Path, log: Sequence[Event], **rules: Any) -> Interactions:
    (folder / "log").mkdir(exist_ok=True)
    events = events_of(folder / "log", log, [0, len(log)], whole_ids=False, columns=COLUMNS)
    return write_interactions(clean(events, **rules), folder / "store")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (Event("", "x"), "user id is missing"),
        (Event("a", ""), "item id is missing"),
        (Event("a", "x", "many"), "value is not a finite number"),
        (Event("a", "x", ""), "value is not a finite number"),
        (Event("a", "x", "nan"), "value is not a finite number"),
        (Event("a", "x", "inf"), "value is not a finite number"),
        (Event("a", "x", "-inf"), "value is not a finite number"),
        (Event("a", "x", "1e300"), "value is not a finite number"),
        (Event("a", "x", "1", "-1"), "timestamp is missing, unparsable or before 1970"),
        (Event("a", "x", "1", "yesterday"), "timestamp is missing, unparsable or before 1970"),
        (Event("a", "x", "1", ""), "timestamp is missing, unparsable or before 1970"),
    ],
)
def test_a_bad_row_is_refused_with_its_place_and_the_remedy(
    tmp_path: Path, row: Event, why: str
) -> None:
    with refused(
        f"part-00.csv has 1 bad rows of 4: 1 x {why}. The first is row 4 of part 1: {{"
    ) as e:
        write_log(tmp_path, [*GOOD, row])
    assert str(e.value).endswith(
        'Mend them, or drop them with clean(events, bad_rows="drop") (--bad-rows drop)'
    )
    assert not (tmp_path / "store").exists()
    assert write_log(tmp_path, [*GOOD, row], bad_rows="drop").n_stored == 3


def test_faults_of_several_kinds_are_counted(tmp_path: Path) -> None:
    bad = [Event("", "x"), Event("", ""), Event("a", "x", "inf", "-1")]
    message = "has 3 bad rows of 6: 2 x user id is missing; 1 x value is not a finite number. "
    with refused(message):
        write_log(tmp_path, [*GOOD, *bad])


@pytest.mark.parametrize(
    ("log", "rules", "message"),
    [
        ([], {}, "part-00.csv has no rows; expected at least one event below the header"),
        ([Event("", "x")], {"bad_rows": "drop"}, "part-00.csv: none of its rows is left after "),
        (
            GOOD,
            {"value_range": (7, 9)},
            "none of its rows is left after cleaning; loosen the rules",
        ),
        ([Event("a", "x"), Event("a", "y")], {}, "there is one user left after cleaning; expected"),
        ([Event("a", "x"), Event("b", "x")], {}, "there is one item left after cleaning; expected"),
        (GOOD, {"min_user": 2}, "there is one user left after cleaning; expected at least two"),
        (GOOD, {"min_user": 3}, "there is no user left after cleaning; expected at least two"),
        (GOOD, {"max_user": 0.5}, "there is one user left after cleaning; expected at least two"),
        (
            [*GOOD, GOOD[0]],
            {"dedupe": "error"},
            "1 events or more repeat a user and an item; choose",
        ),
    ],
)
def test_logs_of_which_too_little_is_left(
    tmp_path: Path, log: list[Event], rules: dict[str, Any], message: str
) -> None:
    with refused(message):
        write_log(tmp_path, log, **rules)
    assert not (tmp_path / "store").exists()


def test_a_range_of_values_needs_values(tmp_path: Path) -> None:
    events = read_events(pd.DataFrame({"u": [1, 2], "i": [1, 2]}), user="u", item="i")
    with refused("the pandas DataFrame was read without values; name their column in read_events"):
        clean(events, value_range=(1, 5))


def test_sums_that_float32_cannot_hold_are_refused(tmp_path: Path) -> None:
    log = [Event("a", "x", "3e38"), Event("a", "x", "3e38"), Event("b", "y")]
    with refused("values of one user and item add up to more than float32 holds; scale them down"):
        write_log(tmp_path, log, dedupe="sum")
    assert not (tmp_path / "store").exists()


def test_a_place_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    found = write_log(tmp_path, GOOD)
    before = tree(tmp_path / "store")
    with refused("store exists already; pass overwrite=True (--overwrite) or choose another place"):
        write_log(tmp_path, GOOD)
    assert tree(tmp_path / "store") == before
    assert found.to_scipy().nnz == 3


# -- from SciPy ------------------------------------------------------------------------------------


def test_a_matrix_becomes_a_store(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    matrix = sparse.random_array((30, 20), density=0.2, format="coo", rng=draw, dtype=np.float32)
    ids = [f"u{n}" for n in range(30)]
    with small_blocks(10):
        found = interactions_from_scipy(matrix, tmp_path / "store", user_ids=ids)
    assert (found.to_scipy() != matrix.tocsr()).nnz == 0
    assert found.user_ids.ids.tolist() == ids
    assert found.item_ids.ids.tolist() == list(range(20))
    assert not found.has_timestamps
    turned = found.read_rows("item_users", 0, 20).to_scipy()
    assert (turned.T != matrix.tocsr()).nnz == 0
    assert len(found.cuts("item_users")) > 2


def test_stored_zeros_are_interactions_and_duplicates_are_summed(tmp_path: Path) -> None:
    parts = np.array([0, 2, 3, 4], np.float32), np.array([1, 2, 2, 0]), np.array([0, 3, 4])
    matrix = sparse.csr_array(parts, shape=(2, 3))
    before = [each.copy() for each in (matrix.data, matrix.indices, matrix.indptr)]
    found = interactions_from_scipy(matrix, tmp_path / "store")
    assert found.to_scipy().toarray().tolist() == [[0, 0, 5], [4, 0, 0]]
    assert found.n_stored == 3
    for left, right in zip(before, (matrix.data, matrix.indices, matrix.indptr), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    ("matrix", "ids", "message"),
    [
        ([[1, np.nan], [1, 1]], None, "the matrix holds NaN or infinite values; expected finite"),
        ([[1, np.inf], [1, 1]], None, "the matrix holds NaN or infinite values; expected finite"),
        ([[1, 1e300], [1, 1]], None, "the matrix holds NaN or infinite values; expected finite"),
        ([[1, 1], [1, 1]], ["a"], "1 user ids were given for 2 users; expected one each"),
        ([[1, 1], [1, 1]], ["a", "a"], "user id 'a' stands twice in the vocabulary"),
        ([[1, 1]], None, "there is one user left after cleaning"),
        ([[0, 0], [0, 0]], None, "no interactions are left to write; loosen the cleaning rules"),
    ],
)
def test_matrices_that_are_none_are_refused(
    tmp_path: Path, matrix: list[list[float]], ids: list[str] | None, message: str
) -> None:
    with refused(message):
        interactions_from_scipy(sparse.csr_array(matrix), tmp_path / "store", user_ids=ids)
    assert not (tmp_path / "store").exists()


# -- failures --------------------------------------------------------------------------------------


def full_disk(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_after(n: int, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that works ``n`` times, then finds the disk full."""
    calls = iter(range(n))

    def write(*arguments: Any, **named: Any) -> Any:
        return original(*arguments, **named) if next(calls, None) is not None else full_disk()

    return write


def full_at(last: str, original: Any) -> Any:
    """Write what is not called so, then have no room."""

    def write(place: str, *arguments: Any) -> Any:
        return full_disk() if place.endswith(f"/{last}") else original(place, *arguments)

    return write


FAILURES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "at once": lambda patch: patch.setattr(store.zarr, "open_group", full_disk),
    "scratch folder": lambda patch: patch.setattr(LocalFileSystem, "makedirs", full_disk),
    "scratch columns": lambda patch: patch.setattr(
        files, "write_column", full_after(2, files.write_column)
    ),
    "later columns": lambda patch: patch.setattr(
        files, "write_column", full_after(9, files.write_column)
    ),
    "vocabulary": lambda patch: patch.setattr(
        files, "write_column", full_at("ranks", files.write_column)
    ),
    "first Zarr file": lambda patch: patch.setattr(LocalStore, "set", full_disk),
    "later Zarr files": lambda patch: patch.setattr(
        LocalStore, "set", full_after(12, LocalStore.set)
    ),
    "commit": lambda patch: patch.setattr(files, "replace", full_disk),
    "link": lambda patch: patch.setattr(os, "link", full_disk),
}


@pytest.mark.parametrize("place", FAILURES)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk_leaves_the_state_before(
    tmp_path: Path, place: str, overwrite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = tmp_path / "store"
    events = clean(
        events_of(tmp_path, GOOD, [0, 2, 3], whole_ids=False, columns=COLUMNS), min_item=1
    )
    if overwrite:
        interactions_from_scipy(sparse.csr_array(np.eye(3)), url)
    before = tree(url) if overwrite else {}
    with monkeypatch.context() as patch:
        FAILURES[place](patch)
        with pytest.raises(DiskError, match="No space left on device; nothing half-written"):
            write_interactions(events, url, overwrite=overwrite)
    assert tree(url) == before if overwrite else not url.exists()
    if overwrite:
        assert open_interactions(url).to_scipy().toarray().tolist() == np.eye(3).tolist()
    # the same call again, once there is room
    assert write_interactions(events, url, overwrite=overwrite).n_stored == 3


STEPS: dict[str, tuple[Any, str]] = {
    "scan": (scan, "_scan_part"),
    "merge": (numbering, "_merge_range"),
    "map": (cells, "_encode"),
    "reduce": (cells, "_reduce"),
    "write by user": (shards, "_write_user_shard"),
    "write by item": (shards, "_write_item_shard"),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_error_in_a_task_leaves_the_state_before(
    tmp_path: Path, step: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = tmp_path / "store"
    interactions_from_scipy(sparse.csr_array(np.eye(3)), url)
    before = tree(url)

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    events = events_of(tmp_path, GOOD, [0, 1, 3], whole_ids=False, columns=COLUMNS)
    module, name = STEPS[step]
    with monkeypatch.context() as patch:
        patch.setattr(module, name, fail)
        with pytest.raises(error):
            write_interactions(events, url, overwrite=True)
        with pytest.raises(error):
            write_interactions(events, tmp_path / "new")
    assert before.items() <= tree(url).items()
    assert open_interactions(url).to_scipy().toarray().tolist() == np.eye(3).tolist()
    with pytest.raises(StoreError, match="is unfinished: its writing was cut off"):
        open_interactions(tmp_path / "new")
    # the next call clears away what this one left
    for place in (url, tmp_path / "new"):
        assert write_interactions(events, place, overwrite=True).n_stored == 3
        assert len(list(place.iterdir())) == 3


def test_sorted_cells_go_with_the_shard_that_used_them_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = [Event(str(n * n % 97), str(n % 31), str(n % 5), str(n)) for n in range(2000)]
    events = events_of(tmp_path, log, [0, 900, 2000], whole_ids=True, columns=COLUMNS)
    left: list[int] = []
    write_shard = shards._write_user_shard

    def stop_at_third(*arguments: Any) -> Any:
        left.append(len(list(tmp_path.glob("stopped/scratch-*/users-*"))))
        if len(left) == 3:
            raise KeyboardInterrupt
        return write_shard(*arguments)

    with small_blocks(8), dask.config.set(scheduler="synchronous"):
        whole = write_interactions(clean(events), tmp_path / "whole")
        with monkeypatch.context() as patch:
            patch.setattr(shards, "_write_user_shard", stop_at_third)
            with pytest.raises(KeyboardInterrupt):
                write_interactions(clean(events), tmp_path / "stopped")
        assert left[0] > left[1] > left[2] > 0
        assert content(write_interactions(clean(events), tmp_path / "stopped")) == content(whole)


def test_an_error_on_a_cluster_leaves_the_state_before(tmp_path: Path, cluster_client: Any) -> None:
    url = tmp_path / "store"
    interactions_from_scipy(sparse.csr_array(np.eye(3)), url)
    before = tree(url)
    events = events_of(
        tmp_path, [*GOOD, Event("", "x")], [0, 1, 3, 4], whole_ids=False, columns=COLUMNS
    )
    assert blocks.active_client() is cluster_client
    with refused("has 1 bad rows of 4: 1 x user id is missing"):
        write_interactions(events, url, overwrite=True)
    assert tree(url) == before


def test_what_comes_after_the_commit_does_not_undo_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = tmp_path / "store"
    interactions_from_scipy(sparse.csr_array(np.eye(3)), url)
    events = events_of(tmp_path, GOOD, [0, 3], whole_ids=False, columns=COLUMNS)

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.Draft, "_sweep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_interactions(events, url, overwrite=True)
    assert open_interactions(url).to_scipy().nnz == 3
    assert open_interactions(url).user_ids.ids.tolist() == ["a", "b"]
    write_interactions(events, url, overwrite=True)
    assert len(list(url.glob("state-*"))) == 1  # what was left over is gone with the next commit


SCRIPT = """
    import sys, time
    from pathlib import Path

    import dasrec
    from dasrec import shards

    marker, log, url = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    write = shards._write_shard

    def slow(*arguments):
        write(*arguments)
        marker.touch()
        time.sleep(float(sys.argv[4]))

    shards._write_shard = slow
    events = dasrec.read_events(log, user="who", item="what", value="stars", timestamp="when")
    dasrec.write_interactions(events, url, overwrite=True)
"""


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_process_that_is_stopped_in_mid_write(
    tmp_path: Path, number: signal.Signals, overwrite: bool
) -> None:
    url, marker = tmp_path / "store", tmp_path / "marker"
    events = events_of(tmp_path, GOOD, [0, 3], whole_ids=False, columns=COLUMNS)
    if overwrite:
        interactions_from_scipy(sparse.csr_array(np.eye(3)), url)
    before = tree(url) if overwrite else {}
    arguments = [str(marker), str(tmp_path / "part-00.csv"), str(url)]
    pause = "1" if number == signal.SIGINT else "60"
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), *arguments, pause],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not marker.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        _, messages = process.communicate(timeout=60)
    assert marker.exists(), messages
    assert process.returncode != 0
    if number == signal.SIGINT:
        assert "KeyboardInterrupt" in messages
    if overwrite:
        assert set(before.items()) < set(tree(url).items())
    else:
        with pytest.raises(StoreError, match="is unfinished: its writing was cut off; run the"):
            open_interactions(url)
    if overwrite:
        assert open_interactions(url).to_scipy().toarray().tolist() == np.eye(3).tolist()
    # the next writer clears away what a kill left
    assert write_interactions(events, url, overwrite=overwrite).to_scipy().nnz == 3
    assert len(list(url.iterdir())) == 3
