"""Columns come back from scratch bit for bit, and take no more bytes than their range needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from dasrec import files
from dasrec.columns import narrow, read_column, same, widen, write_columns
from dasrec.kernels.hashing import few_values

KINDS = (np.int32, np.int64, np.float32)
columns = st.sampled_from(KINDS).flatmap(lambda kind: npst.arrays(kind, st.integers(0, 40)))


@given(columns)
def test_what_is_narrowed_is_widened_again(values: np.ndarray[Any, Any]) -> None:
    kept, codec = narrow(values)
    found = widen(kept, [codec])
    assert found.dtype == values.dtype
    assert found.tobytes() == values.tobytes()  # NaN and -0.0 too
    assert codec.row_bytes == sum(each.itemsize for each in kept) <= values.itemsize


@given(st.lists(st.tuples(st.integers(-(2**62), 2**62), st.integers(0, 5)), min_size=1))
def test_columns_kept_alike_are_widened_as_one(drawn: list[tuple[int, int]]) -> None:
    columns = [base + 2**32 * np.arange(n + 1) for base, n in drawn]
    made = [narrow(column) for column in columns]
    alike = [each for each in made if same(each[1], made[0][1])]
    kept = [np.concatenate(words) for words in zip(*(each[0] for each in alike), strict=True)]
    codecs = [codec for _, codec in alike]
    found = widen(kept, codecs, [len(words[0]) for words, _ in alike])
    wanted = [
        column for column, (_, codec) in zip(columns, made, strict=True) if same(codec, codecs[0])
    ]
    assert found.tolist() == np.concatenate(wanted).tolist()


@given(npst.arrays(np.float32, st.integers(0, 400), elements=st.integers(0, 300).map(float)))
def test_few_values_are_numbered_in_an_order_of_their_own(values: np.ndarray[Any, Any]) -> None:
    codes, book = few_values(values)
    if len(set(values.tolist())) > 256:
        assert len(book) == 0
    else:
        assert book.tolist() == sorted(set(values.tolist()))
        assert book[codes].tolist() == values.tolist()


@pytest.mark.parametrize(
    ("values", "row_bytes"),
    [
        (np.array([7, 7], np.int32), 1),
        (np.array([0, 65_535], np.int32), 2),
        (np.array([-3, 65_536], np.int64), 4),
        (np.array([2**40, 2**40 + 200]), 1),  # far from 0, near each other
        (1_700_000_000_000_000 + np.array([0, 10**12]), 6),  # some days of microseconds
        (np.array([-(2**63), 2**63 - 1]), 8),
        (np.array([0.5, 5, 3.5], np.float32), 1),
        (np.arange(300, dtype=np.float32), 4),
        (np.empty(0, np.int64), 1),
    ],
)
def test_bytes_follow_the_range(values: np.ndarray[Any, Any], row_bytes: int) -> None:
    assert narrow(values)[1].row_bytes == row_bytes


def test_parts_of_one_column_are_kept_alike() -> None:
    draw = np.random.default_rng(0)
    year = 1_700_000_000_000_000 + draw.integers(0, 3 * 10**13, (2, 1000))
    stars = draw.integers(1, 6, (2, 1000)).astype(np.float32)
    items = draw.integers(0, 5000, (2, 1000)).astype(np.int32)
    for one, other in (year, stars, items):
        assert same(narrow(one)[1], narrow(other)[1])
    assert narrow(year[0])[1] == narrow(year[1])[1]  # whose lows are the same too
    assert not same(narrow(stars[0])[1], narrow(stars[0] + 1)[1])
    assert not same(narrow(items[0])[1], narrow(items[0] * 100)[1])


@given(
    st.lists(st.tuples(*(st.integers(0, 2**31 - 1),) * 2, st.integers(0, 9)), min_size=1),
    st.data(),
)
def test_ranges_of_a_column_are_read(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[Any], data: st.DataObject
) -> None:
    folder = str(tmp_path_factory.mktemp("columns"))
    table = np.array(drawn, np.int64)
    found = {
        "user": table[:, 0].astype(np.int32),
        "time": table[:, 1] * 10**6,
        "value": table[:, 2].astype(np.float32),
    }
    codecs = write_columns(folder, found)
    start = data.draw(st.integers(0, len(table)))
    stop = data.draw(st.integers(start, len(table)))
    for name, values in found.items():
        assert read_column(folder, name, codecs[name]).tolist() == values.tolist()
        part = read_column(folder, name, codecs[name], start, stop)
        assert part.tolist() == values[start:stop].tolist()


def test_a_column_that_was_cut_off_is_told(tmp_path: Path) -> None:
    files.write_column(str(tmp_path / "x"), np.arange(10))
    with (tmp_path / "x").open("r+b") as file:
        file.truncate(44)
    with pytest.raises(EOFError, match="ends after 44 bytes; expected 80"):
        files.read_column(str(tmp_path / "x"), np.int64, 0, 10)
