"""Lists in Parquet: right, whole or not at all, resumable."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dasrec
from dasrec import DiskError, InputError, MismatchError, files
from dasrec.testing import planted_matrix
from tests import references

NAMES = np.array([f"user {n}" for n in range(120)], object)
FULL_DISK = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dasrec.Interactions:
    place = tmp_path_factory.mktemp("recommend") / "data"
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 150):
        made = dasrec.interactions_from_scipy(planted_matrix(), place, user_ids=NAMES)
    assert len(made.cuts("user_items")) > 4
    return made


@pytest.fixture(scope="module")
def model(data: dasrec.Interactions) -> dasrec.Model:
    return dasrec.ImplicitALS(factors=4, iterations=3, rng=0).fit(data)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stopping(n: int, stop: BaseException) -> Any:
    """Return a patch under which no file is put in place after the first ``n``."""
    replace, written = files.replace, []

    def counted(url: str, content: bytes) -> None:
        if len(written) >= n:
            raise stop
        written.append(url)
        replace(url, content)

    return mock.patch("dasrec.files.replace", counted)


# -- what is written -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [4, 60])
def test_lists_are_what_brute_force_finds(
    data: dasrec.Interactions, model: dasrec.Model, tmp_path: Path, n: int
) -> None:
    place = dasrec.recommend_all(model, data, n=n, out=tmp_path / "lists")
    users, items = model.scoring_vectors()
    seen = references.rows_as_sets(planted_matrix())
    lists, scores = references.top_n(users @ items.T, n, seen)
    assert (n == 60) == any(len(row) < n for row in lists)
    table = pd.read_parquet(place)
    assert table["user_id"].tolist() == [
        name for name, row in zip(NAMES, lists, strict=True) for _ in row
    ]
    assert table["rank"].tolist() == [rank for row in lists for rank in range(1, len(row) + 1)]
    assert table["item_id"].tolist() == [item for row in lists for item in row]
    assert np.allclose(table["score"], [score for row in scores for score in row], atol=1e-6)


def test_lists_are_those_of_recommend(
    data: dasrec.Interactions, model: dasrec.Model, tmp_path: Path
) -> None:
    place = dasrec.recommend_all(model, data, n=4, out=tmp_path / "lists")
    table = pd.read_parquet(place)
    found = model.recommend(NAMES, n=4, seen=data)
    assert table["item_id"].tolist() == found["item_id"].values.ravel().tolist()
    assert np.allclose(table["score"], found["score"].values.ravel(), rtol=1e-6)


def test_some_users_are_read_by_the_block(data: dasrec.Interactions, model: dasrec.Model) -> None:
    numbers = [5, 100, 5, 3, 119, 0]
    read_rows = dasrec.Interactions.read_rows
    with mock.patch.object(dasrec.Interactions, "read_rows", autospec=True) as read:
        read.side_effect = read_rows
        found = model.recommend(NAMES[numbers], n=4, seen=data)
    blocks = np.searchsorted(data.cuts("user_items"), numbers, side="right")
    assert read.call_count == len(set(blocks)) < len(set(numbers))
    every = model.recommend(NAMES, n=4, seen=data).isel(user=numbers)
    assert found["user_id"].values.tolist() == NAMES[numbers].tolist()
    assert found["item_id"].values.tolist() == every["item_id"].values.tolist()
    assert len(model.recommend(NAMES[:0], n=4, seen=data)["user"]) == 0


def test_nobody_needs_all_user_ids(
    data: dasrec.Interactions, model: dasrec.Model, tmp_path: Path
) -> None:
    wanted = contents(Path(dasrec.recommend_all(model, data, n=4, out=tmp_path / "wanted")))
    again = dasrec.open_interactions(data.url)
    with (
        mock.patch.object(model, "user_ids_", None),
        mock.patch("dasrec.segments.StoredVocabulary.ids", mock.PropertyMock(side_effect=OSError)),
    ):
        place = dasrec.recommend_all(model, again, n=4, out=tmp_path / "lists")
    assert contents(Path(place)) == wanted


def test_a_model_outlives_its_store(tmp_path: Path) -> None:
    store = dasrec.interactions_from_scipy(planted_matrix(), tmp_path / "store", user_ids=NAMES)
    model = dasrec.Popular().fit(store)
    found = model.recommend(NAMES[[7]], n=3)
    files.remove(store.url)
    assert pickle.loads(pickle.dumps(model)).recommend(NAMES[[7]], n=3).identical(found)


def test_columns_have_the_types_that_are_promised(
    data: dasrec.Interactions, model: dasrec.Model, tmp_path: Path
) -> None:
    place = Path(dasrec.recommend_all(model, data, n=3, out=tmp_path / "lists"))
    parts = sorted(place.glob("*.parquet"))
    assert len(parts) == len(data.cuts("user_items")) - 1
    expected = [
        ("user_id", pa.string()),
        ("rank", pa.int32()),
        ("item_id", pa.int64()),
        ("score", pa.float32()),
    ]
    assert all(pq.read_schema(part).equals(pa.schema(expected)) for part in parts)
    assert sorted(contents(place)) == ["_SUCCESS", *(part.name for part in parts)]


def test_lists_end_where_everything_was_seen(tmp_path: Path) -> None:
    full = np.ones((3, 4))
    full[0, 1] = full[1, :3] = 0
    data = dasrec.interactions_from_scipy(full, tmp_path / "data")
    place = dasrec.recommend_all(dasrec.Popular().fit(data), data, n=2, out=tmp_path / "lists")
    table = pd.read_parquet(place)
    assert table.groupby("user_id").size().to_dict() == {0: 1, 1: 2}
    assert table["item_id"].tolist() == [1, 0, 2]


def test_what_is_seen_may_be_a_part(
    data: dasrec.Interactions, model: dasrec.Model, tmp_path: Path
) -> None:
    split = dasrec.split_random(data, 0.5, rng=0)
    place = dasrec.recommend_all(model, split.train, n=60, out=tmp_path / "lists")
    sizes = pd.read_parquet(place).groupby("user_id").size()
    left = 60 - split.train.counts("user_items")
    assert [sizes[name] for name in NAMES] == left.tolist()


def test_lists_may_lie_elsewhere_than_on_disk(
    data: dasrec.Interactions, model: dasrec.Model, tmp_path: Path
) -> None:
    url = f"memory://{tmp_path.name}/lists"
    assert dasrec.recommend_all(model, data, n=3, out=url) == url
    here = dasrec.recommend_all(model, data, n=3, out=tmp_path / "lists")
    fs, path = files.locate(url)
    there = {each.rsplit("/", 1)[-1]: fs.cat_file(each) for each in fs.ls(path, detail=False)}
    assert there == contents(Path(here))


# -- whole or not at all ---------------------------------------------------------------------------


def test_what_is_there_stays_unless_told(
    data: dasrec.Interactions, model: dasrec.Model, tmp_path: Path
) -> None:
    out = tmp_path / "lists"
    dasrec.recommend_all(model, data, n=3, out=out)
    before = contents(out)
    with pytest.raises(InputError, match=r"exists already; pass overwrite=True \(--overwrite\)"):
        dasrec.recommend_all(model, data, n=5, out=out)
    assert contents(out) == before
    dasrec.recommend_all(model, data, n=5, out=out, overwrite=True)
    assert len(pd.read_parquet(out)) == 5 * len(NAMES)
    assert [path.name for path in tmp_path.iterdir()] == ["lists"]


def test_success_comes_last_and_the_place_after_it(
    data: dasrec.Interactions, model: dasrec.Model, tmp_path: Path
) -> None:
    out, replace, written = tmp_path / "lists", files.replace, []

    def noting(url: str, content: bytes) -> None:
        assert not out.exists()
        written.append(Path(url).name)
        replace(url, content)

    with mock.patch("dasrec.files.replace", noting):
        dasrec.recommend_all(model, data, n=3, out=out)
    assert written[-1] == "_SUCCESS"
    assert sorted(written) == sorted(contents(out))


@pytest.mark.parametrize(
    ("stop", "kind"), [(KeyboardInterrupt(), KeyboardInterrupt), (FULL_DISK, DiskError)]
)
def test_a_stopped_run_is_not_taken_for_whole_and_resumes(
    data: dasrec.Interactions,
    model: dasrec.Model,
    tmp_path: Path,
    stop: BaseException,
    kind: type[BaseException],
) -> None:
    whole = contents(Path(dasrec.recommend_all(model, data, n=3, out=tmp_path / "whole")))
    out = tmp_path / "lists"
    with stopping(3, stop), pytest.raises(kind):
        dasrec.recommend_all(model, data, n=3, out=out)
    assert not out.exists()
    (draft,) = tmp_path.glob("lists.part-*")
    before = {path.name: path.stat().st_mtime_ns for path in draft.glob("*.parquet")}
    assert 0 < len(before) < len(whole) - 1
    assert not (draft / "_SUCCESS").exists()
    dasrec.recommend_all(model, data, n=3, out=out)
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    assert {name: after[name] for name in before} == before
    assert contents(out) == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lists", "whole"]


def test_a_full_disk_is_named_with_a_remedy(
    data: dasrec.Interactions, model: dasrec.Model, tmp_path: Path
) -> None:
    with (
        stopping(0, FULL_DISK),
        pytest.raises(DiskError, match=r"cannot write to .*lists.*: No space left on device; .*Fr"),
    ):
        dasrec.recommend_all(model, data, n=3, out=tmp_path / "lists")


@pytest.mark.parametrize("where", ["a part", "_SUCCESS", "the last move"])
def test_a_failed_overwrite_leaves_the_lists_before(
    data: dasrec.Interactions, model: dasrec.Model, tmp_path: Path, where: str
) -> None:
    out, n_parts = tmp_path / "lists", len(data.cuts("user_items")) - 1
    dasrec.recommend_all(model, data, n=3, out=out)
    before = contents(out)
    patches = {
        "a part": stopping(2, FULL_DISK),
        "_SUCCESS": stopping(n_parts, FULL_DISK),
        "the last move": mock.patch("dasrec.files.move", side_effect=FULL_DISK),
    }
    with patches[where], pytest.raises(DiskError):
        dasrec.recommend_all(model, data, n=5, out=out, overwrite=True)
    assert contents(out) == before
    dasrec.recommend_all(model, data, n=5, out=out, overwrite=True)
    assert len(pd.read_parquet(out)) == 5 * len(NAMES)
    assert [path.name for path in tmp_path.iterdir()] == ["lists"]


def other_n(data: dasrec.Interactions, model: dasrec.Model) -> tuple[Any, ...]:
    return model, data, 4


def other_seen(data: dasrec.Interactions, model: dasrec.Model) -> tuple[Any, ...]:
    return model, dasrec.split_random(data, 0.5, rng=0).train, 3


def other_model(data: dasrec.Interactions, model: dasrec.Model) -> tuple[Any, ...]:
    return dasrec.ImplicitALS(factors=4, iterations=3, rng=1).fit(data), data, 3


@pytest.mark.parametrize("other", [other_n, other_seen, other_model])
def test_parts_of_another_call_are_not_taken_over(
    data: dasrec.Interactions,
    model: dasrec.Model,
    tmp_path: Path,
    other: Callable[..., tuple[Any, ...]],
) -> None:
    with stopping(3, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        dasrec.recommend_all(model, data, n=3, out=tmp_path / "lists")
    another, seen, n = other(data, model)
    found = dasrec.recommend_all(another, seen, n=n, out=tmp_path / "lists")
    alone = dasrec.recommend_all(another, seen, n=n, out=tmp_path / "alone")
    assert contents(Path(found)) == contents(Path(alone))


def test_what_cannot_be_listed_is_refused_before_anything_is_written(
    data: dasrec.Interactions, model: dasrec.Model, tmp_path: Path
) -> None:
    out = tmp_path / "place" / "lists"
    other = dasrec.interactions_from_scipy(planted_matrix(), tmp_path / "other")
    with pytest.raises(MismatchError, match="user vocabularies differ"):
        dasrec.recommend_all(model, other, n=3, out=out)
    with pytest.raises(InputError, match="catalogue has only 60 items; choose n <= 60"):
        dasrec.recommend_all(model, data, n=61, out=out)
    with pytest.raises(InputError, match="n is 0; expected a whole number, at least 1"):
        dasrec.recommend_all(model, data, n=0, out=out)
    with pytest.raises(InputError, match="not fitted"):
        dasrec.recommend_all(dasrec.Popular(), data, n=3, out=out)
    assert not out.parent.exists()
