"""The n best agree with a full sort, whoever is ranked beside and however items are cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from dasrec.kernels.listing import as_they_are, by_length
from dasrec.kernels.topk import PANEL, rank_rows, score_cells, select_cells, select_rows
from tests import references
from tests.strategies import cuts, sparse_matrices

FEW = (-np.inf, -1.0, 0.0, 0.5, 0.5, 2.0, np.inf, np.nan)  # ties are what goes wrong


def rows_of(seen: sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
    return seen.indptr.astype(np.int64), seen.indices.astype(np.int32)


def check_agrees(found: Any, scores: np.ndarray, n: int, seen: sparse.csr_array) -> None:
    items, best = found
    assert (items.dtype, best.dtype) == (np.int32, np.float32)
    lists, values = references.top_n(scores, n, references.rows_as_sets(seen))
    for row, (wanted, wanted_scores) in enumerate(zip(lists, values, strict=True)):
        rest = n - len(wanted)
        assert items[row].tolist() == wanted + [-1] * rest
        assert best[row].tolist() == wanted_scores + [-np.inf] * rest


@st.composite
def vectors(draw: st.DrawFn, n: int, d: int) -> np.ndarray:
    """Draw halves, whose products are exact and often equal, and sometimes no numbers."""
    value = st.sampled_from([-1.0, -0.5, 0.0, 0.0, 0.5, 1.0, 2.0])
    odd = st.sampled_from([value, value, value, st.sampled_from([np.nan, np.inf, -np.inf])])
    cells = draw(st.lists(odd.flatmap(lambda each: each), min_size=n * d, max_size=n * d))
    return np.array(cells, np.float32).reshape(n, d)


@given(sparse_matrices(rows=4, columns=30), st.integers(1, 32), st.integers(1, 40), st.data())
def test_the_best_are_those_of_a_full_sort(
    seen: sparse.csr_array, n: int, tile: int, data: st.DataObject
) -> None:
    d = data.draw(st.integers(0, 3))
    users, items = (data.draw(vectors(size, d)) for size in seen.shape)
    with np.errstate(invalid="ignore"):
        scores = np.einsum("ui,vi->uv", users, items)
    for catalogue in (by_length(items), as_they_are(items)):
        found = rank_rows(users, catalogue, *rows_of(seen), n, tile)
        check_agrees(found, scores, n, seen)


@pytest.mark.parametrize("n", [1, 10, 100])
@pytest.mark.parametrize("tile", [1, 7, 64, 1000])
def test_many_scores_in_tiles_of_any_size(n: int, tile: int) -> None:
    """Of more users than a panel has; the twin scores in float64, so values are whole."""
    draw = np.random.default_rng(n * tile)
    m = 2 * PANEL + 3
    users, items = (draw.integers(-9, 9, (size, 5)).astype(np.float32) for size in (m, 1000))
    seen = sparse.random_array((m, 1000), density=0.1, format="csr", rng=draw)
    seen.sort_indices()
    for catalogue in (by_length(items), as_they_are(items)):
        found = rank_rows(users, catalogue, *rows_of(seen), n, tile)
        check_agrees(found, users @ items.T, n, seen)


@pytest.mark.parametrize("d", [1, 3, 64, 100])
def test_nobody_else_changes_a_bit(d: int) -> None:
    """One user alone, in a block, and at another place of it; items in tiles and in one piece."""
    draw = np.random.default_rng(d)
    m, n_items, n = PANEL + 9, 203, 20
    users, items = (draw.normal(size=(size, d)).astype(np.float32) for size in (m, n_items))
    seen = sparse.random_array((m, n_items), density=0.1, format="csr", rng=draw)
    seen.sort_indices()
    found, best = rank_rows(users, by_length(items), *rows_of(seen), n, 1000)
    order = draw.permutation(m)
    shuffled = rank_rows(users[order], by_length(items), *rows_of(seen[order]), n, 17)
    assert np.array_equal(shuffled[0], found[order])
    assert np.array_equal(shuffled[1].view(np.int32), best[order].view(np.int32))
    for user in (0, PANEL - 1, m - 1):
        alone = rank_rows(users[[user]], as_they_are(items), *rows_of(seen[[user]]), n, 50)
        assert np.array_equal(alone[0][0], found[user])
        assert np.array_equal(alone[1][0].view(np.int32), best[user].view(np.int32))
    listed = np.arange(0, n * (m + 1), n), found.ravel()
    cells = score_cells(users, items, *listed)
    assert np.array_equal(cells.view(np.int32), best.ravel().view(np.int32))


@given(sparse_matrices(rows=4, columns=30), st.integers(1, 32), st.data())
def test_given_scores_are_selected_alike(
    seen: sparse.csr_array, n: int, data: st.DataObject
) -> None:
    places = seen.shape[0] * seen.shape[1]
    drawn = data.draw(st.lists(st.sampled_from(FEW), min_size=places, max_size=places))
    scores = np.array(drawn, np.float32).reshape(seen.shape)
    check_agrees(select_rows(scores, *rows_of(seen), n), scores, n, seen)


@pytest.mark.parametrize("n", [1, 10, 100])
def test_many_given_scores(n: int) -> None:
    draw = np.random.default_rng(n)
    scores = draw.normal(size=(5, 1000)).round(2).astype(np.float32)
    seen = sparse.random_array((5, 1000), density=0.1, format="csr", rng=draw)
    seen.sort_indices()
    check_agrees(select_rows(scores, *rows_of(seen), n), scores, n, seen)


@given(sparse_matrices(rows=4, columns=20), st.integers(1, 22), st.data())
def test_of_a_few_items_the_best_are_selected(
    cells: sparse.csr_array, n: int, data: st.DataObject
) -> None:
    """All others count as seen."""
    drawn = data.draw(st.lists(st.sampled_from(FEW), min_size=cells.nnz, max_size=cells.nnz))
    indptr, indices = rows_of(cells)
    dense = np.full(cells.shape, -np.inf, np.float32)
    dense[np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)), indices] = drawn
    found = select_cells(np.array(drawn, np.float32), indptr, indices, n)
    check_agrees(found, dense, n, sparse.csr_array(cells.shape, dtype=np.float32))


@given(sparse_matrices(rows=9, columns=12), st.data())
def test_blocks_of_users_make_the_whole(seen: sparse.csr_array, data: st.DataObject) -> None:
    m, n_items = seen.shape
    edges = data.draw(cuts(m))
    assert len(edges) > 2
    draw = np.random.default_rng(m)
    users, items = (draw.normal(size=(size, 7)).astype(np.float32) for size in (m, n_items))
    catalogue = by_length(items)
    whole = rank_rows(users, catalogue, *rows_of(seen), 5, 4)
    parts = [
        rank_rows(users[a:b], catalogue, *rows_of(seen[a:b]), 5, 4) for a, b in pairwise(edges)
    ]
    for one, some in zip(whole, zip(*parts, strict=True), strict=True):
        assert np.array_equal(one, np.concatenate(some))


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e-19, 1.0, 1e15, 1e19, 1e25])
def test_the_bound_leaves_out_nothing(scale: float) -> None:
    """Items along the user are as good as their bound: rounding may lift one above it."""
    draw = np.random.default_rng(1)
    m, n_items, d = PANEL + 5, 400, 7
    users = draw.normal(size=(m, d)).astype(np.float32) * np.float32(scale)
    along = users[draw.integers(m, size=n_items)] * (1 + draw.integers(-2, 3, (n_items, 1)) * 1e-7)
    items = along.astype(np.float32)
    nothing = np.zeros(m + 1, np.int64), np.empty(0, np.int32)
    for n in (1, 20):
        pruned = rank_rows(users, by_length(items), *nothing, n, 10)
        whole = rank_rows(users, as_they_are(items), *nothing, n, 400)
        assert np.array_equal(pruned[0], whole[0])
        assert np.array_equal(pruned[1].view(np.int32), whole[1].view(np.int32))


def test_long_items_spare_the_rest() -> None:
    """Behind them stand items that would be listed if anybody asked for their scores."""
    users = np.ones((3, 2), np.float32)
    items, numbers, lengths = by_length(np.array([[5, 5]] * 4 + [[1, 1]] * 8, np.float32))
    items[4:] = 100
    nothing = np.zeros(4, np.int64), np.empty(0, np.int32)
    found, _ = rank_rows(users, (items, numbers, lengths), *nothing, 3, 4)
    assert found.tolist() == [[0, 1, 2]] * 3
    found, _ = rank_rows(users, (items, numbers, lengths), *nothing, 5, 4)
    assert found.tolist() == [[4, 5, 6, 7, 0]] * 3  # the next tile, and no more


def test_equal_scores_go_to_the_lower_item() -> None:
    nothing = rows_of(sparse.csr_array((1, 9), dtype=np.float32))
    ones = np.ones((9, 1), np.float32)
    assert rank_rows(ones[:1], by_length(ones), *nothing, 3, 2)[0].tolist() == [[0, 1, 2]]


def test_a_user_who_has_seen_all_gets_an_empty_list() -> None:
    everything = rows_of(sparse.csr_array(np.ones((1, 8), np.float32)))
    ones = np.ones((8, 1), np.float32)
    items, best = rank_rows(ones[:1], by_length(ones), *everything, 3, 5)
    assert items.tolist() == [[-1, -1, -1]]
    assert (best == -np.inf).all()


def test_scores_that_are_no_numbers_are_not_recommended() -> None:
    nothing = rows_of(sparse.csr_array((1, 7), dtype=np.float32))
    items = np.array([[np.nan, 1, np.nan, -np.inf, 2, np.inf, np.nan]], np.float32).T
    found, _ = rank_rows(np.ones((1, 1), np.float32), by_length(items), *nothing, 4, 3)
    assert found.tolist() == [[5, 4, 1, -1]]
