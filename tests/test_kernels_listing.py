"""Items by length, and lists without what is seen."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from dasrec.kernels.listing import as_they_are, by_length, list_unseen
from tests import references
from tests.strategies import sparse_matrices


def rows_of(seen: sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
    return seen.indptr.astype(np.int64), seen.indices.astype(np.int32)


def test_items_go_from_the_longest_to_the_shortest() -> None:
    items = np.array([[3, 4], [0, 0], [np.nan, 1], [0, -5], [np.inf, 1], [6, 8]], np.float32)
    vectors, numbers, lengths = by_length(items)
    assert numbers.tolist() == [4, 5, 0, 3, 1, 2]  # equal ones in their order, no numbers last
    assert np.array_equal(vectors, items[numbers], equal_nan=True)
    assert vectors.flags.c_contiguous
    assert np.array_equal(lengths, [np.inf, 10, 5, 5, 0, np.nan], equal_nan=True)
    vectors, numbers, lengths = as_they_are(items[:, ::-1])
    assert vectors.flags.c_contiguous
    assert numbers.tolist() == list(range(6))
    assert np.isinf(lengths).all()


@given(sparse_matrices(rows=4, columns=12, least=1), st.integers(1, 9), st.data())
def test_given_lists_lose_what_is_seen(seen: sparse.csr_array, n: int, data: st.DataObject) -> None:
    m, n_items = seen.shape
    item = st.integers(-1, n_items - 1)
    lists = data.draw(st.lists(st.lists(item, max_size=8), min_size=m, max_size=m))
    known = references.rows_as_sets(seen)
    left = [
        [item for item in row if item >= 0 and item not in some][:n]
        for row, some in zip(lists, known, strict=True)
    ]
    ends = np.cumsum([0, *map(len, lists)])
    flat = np.array([item for row in lists for item in row], np.int32)
    found, twice = list_unseen(flat, ends[:-1], ends[1:], *rows_of(seen), n)
    assert found.tolist() == [row + [-1] * (n - len(row)) for row in left]
    odd = [number for number, row in enumerate(left) if len(set(row)) < len(row)]
    assert twice == (odd[0] if odd else -1)
