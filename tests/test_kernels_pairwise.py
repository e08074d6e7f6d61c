"""Items are drawn that were not seen; steps of both ranking losses go down their gradients."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasrec.kernels.hashing import below, key_of, word
from dasrec.kernels.pairwise import rank_pairs, rank_top
from dasrec.kernels.rule import HARD, POPULAR, UNIFORM, Rule
from dasrec.kernels.unseen import draw_each, draw_hardest, draw_unseen, is_seen, mark_cells
from tests import references_gradient as references
from tests.strategies import sparse_matrices

K, RATE, SHRINK = 5, 0.01, 0.1


def rule(negatives: int = UNIFORM, **changes: Any) -> Rule:
    made = Rule(K, np.float32(RATE), np.float32(SHRINK), frozen=False, negatives=negatives)
    return made._replace(tries=50, catalogue=40, most=np.float32(99))._replace(**changes)


def vectors(n: int, *, seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=(n, K + 1)).astype(np.float32) / 2


def known_of(rows: list[list[int]], names: list[int]) -> Any:
    indptr = np.cumsum([0, *map(len, rows)])
    indices = np.array([item for row in rows for item in row], np.int32)
    return indptr.astype(np.int64), indices, np.array(names, np.int32)


@given(matrix=sparse_matrices(rows=5, columns=30), seed=st.integers(0, 99))
def test_what_was_seen_is_found(matrix: Any, seed: int) -> None:
    names = np.random.default_rng(seed).permutation(matrix.shape[1]).astype(np.int32)
    places = np.argsort(names).astype(np.int32)
    rows = np.repeat(np.arange(matrix.shape[0], dtype=np.int32), np.diff(matrix.indptr))
    known = mark_cells(
        (matrix.indptr.astype(np.int64), matrix.indices, names), rows, places[matrix.indices]
    )
    for row in range(matrix.shape[0]):
        own = set(matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]].tolist())
        for column, name in enumerate(names.tolist()):
            assert is_seen(known, row, column) == (name in own)


def test_unseen_items_are_drawn_each_alike_or_as_they_are_used() -> None:
    own = (np.zeros(3, np.int32), np.array([5, 3, 0], np.int32))
    known = mark_cells(known_of([[0, 2, 5]], [5, 4, 3, 2, 1, 0]), *own)
    columns = np.array([1, 1, 1, 2, 0, 3], np.int32)

    def drawn(negatives: int) -> Counter[int]:
        keys = (key_of(1, number) for number in range(3000))
        return Counter(int(draw_unseen(known, columns, 0, key, negatives)) for key in keys)

    alike, used = drawn(UNIFORM), drawn(POPULAR)
    assert set(alike) == {1, 2, 4}
    assert all(abs(count - 1000) < 120 for count in alike.values())
    assert set(used) == {1, 2, -1} or set(used) == {1, 2}
    assert abs(used[1] / used[2] - 3) < 0.5


@given(n=st.integers(1, 115), seed=st.integers(0, 99))
def test_nothing_that_was_seen_is_drawn(n: int, seed: int) -> None:
    (rows, columns), known, users, items = draw_case(n, seed=seed)
    own = set(zip(rows.tolist(), columns.tolist(), strict=True))
    items[np.unique(columns)] += 9 * users[0]  # so that the best are among those that were seen
    marked = mark_cells(known, rows, columns)
    for negatives in (UNIFORM, POPULAR):
        drawn = draw_each(marked, rows, columns, seed, negatives).tolist()
        assert own.isdisjoint(zip(rows.tolist(), drawn, strict=True))
    for row in range(6):
        for key in range(20):
            bits = word(seed, key)
            hard = int(draw_hardest((users, items), marked, columns, row, bits, K))
            assert (row, hard) not in own


def test_who_has_seen_all_gets_none_and_is_passed_over() -> None:
    known = known_of([[0, 1, 2]], [2, 0, 1])
    cells = (np.zeros(3, np.int32), np.arange(3, dtype=np.int32))
    assert draw_unseen(mark_cells(known, *cells), cells[1], 0, 7, UNIFORM) == -1
    users, items = vectors(1, seed=0), vectors(3, seed=1)
    before = users.copy(), items.copy()
    for negatives in (UNIFORM, POPULAR, HARD):
        total = rank_pairs(cells, known, users, items, rule(negatives), 3)
        assert total == pytest.approx(3 * np.log(2))
    assert rank_top(cells, known, users, items, rule(), 3) == 0
    assert np.array_equal(users, before[0])
    assert np.array_equal(items, before[1])


def draw_case(n: int, *, seed: int) -> tuple[Any, Any, Any, Any]:
    """Draw cells of 6 rows and 20 columns, and what the rows have: these, and other columns."""
    draw = np.random.default_rng(seed)
    row, column = (each.astype(np.int32) for each in divmod(draw.choice(120, n, replace=False), 20))
    rows = [[*sorted(column[row == one].tolist()), 20, 21] for one in range(6)]
    known = known_of(rows, list(range(20)))
    return (row, column), known, vectors(6, seed=seed), vectors(20, seed=seed + 1)


def twin_pairs(case: Any, negatives: int, key: int) -> Any:
    """Take the steps of BPR one by one, items drawn as the kernel does."""
    (rows, columns), known, users, items = case
    known = mark_cells(known, rows, columns)
    users, items, total = users.astype(np.float64), items.astype(np.float64), 0.0
    loss = partial(references.pair_loss, regularization=SHRINK)
    for c, (row, column) in enumerate(zip(rows, columns, strict=True)):
        other = draw_unseen(known, columns, row, word(key, c), negatives)
        if negatives == HARD:
            few = [
                draw_unseen(known, columns, row, word(word(key, c), -1 - number), UNIFORM)
                for number in range(4)
            ]
            other = max(few, key=lambda j: users[row, :-1] @ items[j, :-1] + items[j, -1])
        if other < 0:
            total += np.log(2)
            continue
        three = [users[row], items[column], items[other]]
        total += references.pair_loss(*three, regularization=0)
        users[row], items[column], items[other] = references.step_down(loss, three, RATE)
    return users, items, total


@pytest.mark.parametrize("negatives", [UNIFORM, POPULAR, HARD])
@given(n=st.integers(0, 25), seed=st.integers(0, 99))
def test_pairs_are_parted_as_by_plain_loops(n: int, seed: int, negatives: int) -> None:
    cells, known, users, items = case = draw_case(n, seed=seed)
    twin = twin_pairs(case, negatives, seed)
    total = rank_pairs(cells, known, users, items, rule(negatives), seed)
    assert total == pytest.approx(twin[2], rel=1e-4)
    np.testing.assert_allclose(users, twin[0], atol=1e-4)
    np.testing.assert_allclose(items, twin[1], atol=1e-4)


def twin_top(case: Any, key: int, most: float) -> Any:
    """Take the steps of WARP one by one, items drawn as the kernel does."""
    (rows, columns), known, users, items = case
    known = mark_cells(known, rows, columns)
    users, items, total = users.astype(np.float64), items.astype(np.float64), 0.0
    for c, (row, column) in enumerate(zip(rows, columns, strict=True)):
        for attempt in range(50):
            other = int(below(word(word(key, c), attempt), 20))
            three = [users[row], items[column], items[other]]
            near = references.top_loss(*three, 0, 1)
            if near > 0 and not is_seen(known, row, other):
                rank = max(1, 39 // (attempt + 1))
                total += references.top_loss(*three, 0, rank)
                loss = partial(references.top_loss, regularization=SHRINK, rank=rank)
                for target, moved in zip(
                    three, references.step_down(loss, three, RATE), strict=True
                ):
                    target[:] = moved
                    target[:-1] *= min(1.0, most / np.linalg.norm(moved[:-1]))
                break
    return users, items, total


@pytest.mark.parametrize("most", [99.0, 0.9])
@given(n=st.integers(0, 25), seed=st.integers(0, 99))
def test_the_top_is_ranked_as_by_plain_loops(n: int, seed: int, most: float) -> None:
    cells, known, users, items = case = draw_case(n, seed=seed)
    twin = twin_top(case, seed, most)
    total = rank_top(cells, known, users, items, rule(most=np.float32(most)), seed)
    # the weight of a rank is within 2 % of the sum that it stands for
    assert total == pytest.approx(twin[2], rel=0.03, abs=1e-4)
    np.testing.assert_allclose(users, twin[0], atol=0.02)
    np.testing.assert_allclose(items, twin[1], atol=0.02)


@pytest.mark.parametrize("kernel", [rank_pairs, rank_top])
def test_frozen_items_stay(kernel: Any) -> None:
    cells, known, users, items = draw_case(25, seed=3)
    before = users.copy(), items.copy()
    kernel(cells, known, users, items, rule(frozen=True), 5)
    assert np.array_equal(items, before[1])
    assert not np.array_equal(users, before[0])


@given(st.integers(0, 2**62), st.integers(1, 2**31 - 1))
def test_words_become_numbers_below(key: int, n: int) -> None:
    assert 0 <= below(word(key, 3), n) < n
    found = Counter(int(below(word(key, number), 4)) for number in range(400))
    assert set(found) == {0, 1, 2, 3}
    assert max(found.values()) < 170
