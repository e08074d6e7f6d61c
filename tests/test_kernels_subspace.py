"""One pass over blocks of entries, against dense solutions of each block, and what is left then."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasrec.errors import InputError
from dasrec.kernels import subspace
from dasrec.kernels.subspace import BLOCK, sweep_rows
from tests import references, strategies

Arrays = dict[str, Any]
Found = tuple[Any, Any, Any]

KS = pytest.mark.parametrize("k", [1, 7, BLOCK, BLOCK + 1, 2 * BLOCK + 5])


def draw_rows(counts: list[int], k: int, *, seed: int = 0) -> Arrays:
    """Return the arguments of sweep_rows; a third of the weights is 0."""
    rows, draw = strategies.draw_rows(counts, k, seed=seed), np.random.default_rng(seed)
    rows["weights"][draw.random(len(rows["weights"])) < 1 / 3] = 0
    return rows | {"start": draw.normal(size=(len(counts), k)).astype(np.float32)}


def sweep(rows: Arrays, *, kernel: Any = sweep_rows) -> Found:
    cells = tuple(rows[name] for name in ("indptr", "indices", "weights", "targets"))
    found: Found = kernel(cells, *(rows[name] for name in ("factors", "base", "ridge", "start")))
    return found


def swept(rows: Arrays, row: int) -> tuple[Any, Any, Any]:
    """Return what one pass must give, the exact solution, and the objective."""
    cells = slice(rows["indptr"][row], rows["indptr"][row + 1])
    v, c, t = (
        rows["factors"][rows["indices"][cells]],
        rows["weights"][cells],
        rows["targets"][cells],
    )
    k, ridge = v.shape[1], float(rows["ridge"][row])
    diagonal = rows["base"] + ridge
    best, _ = references.solve_row(v, c, t, rows["base"], ridge)
    n_blocks = -(-k // BLOCK)
    cuts = [k * b // n_blocks for b in range(n_blocks + 1)]
    wanted = references.sweep_row(v, c, t, diagonal, rows["start"][row], cuts)
    if len(c) < k and len(c) <= BLOCK:
        wanted = best

    def objective(x: Any) -> tuple[float, float]:
        x = np.asarray(x, np.float64)
        loss = float((c * (t - v.astype(np.float64) @ x) ** 2).sum())
        return loss, loss + float((diagonal * x**2).sum())

    return wanted, best, objective


def check(rows: Arrays, *, found: Found | None = None, within: float = 1e-3) -> None:
    solution, loss, gap = found or sweep(rows)
    assert (solution.dtype, loss.dtype, gap.dtype) == (np.float32, np.float64, np.float64)
    assert solution.shape == rows["start"].shape
    for row, x in enumerate(solution):
        if rows["indptr"][row] == rows["indptr"][row + 1]:
            assert not x.any()
            assert loss[row] == gap[row] == 0
            continue
        wanted, best, objective = swept(rows, row)
        np.testing.assert_allclose(x, wanted, rtol=0, atol=within)
        before = objective(rows["start"][row])[1]
        here_loss, here = objective(x)
        assert here <= before * (1 + 1e-6)
        assert loss[row] == pytest.approx(here_loss, rel=1e-4, abs=1e-5 * before)
        assert here - objective(best)[1] <= gap[row] * (1 + 1e-4) + 1e-5 * before


# -- against the twin ------------------------------------------------------------------------------


@KS
def test_rows_around_the_sizes_that_matter(k: int) -> None:
    check(draw_rows([0, 1, k - 1, k, k + 1, BLOCK, BLOCK + 1, 0, 6 * k], k))


@given(
    counts=st.lists(st.integers(0, 2 * BLOCK), min_size=1, max_size=6),
    k=st.sampled_from([1, 7, BLOCK, BLOCK + 1, 70]),
    seed=st.integers(0, 1000),
)
def test_any_rows(counts: list[int], k: int, seed: int) -> None:
    check(draw_rows(counts, k, seed=seed), within=5e-3)


def test_passes_go_to_the_exact_solution() -> None:
    """And never up, nor may the gap say less than is missing."""
    rows = draw_rows([40, 100, 300], 70)
    aims = [swept(rows, row)[1:] for row in range(3)]
    for _ in range(60):
        found = sweep(rows)
        for row, (best, objective) in enumerate(aims):
            here, before = objective(found[0][row])[1], objective(rows["start"][row])[1]
            assert here <= before + 1e-5 * (1 + before)
            missing = here - objective(best)[1]
            assert missing <= found[2][row] * (1 + 1e-4) + 1e-5 * (1 + here)
        rows["start"] = found[0]
    for row, (best, _) in enumerate(aims):
        np.testing.assert_allclose(rows["start"][row], best, atol=0.05)


def test_within_one_block_a_pass_is_exact_and_says_so() -> None:
    rows = draw_rows([3, BLOCK, 200], BLOCK)
    solution, _, gap = sweep(rows)
    for row, x in enumerate(solution):
        np.testing.assert_allclose(x, swept(rows, row)[1], atol=2e-3)
    assert (gap < 1e-5).all()


def test_the_gap_is_large_where_much_is_missing() -> None:
    rows = draw_rows([60], 2 * BLOCK)
    rows["start"] *= 10
    solution, _, gap = sweep(rows)
    _, best, objective = swept(rows, 0)
    missing = objective(solution[0])[1] - objective(best)[1]
    assert 1e-3 < missing <= gap[0]


# -- tiles, company, arrays, numbers ---------------------------------------------------------------


@pytest.mark.parametrize("cells", [BLOCK, 50, 99, 100])
def test_rows_longer_than_the_tile_agree_with_those_in_it(cells: int) -> None:
    k = 40
    rows = draw_rows([3, 33, 100], k)
    # compiled code has the size of the tile in it
    with mock.patch.object(subspace, "TILE_BYTES", 4 * k * cells):
        found = sweep(rows, kernel=sweep_rows.py_func)
    check(rows, found=found)
    np.testing.assert_allclose(found[0], sweep(rows)[0], rtol=0, atol=1e-4)


def test_a_row_that_is_too_long_for_the_tile_by_one_cell() -> None:
    k = 256
    n = subspace.TILE_BYTES // (4 * k)
    rows = draw_rows([n + 1], k)
    rows["weights"][-1] = 0
    shorter = rows | {"indptr": np.array([0, n])}
    shorter |= {name: rows[name][:n] for name in ("indices", "weights", "targets")}
    found, within = sweep(rows), sweep(shorter)
    np.testing.assert_allclose(found[0], within[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[1], within[1], rtol=1e-5)


def test_the_same_bits_alone_and_in_company() -> None:
    rows = draw_rows([3, 30, 0, 500, 40], 40)
    together = sweep(rows)
    for row in range(5):
        alone = rows | {name: rows[name][row : row + 1] for name in ("ridge", "start")}
        alone["indptr"] = rows["indptr"][row : row + 2]
        for one, all_ in zip(sweep(alone), together, strict=True):
            np.testing.assert_array_equal(one[0], all_[row])


def test_arrays_may_be_read_only_and_stay_as_they_are() -> None:
    rows = draw_rows([3, 8, 60], 40)
    before = {name: each.copy() for name, each in rows.items()}
    wanted = sweep(rows)
    for each in rows.values():
        each.flags.writeable = False
    for one, other in zip(sweep(rows), wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    for name, each in rows.items():
        np.testing.assert_array_equal(each, before[name])


def test_equal_factors_without_regularisation_do_no_harm() -> None:
    """A block whose system is singular in float32 gets a larger ridge, and still goes down."""
    rows = draw_rows([60], 40)
    rows["factors"][:, 1:] = rows["factors"][:, :1]
    rows["base"][:], rows["ridge"][:] = 0, 1e-30
    solution, loss, _ = sweep(rows)
    assert np.isfinite(solution).all()
    v = rows["factors"][rows["indices"]].astype(np.float64)
    before = (rows["weights"] * (rows["targets"] - v @ rows["start"][0]) ** 2).sum()
    assert 0 < loss[0] < before


@pytest.mark.parametrize("n", [3, 60])
@pytest.mark.parametrize("name", ["weights", "targets"])
def test_numbers_that_overflow_are_refused(name: str, n: int) -> None:
    rows = draw_rows([n], 40)
    rows["weights"][:] = 1
    rows[name][:] = 3e38
    with pytest.raises(InputError, match="overflow float32; scale the values down"):
        sweep(rows)
