"""Keyed hashes are uniform, and depend on nothing but the seed and the cell."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse, stats

from dasrec.kernels.hashing import (
    cell_uniform,
    cell_words,
    draw_others,
    mix,
    number_ids,
    seed_word,
)
from tests import references
from tests.strategies import sparse_matrices

GRID = np.meshgrid(np.arange(300, dtype=np.int32), np.arange(300, dtype=np.int32))
ROWS, COLUMNS = GRID[0].ravel(), GRID[1].ravel()
# an even draw falls below this once in a million tests
LEAST_P = 1e-6


@pytest.mark.parametrize("seed", [0, 1, 2, 2**62])
def test_draws_of_cells_are_uniform(seed: int) -> None:
    draws = cell_uniform(seed, ROWS, COLUMNS)
    assert draws.dtype == np.float64
    assert draws.min() >= 0
    assert draws.max() < 1
    assert stats.kstest(draws, "uniform").pvalue > LEAST_P


@pytest.mark.parametrize("seed", [0, 7])
def test_draws_of_rows_alone_are_uniform(seed: int) -> None:
    draws = cell_uniform(seed, np.arange(100_000, dtype=np.int32))
    assert stats.kstest(draws, "uniform").pvalue > LEAST_P


@pytest.mark.parametrize("axis", [0, 1])
def test_neighbours_have_nothing_in_common(axis: int) -> None:
    grid = cell_uniform(3, ROWS, COLUMNS).reshape(300, 300)
    near = np.delete(grid, 0, axis).ravel(), np.delete(grid, -1, axis).ravel()
    assert abs(np.corrcoef(*near)[0, 1]) < 5 / np.sqrt(near[0].size)


def test_seeds_have_nothing_in_common() -> None:
    draws = [cell_uniform(seed, ROWS, COLUMNS) for seed in (5, 6)]
    assert abs(np.corrcoef(*draws)[0, 1]) < 5 / np.sqrt(ROWS.size)
    assert not (draws[0] == draws[1]).any()


def test_a_cell_is_not_its_mirror_image() -> None:
    off = ROWS != COLUMNS
    assert not (
        cell_uniform(1, ROWS[off], COLUMNS[off]) == cell_uniform(1, COLUMNS[off], ROWS[off])
    ).any()


def test_every_row_and_column_gets_its_share() -> None:
    chosen = (cell_uniform(9, ROWS, COLUMNS) < 0.2).reshape(300, 300)
    spread = np.sqrt(0.2 * 0.8 * 300)
    for axis in (0, 1):
        assert np.abs(chosen.sum(axis) - 60).max() < 6 * spread


@given(st.permutations(range(40)), st.integers(0, 2**62))
def test_order_and_company_do_not_matter(order: list[int], seed: int) -> None:
    rows, columns = ROWS[:40], COLUMNS[:40]
    whole = cell_uniform(seed, rows, columns)
    assert cell_uniform(seed, rows[order], columns[order]).tolist() == whole[order].tolist()
    alone = [cell_uniform(seed, rows[i : i + 1], columns[i : i + 1])[0] for i in range(40)]
    assert alone == whole.tolist()


def test_the_mixer_is_that_of_splitmix64() -> None:
    # the first two words of the published generator, from 0
    state = np.array([references.STEP, 2 * references.STEP % 2**64], np.uint64)
    assert [hex(word) for word in mix(state)] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4"]


@given(st.integers(0, 2**62), st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
def test_draws_agree_with_whole_numbers(seed: int, row: int, column: int) -> None:
    # a change here would change every split that somebody has published with its seed
    rows, columns = np.array([row], np.int32), np.array([column], np.int32)
    assert cell_uniform(seed, rows, columns)[0] == references.cell_uniform(seed, row, column)
    assert cell_uniform(seed, rows)[0] == references.cell_uniform(seed, row)


def test_a_word_changes_with_all_that_a_cell_holds() -> None:
    def words(row: int, column: int, value: float, time: int | None) -> int:
        times = None if time is None else np.array([time], np.int64)
        found = cell_words(
            np.array([row], np.int32), np.array([column], np.int32), np.float32([value]), times
        )
        assert found.dtype == np.uint64
        return int(found[0])

    cells = [
        (1, 2, 3.0, 4),
        (2, 1, 3.0, 4),
        (1, 3, 3.0, 4),
        (1, 2, 3.5, 4),
        (1, 2, -3.0, 4),
        (1, 2, 3.0, -4),
        (1, 2, 3.0, 2**40),
        (1, 2, 3.0, None),
        (0, 0, 0.0, 0),
    ]
    assert len({words(*cell) for cell in cells}) == len(cells)
    assert words(*cells[0]) == words(*cells[0])


def test_words_agree_with_whole_numbers() -> None:
    rows, columns = ROWS[:500], COLUMNS[:500]
    values, times = np.arange(500, dtype=np.float32), np.arange(500) * 10**15
    wanted = []
    for row, column, bits, time in zip(
        rows.tolist(),
        columns.tolist(),
        values.view(np.uint32).tolist(),
        times.tolist(),
        strict=True,
    ):
        state = references.mix((row + 1) * references.STEP % 2**64)
        state = references.mix((state + (column + 1) * references.STEP) % 2**64)
        state = references.mix((state + bits) % 2**64)
        wanted.append(references.mix((state + time) % 2**64))
    assert cell_words(rows, columns, values, times).tolist() == wanted


def test_the_largest_numbers_are_hashed_too() -> None:
    most = np.array([2**31 - 1], np.int32)
    assert 0 <= cell_uniform(0, most, most)[0] < 1


@given(
    st.lists(st.one_of(st.integers(-5, 5), st.integers(-(2**63), 2**63 - 1)), max_size=60),
    st.integers(1, 300),
)
def test_ids_are_numbered_in_ascending_order(drawn: list[int], repeats: int) -> None:
    values = np.array(drawn * repeats, np.int64)
    codes, distinct, counts = number_ids(values)
    assert distinct.tolist() == sorted(set(drawn))
    assert distinct[codes].tolist() == drawn * repeats
    assert counts.tolist() == [repeats * drawn.count(each) for each in distinct.tolist()]
    assert (codes.dtype, distinct.dtype, counts.dtype) == (np.int32, np.int64, np.int64)


@pytest.mark.parametrize("step", [1, 2**12, 2**40, 7_777_777_777])
def test_many_distinct_ids_are_numbered(step: int) -> None:
    """More than the first slots hold, and in steps that a poor hash would put into one slot."""
    values = np.random.default_rng(0).permutation(50_000) * np.int64(step) - 3
    codes, distinct, counts = number_ids(values)
    assert (np.diff(distinct) > 0).all()
    assert (counts == 1).all()
    np.testing.assert_array_equal(distinct[codes], values)


def rows_of(matrix: sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32)


@given(
    st.integers(0, 2**62),
    sparse_matrices(rows=3, columns=9, least=3),
    sparse_matrices(rows=3, columns=9, least=3),
    st.integers(1, 12),
)
def test_draws_of_other_items_are_those_of_the_twin(
    seed: int, seen: sparse.csr_array, truth: sparse.csr_array, n: int
) -> None:
    n_items = max(seen.shape[1], truth.shape[1])
    users = np.array([7, 0, 2**31 - 2], np.int32)
    taken = [a | b for a, b in zip(*map(references.rows_as_sets, (seen, truth)), strict=True)]
    indptr, items = draw_others(seed_word(seed), users, rows_of(seen), rows_of(truth), n_items, n)
    assert (indptr.dtype, items.dtype) == (np.int64, np.int32)
    found = [items[a:b].tolist() for a, b in pairwise(indptr)]
    assert found == [
        references.draw_others(seed, user, some, n_items=n_items, n=n)
        for user, some in zip(users.tolist(), taken, strict=True)
    ]
    alone: Any = (rows_of(each[[1]]) for each in (seen, truth))
    assert draw_others(seed_word(seed), users[[1]], *alone, n_items, n)[1].tolist() == found[1]


def test_draws_of_other_items_are_even() -> None:
    users = np.arange(20_000, dtype=np.int32)
    nothing = np.zeros(len(users) + 1, np.int64), np.empty(0, np.int32)
    some = np.arange(len(users) + 1), np.full(len(users), 3, np.int32)
    _, items = draw_others(seed_word(1), users, nothing, some, 10, 4)
    counts = np.bincount(items, minlength=10)
    assert counts[3] == 0
    assert stats.chisquare(np.delete(counts, 3)).pvalue > LEAST_P
