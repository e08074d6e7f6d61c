"""Hits are found as sets find them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from dasrec.kernels.ranking import find_hits
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
