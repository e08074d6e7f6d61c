"""Sorting, collapsing and cutting agree with plain loops, also past 2**31 cells."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasrec.kernels.csr import (
    collapse,
    count_rows,
    cut_rows,
    gather,
    indptr_of,
    kept_indptr,
    places,
    rows_of,
    scatter,
    sort_cells,
    split_numbers,
)
from tests import references
from tests.references import Cell
from tests.strategies import sparse_matrices

keys = st.lists(st.integers(0, 6), max_size=50)
cells = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), max_size=40)


def columns_of(drawn: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.array(drawn, np.int64).reshape(-1, 3)
    return table[:, 0].astype(np.int32), table[:, 1].astype(np.int32), table[:, 2].copy()


def starts_of(drawn: list[tuple[int, int, int]]) -> list[int]:
    """Return where the cell changes once all are sorted."""
    pairs = [each[:2] for each in sorted(drawn)]
    return [i for i, pair in enumerate(pairs) if i == 0 or pairs[i - 1] != pair]


SHAPES = [(4, 4), (2000, 2**20), (2**31, 2**31)]  # the last does not fit in one word with places


@pytest.mark.parametrize("shape", SHAPES)
@given(drawn=cells)
def test_cells_are_sorted_by_row_column_and_time_and_ties_stay(
    drawn: list[tuple[int, int, int]], shape: tuple[int, int]
) -> None:
    drawn = [(row * (shape[0] // 4), column * (shape[1] // 4), t) for row, column, t in drawn]
    rows, columns, times = columns_of(drawn)
    order, starts = sort_cells(rows, columns, times, shape=shape)
    assert order.tolist() == sorted(range(len(drawn)), key=lambda place: drawn[place])
    assert starts.tolist() == starts_of(drawn)


@given(cells)
def test_cells_without_times_keep_their_order_of_arrival(
    drawn: list[tuple[int, int, int]],
) -> None:
    rows, columns, _ = columns_of(drawn)
    order, starts = sort_cells(rows, columns, None, shape=(4, 4))
    assert order.tolist() == sorted(range(len(drawn)), key=lambda place: drawn[place][:2])
    assert starts.tolist() == starts_of(drawn)
    assert (order.dtype, starts.dtype) == (np.int32, np.int64)
    assert gather(columns, order).tolist() == columns[order].tolist()


@given(
    st.lists(st.integers(0, 6), max_size=50),
    st.sampled_from([np.int32, np.int64, np.float32]),
)
def test_values_are_scattered_to_where_a_stable_sort_has_them(
    drawn: list[int], kind: type[np.generic]
) -> None:
    place, offsets = places(np.array(drawn, np.int32), 7)
    order, wanted_offsets = references.counting_sort(drawn, 7)
    values = np.arange(len(drawn)).astype(kind)
    found = scatter(values, place)
    assert found.tolist() == order
    assert found.dtype == kind
    assert offsets.tolist() == wanted_offsets
    assert (place.dtype, offsets.dtype) == (np.int32, np.int64)


@pytest.mark.parametrize("policy", ["last", "first", "sum", "max", "mean"])
@given(runs=st.lists(st.lists(st.integers(-40, 40), min_size=1, max_size=5), max_size=8))
def test_each_run_becomes_one_value(policy: str, runs: list[list[int]]) -> None:
    starts = np.cumsum([0, *map(len, runs)], dtype=np.int64)[:-1]
    values = np.array([each / 4 for run in runs for each in run], np.float32)
    found = collapse(starts, values, policy)
    wanted = [references.keep_one([Cell(each / 4, 0) for each in run], policy) for run in runs]
    assert found.tolist() == [cell.value for cell in wanted]
    assert found.dtype == np.float32


def test_sums_are_taken_in_float64() -> None:
    values = np.array([2.0**24, 1, 1, 1, 1], np.float32)
    assert collapse(np.array([0]), values, "sum").tolist() == [2.0**24 + 4]
    assert values.cumsum(dtype=np.float32)[-1] == 2.0**24  # what float32 would have made of it


@given(sparse_matrices())
def test_rows_of_and_indptr_of_undo_each_other(matrix: object) -> None:
    indptr = matrix.indptr.astype(np.int64)
    rows = rows_of(indptr)
    assert rows.tolist() == [r for r, n in enumerate(np.diff(indptr)) for _ in range(n)]
    assert rows.dtype == np.int32
    assert indptr_of(np.bincount(rows, minlength=matrix.shape[0])).tolist() == indptr.tolist()


@given(sparse_matrices(), st.data())
def test_what_is_kept_gets_the_row_pointer_of_the_rest(matrix: object, data: st.DataObject) -> None:
    n = matrix.nnz
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), np.bool_)
    kept = kept_indptr(matrix.indptr.astype(np.int64), keep)
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))[keep]
    assert np.diff(kept).tolist() == np.bincount(rows, minlength=matrix.shape[0]).tolist()
    assert kept[0] == 0


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 25))
def test_rows_are_cut_like_filling_boxes(counts: list[int], target: int) -> None:
    cuts = cut_rows(indptr_of(np.array(counts, np.int64)), target)
    assert cuts.tolist() == references.cut_rows(counts, target)
    assert (np.diff(cuts) > 0).all()
    held = [sum(counts[a:b]) for a, b in itertools.pairwise(cuts)]
    rows = np.diff(cuts)
    assert all(n <= target or size == 1 for n, size in zip(held, rows, strict=True))


@given(st.lists(st.integers(3, 9), max_size=40))
def test_cells_are_counted_by_row(rows: list[int]) -> None:
    counts = count_rows(np.array(rows, np.int32), 3, 10)
    assert counts.dtype == np.int64
    assert counts.tolist() == [rows.count(row) for row in range(3, 10)]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.data())
def test_numbers_are_split_by_bucket(sizes: list[int], data: st.DataObject) -> None:
    cuts = np.cumsum([0, *sizes])
    numbers = data.draw(st.lists(st.integers(0, int(cuts[-1]) - 1), max_size=30))
    buckets, within = split_numbers(np.array(numbers, np.int32), cuts)
    assert (buckets.dtype, within.dtype) == (np.int32, np.int32)
    for number, bucket, place in zip(numbers, buckets, within, strict=True):
        assert 0 <= place < sizes[bucket]
        assert cuts[bucket] + place == number


def test_a_giant_row_stands_alone() -> None:
    cuts = cut_rows(indptr_of(np.array([1, 1, 1000, 1, 1])), 10)
    assert cuts.tolist() == [0, 2, 3, 5]


def test_rows_are_cut_past_two_to_the_31_cells() -> None:
    counts = np.full(10, 2**30, np.int64)  # ten thousand million cells, of which none exists
    indptr = indptr_of(counts)
    assert indptr.dtype == np.int64
    assert indptr[-1] == 10 * 2**30
    assert cut_rows(indptr, 2**31).tolist() == [0, 2, 4, 6, 8, 10]


def test_a_block_far_behind_two_to_the_31_is_read_from_its_own_start() -> None:
    far = np.array([0, 2, 2, 5], np.int64) + 5 * 2**31
    assert rows_of(far).tolist() == [0, 0, 2, 2, 2]
    keep = np.array([True, False, True, True, False])
    assert kept_indptr(far, keep).tolist() == [0, 1, 1, 3]
