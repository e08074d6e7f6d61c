"""Blocks that are kept, memory that is planned, and where factors are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest import mock

import dask
import numpy as np
import pytest

import dasrec
from dasrec import (
    ALS,
    BudgetError,
    ImplicitALS,
    InputError,
    Interactions,
    Training,
    medium,
    plan_fit,
)
from dasrec.medium import CACHE, BlockCache
from dasrec.schema import ITEM_USERS, USER_ITEMS
from dasrec.split import split_random
from dasrec.testing import planted_matrix

LARGE = 2**30


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 200):
        made = dasrec.interactions_from_scipy(
            planted_matrix(), tmp_path_factory.mktemp("sweeps") / "data"
        )
    assert len(made.cuts(USER_ITEMS)) > 4
    return made


# -- blocks that are kept --------------------------------------------------------------------------


@pytest.fixture
def reads() -> Iterator[list[tuple[Any, ...]]]:
    """Note what is read from the store."""
    read, seen = Interactions.read_rows, []

    def counted(view: Interactions, *block: Any, **options: Any) -> Any:
        seen.append(block)
        return read(view, *block, **options)

    with mock.patch.object(Interactions, "read_rows", counted):
        yield seen


def all_blocks(data: Interactions) -> list[tuple[Any, tuple[int, int]]]:
    return [
        (side, (int(start), int(stop)))
        for side in (USER_ITEMS, ITEM_USERS)
        for start, stop in itertools.pairwise(data.cuts(side))
    ]


def go_through(cache: BlockCache, data: Interactions, *, fit: str, limit: int) -> None:
    for side, rows in all_blocks(data):
        found = cache.read(data, side, rows, fit=fit, limit=limit)
        wanted = data.read_rows(side, *rows)
        for one, other in zip(found[:3], wanted[:3], strict=True):
            np.testing.assert_array_equal(one, other)


def kept_bytes(cache: BlockCache) -> int:
    return sum(part.nbytes for block in cache._blocks.values() for part in block[:3])


def whole_bytes(data: Interactions) -> int:
    blocks = (data.read_rows(side, *rows) for side, rows in all_blocks(data))
    return sum(part.nbytes for block in blocks for part in block[:3])


def test_a_second_sweep_of_a_fit_reads_nothing(
    data: Interactions, reads: list[tuple[Any, ...]]
) -> None:
    cache, blocks = BlockCache(), all_blocks(data)
    for _ in range(3):
        for side, rows in blocks:
            cache.read(data, side, rows, fit="one", limit=LARGE)
        assert reads == [(side, *rows) for side, rows in blocks]


def test_nothing_beyond_the_limit_is_kept(data: Interactions) -> None:
    whole = whole_bytes(data)
    for limit in (0, 1, whole // 3, whole - 1, whole, LARGE):
        cache = BlockCache()
        for _ in range(2):
            go_through(cache, data, fit="one", limit=limit)
            assert kept_bytes(cache) <= limit
        assert (kept_bytes(cache) == whole) == (limit >= whole)
        assert (kept_bytes(cache) > 0) == (limit > 1)


def test_what_is_kept_stays(data: Interactions, reads: list[tuple[Any, ...]]) -> None:
    """Each sweep reads the same blocks in the same order: the oldest is the next to be asked."""
    cache, blocks, n = BlockCache(), all_blocks(data), []
    limit = whole_bytes(data) // 2
    for _ in range(3):
        reads.clear()
        for side, rows in blocks:
            cache.read(data, side, rows, fit="one", limit=limit)
        n.append(len(reads))
    assert n[0] == len(blocks)
    assert 0 < n[1] == n[2] < 0.7 * len(blocks)


def test_another_fit_begins_anew(data: Interactions, reads: list[tuple[Any, ...]]) -> None:
    cache, (side, rows) = BlockCache(), all_blocks(data)[0]
    view = dasrec.split_random(data, 0.5, rng=0).train
    first = cache.read(data, side, rows, fit="one", limit=LARGE)
    other = cache.read(view, side, rows, fit="two", limit=LARGE)
    assert len(other.data) < len(first.data)
    assert len(reads) == 2
    assert kept_bytes(cache) == sum(part.nbytes for part in other[:3])
    cache.read(data, side, rows, fit="one", limit=LARGE)
    assert len(reads) == 3


def test_what_is_made_of_blocks_is_kept_as_far_as_it_fits() -> None:
    cache, made = BlockCache(), []

    def make(key: str) -> tuple[Any, ...]:
        made.append(key)
        return np.zeros(10, np.int64), key

    for key in ("one", "two", "one", "two"):
        found = cache.get(key, partial(make, key), fit="fit", limit=100)
        assert found[1] == key
    assert made == ["one", "two", "two"]


def test_what_is_cleared_is_read_again(data: Interactions, reads: list[tuple[Any, ...]]) -> None:
    cache, (side, rows) = BlockCache(), all_blocks(data)[0]
    for _ in range(2):
        cache.read(data, side, rows, fit="one", limit=LARGE)
        cache.clear()
        assert kept_bytes(cache) == 0
    assert len(reads) == 2


def bits(model: Any) -> list[bytes]:
    return [each.tobytes() for each in model.scoring_vectors()]


@pytest.mark.parametrize("kind", [ALS, ImplicitALS])
@pytest.mark.parametrize("solver", ["cg", "exact"])
def test_with_and_without_the_cache_a_fit_gives_the_same_bits(
    data: Interactions, reads: list[tuple[Any, ...]], kind: Any, solver: Any
) -> None:
    n_blocks, model = len(all_blocks(data)), kind(factors=4, iterations=4, solver=solver, rng=0)
    whole, found, n_reads = whole_bytes(data), [], []
    for size in (0, whole // 2, LARGE):
        reads.clear()
        plan = mock.Mock(cache_bytes=size)
        # block by block, since which blocks are kept hangs on who comes first
        with (
            mock.patch("dasrec.medium.plan_fit", return_value=plan),
            dask.config.set(scheduler="synchronous"),
        ):
            found.append(bits(model.fit(data)))
        n_reads.append(len(reads))
        assert kept_bytes(CACHE) == 0
    assert found[0] == found[1] == found[2]
    assert n_reads[0] > n_reads[1] > n_reads[2]
    assert n_reads[0] - n_reads[2] == 3 * n_blocks


def test_fits_side_by_side_share_blocks_of_the_same_view(
    data: Interactions, reads: list[tuple[Any, ...]]
) -> None:
    """Another view of the store has blocks of its own."""
    other = split_random(data, 0.5, rng=0).train
    n_reads = []

    def fit_another(view: Interactions) -> None:
        before = len(reads)
        ImplicitALS(factors=2, iterations=1, rng=1).fit(view, training=Training(memory="100GB"))
        n_reads.append(len(reads) - before)

    with mock.patch("dasrec.plan.limit", return_value=LARGE):
        for view in (data, other):
            training = Training(callbacks=[lambda _, v=view: fit_another(v)], memory="100GB")
            ImplicitALS(factors=2, iterations=1, rng=0).fit(data, training=training)
    n_blocks = sum(len(data.cuts(side)) - 1 for side in (USER_ITEMS, ITEM_USERS))
    assert n_reads[0] == 0
    assert n_reads[1] >= n_blocks


def test_an_interrupted_fit_keeps_no_blocks(data: Interactions) -> None:
    def interrupt(_: Any) -> None:
        assert kept_bytes(CACHE) > 0
        raise KeyboardInterrupt

    training = Training(callbacks=[interrupt], memory="100GB")
    with mock.patch("dasrec.plan.limit", return_value=LARGE), pytest.raises(KeyboardInterrupt):
        ImplicitALS(factors=2).fit(data, training=training)
    assert kept_bytes(CACHE) == 0


# -- plans -----------------------------------------------------------------------------------------


@pytest.fixture
def machine() -> Iterator[None]:
    """Plan for a process that holds nothing, on a machine of 64 GB."""
    with mock.patch.object(medium, "room", lambda memory: (0, memory or 64 * 10**9, 2)):
        yield


@pytest.mark.usefixtures("machine")
def test_need_grows_with_the_factors(data: Interactions) -> None:
    plans = [plan_fit(data, factors=k) for k in (1, 8, 64, 512)]
    for less, more in itertools.pairwise(plans):
        assert less.factor_bytes < more.factor_bytes
        assert less.peak_bytes < more.peak_bytes
        assert less.data_bytes == more.data_bytes
    vectors = 4 * 513 * (data.n_users + data.n_items)
    assert 2 * vectors <= plans[-1].factor_bytes <= 3 * vectors
    assert plans[0].n_tasks == len(all_blocks(data))
    assert plans[0].data_bytes == pytest.approx(whole_bytes(data), rel=0.01)
    assert plans[0].as_record()["factors"] == 1


@pytest.mark.usefixtures("machine")
def test_what_is_left_is_for_blocks(data: Interactions) -> None:
    """None when memory is just enough, and never more than there are."""
    free = plan_fit(data, factors=8)
    assert free.cache_bytes == free.data_bytes
    need = free.peak_bytes - free.cache_bytes
    for spare in (0, 1, 1000, free.data_bytes, 10**9):
        plan = plan_fit(data, factors=8, memory=need + spare)
        assert plan.cache_bytes == min(spare, free.data_bytes)
        assert plan.peak_bytes == need + plan.cache_bytes <= plan.limit_bytes == need + spare
    with pytest.raises(BudgetError):
        plan_fit(data, factors=8, memory=need - 1)


def test_without_a_limit_half_of_the_machine_is_left_to_others(data: Interactions) -> None:
    with mock.patch.object(medium, "room", return_value=(0, 64 * 10**9, 2)):
        free = plan_fit(data, factors=8)
    need = free.peak_bytes - free.cache_bytes
    for there, left in ((need, 0), (2 * need - 2, 0), (2 * need, 0), (2 * need + 2000, 1000)):
        with mock.patch.object(medium, "room", return_value=(0, there, 2)):
            assert plan_fit(data, factors=8).cache_bytes == left


def test_too_little_memory_is_refused_with_need_limit_and_remedy(data: Interactions) -> None:
    message = (
        r"fitting 64 factors of 120 users and 60 items needs \d.*B and 1\.0 MB are available; "
        "pass checkpoint=, so that they lie in files, use fewer factors, or drop rare users and "
        "items with min_user and min_item"
    )
    with pytest.raises(BudgetError, match=message):
        plan_fit(data, factors=64, memory=10**6)
    with pytest.raises(BudgetError, match=message):
        ImplicitALS(factors=64).fit(data, training=Training(memory="1MB"))


@pytest.mark.parametrize("memory", ["plenty", "3 parsecs", [], float("nan")])
def test_memory_that_is_no_size_is_refused(data: Interactions, memory: Any) -> None:
    with pytest.raises(InputError, match=r"memory is .*; expected bytes or a text like \"2GB\""):
        plan_fit(data, factors=4, memory=memory)


def test_a_plan_reads_nothing(data: Interactions, reads: list[Any]) -> None:
    plan = plan_fit(dasrec.open_interactions(data.url), factors=4)
    assert not reads
    assert plan.limit_bytes > plan.peak_bytes > plan.cache_bytes >= 0
