"""Rows are solved as a dense float64 solver does it, whichever way round the kernel goes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasrec.errors import InputError
from dasrec.kernels.rows import TILE
from dasrec.kernels.solve import shift_rows, solve_rows
from tests import references
from tests.strategies import draw_rows

Arrays = dict[str, Any]


def check_agrees(given_: Arrays, *, within: float = 2e-4) -> None:
    solution, loss = solve_rows(**given_)
    indptr = given_["indptr"]
    assert solution.shape == (len(indptr) - 1, given_["factors"].shape[1])
    assert solution.dtype == np.float32
    assert loss.dtype == np.float64
    for row in range(len(indptr) - 1):
        cells = slice(indptr[row], indptr[row + 1])
        wanted, wanted_loss = references.solve_row(
            given_["factors"][given_["indices"][cells]],
            given_["weights"][cells],
            given_["targets"][cells],
            given_["base"],
            float(given_["ridge"][row]),
        )
        np.testing.assert_allclose(solution[row], wanted, rtol=0, atol=within)
        # the loss is measured at the solution found, so it may be larger by a rounding
        assert loss[row] == pytest.approx(wanted_loss, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("k", [1, 2, 7, 16])
def test_rows_shorter_than_longer_than_and_as_long_as_the_factors(k: int) -> None:
    check_agrees(draw_rows([0, 1, k - 1, k, k + 1, 3 * k, 0], k))


@pytest.mark.parametrize("n", [TILE - 1, TILE, TILE + 1, 2 * TILE, 2 * TILE + 5])
def test_long_rows_at_the_edges_of_a_tile(n: int) -> None:
    check_agrees(draw_rows([n], 8))


@pytest.mark.parametrize("n", [TILE - 1, TILE, TILE + 1])
def test_more_factors_than_a_tile_has_rows(n: int) -> None:
    check_agrees(draw_rows([n], TILE + 2), within=1e-3)


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=6), st.integers(1, 9), st.integers(0, 1000)
)
def test_any_rows(counts: list[int], k: int, seed: int) -> None:
    check_agrees(draw_rows(counts, k, seed=seed), within=1e-3)


def test_a_row_without_cells_is_zero() -> None:
    solution, loss = solve_rows(**draw_rows([0, 3, 0], 4))
    assert not solution[[0, 2]].any()
    assert not loss[[0, 2]].any()
    assert solution[1].any()


@pytest.mark.parametrize("n", [3, 20])
def test_cells_without_weight_count_for_nothing(n: int) -> None:
    rows = draw_rows([n], 8)
    rows["weights"][::2] = 0
    check_agrees(rows)
    there = np.flatnonzero(rows["weights"])
    fewer = {**rows, "indptr": np.array([0, len(there)])}
    fewer |= {name: rows[name][there] for name in ("indices", "weights", "targets")}
    np.testing.assert_allclose(solve_rows(**rows)[0], solve_rows(**fewer)[0], rtol=1e-4, atol=1e-5)


def test_only_weightless_cells_give_zero() -> None:
    rows = draw_rows([3, 20], 8)
    rows["weights"][:] = 0
    solution, loss = solve_rows(**rows)
    assert not solution.any()
    assert not loss.any()


@pytest.mark.parametrize("n", [4, 30])
def test_the_same_bits_alone_and_in_company(n: int) -> None:
    rows = draw_rows([n, 5, n], 8)
    alone = {**rows, "indptr": rows["indptr"][2:], "ridge": rows["ridge"][2:]}
    np.testing.assert_array_equal(solve_rows(**rows)[0][2], solve_rows(**alone)[0][0])


def test_a_singular_system_gets_a_larger_ridge() -> None:
    rows = draw_rows([20], 4)
    rows["factors"][:] = 1  # four equal columns: their normal equations have rank one
    rows["base"][:] = 0
    rows["ridge"][:] = np.finfo(np.float32).tiny
    solution, loss = solve_rows(**rows)
    assert np.isfinite(solution).all()
    mean = np.average(rows["targets"], weights=rows["weights"])
    best = float((rows["weights"] * (rows["targets"] - mean) ** 2).sum())
    assert loss[0] == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize(("name", "value"), [("weights", 3e38), ("targets", 3e38)])
@pytest.mark.parametrize("n", [3, 20])
def test_numbers_that_overflow_are_refused(name: str, value: float, n: int) -> None:
    rows = draw_rows([n], 8)
    rows[name][:] = value
    with pytest.raises(InputError, match="overflow float32; scale the values down"):
        solve_rows(**rows)


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=6), st.integers(1, 9), st.integers(0, 1000)
)
def test_shifted_rows_are_drawn_to_their_means(counts: list[int], k: int, seed: int) -> None:
    rows = draw_rows(counts, k, seed=seed)
    means = np.random.default_rng(seed).normal(size=(len(counts), k)).astype(np.float32)
    cells = tuple(rows[name] for name in ("indptr", "indices", "weights", "targets"))
    rest = (rows[name] for name in ("factors", "base", "ridge"))
    before = rows["targets"].copy()
    centers, targets = shift_rows(cells, *rest, means)
    assert np.array_equal(rows["targets"], before)
    solution, loss = solve_rows(**rows | {"targets": targets})
    for row, n in enumerate(counts):
        own = slice(rows["indptr"][row], rows["indptr"][row + 1])
        wanted, wanted_loss = references.solve_row(
            rows["factors"][rows["indices"][own]],
            rows["weights"][own],
            rows["targets"][own],
            rows["base"],
            float(rows["ridge"][row]),
            means[row],
        )
        found = solution[row] + centers[row]
        np.testing.assert_allclose(found, wanted if n else 0 * wanted, rtol=0, atol=1e-3)
        assert loss[row] == pytest.approx(wanted_loss, rel=1e-3, abs=1e-3)


def test_offsets_may_lie_anywhere() -> None:
    rows = draw_rows([4, 9, 2], 3)
    whole, _ = solve_rows(**rows)
    part = {**rows, "indptr": rows["indptr"][1:], "ridge": rows["ridge"][1:]}
    np.testing.assert_array_equal(solve_rows(**part)[0], whole[1:])
