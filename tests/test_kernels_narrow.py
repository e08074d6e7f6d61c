"""Rows in 16 bits a number, against Python's own floating point."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dasrec.kernels.narrow import narrow_rows, round_rows
from tests import references

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
MATRICES = arrays.arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(1, 20)))
LARGE = 2.0**127  # of what is as large the unit and its inverse are numbers still


def rounded(rows: Any) -> Any:
    found = rows.copy()
    round_rows(found)
    return found


def narrowed(rows: Any) -> tuple[Any, Any]:
    numbers, units = np.empty(rows.shape, np.int16), np.empty(len(rows), np.float32)
    narrow_rows(rows, numbers, units)
    return numbers, units


@given(MATRICES.map(np.nan_to_num))
def test_rows_are_rounded_as_the_twin_does(rows: Any) -> None:
    found, wanted = rounded(rows), references.round_rows(rows)
    np.testing.assert_array_equal(found, wanted.reshape(rows.shape))


@given(MATRICES.map(np.nan_to_num))
def test_what_is_rounded_comes_through_unchanged(rows: Any) -> None:
    once = rounded(rows)
    numbers, units = narrowed(once)
    np.testing.assert_array_equal(numbers * units[:, None], once)
    np.testing.assert_array_equal(rounded(once), once)
    for row, wanted in zip(narrowed(rows)[0], map(references.narrow_row, rows), strict=True):
        assert row.tolist() == wanted[0]


@given(st.lists(FINITE, min_size=1, max_size=9))
def test_no_number_moves_by_more_than_half_a_unit_or_one_at_the_top(row: list[float]) -> None:
    rows = np.array([row], np.float32)
    _, units = narrowed(rows)
    assert np.abs(rounded(rows) - rows).max() <= max(units[0], np.abs(rows).max() * 2.0**-14)


@pytest.mark.parametrize("k", [1, 7, 64, 100])
def test_a_row_of_zeros_stays_one(k: int) -> None:
    rows = np.zeros((3, k), np.float32)
    numbers, units = narrowed(rows)
    assert not numbers.any()
    assert (units > 0).all()
    assert not rounded(rows).any()


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_does_not_become_one(odd: float) -> None:
    rows = np.ones((2, 4), np.float32)
    rows[1, 2] = odd
    found = rounded(rows)
    assert (found[0] == 1).all()
    assert np.isnan(found[1, 2])


def test_rows_of_a_slice_are_filled_where_they_stand() -> None:
    rows = rounded(np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32))
    numbers, units = np.zeros((6, 5), np.int16), np.zeros(6, np.float32)
    narrow_rows(rows[2:4], numbers[2:4], units[2:4])
    np.testing.assert_array_equal((numbers * units[:, None])[2:4], rows[2:4])
    assert not numbers[[0, 1, 4, 5]].any()
