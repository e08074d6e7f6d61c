"""Hits are found as sets find them, their weights, and who wins against whom."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from dasrec.kernels.ranking import find_gains, find_hits, gini, limited_auc, win_shares
from tests import references
from tests.strategies import sparse_matrices


@given(sparse_matrices(rows=6, columns=12), st.integers(1, 14), st.data())
def test_hits_are_those_of_sets(truth: sparse.csr_array, n: int, data: st.DataObject) -> None:
    items = st.permutations(range(truth.shape[1]))
    ended = st.integers(0, n)
    lists = []
    for _ in range(truth.shape[0]):
        row = data.draw(items)[: data.draw(ended)][:n]
        lists.append([*row, *[-1] * (n - len(row))])
    found = find_hits(
        np.array(lists, np.int32).reshape(-1, n), truth.indptr.astype(np.int64), truth.indices
    )
    assert found.tolist() == references.hits(lists, references.rows_as_sets(truth))


def test_what_stands_behind_the_end_of_a_list_is_no_hit() -> None:
    lists = np.array([[2, -1, 0]], np.int32)
    found = find_hits(lists, np.array([0, 2]), np.array([0, 2], np.int32))
    assert found.tolist() == [[True, False, False]]


def test_truth_far_behind_two_to_the_31_is_not_cut_short() -> None:
    # only the offsets are faked: a row pointer in int32 would have to wrap around here
    indptr = np.array([0, 3, 3], np.int64)
    indices = np.array([1, 2**31 - 2, 2**31 - 1], np.int32)
    lists = np.array([[2**31 - 1, 0, 1], [1, 0, 2]], np.int32)
    found = find_hits(lists, indptr, indices)
    assert found.tolist() == [[True, False, True], [False, False, False]]


@given(sparse_matrices(rows=6, columns=12), st.integers(1, 14), st.data())
def test_gains_are_the_weights_of_hits(
    truth: sparse.csr_array, n: int, data: st.DataObject
) -> None:
    items = st.permutations(range(truth.shape[1]))
    lists = np.array(
        [(data.draw(items) + [-1] * n)[:n] for _ in range(truth.shape[0])], np.int32
    ).reshape(-1, n)
    indptr = truth.indptr.astype(np.int64)
    hits = find_hits(lists, indptr, truth.indices)
    found = find_gains(lists, hits, indptr, truth.indices, truth.data)
    dense = truth.toarray()
    expected = [
        [max(dense[row, item], 0) if item >= 0 else 0 for item in listed]
        for row, listed in enumerate(lists.tolist())
    ]
    assert found.tolist() == expected


def test_wins_do_not_depend_on_how_rows_are_cut() -> None:
    draw = np.random.default_rng(1)
    scores = draw.integers(0, 9, (6, 30)).astype(np.float32)
    cells = np.sort(draw.permuted(np.tile(np.arange(30), (6, 1)), axis=1)[:, :8], axis=1)
    seen = np.arange(0, 25, 4), cells[:, ::2].astype(np.int32).ravel()
    truth = np.arange(0, 25, 4), cells[:, 1::2].astype(np.int32).ravel()
    whole = win_shares(scores, seen, truth)
    assert 0.2 < whole.mean() < 0.8
    for row in range(6):
        part = slice(4 * row, 4 * row + 4)
        few = np.array([0, 4])
        found = win_shares(scores[row : row + 1], (few, seen[1][part]), (few, truth[1][part]))
        assert found.tolist() == whole[part].tolist()


@pytest.mark.parametrize("listed", [[0, 1], [1, 0], [0, 2], [3, 4], [0, -1], [-1, -1]])
def test_limited_auc_is_the_mean_over_orders_of_the_rest(listed: list[int]) -> None:
    """Of six items 0, 2 and 5 are to be found; a place that is empty counts as a miss."""
    wanted = {0, 2, 5}
    shown = [item for item in listed if item >= 0]
    fillers = [1, 3, 4][: len(listed) - len(shown)]
    head = [*shown, *fillers]
    found = []
    for rest in permutations(set(range(6)) - set(head)):
        order = [item in wanted for item in [*head, *rest]]
        above = [sum(order[:place]) for place, is_hit in enumerate(order) if not is_hit]
        found.append(sum(above) / 9)
    hits = np.array([[item in wanted for item in listed]])
    expected = pytest.approx(np.mean(found), rel=1e-12)
    assert limited_auc(hits, np.array([3]), 6).tolist() == [expected]


def test_concentration() -> None:
    assert gini(np.array([2.0, 2.0, 2.0])) == 0
    assert gini(np.array([0.0, 6.0, 0.0])) == pytest.approx(2 / 3)
    assert np.isnan(gini(np.zeros(3)))
