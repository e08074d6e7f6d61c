"""Interactions are lazy, small to send, the same both ways round, and parts of them are masks."""

from __future__ import annotations

import itertools
import pickle
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import dask
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from dasrec import (
    BudgetError,
    InputError,
    Interactions,
    interactions_from_scipy,
    memory,
    open_interactions,
    read_events,
    split_random,
    store,
    write_interactions,
)
from dasrec.interactions import read_both
from dasrec.normalise import Clip
from dasrec.split import After, Sampled
from dasrec.typing import Bools, Ints, Longs

Context = Callable[[], AbstractContextManager[Any]]
N_USERS, N_ITEMS = 37, 23


@dataclass(frozen=True)
class Even:
    """The interactions whose user and item add up to an even number."""

    needs_timestamp: bool = False

    def __call__(self, users: Ints, items: Ints, timestamps: Longs | None) -> Bools:
        assert users.dtype == items.dtype == np.int32
        assert (timestamps is not None) or not self.needs_timestamp
        return (users + items) % 2 == 0

    def describe(self) -> dict[str, Any]:
        return {"mask": "Even"}


def half(seed: int) -> Sampled:
    return Sampled(inside=True, seed=seed, low=0, high=0.5)


def make_log() -> pd.DataFrame:
    draw = np.random.default_rng(8)
    cells = draw.choice(N_USERS * N_ITEMS, 300, replace=False)
    cells = np.unique([*cells, *range(0, N_USERS * N_ITEMS, N_ITEMS), *range(N_ITEMS)])
    return pd.DataFrame(
        {
            "user": cells // N_ITEMS,
            "item": cells % N_ITEMS,
            "value": draw.integers(1, 8, len(cells)) / 4,
            "time": draw.integers(0, 2**31, len(cells)),
        }
    )


LOG = make_log()
DENSE = np.zeros((N_USERS, N_ITEMS), np.float32)
DENSE[LOG["user"], LOG["item"]] = LOG["value"]
EVEN = np.where(np.add.outer(np.arange(N_USERS), np.arange(N_ITEMS)) % 2 == 0, DENSE, 0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    """Return a store of several blocks."""
    events = read_events(LOG, user="user", item="item", value="value", timestamp="time")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "LEAST_BLOCK_CELLS", 40)
        found = write_interactions(events, tmp_path_factory.mktemp("data") / "store")
    assert len(found.cuts("user_items")) > 5
    assert len(found.cuts("item_users")) > 5
    return found


# -- laziness --------------------------------------------------------------------------------------


def test_nothing_is_computed_early(data: Interactions, raising_scheduler: Context) -> None:
    with raising_scheduler():
        view = open_interactions(data.url)
        rows = view.user_items[3:20, ::2]
        assert rows.shape == (17, 12)
        part = split_random(view, 0.3, rng=1).train.where(Even())
        lazy = [
            rows,
            view.item_users.T,
            part.user_items[[1, 5, 9]],
            part.user_items.map_blocks(abs),
        ]
        assert all(dask.is_dask_collection(each) for each in lazy)
        with pytest.raises(AssertionError, match="should have stayed lazy"):
            rows.compute()


def test_opening_reads_no_cells(data: Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        message = "cells were read"
        raise AssertionError(message)

    monkeypatch.setattr("dasrec.store.read_rows", refuse)
    view = open_interactions(data.url).where(Even())
    assert view.user_items.shape == (N_USERS, N_ITEMS)
    with pytest.raises(AssertionError, match="cells were read"):
        view.user_items.compute()


# -- as Dask arrays --------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["user_items", "item_users"])
def test_blocks_of_the_lazy_array_are_csr(data: Interactions, side: str) -> None:
    lazy = getattr(data, side)
    dense = DENSE if side == "user_items" else DENSE.T
    cuts = data.cuts(side)
    assert lazy.dtype == np.float32
    assert lazy.shape == dense.shape
    assert lazy.chunks == (tuple(np.diff(cuts)), (dense.shape[1],))
    assert lazy.name.startswith(f"{side}-")
    for number in range(lazy.numblocks[0]):
        block = lazy.blocks[number].compute()
        assert isinstance(block, sparse.csr_array)
        assert block.indices.dtype == np.int32
        assert block.has_canonical_format
        np.testing.assert_array_equal(block.toarray(), dense[cuts[number] : cuts[number + 1]])


def test_lazy_arrays_compute_to_the_matrix(data: Interactions) -> None:
    np.testing.assert_array_equal(data.user_items.compute().toarray(), DENSE)
    np.testing.assert_array_equal(data.item_users.compute().toarray(), DENSE.T)
    np.testing.assert_array_equal(data.user_items[3:20].compute().toarray(), DENSE[3:20])
    np.testing.assert_array_equal(data.user_items.persist().compute().toarray(), DENSE)


def test_lazy_arrays_of_equal_views_have_equal_names(data: Interactions) -> None:
    again = open_interactions(data.url)
    assert data.user_items.name == again.user_items.name != data.item_users.name
    assert data.where(Even()).user_items.name == again.where(Even()).user_items.name
    one, other = (data.where(half(seed)) for seed in (1, 2))
    names = {view.user_items.name for view in (data, data.where(Even()), one, other)}
    assert len(names) == 4


def test_a_cluster_computes_the_same(data: Interactions, cluster_client: Any) -> None:
    lazy = data.where(half(3))
    there = lazy.user_items.compute()
    with dask.config.set(scheduler="synchronous"):
        here = lazy.user_items.compute()
    assert 0 < there.nnz < data.n_stored
    np.testing.assert_array_equal(there.toarray(), here.toarray())


# -- reading ---------------------------------------------------------------------------------------


@given(st.integers(0, N_USERS), st.integers(0, N_USERS), st.booleans())
def test_rows_are_those_of_the_matrix(
    data: Interactions, start: int, stop: int, masked: bool
) -> None:
    start, stop = sorted((start, stop))
    view, dense = (data.where(Even()), EVEN) if masked else (data, DENSE)
    block = view.read_rows("user_items", start, stop)
    assert block.timestamps is None
    assert block.n_rows == stop - start
    np.testing.assert_array_equal(block.to_scipy().toarray(), dense[start:stop])


def test_times_come_when_asked_for_or_needed(data: Interactions) -> None:
    wanted = np.zeros((N_USERS, N_ITEMS), np.int64)
    wanted[LOG["user"], LOG["item"]] = LOG["time"] * 10**6
    for view in (data, data.where(Even()), data.where(Even(needs_timestamp=True))):
        block = view.read_rows("item_users", 2, 9, timed=True)
        assert block.timestamps is not None
        assert block.timestamps.dtype == np.int64
        rows = np.repeat(np.arange(2, 9), np.diff(block.indptr))
        assert block.timestamps.tolist() == wanted[block.indices, rows].tolist()


def test_a_matrix_shares_the_memory_of_its_block(data: Interactions) -> None:
    block = data.read_rows("user_items", 0, N_USERS)
    matrix = block.to_scipy()
    assert np.shares_memory(matrix.data, block.data)
    assert np.shares_memory(matrix.indices, block.indices)
    assert matrix.shape == (N_USERS, N_ITEMS)


def test_a_whole_matrix_must_fit(data: Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    np.testing.assert_array_equal(data.to_scipy().toarray(), DENSE)
    monkeypatch.setattr(memory, "limit", lambda: 1000)
    message = (
        f"to_scipy() of {data.n_stored:,} interactions needs 0.0 MB and 0.0 MB are available; "
    )
    with pytest.raises(BudgetError, match=re.escape(message) + "work on interactions.user_items"):
        data.to_scipy()


@pytest.mark.parametrize("masked", [False, True])
def test_counts_are_those_of_the_matrix(data: Interactions, masked: bool) -> None:
    view, dense = (data.where(Even()), EVEN) if masked else (data, DENSE)
    assert view.counts("user_items").tolist() == (dense != 0).sum(axis=1).tolist()
    assert view.counts("item_users").tolist() == (dense != 0).sum(axis=0).tolist()
    assert view.counts("user_items").dtype == np.int64


def test_blocks_are_mapped_in_order(data: Interactions) -> None:
    def task(view: Interactions, side: str, start: int, stop: int, extra: str) -> Any:
        return side, start, stop, view.read_rows(side, start, stop).n_rows, extra

    cuts = data.cuts("item_users").tolist()
    found = data.where(Even()).map_blocks(task, "item_users", "x", name="test")
    assert found == [("item_users", a, b, b - a, "x") for a, b in itertools.pairwise(cuts)]


# -- masks -----------------------------------------------------------------------------------------


def test_a_mask_is_a_view_and_changes_nothing(data: Interactions) -> None:
    view = data.where(Even())
    assert (view.n_users, view.n_items, view.n_stored) == (N_USERS, N_ITEMS, len(LOG))
    assert view.masks == (Even(),)
    assert data.masks == ()
    np.testing.assert_array_equal(view.to_scipy().toarray(), EVEN)
    np.testing.assert_array_equal(data.to_scipy().toarray(), DENSE)
    np.testing.assert_array_equal(view.item_users.compute().toarray(), EVEN.T)


def test_masks_are_joined(data: Interactions) -> None:
    both = data.where(Even()).where(half(1))
    assert both.masks == (Even(), half(1))
    wanted = np.where(data.where(half(1)).to_scipy().toarray() != 0, EVEN, 0)
    assert 0 < (wanted != 0).sum() < (EVEN != 0).sum()
    np.testing.assert_array_equal(both.to_scipy().toarray(), wanted)


def test_views_are_equal_if_their_masks_are(data: Interactions) -> None:
    assert data.where(Even()) == open_interactions(data.url).where(Even())
    assert data.where(Even()) != data
    assert data.where(half(1)) != data.where(half(2))


def test_a_mask_may_leave_nothing(data: Interactions) -> None:
    nothing = data.where(After(inside=True, cut=2**62))
    assert nothing.to_scipy().nnz == 0
    assert nothing.counts("item_users").tolist() == [0] * N_ITEMS
    assert nothing.user_items.compute().nnz == 0


def test_times_are_read_alone(data: Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a whole store; of a part of it they are those that the mask lets through."""
    part = data.where(Even())
    expected = [view.read_rows("item_users", 3, 9, timed=True).timestamps for view in (data, part)]
    assert part.read_times("item_users", 3, 9).tolist() == expected[1].tolist()
    monkeypatch.setattr("dasrec.store.read_rows", None)
    assert data.read_times("item_users", 3, 9).tolist() == expected[0].tolist()


@pytest.mark.parametrize(
    "others", [(Even(),), (Even(needs_timestamp=True), half(3)), (After(inside=False, cut=2**50),)]
)
def test_two_views_of_a_store_are_read_at_once(
    data: Interactions, monkeypatch: pytest.MonkeyPatch, others: tuple[Any, ...]
) -> None:
    views = data.where(half(3)), replace(data, masks=others).transform(Clip(high=1.0).fit(data))
    apart = [view.read_rows("item_users", 3, 9) for view in views]
    reads = mock.Mock(wraps=store.read_rows)
    monkeypatch.setattr("dasrec.store.read_rows", reads)
    together = read_both(views, "item_users", 3, 9)
    assert reads.call_count == 1
    for found, expected in zip(together, apart, strict=True):
        np.testing.assert_array_equal(found.to_scipy().toarray(), expected.to_scipy().toarray())


def test_two_views_of_two_stores_are_read_too(data: Interactions, tmp_path: Path) -> None:
    other = interactions_from_scipy(sparse.csr_array(EVEN), tmp_path / "store")
    found = [block.to_scipy() for block in read_both((data, other), "user_items", 4, 11)]
    np.testing.assert_array_equal(found[0].toarray(), DENSE[4:11])
    np.testing.assert_array_equal(found[1].toarray(), EVEN[4:11])


def test_a_mask_that_needs_times_is_refused_without_them(tmp_path: Path) -> None:
    untimed = interactions_from_scipy(sparse.csr_array(DENSE), tmp_path / "store")
    message = f"{untimed.url} has no timestamps; write it again from a log with a timestamp column"
    with pytest.raises(InputError, match=re.escape(message)):
        untimed.where(After(inside=True, cut=5))
    assert untimed.where(Even()).to_scipy().nnz == (EVEN != 0).sum()


# -- the object ------------------------------------------------------------------------------------


def test_a_view_is_small_to_send_and_reads_the_same_there(data: Interactions) -> None:
    view = data.where(Even())
    assert len(view.user_ids) == N_USERS  # cached, and not to be sent along
    content = pickle.dumps(view)
    assert len(content) < 2000
    there = pickle.loads(content)
    assert there == view
    assert "user_ids" not in vars(there)
    np.testing.assert_array_equal(there.to_scipy().toarray(), EVEN)
    assert there.user_ids.ids.tolist() == list(range(N_USERS))


def test_a_view_says_what_it_is(data: Interactions) -> None:
    text = f"<Interactions: 37 users x 23 items, {len(LOG)} stored"
    assert repr(data) == f"{text}, {data.url}>"
    assert repr(data.where(Even())) == f"{text} (a part of it), {data.url}>"


def test_a_state_has_a_name_of_its_own(data: Interactions, tmp_path: Path) -> None:
    states = {data.state, open_interactions(data.url).state, data.where(Even()).state}
    assert len(states) == 1
    for name in ("a", "b"):
        states.add(interactions_from_scipy(sparse.csr_array(DENSE), tmp_path / name).state)
    states.add(
        interactions_from_scipy(sparse.csr_array(DENSE), tmp_path / "a", overwrite=True).state
    )
    assert len(states) == 4


def test_a_relative_path_holds_in_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    interactions_from_scipy(sparse.csr_array(DENSE), "store")
    found = open_interactions("store")
    monkeypatch.chdir("/")
    assert found.url == str(tmp_path / "store")
    assert found.to_scipy().nnz == (DENSE != 0).sum()
