"""Gradient descent on a worked example of rank ten: what diverges, what sticks, what arrives."""

from __future__ import annotations

import numpy as np
import pytest

from dasrec.kernels.gradient import gradient_step, squared_error

ROWS = """
1010010000 0101000000 0010100000 1000001000 0100100000 0010010000
0001000100 0000100010 0000010001 0000001010 0000000101
""".split()
MATRIX = np.array([[int(cell) for cell in row] for row in ROWS], np.float64)
ONES = np.ones((11, 10)), np.ones((10, 10))


def descend(
    start: tuple[np.ndarray, np.ndarray], learning_rate: float, steps: int
) -> tuple[list[float], tuple[np.ndarray, np.ndarray]]:
    left, right = start
    objectives = []
    for _ in range(steps):
        left, right = gradient_step(MATRIX, left, right, learning_rate)
        objectives.append(squared_error(MATRIX, left, right))
    return objectives, (left, right)


def test_the_example_is_what_it_claims() -> None:
    assert MATRIX.shape == (11, 10)
    assert np.linalg.matrix_rank(MATRIX) == 10


def test_the_objective_is_the_sum_over_all_cells() -> None:
    left, right = ONES
    assert squared_error(MATRIX, left, right) == sum(
        (MATRIX[i, j] - 10) ** 2 for i in range(11) for j in range(10)
    )


def test_a_step_follows_the_gradient() -> None:
    draw = np.random.default_rng(0)
    left, right = draw.normal(size=(11, 3)), draw.normal(size=(10, 3))
    rate, nudge = 1e-3, 1e-6
    moved = gradient_step(MATRIX, left, right, rate)
    for which, (place, new) in enumerate(zip((left, right), moved, strict=True)):
        for cell in [(0, 0), (3, 1), (9, 2)]:
            ends = []
            for sign in (1, -1):
                shifted = place.copy()
                shifted[cell] += sign * nudge
                pair = (shifted, right) if which == 0 else (left, shifted)
                ends.append(squared_error(MATRIX, *pair))
            slope = (ends[0] - ends[1]) / (2 * nudge)
            assert new[cell] == pytest.approx(place[cell] - rate * slope, abs=1e-7)


def test_too_long_a_step_diverges() -> None:
    objectives, _ = descend(ONES, 0.01, 3)
    assert objectives == pytest.approx([1.3e4, 3.3e4, 1.4e6], rel=0.05)


def test_equal_factors_stay_of_rank_one() -> None:
    objectives, (left, right) = descend(ONES, 0.001, 20_000)
    assert np.linalg.matrix_rank(left) == 1
    assert np.linalg.matrix_rank(right) == 1
    singular = np.linalg.svd(MATRIX, compute_uv=False)
    best = float((singular[1:] ** 2).sum())  # Eckart and Young
    assert best == pytest.approx(17.08, abs=0.005)
    assert any(abs(each - 17.3) < 0.05 for each in objectives)
    assert objectives[-1] == pytest.approx(best, abs=1e-3)
    assert min(objectives) >= best - 1e-9


def test_unequal_factors_reach_the_matrix() -> None:
    draw = np.random.default_rng(1)
    start = draw.normal(size=(11, 10)), draw.normal(size=(10, 10))
    objectives, (left, right) = descend(start, 0.01, 40_000)
    assert objectives[-1] < 1e-12
    np.testing.assert_allclose(left @ right.T, MATRIX, atol=1e-5)
