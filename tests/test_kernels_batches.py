"""Mini-batches: gradients of every loss are those of differences, steps those of the papers."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasrec.kernels.batches import descend_batches, judge, kept_width
from dasrec.kernels.hashing import below, word
from dasrec.kernels.pairwise import rank_pairs, rank_top
from dasrec.kernels.rule import HARD, POPULAR, UNIFORM, Rule
from dasrec.kernels.stochastic import descend_cells
from dasrec.kernels.unseen import draw_hardest, draw_unseen, is_seen, mark_cells
from tests import references_gradient as references

K, SHRINK, N_ROWS, N_COLUMNS = 4, 0.1, 6, 20
LOSSES = ["squared", "pairs", "top", "logistic", "softmax"]
OPTIMIZERS = ["plain", "momentum", "adagrad", "adam"]


def rule_of(loss: str, optimizer: str = "plain", **changes: Any) -> Rule:
    made = Rule(
        K,
        np.float32(0.01),
        np.float32(SHRINK),
        offset=np.float32(0.5),
        samples=3 if loss in ("logistic", "softmax") else 1,
        tries=50,
        catalogue=40,
        loss=LOSSES.index(loss),
        optimizer=OPTIMIZERS.index(optimizer),
        kept=K + 1,
    )
    return made._replace(**changes)


def draw_case(n: int, *, seed: int, width: int = K + 1) -> Any:
    draw = np.random.default_rng(seed)
    drawn = divmod(draw.choice(N_ROWS * N_COLUMNS, n, replace=False), N_COLUMNS)
    rows, columns = (each.astype(np.int32) for each in drawn)
    cells = (rows, columns, draw.normal(size=n).astype(np.float32))
    seen = [sorted(columns[rows == row].tolist()) for row in range(N_ROWS)]
    indptr = np.cumsum([0, *map(len, seen)])
    known = (indptr, np.concatenate(seen).astype(np.int32), np.arange(N_COLUMNS, dtype=np.int32))
    sides = []
    for n_rows in (N_ROWS, N_COLUMNS):
        side = np.zeros((n_rows, width), np.float32)
        side[:, : K + 1] = draw.normal(size=(n_rows, K + 1)) / 2
        sides.append(side)
    return cells, known, *sides


def others_of(case: Any, c: int, rule: Rule, key: int) -> tuple[list[int], tuple[float, ...]]:
    """Draw the items of a cell as the kernel does; return them, and what else its loss takes."""
    cells, known, users, items = case
    known = mark_cells(known, *cells[:2])
    row, column = int(cells[0][c]), int(cells[1][c])
    draws = word(key, c)
    if LOSSES[rule.loss] == "squared":
        return [], (float(cells[2][c]), float(rule.offset))
    if LOSSES[rule.loss] == "top":
        own = users[row, :K] @ items[column, :K] + items[column, K]
        for attempt in range(50):
            other = int(below(word(draws, attempt), N_COLUMNS))
            near = 1 - own + users[row, :K] @ items[other, :K] + items[other, K]
            if near > 0 and not is_seen(known, row, other):
                return [other], (np.log(max(1, 39 // (attempt + 1)) + 0.5) + 0.577,)
        return [], ()
    found = []
    for number in range(rule.samples):
        bits = word(draws, 1024 + number) if number else draws
        if rule.negatives == HARD:
            other = draw_hardest((users, items), known, cells[1], row, bits, K)
        else:
            other = draw_unseen(known, cells[1], row, bits, rule.negatives)
        found += [int(other)] if other >= 0 else []
    return found, ()


def twin(case: Any, rule: Rule, key: int) -> tuple[Any, Any, float]:
    """Go through the cells in float64; gradients by differences, steps number by number."""
    cells, known, users, items = case
    users, items = (each[:, : K + 1].astype(np.float64) for each in (users, items))
    kind, total = LOSSES[rule.loss], 0.0
    slowly = references.Slowly(OPTIMIZERS[rule.optimizer], float(rule.rate))
    counts = np.bincount(cells[1], minlength=N_COLUMNS)
    for first in range(0, len(cells[0]), rule.batch):
        slopes: dict[tuple[str, int], Any] = defaultdict(lambda: np.zeros(K + 1))
        now = (cells, known, users.astype(np.float32), items.astype(np.float32))
        for c in range(first, min(first + rule.batch, len(cells[0]))):
            others, told = others_of(now, c, rule, key)
            if not others and kind != "squared":
                total += 0.0 if kind == "top" else np.log(1 + rule.samples)
                continue
            names = [("user", int(cells[0][c])), ("item", int(cells[1][c]))]
            names += [("item", other) for other in others]
            corrected = kind == "softmax" and rule.negatives == POPULAR
            logs = [np.log(max(1, counts[i])) if corrected else 0.0 for _, i in names[1:]]
            vectors = [(users if side == "user" else items)[i] for side, i in names]
            loss = partial(scored, kind, logs=logs, cell=told)
            total += loss(*vectors) * (2 if kind == "squared" else 1)
            moved = references.step_down(loss, vectors, 1.0)
            for name, vector, after in zip(names, vectors, moved, strict=True):
                slope = vector - after + SHRINK * vector
                if name[0] == "user" and kind != "squared":
                    slope[K] = 0.0
                slopes[name] += slope
        for (side, i), slope in slopes.items():
            if side == "item" and rule.frozen:
                continue
            target = (users if side == "user" else items)[i]
            for p in range(K + 1):
                target[p] = slowly.move((side, i, p), target[p], slope[p])
    return users, items, total


def scored(kind: str, *vectors: Any, logs: Any, cell: Any) -> float:
    return references.scored_loss(kind, vectors, logs, cell)


def check_twin(rule: Rule, n: int, seed: int) -> None:
    width = K + 1 + kept_width(rule.optimizer, K)
    case = draw_case(n, seed=seed, width=width)
    expected = twin(case, rule, seed)
    cells, known, users, items = case
    total = descend_batches(cells, known, users, items, rule, seed)
    assert total == pytest.approx(expected[2], rel=1e-3, abs=1e-4)
    np.testing.assert_allclose(users[:, : K + 1], expected[0], atol=2e-4)
    np.testing.assert_allclose(items[:, : K + 1], expected[1], atol=2e-4)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("loss", LOSSES)
@given(n=st.integers(0, 12), batch=st.sampled_from([1, 3, 50]), seed=st.integers(0, 99))
def test_batches_are_those_of_plain_loops(
    n: int, batch: int, seed: int, loss: str, optimizer: str
) -> None:
    check_twin(rule_of(loss, optimizer, batch=batch), n, seed)


@pytest.mark.parametrize("n", [9, 70])
@pytest.mark.parametrize("loss", ["logistic", "softmax"])
def test_slopes_have_the_same_bits_wherever_arrays_lie(loss: str, n: int) -> None:
    scores = np.random.default_rng(n).normal(size=n).astype(np.float32)
    found = set()
    for gap in range(0, 400, 4):
        room = np.empty(2 * n + 400, np.float32)
        for first, second in ((0, n + gap), (n + gap, 0)):
            near, pushes = room[first : first + n], room[second : second + n]
            near[:] = scores
            found.add((judge(near, pushes, rule_of(loss)), pushes.tobytes()))
    assert len(found) == 1


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_steps_have_the_same_bits_wherever_vectors_lie(loss: str, optimizer: str) -> None:
    rule, k = rule_of(loss, optimizer, factors=21, kept=22, batch=3, samples=9), 21
    cells, known, *_ = draw_case(40, seed=1)
    draw, width = np.random.default_rng(2), k + 1 + kept_width(rule.optimizer, k)
    sides = [np.zeros((n, width), np.float32) for n in (N_ROWS, N_COLUMNS)]
    for side in sides:
        side[:, : k + 1] = draw.normal(size=(len(side), k + 1)) / 4
    found = set()
    for gap in (0, 1, 16, 999):
        for order in ((0, 1), (1, 0)):
            room = np.empty(2000 + sum(side.size for side in sides), np.float32)
            put: dict[int, Any] = {}
            at = 0
            for which in order:
                size = sides[which].size
                put[which] = room[at : at + size].reshape(sides[which].shape)
                put[which][...] = sides[which]
                at += size + gap
            total = descend_batches(cells, known, put[0], put[1], rule, 5)
            found.add((total, put[0].tobytes(), put[1].tobytes()))
    assert len(found) == 1


@pytest.mark.parametrize("negatives", [UNIFORM, POPULAR, HARD])
@pytest.mark.parametrize("loss", ["pairs", "logistic", "softmax"])
@given(seed=st.integers(0, 99))
def test_items_are_drawn_as_they_are_asked_for(seed: int, loss: str, negatives: int) -> None:
    check_twin(rule_of(loss, negatives=negatives), 12, seed)


@pytest.mark.parametrize("loss", LOSSES)
def test_frozen_items_stay(loss: str) -> None:
    rule = rule_of(loss, "adam", frozen=True, batch=5)
    check_twin(rule, 12, 3)
    cells, known, users, items = draw_case(12, seed=3, width=K + 1 + kept_width(3, K))
    before = items.copy()
    descend_batches(cells, known, users, items[:, : K + 1].copy(), rule, 3)
    descend_batches(cells, known, users, items, rule, 3)
    assert np.array_equal(items, before)


@given(n=st.integers(0, 40), seed=st.integers(0, 99))
def test_cells_alone_go_as_by_the_kernels_of_their_own(n: int, seed: int) -> None:
    for loss, kernel in (("squared", descend_cells), ("pairs", rank_pairs), ("top", rank_top)):
        rule = rule_of(loss, most=np.float32(0.9 if loss == "top" else 0))
        cells, known, *sides = draw_case(n, seed=seed)
        others = [each.copy() for each in sides]
        total = descend_batches(cells, known, *sides, rule, seed)
        if loss == "squared":
            expected = descend_cells(cells, *others, rule)
        else:
            expected = kernel(cells[:2], known, *others, rule, seed)
        assert total == pytest.approx(expected, rel=1e-4, abs=1e-5)
        for one, other in zip(sides, others, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


def test_users_are_drawn_to_their_centre() -> None:
    """With nothing to learn from the value, what is left is the way to the centre."""
    width = 2 * K + 1
    cells, known, users, items = draw_case(1, seed=1, width=width)
    users[:, K + 1 :] = 7
    items[:], users[:, : K + 1] = 0, 0
    cells[2][0] = 0.5
    rule = rule_of("squared", centred=True, kept=width)
    descend_batches(cells, known, users, items, rule, 1)
    assert users[cells[0][0], :K] == pytest.approx(np.full(K, 0.01 * SHRINK * 7))


def test_who_has_seen_all_is_passed_over() -> None:
    known = (np.array([0, 2]), np.array([0, 1], np.int32), np.array([1, 0], np.int32))
    cells = (np.zeros(2, np.int32), np.arange(2, dtype=np.int32), np.ones(2, np.float32))
    for loss, lost in (("pairs", 2), ("logistic", 4), ("softmax", 4), ("top", 1)):
        users, items = np.ones((1, K + 1), np.float32), np.ones((2, K + 1), np.float32)
        total = descend_batches(cells, known, users, items, rule_of(loss), 3)
        assert total == pytest.approx(2 * np.log(lost))
        assert (users == 1).all()
        assert (items == 1).all()


def test_the_correction_takes_popularity_out_of_scores() -> None:
    """Where all users like all alike, scores are the logarithms of popularity, but for a constant.

    So they are however negatives are drawn; the sample alone would tell otherwise.
    """
    draw, n, n_items = np.random.default_rng(0), 6000, 30
    shares = 1 / np.arange(1, n_items + 1)
    columns = draw.choice(n_items, n, p=shares / shares.sum()).astype(np.int32)
    rows = np.arange(n, dtype=np.int32)
    known = (np.arange(n + 1), columns, np.arange(n_items, dtype=np.int32))
    slopes = []
    for loss, negatives in (("softmax", UNIFORM), ("softmax", POPULAR), ("logistic", POPULAR)):
        items = np.zeros((n_items, K + 1), np.float32)
        rule = rule_of(loss, negatives=negatives, regularization=np.float32(0), samples=8)
        for key in range(12):
            users = np.zeros((n, K + 1), np.float32)
            descend_batches((rows, columns, columns), known, users, items, rule, key)
        slopes.append(np.polyfit(np.log(np.bincount(columns)), items[:, K], 1)[0])
    assert slopes[:2] == pytest.approx([1, 1], abs=0.2)
    assert abs(slopes[2]) < 0.4
