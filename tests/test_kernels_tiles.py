"""Products with a tile of factors, against plain loops in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasrec.kernels.lanes import LANES
from dasrec.kernels.rows import row_squares
from dasrec.kernels.tiles import TOGETHER, gather, make_room, multiply, padded
from tests import references

SIZES = st.integers(1, 3 * LANES + 1)


@given(n_rows=st.integers(1, 9), k=SIZES)
def test_rooms_lie_on_lines_and_are_filled_up_with_zeros(n_rows: int, k: int) -> None:
    room = make_room(n_rows, k)
    assert room.shape == (n_rows, padded(k, LANES))
    assert room.shape[1] % LANES == 0
    assert room.ctypes.data % 64 == 0
    assert not room[:, k:].any()


@given(n=st.integers(1, 40), k=SIZES, seed=st.integers(0, 1000))
def test_products_are_those_of_the_twin(n: int, k: int, seed: int) -> None:
    draw, n_rows = np.random.default_rng(seed), padded(n, TOGETHER)
    factors = draw.standard_normal((50, k), np.float32)
    indices = draw.integers(50, size=n).astype(np.int32)
    tile, vectors, cells = make_room(n_rows, k), make_room(2, k), make_room(3, n_rows)
    tile[:, :k] = np.nan  # whatever was there
    units = np.ones(50, np.float32)
    gather(tile, (factors, units), indices)
    np.testing.assert_array_equal(tile[:n, :k], factors[indices])
    assert not tile[n:].any()
    vectors[:, :k], cells[:] = (
        draw.standard_normal((2, k)),
        draw.standard_normal((3, padded(n_rows, LANES))),
    )
    dots, out = references.multiply(tile, vectors[0], cells[0], cells[1], vectors[1])
    multiply(tile, vectors[0], cells[0, :n_rows], cells[1, :n_rows], cells[2, :n_rows], vectors[1])
    np.testing.assert_allclose(cells[2, :n_rows], dots, rtol=0, atol=1e-5 * (1 + k))
    np.testing.assert_allclose(vectors[1], out, rtol=0, atol=1e-5 * (1 + k) * n_rows)


@pytest.mark.parametrize("k", [1, LANES, 2 * LANES + 3])
def test_numbers_of_16_bits_are_gathered_in_their_units(k: int) -> None:
    draw = np.random.default_rng(0)
    numbers = draw.integers(-(2**15), 2**15, (9, k)).astype(np.int16)
    units = np.float32(2) ** draw.integers(-20, 3, 9).astype(np.float32)
    indices, tile = np.arange(8, dtype=np.int32)[::-1].copy(), make_room(8, k)
    gather(tile, (numbers, units), indices)
    np.testing.assert_array_equal(tile[:, :k], (numbers * units[:, None])[indices])


def test_squares_of_rows() -> None:
    rows = np.random.default_rng(0).standard_normal((5, 37), np.float32)
    np.testing.assert_allclose(row_squares(rows), (rows.astype(np.float64) ** 2).sum(axis=1))
