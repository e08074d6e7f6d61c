"""Lists in Parquet: right, whole or not at all, resumable."""

from __future__ import annotations

import errno
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest

import dasrec
from dasrec import DiskError, InputError, MismatchError, files
from dasrec.testing import planted_matrix

NAMES = np.array([f"user {n}" for n in range(120)], object)


@pytest.fixture
def data(tmp_path: Path) -> dasrec.Interactions:
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 150):
        made = dasrec.interactions_from_scipy(planted_matrix(), tmp_path / "data", user_ids=NAMES)
    assert len(made.cuts("user_items")) > 4
    return made


@pytest.fixture
def model(data: dasrec.Interactions) -> dasrec.Model:
    return dasrec.ImplicitALS(factors=4, iterations=3, rng=0).fit(data)


def test_lists_are_those_of_recommend(
    data: dasrec.Interactions, model: dasrec.Model, tmp_path: Path
) -> None:
    place = dasrec.recommend_all(model, data, n=4, out=tmp_path / "lists")
    table = pd.read_parquet(place)
    assert table.columns.tolist() == ["user_id", "rank", "item_id", "score"]
    found = model.recommend(NAMES, n=4, seen=data)
    assert table["user_id"].tolist() == np.repeat(NAMES, 4).tolist()
    assert table["rank"].tolist() == [1, 2, 3, 4] * len(NAMES)
    assert table["item_id"].tolist() == found["item_id"].values.ravel().tolist()
    assert np.array_equal(table["score"].to_numpy(), found["score"].values.ravel())
    assert (Path(place) / "_SUCCESS").is_file()


def test_lists_end_where_everything_was_seen(tmp_path: Path) -> None:
    full = np.ones((3, 4))
    full[0, 1] = full[1, :3] = 0
    data = dasrec.interactions_from_scipy(full, tmp_path / "data")
    place = dasrec.recommend_all(dasrec.Popular().fit(data), data, n=2, out=tmp_path / "lists")
    table = pd.read_parquet(place)
    assert table.groupby("user_id").size().to_dict() == {0: 1, 1: 2}
    assert table["item_id"].tolist() == [1, 0, 2]


def test_what_is_there_stays_unless_told(
    data: dasrec.Interactions, model: dasrec.Model, tmp_path: Path
) -> None:
    out = tmp_path / "lists"
    dasrec.recommend_all(model, data, n=3, out=out)
    with pytest.raises(InputError, match="exists already; pass overwrite=True"):
        dasrec.recommend_all(model, data, n=5, out=out)
    assert len(pd.read_parquet(out)) == 3 * len(NAMES)
    dasrec.recommend_all(model, data, n=5, out=out, overwrite=True)
    assert len(pd.read_parquet(out)) == 5 * len(NAMES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "lists"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_a_stopped_run_is_not_taken_for_whole_and_resumes(
    data: dasrec.Interactions, model: dasrec.Model, tmp_path: Path, stop: BaseException
) -> None:
    whole = pd.read_parquet(dasrec.recommend_all(model, data, n=3, out=tmp_path / "whole"))
    out, replace, written = tmp_path / "lists", files.replace, []

    def failing(url: str, content: bytes) -> None:
        if len(written) == 3:
            raise stop
        written.append(url)
        replace(url, content)

    expected = KeyboardInterrupt if isinstance(stop, KeyboardInterrupt) else DiskError
    with mock.patch("dasrec.files.replace", failing), pytest.raises(expected):
        dasrec.recommend_all(model, data, n=3, out=out)
    assert not out.exists()
    (draft,) = tmp_path.glob("lists.part-*")
    before = {path.name: path.stat().st_mtime_ns for path in draft.glob("*.parquet")}
    assert before
    dasrec.recommend_all(model, data, n=3, out=out)
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    assert {name: after[name] for name in before} == before
    pd.testing.assert_frame_equal(pd.read_parquet(out), whole)


def test_another_store_and_long_lists_are_refused(
    data: dasrec.Interactions, model: dasrec.Model, tmp_path: Path
) -> None:
    other = dasrec.interactions_from_scipy(planted_matrix(), tmp_path / "other")
    with pytest.raises(MismatchError, match="user vocabularies"):
        dasrec.recommend_all(model, other, n=3, out=tmp_path / "lists")
    with pytest.raises(InputError, match="only 60 items"):
        dasrec.recommend_all(model, data, n=61, out=tmp_path / "lists")
    assert not list(tmp_path.glob("lists*"))
