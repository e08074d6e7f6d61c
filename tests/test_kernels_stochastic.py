"""Cells are dealt out whole; a step goes down the gradient; many steps are those of plain loops."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasrec.kernels.hashing import key_of
from dasrec.kernels.rule import Rule
from dasrec.kernels.stochastic import deal, descend_cells
from tests import references_gradient as references
from tests.strategies import sparse_matrices


def rule(k: int, *, rate: float = 0.05, biased: bool = True) -> Rule:
    return Rule(k, np.float32(rate), np.float32(0.1), offset=np.float32(0.5), biased=biased)


def vectors(shape: tuple[int, int], *, seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32) / 2


def dealt_cells(matrix: Any, places: Any, size: int, key: int = 1) -> tuple[Any, list[Any]]:
    block = (matrix.indptr.astype(np.int64), matrix.indices, matrix.data)
    n_groups = -(-len(places) // size)
    offsets, *columns = deal(block, places, size, n_groups, key)
    return offsets, [tuple(column[a:b] for column in columns) for a, b in pairwise(offsets)]


@given(matrix=sparse_matrices(rows=9, columns=9), size=st.integers(1, 9), seed=st.integers(0, 99))
def test_every_cell_is_dealt_once_and_to_its_group(matrix: Any, size: int, seed: int) -> None:
    places = np.random.default_rng(seed).permutation(matrix.shape[1]).astype(np.int32)
    offsets, groups = dealt_cells(matrix, places, size, key=seed)
    assert offsets[-1] == matrix.nnz
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    cells = zip(rows.tolist(), places[matrix.indices].tolist(), matrix.data.tolist(), strict=True)
    found = [
        (row, column + number * size, value)
        for number, group in enumerate(groups)
        for row, column, value in zip(*(each.tolist() for each in group), strict=True)
    ]
    assert sorted(found) == sorted(cells)
    assert all((columns >= 0).all() and (columns < size).all() for _, columns, _ in groups)


@given(matrix=sparse_matrices(rows=9, columns=9), seed=st.integers(0, 99))
def test_one_group_is_dealt_as_among_all(matrix: Any, seed: int) -> None:
    places = np.random.default_rng(seed).permutation(matrix.shape[1]).astype(np.int32)
    _, groups = dealt_cells(matrix, places, 3, key=seed)
    block = (matrix.indptr.astype(np.int64), matrix.indices, matrix.data)
    for number, group in enumerate(groups):
        alone = deal(block, places, 3, len(groups), seed, number)[1:]
        assert all(np.array_equal(*pair) for pair in zip(alone, group, strict=True))


@pytest.mark.parametrize("n", [1, 2, 4095, 4096, 4097, 3 * 4096, 10_001])
def test_cells_are_shuffled_within_tiles(n: int) -> None:
    """All are there, and each stands near the others of its row: tiles follow one another."""
    block = (np.arange(n + 1), np.zeros(n, np.int32), np.arange(n, dtype=np.float32))
    orders = []
    for key in (1, 2):
        _, rows, _, values = deal(block, np.zeros(1, np.int32), 1, 1, key)
        assert np.array_equal(np.sort(values), block[2])
        assert np.array_equal(rows, values.astype(np.int32))
        orders.append(values)
        assert n < 9 or (np.abs(np.diff(rows)) != 1).mean() > 0.9
    assert n < 9 or not np.array_equal(*orders)
    if n == 3 * 4096:  # a turn apart, each tile is one run
        tiles = orders[0].astype(int) // 4096
        assert np.count_nonzero(np.diff(tiles)) <= 3


def draw_case(k: int, n: int, *, seed: int) -> tuple[Any, Any, Any]:
    draw = np.random.default_rng(seed)
    cells = (
        draw.integers(7, size=n).astype(np.int32),
        draw.integers(5, size=n).astype(np.int32),
        draw.normal(size=n).astype(np.float32),
    )
    return cells, vectors((7, k + 1), seed=seed), vectors((5, k + 1), seed=seed + 1)


@pytest.mark.parametrize("biased", [True, False])
@given(k=st.integers(1, 20), n=st.integers(0, 40), seed=st.integers(0, 999))
def test_steps_are_those_of_plain_loops(k: int, n: int, seed: int, *, biased: bool) -> None:
    cells, users, items = draw_case(k, n, seed=seed)
    twin = references.explicit_descent(
        list(zip(*cells, strict=True)),
        users.astype(np.float64),
        items.astype(np.float64),
        rule(k, biased=biased),
    )
    total = descend_cells(cells, users, items, rule(k, biased=biased))
    assert total == pytest.approx(twin[2], rel=1e-3, abs=1e-4)
    np.testing.assert_allclose(users, twin[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(items, twin[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("biased", [True, False])
def test_a_step_goes_down_the_gradient(*, biased: bool) -> None:
    k, rate, nudge = 6, 1e-3, 1e-6
    cells, users, items = draw_case(k, 1, seed=4)
    row, column = int(cells[0][0]), int(cells[1][0])
    before = [users[row].astype(np.float64), items[column].astype(np.float64)]
    descend_cells(cells, users, items, rule(k, rate=rate, biased=biased))
    moved = [(users[row] - before[0]) / rate, (items[column] - before[1]) / rate]
    for side in (0, 1):
        for place in range(k + 1):
            ends = []
            for sign in (1, -1):
                shifted = [each.copy() for each in before]
                shifted[side][place] += sign * nudge
                told = (float(cells[2][0]), 0.5)
                if not biased:  # a bias that is not learned is still there
                    told = (told[0] - before[0][k] - before[1][k], told[1])
                ends.append(references.explicit_loss(told, *shifted, 0.1, biased=biased))
            slope = (ends[0] - ends[1]) / (2 * nudge)
            assert moved[side][place] == pytest.approx(-slope, abs=2e-3)


def test_keys_differ_in_every_number() -> None:
    keys = {key_of(a, b) for a in range(50) for b in range(50)}
    assert len(keys) == 2500
    assert key_of(1, 2) != key_of(2, 1)
    assert all(0 <= key < 2**63 for key in keys)
