"""The n best agree with a full sort, however the catalogue is cut into tiles."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from dasrec.kernels.topk import mask_tile, push_tile, sort_heaps
from tests import references
from tests.strategies import cuts, sparse_matrices


def best_of(
    scores: np.ndarray, n: int, seen: sparse.csr_array, edges: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    best = np.full((len(scores), n), -np.inf, np.float32)
    items = np.full((len(scores), n), -1, np.int32)
    for start, stop in itertools.pairwise(edges):
        tile = np.ascontiguousarray(scores[:, start:stop])
        mask_tile(tile, start, seen.indptr.astype(np.int64), seen.indices)
        push_tile(tile, start, best, items)
    sort_heaps(best, items)
    return items, best


def check_agrees(scores: np.ndarray, n: int, seen: sparse.csr_array, edges: list[int]) -> None:
    items, best = best_of(scores, n, seen, edges)
    lists, values = references.top_n(scores, n, references.rows_as_sets(seen))
    for row, (wanted, wanted_scores) in enumerate(zip(lists, values, strict=True)):
        rest = n - len(wanted)
        assert items[row].tolist() == wanted + [-1] * rest
        assert best[row].tolist() == wanted_scores + [-np.inf] * rest


@given(sparse_matrices(rows=4, columns=30), st.integers(1, 32), st.data())
def test_the_best_are_those_of_a_full_sort(
    seen: sparse.csr_array, n: int, data: st.DataObject
) -> None:
    # few distinct scores: ties are what goes wrong
    places = seen.shape[0] * seen.shape[1]
    few = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 0.5, 2.0])
    drawn = data.draw(st.lists(few, min_size=places, max_size=places))
    scores = np.array(drawn, np.float32).reshape(seen.shape)
    edges = data.draw(cuts(seen.shape[1]))
    assert len(edges) > 2
    check_agrees(scores, n, seen, edges)


@pytest.mark.parametrize("n", [1, 10, 100])
@pytest.mark.parametrize("width", [1, 7, 64, 1000])
def test_many_scores_in_tiles_of_any_width(n: int, width: int) -> None:
    draw = np.random.default_rng(n * width)
    scores = draw.normal(size=(5, 1000)).round(2).astype(np.float32)
    seen = sparse.random_array((5, 1000), density=0.1, format="csr", rng=draw)
    seen.sort_indices()
    check_agrees(scores, n, seen, [*range(0, 1000, width), 1000])


def test_equal_scores_go_to_the_lower_item() -> None:
    nothing = sparse.csr_array((1, 6), dtype=np.float32)
    items, _ = best_of(np.zeros((1, 6), np.float32), 3, nothing, [0, 2, 6])
    assert items.tolist() == [[0, 1, 2]]


def test_a_user_who_has_seen_all_gets_an_empty_list() -> None:
    everything = sparse.csr_array(np.ones((1, 4), np.float32))
    items, best = best_of(np.ones((1, 4), np.float32), 3, everything, [0, 4])
    assert items.tolist() == [[-1, -1, -1]]
    assert (best == -np.inf).all()


def test_scores_that_are_no_numbers_are_not_recommended() -> None:
    nothing = sparse.csr_array((1, 3), dtype=np.float32)
    items, _ = best_of(np.array([[np.nan, 1, np.nan]], np.float32), 3, nothing, [0, 3])
    assert items.tolist() == [[1, -1, -1]]


def test_masking_begins_at_the_tile() -> None:
    scores = np.zeros((2, 3), np.float32)
    indptr, indices = np.array([0, 4, 5]), np.array([0, 4, 6, 9, 5], np.int32)
    mask_tile(scores, 4, indptr, indices)
    assert np.isneginf(scores).tolist() == [[True, False, True], [False, True, False]]
