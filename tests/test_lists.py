"""Lists of others, read from Parquet, by the numbers of a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest

import dasrec
from dasrec import BudgetError, InputError
from dasrec.lists import read_lists
from dasrec.testing import planted_matrix

NAMES = np.array([f"user {n}" for n in range(120)], object)
NOTHING = np.zeros(4, np.int64), np.empty(0, np.int32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dasrec.Interactions:
    place = tmp_path_factory.mktemp("lists") / "data"
    return dasrec.interactions_from_scipy(planted_matrix(), place, user_ids=NAMES)


def table(rows: list[tuple[Any, int, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "rank", "item_id"])


ROWS = [
    ("user 3", 2, 10),
    ("user 3", 1, 50),
    ("nobody", 1, 4),
    ("user 1", 1, 5),
    ("user 3", 3, 7),
    ("user 3", 4, 1000),
    ("nobody", 2, 1001),
]


def test_rows_in_any_order_and_files_become_lists(
    data: dasrec.Interactions, tmp_path: Path
) -> None:
    whole = table(ROWS)
    whole.iloc[:3].to_parquet(tmp_path / "b.parquet")
    whole.iloc[3:].to_parquet(tmp_path / "a.parquet")
    (tmp_path / "_SUCCESS").touch()
    with mock.patch("dasrec.memory.piece_rows", return_value=2):
        lists = read_lists(tmp_path, data)
    assert lists.facts == {"unknown_users": 1, "unknown_items": 2, "longest_list": 3}
    assert lists.name == tmp_path.name
    found = lists.rank(np.array([3, 0, 1], np.int32), 4, NOTHING)
    assert found.tolist() == [[50, 10, 7, -1], [-1] * 4, [5, -1, -1, -1]]
    seen = np.array([0, 2, 2, 2]), np.array([9, 50], np.int32)
    found = lists.rank(np.array([3, 0, 1], np.int32), 2, seen)
    assert found.tolist() == [[10, 7], [-1, -1], [5, -1]]


def test_what_was_written_is_read_again(data: dasrec.Interactions, tmp_path: Path) -> None:
    model = dasrec.ImplicitALS(factors=4, iterations=2, rng=0).fit(data)
    place = dasrec.recommend_all(model, data, n=5, out=tmp_path / "lists")
    lists = read_lists(place, data)
    ids = model.recommend(NAMES, n=5, seen=data)["item_id"].values
    nothing = np.zeros(121, np.int64), np.empty(0, np.int32)
    assert lists.rank(np.arange(120, dtype=np.int32), 5, nothing).tolist() == ids.tolist()
    assert lists.facts == {"unknown_users": 0, "unknown_items": 0, "longest_list": 5}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([("nobody", 1, 4)], r"none of the 1 rows .* expected ids like \['user 0'\] and \[0\]"),
        ([(3, 1, 4)], "none of the 1 rows"),
        ([("user 3", 1, None)], "rows without user_id or rank or item_id"),
    ],
)
def test_rows_that_mean_nothing_are_refused(
    data: dasrec.Interactions, tmp_path: Path, rows: Any, says: str
) -> None:
    table(rows).to_parquet(tmp_path / "lists.parquet")
    with pytest.raises(InputError, match=says):
        read_lists(tmp_path / "lists.parquet", data)


def test_places_without_lists_are_refused(data: dasrec.Interactions, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        read_lists(tmp_path / "nowhere", data)
    with pytest.raises(InputError, match="has no Parquet files"):
        read_lists(tmp_path, data)
    pd.DataFrame({"user_id": ["user 1"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="no column 'rank', 'item_id'"):
        read_lists(tmp_path, data)


def test_an_item_twice_is_refused(data: dasrec.Interactions, tmp_path: Path) -> None:
    place = tmp_path / "lists.parquet"
    table([("user 3", 1, 4), ("user 3", 2, 4)]).to_parquet(place)
    with pytest.raises(InputError, match="list of user number 3 has an item twice"):
        read_lists(place, data).rank(np.array([3, 0, 1], np.int32), 2, NOTHING)


def test_lists_that_would_not_fit_are_refused(data: dasrec.Interactions, tmp_path: Path) -> None:
    table(ROWS).to_parquet(tmp_path / "lists.parquet")
    with (
        mock.patch("dasrec.memory.limit", return_value=100),
        pytest.raises(BudgetError, match=r"reading 7 rows of lists needs .* evaluate shorter"),
    ):
        read_lists(tmp_path, data)
