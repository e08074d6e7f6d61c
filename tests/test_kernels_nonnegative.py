"""Rows whose entries may not be negative, against Lawson and Hanson on the stacked system."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasrec.errors import InputError
from dasrec.kernels.nonnegative import nonnegative_rows
from dasrec.kernels.rows import TILE
from tests import references, strategies

Arrays = dict[str, Any]
Found = tuple[Any, Any, Any]

EXACT = 1e-8
KS = pytest.mark.parametrize("k", [1, 2, 7, 16, 33])


def draw_rows(counts: list[int], k: int, *, seed: int = 0) -> Arrays:
    """Return the arguments of nonnegative_rows, but for tolerance and bounds; base is full."""
    rows, draw = strategies.draw_rows(counts, k, seed=seed), np.random.default_rng(seed)
    rows["weights"][draw.random(len(rows["weights"])) < 1 / 3] = 0
    root = draw.normal(size=(k, k))
    rows["base"] = (root @ root.T / k).astype(np.float32)
    return rows | {"start": np.zeros((len(counts), k), np.float32)}


def solve(rows: Arrays, tolerance: float = EXACT, *, n_bounded: int | None = None) -> Found:
    cells = tuple(rows[name] for name in ("indptr", "indices", "weights", "targets"))
    rest = (rows[name] for name in ("factors", "base", "ridge", "start"))
    bounded = rows["factors"].shape[1] if n_bounded is None else n_bounded
    found: Found = nonnegative_rows(cells, *rest, tolerance, bounded)
    return found


class Row:
    """The bounded least squares of one row, in float64."""

    def __init__(self, rows: Arrays, row: int, n_bounded: int) -> None:
        cells = slice(rows["indptr"][row], rows["indptr"][row + 1])
        v = rows["factors"][rows["indices"][cells]]
        self.c, self.t = (rows[name][cells].astype(np.float64) for name in ("weights", "targets"))
        ridge = np.eye(v.shape[1]) * float(rows["ridge"][row])
        form = rows["base"].astype(np.float64) + ridge
        self.best = references.nonnegative_row(v, self.c, self.t, form, n_bounded)
        self.v, self.form = v.astype(np.float64), form
        self.squares = float((self.c * self.t**2).sum())

    def loss(self, x: Any) -> float:
        return float((self.c * (self.t - self.v @ x.astype(np.float64)) ** 2).sum())

    def objective(self, x: Any) -> float:
        return self.loss(x) + float(x.astype(np.float64) @ self.form @ x.astype(np.float64))

    def slope(self, x: Any) -> Any:
        """Return the gradient in terms of the largest at zero."""
        system, right = (
            self.v.T @ (self.c[:, None] * self.v) + self.form,
            self.v.T @ (self.c * self.t),
        )
        return (system @ x.astype(np.float64) - right) / max(np.abs(right).max(), 1e-30)


def check(rows: Arrays, tolerance: float = EXACT, *, n_bounded: int | None = None) -> Found:
    """Check bounds, and that nothing is further from the least objective than is said and asked."""
    bounded = rows["factors"].shape[1] if n_bounded is None else n_bounded
    found = solve(rows, tolerance, n_bounded=bounded)
    solution, loss, gap = found
    assert (solution.dtype, loss.dtype, gap.dtype) == (np.float32, np.float64, np.float64)
    assert (solution[:, :bounded] >= 0).all()
    for row, x in enumerate(solution):
        at = Row(rows, row, bounded)
        if not len(at.c):
            assert not x.any()
            assert loss[row] == gap[row] == 0
            continue
        rounding = 3e-6 * (at.squares + 1)
        assert at.objective(x) - at.objective(at.best) <= gap[row] + rounding
        # to 1e-8 rounding may stand in the way
        assert 0 <= gap[row] <= max(tolerance * at.squares, 1e-6 * (at.squares + 1))
        assert loss[row] == pytest.approx(at.loss(x), rel=1e-4, abs=rounding)
    return found


def check_exact(rows: Arrays, *, n_bounded: int | None = None, within: float = 1e-3) -> None:
    solution, _, _ = check(rows, n_bounded=n_bounded)
    bounded = rows["factors"].shape[1] if n_bounded is None else n_bounded
    for row, x in enumerate(solution):
        np.testing.assert_allclose(x, Row(rows, row, bounded).best, rtol=0, atol=within)


# -- against the twin ------------------------------------------------------------------------------


@KS
def test_rows_shorter_than_longer_than_and_as_long_as_the_factors(k: int) -> None:
    rows = draw_rows([0, 1, k - 1, k, k + 1, 3 * k, 0, 8 * k], k)
    check_exact(rows)
    solution = solve(rows)[0]
    assert (solution[7] == 0).any() or k < 7  # the bound matters


@KS
def test_entries_at_the_end_may_be_free(k: int) -> None:
    rows = draw_rows([2, k, 5 * k], k, seed=1)
    rows["targets"] -= 5
    rows["factors"][:, -1] = 1
    for n_bounded in {0, k // 2, k - 1}:
        check_exact(rows, n_bounded=n_bounded)
    assert (solve(rows, n_bounded=k - 1)[0][:, -1] < 0).any()


@pytest.mark.parametrize("n", [TILE - 1, TILE, TILE + 1, 2 * TILE + 5])
def test_long_rows_at_the_edges_of_a_tile(n: int) -> None:
    check_exact(draw_rows([n], 8))


@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    k=st.sampled_from([1, 2, 7, 16]),
    seed=st.integers(0, 1000),
    warm=st.booleans(),
    digits=st.integers(2, 8),
)
def test_any_rows_from_any_start(
    counts: list[int], k: int, seed: int, warm: bool, digits: int
) -> None:
    rows = draw_rows(counts, k, seed=seed)
    if warm:
        draw = np.random.default_rng(seed).normal(size=rows["start"].shape)
        rows["start"] = draw.astype(np.float32)
    check(rows, 10.0**-digits)
    check_exact(rows)


@KS
def test_first_order_conditions_hold(k: int) -> None:
    """What is positive is at a minimum; what is zero would only rise."""
    rows = draw_rows([3, 2 * k, 9 * k], k, seed=2)
    for row, x in enumerate(solve(rows)[0]):
        slope = Row(rows, row, k).slope(x)
        assert np.abs(slope[x > 0]).max(initial=0) < 1e-3
        assert slope[x == 0].min(initial=0) > -1e-3


def test_nearly_dependent_factors_are_solved_by_steps_of_newton() -> None:
    """Coordinate descent alone would take some ten thousand sweeps."""
    rows = draw_rows([60], 12)
    rows["factors"] = 0.02 * rows["factors"] + 1
    rows["base"][:] = 0
    rows["ridge"][:] = 0.01
    check(rows, 1e-6)


# -- how far it goes -------------------------------------------------------------------------------


def test_no_step_raises_the_objective() -> None:
    rows = draw_rows([30], 16, seed=3)
    at = Row(rows, 0, 16)
    rows["start"] = solve(rows, 1e-2)[0]
    before = at.objective(rows["start"][0])
    for digits in range(2, 9):
        after = at.objective(solve(rows, 10.0**-digits)[0][0])
        assert after <= before * (1 + 1e-6)
        before = after


def test_what_is_good_enough_is_left_bit_for_bit() -> None:
    rows = draw_rows([3, 16, 64], 16)
    rows["start"] = solve(rows)[0]
    np.testing.assert_array_equal(solve(rows, 1e-5)[0], rows["start"])


def test_less_is_done_where_less_is_asked() -> None:
    rows = draw_rows([200], 33)
    gaps = [solve(rows, 10.0**-digits)[2][0] for digits in (1, 4, 7)]
    assert gaps[0] > gaps[1] > gaps[2]


# -- zeros, company, arrays ------------------------------------------------------------------------


@pytest.mark.parametrize("nothing", ["weights", "targets"])
def test_without_weights_or_targets_rows_go_to_zero(nothing: str) -> None:
    rows = draw_rows([1, 3, 20], 7)
    rows[nothing][:] = 0
    rows["start"][:] = 1
    solution, loss, _ = solve(rows)
    np.testing.assert_allclose(solution, 0, atol=1e-5)
    np.testing.assert_allclose(loss, 0, atol=1e-8)


def test_a_row_without_cells_is_zero_wherever_it_starts() -> None:
    rows = draw_rows([0, 3, 0], 4)
    rows["start"][:] = 7
    solution, loss, gap = solve(rows)
    assert not solution[[0, 2]].any()
    assert not (loss + gap)[[0, 2]].any()
    assert solution[1].any()


def test_the_same_bits_alone_and_in_company() -> None:
    rows = draw_rows([3, 30, 0, 600, 8], 16)
    together = solve(rows, 1e-5)
    for row in range(5):
        alone = rows | {name: rows[name][row : row + 1] for name in ("ridge", "start")}
        alone["indptr"] = rows["indptr"][row : row + 2]
        for one, all_ in zip(solve(alone, 1e-5), together, strict=True):
            np.testing.assert_array_equal(one[0], all_[row])


def test_arrays_may_be_read_only_and_stay_as_they_are() -> None:
    rows = draw_rows([3, 8, 30], 7)
    before = {name: each.copy() for name, each in rows.items()}
    wanted = solve(rows)
    for each in rows.values():
        each.flags.writeable = False
    for one, other in zip(solve(rows), wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    for name, each in rows.items():
        np.testing.assert_array_equal(each, before[name])


@pytest.mark.parametrize("n", [3, 20])
@pytest.mark.parametrize("name", ["weights", "targets"])
def test_numbers_that_overflow_are_refused(name: str, n: int) -> None:
    rows = draw_rows([n], 8)
    rows["weights"][:] = 1
    rows[name][:] = 3e38
    with pytest.raises(InputError, match="overflow float32; scale the values down"):
        solve(rows)
