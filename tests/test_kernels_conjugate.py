"""Rows are solved as exactly as is asked, against a dense float64 solver, and say how exactly."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dasrec.errors import InputError
from dasrec.kernels import conjugate
from dasrec.kernels.conjugate import refine_rows
from dasrec.kernels.narrow import narrow_rows, round_rows
from tests import references, strategies

Arrays = dict[str, Any]
Found = tuple[Any, Any, Any]

EXACT = 1e-8
KS = pytest.mark.parametrize("k", [1, 2, 7, 16, 33])


def draw_rows(counts: list[int], k: int, *, seed: int = 0) -> Arrays:
    """Return the arguments of refine_rows, but for the tolerance; a third of the weights is 0."""
    rows, draw = strategies.draw_rows(counts, k, seed=seed), np.random.default_rng(seed)
    rows["weights"][draw.random(len(rows["weights"])) < 1 / 3] = 0
    return rows | {"start": np.zeros((len(counts), k), np.float32)}


def refine(rows: Arrays, tolerance: float = EXACT, *, kernel: Any = refine_rows) -> Found:
    cells = tuple(rows[name] for name in ("indptr", "indices", "weights", "targets"))
    fixed = rows["factors"], np.ones(len(rows["factors"]), np.float32)
    rest = (rows[name] for name in ("base", "ridge", "start"))
    found: Found = kernel(cells, rows.get("narrow", fixed), *rest, tolerance, rows.get("means"))
    return found


def narrowed(rows: Arrays) -> Arrays:
    """Return the arguments with factors that are rounded, and what holds them in 16 bits."""
    factors = rows["factors"].copy()
    round_rows(factors)
    narrow = np.empty(factors.shape, np.int16), np.empty(len(factors), np.float32)
    narrow_rows(factors, *narrow)
    return rows | {"factors": factors, "narrow": narrow}


class Row:
    """The least squares of one row, in float64."""

    def __init__(self, rows: Arrays, row: int) -> None:
        cells = slice(rows["indptr"][row], rows["indptr"][row + 1])
        self.v, self.c, self.t = (
            each.astype(np.float64)
            for each in (
                rows["factors"][rows["indices"][cells]],
                rows["weights"][cells],
                rows["targets"][cells],
            )
        )
        self.ridge = float(rows["ridge"][row])
        self.base = rows["base"].astype(np.float64)
        self.mean = np.zeros_like(self.base)
        if "means" in rows:
            self.mean += rows["means"][row]
        self.best, _ = references.solve_row(
            self.v, self.c, self.t, rows["base"], self.ridge, self.mean
        )
        self.squares = float((self.c * self.t**2).sum())

    def loss(self, x: Any) -> float:
        return float((self.c * (self.t - self.v @ x.astype(np.float64)) ** 2).sum())

    def objective(self, x: Any) -> float:
        x = x.astype(np.float64)
        spread = self.base * x**2 + self.ridge * (x - self.mean) ** 2
        return self.loss(x) + float(spread.sum())


def check_promise(rows: Arrays, tolerance: float, found: Found) -> None:
    """Check that nothing is further from the least objective than is said, nor than was asked."""
    solution, loss, gap = found
    assert solution.shape == rows["start"].shape
    assert (solution.dtype, loss.dtype, gap.dtype) == (np.float32, np.float64, np.float64)
    for row, x in enumerate(solution):
        at = Row(rows, row)
        if not len(at.c):
            assert not x.any()
            assert loss[row] == gap[row] == 0
            continue
        # what rounds is as large as the terms of the sums, where it starts and where it ends
        rounding = 3e-6 * (at.squares + at.objective(rows["start"][row]))
        # each term of the gap is a float32, of which one below the least becomes 0
        least = len(x) * float(np.finfo(np.float32).smallest_subnormal)
        assert at.objective(x) - at.objective(at.best) <= gap[row] + rounding + least
        assert 0 <= gap[row] <= max(tolerance * at.squares * (1 + 1e-6), 1e-37)
        assert loss[row] == pytest.approx(at.loss(x), rel=1e-4, abs=rounding)


def check_exact(rows: Arrays, *, within: float = 2e-4) -> None:
    found = refine(rows)
    check_promise(rows, EXACT, found)
    for row, x in enumerate(found[0]):
        scale = 1 + np.abs(rows["start"][row]).max()
        np.testing.assert_allclose(x, Row(rows, row).best, rtol=0, atol=within * scale)


# -- against the twin ------------------------------------------------------------------------------


@KS
def test_rows_shorter_than_longer_than_and_as_long_as_the_factors(k: int) -> None:
    check_exact(draw_rows([0, 1, k - 1, k, k + 1, 3 * k, 0, 8 * k], k))


@KS
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 9])
def test_rows_at_the_edges_of_four_cells(k: int, n: int) -> None:
    check_exact(draw_rows([n], k, seed=n))


def starts(rows: Arrays, kind: str, seed: int) -> Any:
    if kind == "solution":
        return refine(rows)[0]
    scale = {"zeros": 0.0, "random": 1.0}[kind]
    draw = np.random.default_rng(seed).normal(size=rows["start"].shape)
    return (scale * draw).astype(np.float32)


@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    k=st.sampled_from([1, 2, 7, 16, 33]),
    seed=st.integers(0, 1000),
    start=st.sampled_from(["zeros", "random", "solution"]),
    digits=st.integers(2, 8),
)
def test_any_rows_from_any_start(
    counts: list[int], k: int, seed: int, start: str, digits: int
) -> None:
    rows = draw_rows(counts, k, seed=seed)
    rows["start"] = starts(rows, start, seed)
    check_promise(rows, 10.0**-digits, refine(rows, 10.0**-digits))
    check_exact(rows, within=1e-3)


@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    k=st.sampled_from([1, 2, 7, 16, 33]),
    seed=st.integers(0, 1000),
    size=st.integers(-3, 3),
)
def test_narrow_factors_are_solved_for_as_what_they_stand_for(
    counts: list[int], k: int, seed: int, size: int
) -> None:
    rows = draw_rows(counts, k, seed=seed)
    rows["factors"] = rows["factors"] * np.float32(10.0**size)
    rows = narrowed(rows)
    check_promise(rows, 1e-5, refine(rows, 1e-5))
    wide = {name: each for name, each in rows.items() if name != "narrow"}
    for one, other in zip(refine(rows)[:2], refine(wide)[:2], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * (1 + np.abs(other).max()))


@KS
@pytest.mark.parametrize("target", [1.4e-45, 1e-40, 1e-30, 1e-20, 1e-15])
def test_the_least_of_targets(k: int, target: float) -> None:
    for n in range(1, 10):
        rows = draw_rows([n], k)
        rows["targets"][:] = target
        check_promise(rows, 1e-4, refine(rows, 1e-4))


@given(data=st.data(), n=st.integers(1, 9), k=st.sampled_from([1, 2, 7]))
def test_any_weights_and_targets(data: st.DataObject, n: int, k: int) -> None:
    numbers = st.floats(0, 100, width=32)
    rows = draw_rows([n], k)
    rows["weights"] = np.array(data.draw(st.lists(numbers, min_size=n, max_size=n)), np.float32)
    signed = st.lists(numbers | st.floats(-100, 0, width=32), min_size=n, max_size=n)
    rows["targets"] = np.array(data.draw(signed), np.float32)
    check_promise(rows, 1e-4, refine(rows, 1e-4))


# -- how far it goes -------------------------------------------------------------------------------


@pytest.mark.parametrize("digits", range(2, 9))
def test_the_gap_is_what_was_asked_for(digits: int) -> None:
    rows = draw_rows([5, 40, 200], 33)
    check_promise(rows, 10.0**-digits, refine(rows, 10.0**-digits))


def test_less_is_done_where_less_is_asked() -> None:
    rows = draw_rows([200], 33)
    at = Row(rows, 0)
    above = [at.objective(refine(rows, 10.0**-d)[0][0]) - at.objective(at.best) for d in (1, 3, 5)]
    assert above[0] > 10 * above[1] > 100 * above[2] >= 0


def test_at_the_limit_of_steps_the_gap_says_what_was_not_reached() -> None:
    rows = draw_rows([50, 8], 16)
    solution, _, gap = refine(rows, 0.0)  # which nothing reaches
    for row, x in enumerate(solution):
        np.testing.assert_allclose(x, Row(rows, row).best, rtol=0, atol=1e-4)
    assert (gap >= 0).all()


@KS
@pytest.mark.parametrize("tolerance", [1e-2, 1e-5])
def test_what_is_good_enough_is_left_bit_for_bit(k: int, tolerance: float) -> None:
    rows = draw_rows([3, k, 4 * k], k)
    rows["start"] = refine(rows, 1e-9)[0]
    solution, _, _ = refine(rows, tolerance)
    np.testing.assert_array_equal(solution, rows["start"])


@KS
def test_from_the_solution_at_most_a_rounding_moves(k: int) -> None:
    rows = draw_rows([3, k, 4 * k], k)
    rows["start"] = refine(rows)[0]
    np.testing.assert_allclose(refine(rows)[0], rows["start"], rtol=0, atol=3e-6)


# -- zeros -----------------------------------------------------------------------------------------


def test_a_row_without_cells_is_zero_wherever_it_starts() -> None:
    rows = draw_rows([0, 3, 0], 4)
    rows["start"][:] = 7
    solution, loss, gap = refine(rows)
    assert not solution[[0, 2]].any()
    assert not loss[[0, 2]].any()
    assert not gap[[0, 2]].any()
    assert solution[1].any()


@pytest.mark.parametrize("nothing", [["weights"], ["targets"], ["weights", "targets"]])
@pytest.mark.parametrize("start", ["zeros", "random"])
def test_without_weights_or_targets_rows_go_to_zero(nothing: list[str], start: str) -> None:
    """Their gap goes down to the least of numbers, by which nothing can be divided."""
    for seed in range(60):
        rows = draw_rows([1, 3, 4, 8], 1 + seed % 20, seed=seed)
        for name in nothing:
            rows[name][:] = 0
        rows["start"] = starts(rows, start, seed)
        solution, loss, _ = refine(rows, 1e-5)
        np.testing.assert_allclose(solution, 0, atol=1e-5)
        np.testing.assert_allclose(loss, 0, atol=1e-8)


def test_cells_without_weight_count_for_nothing() -> None:
    rows = draw_rows([20], 8)
    there = np.flatnonzero(rows["weights"])
    assert 0 < len(there) < 20
    fewer = rows | {"indptr": np.array([0, len(there)])}
    fewer |= {name: rows[name][there] for name in ("indices", "weights", "targets")}
    np.testing.assert_allclose(refine(rows)[0], refine(fewer)[0], rtol=0, atol=1e-5)


# -- tiles, company, arrays ------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [1, 7, 8, 9, 100])
@pytest.mark.parametrize("bits", [16, 32])
def test_rows_longer_than_the_tile_agree_with_those_in_it(kept: int, bits: int) -> None:
    k = 7
    rows = draw_rows([3, 8, 30, 100], k)
    if bits == 16:
        rows = narrowed(rows)
    # compiled code has the size of the tile in it
    with mock.patch.object(conjugate, "TILE_BYTES", 4 * k * kept):
        found = refine(rows, kernel=refine_rows.py_func)
    check_promise(rows, EXACT, found)
    np.testing.assert_allclose(found[0], refine(rows)[0], rtol=0, atol=1e-5)


def test_a_row_that_is_too_long_for_the_tile_by_one_cell() -> None:
    k = 256
    n = conjugate.TILE_BYTES // (4 * k)
    rows = draw_rows([n + 1], k)
    rows["weights"][-1] = 0
    shorter = rows | {"indptr": np.array([0, n])}
    shorter |= {name: rows[name][:n] for name in ("indices", "weights", "targets")}
    found, within = refine(rows), refine(shorter)
    check_promise(rows, EXACT, found)
    np.testing.assert_allclose(found[0][0], Row(rows, 0).best, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[0], within[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("tolerance", [1e-2, EXACT])
@pytest.mark.parametrize("bits", [16, 32])
def test_the_same_bits_alone_and_in_company(tolerance: float, bits: int) -> None:
    rows = draw_rows([3, 30, 0, 5, 100, 8, 4], 16)
    rows["start"] = starts(rows, "random", 0)
    if bits == 16:
        rows = narrowed(rows)
    together = refine(rows, tolerance)
    for row in range(7):
        alone = rows | {name: rows[name][row : row + 1] for name in ("ridge", "start")}
        alone["indptr"] = rows["indptr"][row : row + 2]  # offsets may lie anywhere
        for one, all_ in zip(refine(alone, tolerance), together, strict=True):
            np.testing.assert_array_equal(one[0], all_[row])


def test_arrays_may_be_read_only_and_stay_as_they_are() -> None:
    """As workers of a cluster get them."""
    rows = draw_rows([3, 8, 30], 7)
    rows["start"] = starts(rows, "random", 0)
    before = {name: each.copy() for name, each in rows.items()}
    wanted = refine(rows)
    for each in rows.values():
        each.flags.writeable = False
    for one, other in zip(refine(rows), wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    for name, each in rows.items():
        np.testing.assert_array_equal(each, before[name])


@pytest.mark.parametrize("n", [3, 20])
@pytest.mark.parametrize(("name", "value"), [("weights", 3e38), ("targets", 3e38)])
def test_numbers_that_overflow_are_refused(name: str, value: float, n: int) -> None:
    rows = draw_rows([n], 8)
    rows["weights"][:] = 1
    rows[name][:] = value
    with pytest.raises(InputError, match="overflow float32; scale the values down"):
        refine(rows)


def test_infinities_that_cancel_are_refused() -> None:
    """What comes of them is not a number, and nothing is above or below it."""
    rows = draw_rows([4], 1)
    rows["weights"][:], rows["targets"][:], rows["base"][:] = 1e30, 1, 1
    rows["factors"][rows["indices"], 0] = np.array([1e10, -1e10, 1e10, -1e10], np.float32)
    with pytest.raises(InputError, match="overflow float32"):
        refine(rows)


@KS
@pytest.mark.parametrize("tolerance", [EXACT, 1e-3])
@pytest.mark.parametrize("warm", [True, False])
def test_rows_are_drawn_to_their_means_and_keep_the_promise(
    k: int, tolerance: float, *, warm: bool
) -> None:
    rows = draw_rows([0, 1, k, 3 * k + 1, 40], k)
    draw = np.random.default_rng(k)
    rows["means"] = draw.normal(size=(5, k)).astype(np.float32)
    if warm:
        rows["start"] = draw.normal(size=(5, k)).astype(np.float32)
    found = refine(rows, tolerance)
    check_promise(rows, tolerance, found)
    if tolerance == EXACT:
        for row in range(1, 5):
            np.testing.assert_allclose(found[0][row], Row(rows, row).best, rtol=0, atol=1e-3)
    without = refine({name: each for name, each in rows.items() if name != "means"}, tolerance)
    assert not np.allclose(found[0][1:], without[0][1:], atol=1e-2)
    zeros = refine(rows | {"means": np.zeros((5, k), np.float32)}, tolerance)
    np.testing.assert_allclose(zeros[0], without[0], rtol=0, atol=1e-5)


@given(st.integers(0, 10**6))
@example(111900)  # the curvature along a direction is rounded to 0
def test_large_and_small_numbers_are_solved_or_refused(seed: int) -> None:
    draw = np.random.default_rng(seed)
    rows = draw_rows([int(draw.integers(1, 9))], int(draw.integers(1, 9)), seed=seed)
    for name in ("weights", "targets", "factors", "base", "ridge"):
        rows[name] = rows[name] * np.float32(10.0 ** draw.integers(-20, 30))
    try:
        found = refine(rows, 1e-5)
    except InputError:
        return
    assert all(np.isfinite(each).all() for each in found)
