"""What figures show is summed up exactly, however the store is cut and wherever it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import dasrec
from dasrec import InputError, Interactions, MismatchError
from dasrec.cluster import connect
from dasrec.kernels.grid import count_cells, count_steps
from dasrec.testing import planted_matrix
from tests import references_summaries as references
from tests.strategies import sparse_matrices

DAY = 86_400


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    draw = np.random.default_rng(0)
    users, items = (np.sort(draw.integers(0, n, 3000) ** 2 // n) for n in (150, 80))
    table = pd.DataFrame({"u": users, "i": draw.permutation(items)})
    table["t"] = 1_700_000_000 + draw.integers(0, 40 * DAY, len(table))
    return table.drop_duplicates(["u", "i"])


def write(log: pd.DataFrame, place: Path, *, cells: int) -> Interactions:
    events = dasrec.read_events(log, user="u", item="i", timestamp="t")
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", cells):
        return dasrec.write_interactions(events, place)


@pytest.fixture(scope="module")
def data(log: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    made = write(log, tmp_path_factory.mktemp("summaries") / "data", cells=100)
    assert len(made.cuts("user_items")) > 10
    return made


# -- kernels ---------------------------------------------------------------------------------------


def cells_of(matrix: sparse.csr_array[Any]) -> list[tuple[int, int]]:
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return list(zip(rows.tolist(), matrix.indices.tolist(), strict=True))


@given(sparse_matrices(), st.data())
def test_cells_are_counted_by_bins(matrix: sparse.csr_array[Any], data: st.DataObject) -> None:
    shape = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    bins = [
        np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=size, max_size=size)), np.int32)
        for n, size in zip(shape, matrix.shape, strict=True)
    ]
    indptr = matrix.indptr.astype(np.int64)
    found = count_cells(indptr, matrix.indices, *bins, shape)
    expected = references.counts_on_grid(cells_of(matrix), *(each.tolist() for each in bins), shape)
    np.testing.assert_array_equal(found, expected)


@given(sparse_matrices(), st.integers(1, 5), st.integers(-3, 3), st.data())
def test_cells_and_rows_are_counted_by_steps(
    matrix: sparse.csr_array[Any], step: int, start: int, data: st.DataObject
) -> None:
    times = st.integers(start, start + 4 * step - 1)
    drawn = data.draw(st.lists(times, min_size=matrix.nnz, max_size=matrix.nnz))
    found = count_steps(matrix.indptr.astype(np.int64), np.array(drawn, np.int64), start, step, 4)
    rows = [row for row, _ in cells_of(matrix)]
    cells = list(zip(rows, drawn, strict=True))
    expected = references.counts_in_time(cells, start=start, step=step, n_steps=4)
    np.testing.assert_array_equal(found, expected)


# -- stores ----------------------------------------------------------------------------------------


def test_tails_are_counts(data: Interactions, log: pd.DataFrame) -> None:
    found = dasrec.count_tails(data)
    assert found["user_counts"].values.tolist() == log.groupby("u").size().tolist()
    assert found["item_counts"].values.tolist() == log.groupby("i").size().tolist()
    part = dasrec.count_tails(dasrec.split_random(data, 0.5, rng=0).train)
    assert 0 < part["user_counts"].sum() < found["user_counts"].sum()


def test_activity_is_counted_by_day(data: Interactions, log: pd.DataFrame) -> None:
    found = dasrec.count_in_time(data, step="1D")
    days = log.groupby(log["t"] // DAY)
    by_day = days.size().reindex(range(log["t"].min() // DAY, log["t"].max() // DAY + 1))
    assert found["interactions"].values.tolist() == by_day.fillna(0).astype(int).tolist()
    people = days["u"].nunique().reindex(by_day.index)
    assert found["users"].values.tolist() == people.fillna(0).astype(int).tolist()
    assert found["time"].values[0] == np.datetime64(int(by_day.index[0]), "D")
    assert found.attrs["step_seconds"] == DAY


@pytest.mark.parametrize(
    ("days", "seconds"), [(1 / 86400, 1), (1, 600), (9, 6 * 3600), (150, DAY), (4000, 30 * DAY)]
)
def test_steps_are_those_that_people_count_by(tmp_path: Path, days: float, seconds: int) -> None:
    log = pd.DataFrame({"u": [1, 2, 2], "i": [1, 2, 1], "t": [0, 1, int(days * DAY)]})
    found = dasrec.count_in_time(write(log, tmp_path / "data", cells=1))
    assert found.attrs["step_seconds"] == seconds
    assert len(found["time"]) <= 200
    assert found["interactions"].sum() == 3


def test_the_grid_is_the_matrix_by_activity(data: Interactions, log: pd.DataFrame) -> None:
    found = dasrec.count_on_grid(data, bins=(7, 5))
    ranks = []
    for side, n in (("u", data.n_users), ("i", data.n_items)):
        counts = log.groupby(side).size()
        order = np.argsort(-counts.to_numpy(), kind="stable")
        ranks.append(dict(zip(counts.index[order], range(n), strict=True)))
    bins = [
        [rank * b // len(each) for rank in range(len(each))]
        for each, b in zip(ranks, (7, 5), strict=True)
    ]
    cells = [(ranks[0][u], ranks[1][i]) for u, i in zip(log["u"], log["i"], strict=True)]
    expected = references.counts_on_grid(cells, *bins, (7, 5))
    np.testing.assert_array_equal(found["interactions"], expected)
    sizes = np.outer(*(np.bincount(each) for each in bins))
    np.testing.assert_allclose(found["density"], expected / sizes)
    assert found["first_user"].values.tolist() == [bins[0].index(b) for b in range(7)]
    assert found["density"].values[0, 0] > found["density"].values[-1, -1]


def test_the_grid_by_number_may_have_a_bin_for_each(data: Interactions) -> None:
    found = dasrec.count_on_grid(data, bins=(4096, 4096), order="number")
    assert found["interactions"].shape == (data.n_users, data.n_items)
    stored = data.to_scipy().toarray() != 0
    np.testing.assert_array_equal(found["interactions"], stored)
    np.testing.assert_array_equal(found["density"], stored)


def test_the_grid_has_as_many_bins_as_cells_can_fill(data: Interactions) -> None:
    found = dasrec.count_on_grid(data)
    height, width = found["interactions"].shape
    assert 3 * height == 2 * width
    assert 5 < data.n_stored / height / width < 12
    with mock.patch("dasrec.summaries._BIN_CELLS", 0.001):
        assert dasrec.count_on_grid(data)["interactions"].shape == (
            min(120, data.n_users),
            min(180, data.n_items),
        )


def test_cuts_do_not_matter(data: Interactions, log: pd.DataFrame, tmp_path: Path) -> None:
    whole = write(log, tmp_path / "data", cells=10**6)
    assert len(whole.cuts("user_items")) == 2
    for one in (dasrec.count_tails, dasrec.count_in_time, dasrec.count_on_grid):
        assert one(whole).drop_attrs().identical(one(data).drop_attrs())


@pytest.mark.slow
def test_a_cluster_counts_the_same(data: Interactions) -> None:
    part = dasrec.split_by_time(data, 0.3).train
    model = dasrec.ImplicitALS(factors=3, iterations=2, rng=0).fit(part)
    alone = [dasrec.count_tails(part), dasrec.count_in_time(part), dasrec.count_on_grid(part)]
    alone.append(dasrec.place_items(model, interactions=part))
    with connect("processes:2"):
        there = [dasrec.count_tails(part), dasrec.count_in_time(part), dasrec.count_on_grid(part)]
        there.append(dasrec.place_items(model, interactions=part))
    assert all(one.identical(other) for one, other in zip(alone, there, strict=True))


def test_what_cannot_be_counted_is_refused(data: Interactions, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"step is '1s', which makes [\d,]+ steps; expected at"):
        dasrec.count_in_time(data, step="1s")
    with pytest.raises(InputError, match="step is 'often'"):
        dasrec.count_in_time(data, step="often")
    with pytest.raises(InputError, match="bins is 0; expected a whole number, from 1 to 4096"):
        dasrec.count_on_grid(data, bins=(0, 5))
    with pytest.raises(InputError, match="order is 'age'; expected one of: activity, number"):
        dasrec.count_on_grid(data, order="age")  # type: ignore[arg-type]
    timeless = dasrec.interactions_from_scipy(planted_matrix(), tmp_path / "data")
    with pytest.raises(InputError, match="has no timestamps; write it again"):
        dasrec.count_in_time(timeless)
    nothing = dasrec.split_by_time(data, since="2001-01-01").train
    with pytest.raises(InputError, match="has no interactions in this part"):
        dasrec.count_in_time(nothing)


# -- models ----------------------------------------------------------------------------------------


def test_items_lie_on_the_largest_singular_vectors(data: Interactions) -> None:
    model = dasrec.ImplicitALS(factors=5, iterations=3, rng=0).fit(data)
    found = dasrec.place_items(model)
    where, shares = references.plane(model.item_factors_.values.astype(float))
    np.testing.assert_allclose(np.stack([found["x"], found["y"]], 1), where, atol=1e-4)
    assert (found.attrs["share_x"], found.attrs["share_y"]) == pytest.approx(shares, rel=1e-4)
    assert found["item_id"].values.tolist() == data.item_ids.ids.tolist()
    assert (found["count"] == 0).all()


def test_those_that_most_people_use_are_placed(data: Interactions) -> None:
    model = dasrec.BPR(factors=4, iterations=2, rng=0).fit(data)
    found = dasrec.place_items(model, interactions=data, most=6)
    counts = data.counts("item_users")
    assert found["count"].values.min() >= np.sort(counts)[-6]
    numbers = data.item_ids.numbers(found["item_id"].values)
    assert counts[numbers].tolist() == found["count"].values.tolist()
    whole = dasrec.place_items(model, interactions=data)
    np.testing.assert_array_equal(whole["x"].values[numbers], found["x"])


def test_models_without_a_plane_are_refused(data: Interactions, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="popular has no vectors of items of two factors or more"):
        dasrec.place_items(dasrec.Popular().fit(data))
    model = dasrec.ImplicitALS(factors=1, iterations=1, rng=0).fit(data)
    with pytest.raises(InputError, match="of two factors or more"):
        dasrec.place_items(model)
    with pytest.raises(InputError, match="not fitted"):
        dasrec.place_items(dasrec.ImplicitALS())
    other = dasrec.interactions_from_scipy(planted_matrix(), tmp_path / "data")
    with pytest.raises(MismatchError, match="does not belong"):
        dasrec.place_items(model.set_params(factors=2).fit(data), interactions=other)
