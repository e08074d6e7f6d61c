"""Factor matrices give the same rows and products in memory and in files."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasrec import DiskError, factors
from dasrec.factors import (
    Generation,
    drop,
    eigenbasis,
    gram,
    hold,
    hold_array,
    in_memory,
    labelled,
    last_column,
    map_rows,
    narrow,
    rotate,
    row_cuts,
)
from tests import references
from tests.strategies import cuts

# -- products --------------------------------------------------------------------------------------


def draw_vectors(n: int, k: int) -> Any:
    return np.random.default_rng(n).normal(size=(n, k)).astype(np.float32)


@pytest.mark.parametrize("n", [1, 99, 100, 101, 1234])
@pytest.mark.parametrize("k", [1, 7, 33])
def test_products_are_those_of_numpy(n: int, k: int) -> None:
    vectors, rotation = draw_vectors(n, k), draw_vectors(k, k)
    with mock.patch.object(factors, "ROWS", 100):
        square, product = gram(vectors), rotate(vectors, rotation)
    assert (square.dtype, product.dtype) == (np.float64, np.float32)
    exact = vectors.astype(np.float64)
    np.testing.assert_allclose(square, exact.T @ exact, rtol=1e-5, atol=1e-6 * n)
    np.testing.assert_allclose(product, exact @ rotation.astype(np.float64), rtol=0, atol=1e-5 * k)


@pytest.mark.parametrize("k", [7, 33])
def test_products_have_the_same_bits_on_any_number_of_cores(k: int) -> None:
    vectors, rotation = draw_vectors(3 * factors.ROWS + 17, k), draw_vectors(k, k)
    found = []
    for cores in (1, 2, 4):
        with mock.patch("dasrec.blocks.CPU_COUNT", cores):
            found.append((gram(vectors).tobytes(), rotate(vectors, rotation).tobytes()))
    assert found[0] == found[1] == found[2]


def unaligned(values: Any) -> Any:
    """Return a copy that begins in the middle of a word, as what comes from a cluster may."""
    raw = np.empty(values.nbytes + 1, np.uint8)
    copy = raw[1:].view(values.dtype).reshape(values.shape)
    copy[:] = values
    assert not copy.flags.aligned
    return copy


def test_products_have_the_same_bits_wherever_an_array_lies() -> None:
    vectors, rotation = draw_vectors(500, 20), draw_vectors(20, 20)
    other = unaligned(vectors)
    assert gram(other).tobytes() == gram(vectors).tobytes()
    assert rotate(other, rotation).tobytes() == rotate(vectors, rotation).tobytes()


def test_in_the_eigenbasis_the_gram_matrix_is_diagonal() -> None:
    vectors = draw_vectors(500, 7)
    vectors[:, 3] = vectors[:, 5]  # of rank six: rounding must not make an eigenvalue negative
    values, rotation = eigenbasis(vectors)
    assert rotation.dtype == np.float32
    assert (values >= 0).all()
    np.testing.assert_allclose(gram(rotate(vectors, rotation)), np.diag(values), atol=1e-2)


# -- files -----------------------------------------------------------------------------------------


def write(place: Path, vectors: Any, at: Any) -> Generation:
    made = Generation.begin(str(place), [int(each) for each in at], vectors.shape[1])
    for start, stop in pairwise(made.cuts):
        made.write(start, vectors[start:stop])
    return made


@given(data=st.data(), n=st.integers(1, 30), width=st.integers(1, 5))
def test_rows_come_back_however_they_were_cut(
    data: st.DataObject, n: int, width: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    vectors, at = draw_vectors(n, width), sorted({*data.draw(cuts(n))})
    made = write(tmp_path_factory.mktemp("rows"), vectors, at)
    assert (len(made), made.shape, len(list(Path(made.folder).iterdir()))) == (
        n,
        (n, width),
        len(at) - 1,
    )
    start, stop = sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))
    column = data.draw(st.integers(0, width - 1))
    np.testing.assert_array_equal(made[start:stop], vectors[start:stop])
    np.testing.assert_array_equal(made[start:stop, column:], vectors[start:stop, column:])
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, n - 1)))), np.int64)
    with mock.patch.object(factors, "ROWS", data.draw(st.integers(1, 40))):
        np.testing.assert_array_equal(made.take(rows), vectors[rows])
        np.testing.assert_array_equal(np.asarray(labelled(made)), vectors)
        kept = hold_array(made, made.place)
        assert isinstance(kept, Generation)
        np.testing.assert_array_equal(in_memory(kept), vectors)
    np.testing.assert_array_equal(hold_array(labelled(made), None), vectors)
    np.testing.assert_array_equal(made.whole(in_memory), vectors)


def test_a_process_reads_a_whole_once_and_keeps_one(tmp_path: Path) -> None:
    one, two = (write(tmp_path, draw_vectors(n, 3), [0, 5, n]) for n in (10, 20))
    with mock.patch.object(factors.files, "read_into", wraps=factors.files.read_into) as read:
        assert one.whole(in_memory) is one.whole(in_memory)
        assert read.call_count == 2
        assert two.whole(in_memory).shape == (20, 3)
        one.whole(in_memory)
        assert read.call_count == 6


@given(n=st.integers(1, 60), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_rounded_products_are_held_in_half_of_the_bytes(n: int, width: int, seed: int) -> None:
    vectors, rotation = draw_vectors(n, width), draw_vectors(width, width)
    vectors *= np.float32(10.0) ** np.random.default_rng(seed).integers(-9, 9, (n, 1))
    with mock.patch.object(factors, "ROWS", 16):
        exact, rounded = rotate(vectors, rotation), rotate(vectors, rotation, rounded=True)
        numbers, units = narrow(in_memory(rounded))
    assert numbers.dtype == np.int16
    np.testing.assert_array_equal(numbers * units[:, None], rounded)
    np.testing.assert_array_equal(rounded, references.round_rows(in_memory(exact)))


def test_products_of_files_have_the_bits_of_those_in_memory(tmp_path: Path) -> None:
    vectors, rotation = draw_vectors(500, 7), draw_vectors(7, 7)
    made = write(tmp_path, vectors, [0, 33, 100, 101, 480, 500])
    with mock.patch.object(factors, "ROWS", 64):
        assert gram(made).tobytes() == gram(vectors).tobytes()
        turned = rotate(made, rotation)
        assert isinstance(turned, Generation)
        assert in_memory(turned).tobytes() == in_memory(rotate(vectors, rotation)).tobytes()
        assert last_column(made).tobytes() == vectors[:, -1].tobytes()
        doubled = map_rows(np.multiply, made, np.float32(2))
        assert in_memory(doubled).tobytes() == (2 * vectors).tobytes()


@pytest.mark.parametrize("n", [0, 1, 9, 10, 11, 25])
def test_what_comes_in_parts_is_held_as_a_whole(tmp_path: Path, n: int) -> None:
    vectors = draw_vectors(n, 2)
    with mock.patch.object(factors, "ROWS", 10):
        at = row_cuts(n)
        assert at == tuple(sorted({*range(0, n, 10), n}))
        for place in (None, str(tmp_path)):
            held = hold((vectors[a:b] for a, b in pairwise(at)), (n, 2), place)
            assert isinstance(held, Generation) == (place is not None)
            np.testing.assert_array_equal(in_memory(held), vectors)


def test_only_what_is_needed_stays(tmp_path: Path) -> None:
    made = [write(tmp_path, draw_vectors(4, 2), [0, 4]) for _ in range(4)]
    drop(str(tmp_path), but=(made[1], draw_vectors(4, 2), None, made[3]))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {Path(made[1].folder).name, Path(made[3].folder).name}


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    made = Generation.begin(str(tmp_path), [0, 4], 2)
    with (
        mock.patch.object(factors.files, "replace", side_effect=OSError(28, "No space left")),
        pytest.raises(DiskError, match=r"cannot write to .*No space left"),
    ):
        made.write(0, draw_vectors(4, 2))
