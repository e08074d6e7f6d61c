"""Features in the store: what is written comes back, through versions, for every id."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import dasrec
from dasrec import InputError, Interactions, StoreError, store
from dasrec.testing import killed_before_commit, some_ids
from tests import references
from tests.strategies import sparse_matrices

N_USERS, N_ITEMS = 6, 9


def write_store(place: Path, *, kind: type = int) -> Interactions:
    cells = sparse.csr_array(np.eye(N_USERS, N_ITEMS, dtype=np.float32))
    return dasrec.interactions_from_scipy(
        cells, place, user_ids=some_ids(N_USERS, kind), item_ids=some_ids(N_ITEMS, kind)
    )


@pytest.fixture
def data(tmp_path: Path) -> Interactions:
    return write_store(tmp_path / "data")


def events_of(users: Any, items: Any) -> dasrec.Events:
    log = pd.DataFrame({"u": users, "i": items, "v": 1.0})
    return dasrec.read_events(log, user="u", item="i", value="v")


def dense(interactions: Interactions, side: Any) -> Any:
    return dasrec.open_features(interactions, side).matrix.toarray()


# -- matrices --------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(
    matrix=sparse_matrices(rows=N_ITEMS, least=1),
    seed=st.integers(0, 99),
    kind=st.sampled_from([int, str]),
    as_array=st.booleans(),
)
def test_rows_stand_where_their_ids_do(
    tmp_path_factory: pytest.TempPathFactory,
    matrix: sparse.csr_array[Any],
    seed: int,
    kind: type,
    as_array: bool,
) -> None:
    data = write_store(tmp_path_factory.mktemp("rows") / "data", kind=kind)
    places = np.random.default_rng(seed).permutation(N_ITEMS)[: matrix.shape[0]]
    given_ids = data.item_ids.ids[places]
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 2):
        written = dasrec.write_features(
            data.url, "item", matrix.toarray() if as_array else matrix, ids=given_ids
        )
    expected = np.zeros((N_ITEMS, matrix.shape[1]), np.float32)
    for row, place in enumerate(places):
        expected[place] = matrix.toarray()[row]
    found = dasrec.open_features(written, "item")
    assert np.array_equal(found.matrix.toarray(), expected)
    assert found.matrix.dtype == np.float32
    assert found.n_stored == np.count_nonzero(expected)
    assert found.names.tolist() == [str(column) for column in range(matrix.shape[1])]
    for start in range(N_ITEMS + 1):
        for stop in range(start, N_ITEMS + 1):
            part = found.read_rows(start, stop)
            assert part.shape == (stop - start, matrix.shape[1])
            assert np.array_equal(part.toarray(), expected[start:stop])
    assert dasrec.verify(data.url) == []


def test_a_matrix_without_ids_is_in_the_order_of_the_vocabulary(data: Interactions) -> None:
    values = np.arange(12.0).reshape(N_USERS, 2)
    data = dasrec.write_features(data.url, "user", values, names=["age", "size"])
    found = dasrec.open_features(data, "user")
    assert np.array_equal(found.matrix.toarray(), values)
    assert found.names.tolist() == ["age", "size"]
    assert repr(found) == "<Features: 6 users x 2, 11 stored>"


def test_other_tools_read_the_matrix(data: Interactions) -> None:
    anndata = pytest.importorskip("anndata")
    zarr = pytest.importorskip("zarr")
    data = dasrec.write_features(data.url, "item", np.eye(N_ITEMS))
    found = dasrec.open_features(data, "item")
    group = zarr.open_group(found.group_url, mode="r")
    read = anndata.io.read_elem(group["item_features"])
    assert np.array_equal(read.toarray(), np.eye(N_ITEMS))
    assert anndata.io.read_elem(group["item_features/names"]).tolist() == found.names.tolist()


# -- tables ----------------------------------------------------------------------------------------


CELLS = st.none() | st.lists(st.sampled_from(["a", "b", " b ", "B", "ä", ""]), max_size=3)


@settings(max_examples=25)
@given(
    texts=st.lists(CELLS, min_size=N_ITEMS, max_size=N_ITEMS),
    form=st.sampled_from(["joined", "lists", "arrow"]),
    seed=st.integers(0, 99),
)
def test_texts_become_marks(
    tmp_path_factory: pytest.TempPathFactory, texts: list[Any], form: str, seed: int
) -> None:
    data = write_store(tmp_path_factory.mktemp("texts") / "data")
    order = np.random.default_rng(seed).permutation(N_ITEMS)
    joined = [None if each is None else "|".join(each) for each in texts]
    column = pd.Series(joined if form == "joined" else texts, dtype=object)
    frame = pd.DataFrame({"tag": column, "item_id": data.item_ids.ids, "n": np.arange(N_ITEMS)})
    table: Any = frame.iloc[order]
    if form == "arrow":
        table = pa.table({name: pa.array(table[name].tolist()) for name in frame})
    found = dasrec.open_features(dasrec.write_features(data.url, "item", table), "item")
    names, marks = references.marks(texts)
    assert found.names.tolist() == [*(f"tag={name}" for name in names), "n"]
    expected = np.column_stack([marks, np.arange(N_ITEMS)])
    assert np.array_equal(found.matrix.toarray(), expected)


def test_numbers_categories_and_truth_values_stay_apart(data: Interactions) -> None:
    table = pd.DataFrame(
        {
            "item_id": data.item_ids.ids[:3],
            "year": [1999, 2000, 0],
            "new": [True, False, True],
            "shelf": pd.Categorical([20, 3, 20]),
            "day": ["a|b", "a|b", "c"],
        }
    )
    data = dasrec.write_features(data.url, "item", table, separator=None)
    found = dasrec.open_features(data, "item")
    names = ["year", "new", "shelf=20", "shelf=3", "day=a|b", "day=c"]
    assert found.names.tolist() == names
    expected = [[1999, 1, 1, 0, 1, 0], [2000, 0, 0, 1, 1, 0], [0, 1, 1, 0, 0, 1]]
    assert found.matrix.toarray()[:3].tolist() == expected
    assert not found.matrix.toarray()[3:].any()


def test_unknown_ids_are_counted_and_told(
    data: Interactions, caplog: pytest.LogCaptureFixture
) -> None:
    table = pd.DataFrame({"who": [*some_ids(2, int), 4711, 4712], "age": [1.0, 2, 3, 4]})
    with caplog.at_level(logging.WARNING, logger="dasrec"):
        data = dasrec.write_features(data.url, "user", table, ids="who")
    assert "2 of 4 rows are of users" in caplog.text
    found = dasrec.open_features(data, "user")
    assert found.n_unknown == 2
    assert found.matrix.toarray().ravel().tolist() == [1, 2, 0, 0, 0, 0]


@pytest.mark.parametrize("kind", [int, str])
@pytest.mark.parametrize("timed", [True, False])
def test_unknown_ids_become_items_without_interactions(
    tmp_path: Path, kind: type, timed: bool
) -> None:
    log = pd.DataFrame({"u": some_ids(N_USERS, kind), "i": some_ids(N_USERS, kind), "t": 1})
    events = dasrec.read_events(log, user="u", item="i", timestamp="t" if timed else None)
    data = dasrec.write_interactions(events, tmp_path / "data")
    new = some_ids(N_ITEMS, kind)[N_USERS:]
    table = pd.DataFrame({"item_id": [*new[::-1], data.item_ids.ids[2]], "x": [4.0, 3, 2, 1]})
    grown = dasrec.write_features(data.url, "item", table, unknown="add")
    assert (grown.n_users, grown.n_items, grown.n_stored) == (N_USERS, N_ITEMS, N_USERS)
    assert grown.item_ids.ids.tolist() == [*data.item_ids.ids.tolist(), *new.tolist()]
    assert grown.item_ids.hash == grown.item_hash != data.item_hash
    assert grown.user_hash == data.user_hash == grown.user_ids.hash
    assert dense(grown, "item").ravel().tolist() == [0, 0, 1, 0, 0, 0, 2, 3, 4]
    assert dasrec.open_features(grown, "item").n_unknown == 0
    assert np.array_equal(grown.to_scipy().toarray()[:, :N_USERS], data.to_scipy().toarray())
    assert grown.counts("item_users").tolist() == [1] * N_USERS + [0] * 3
    assert grown.cuts("item_users")[-1] == N_ITEMS
    assert dasrec.verify(data.url) == []
    again = dasrec.append_interactions(
        dasrec.read_events(
            log.assign(i=new[1]), user="u", item="i", timestamp="t" if timed else None
        ),
        data.url,
    )
    assert again.counts("item_users").tolist()[N_USERS:] == [0, N_USERS, 0]
    compacted = dasrec.compact(data.url)
    assert dense(compacted, "item").ravel().tolist() == [0, 0, 1, 0, 0, 0, 2, 3, 4]
    assert dasrec.verify(data.url) == []


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"item_id": some_ids(2, int), **columns})


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (frame(x=[1.0, np.nan]), {}, "'x' lacks 1 of 2 numbers, or they are not finite"),
        (frame(x=[1.0, 1e39]), {}, "'x' lacks 1 of 2 numbers, or they are not finite"),
        (frame(x=[b"a", b"b"]), {}, "'x' holds bytes, for instance b'a'; expected numbers, texts"),
        (frame(x=pd.to_datetime(["2020", "2021"])), {}, "'x' holds Timestamp"),
        (frame(), {}, "0 names for 0 columns; expected one column or more"),
        (frame(x=[1, 2]), {"ids": "movie"}, "has no column 'movie'; it has: 'item_id', 'x'"),
        (frame(x=[1, 2]), {"names": ["x"]}, "a table has names and ids of its own"),
        (pd.DataFrame({"item_id": [-9, -9], "x": [1, 2]}), {}, "'item_id' has -9 twice"),
        (pd.DataFrame({"item_id": [-9, None], "x": [1, 2]}), {}, "'item_id' is missing in a row"),
        (pd.DataFrame({"item_id": [4711], "x": [1]}), {}, "1 of 1 item ids are not in the voc"),
        (
            pd.DataFrame({"item_id": [-9, 4711], "x": [1, 2]}),
            {"unknown": "error"},
            "1 of 2 item ids are not in the vocabulary: 4711; expected ids like",
        ),
        (frame(x=[1, 2]), {"unknown": "warn"}, "unknown is 'warn'; expected one of: skip, add, e"),
        (pd.DataFrame({"item_id": ["a"], "x": [1]}), {}, "ids of 'item_id' are not all integers"),
        (np.ones((3, 2)), {}, "features have 3 rows, and the store has 9 items"),
        (np.ones((3, 2)), {"ids": [-9]}, "features have 3 rows, and 1 ids; expected one row each"),
        (np.ones((N_ITEMS, 2)), {"names": ["x"]}, "1 names for 2 columns"),
        (np.ones((N_ITEMS, 2)), {"names": ["x", "x"]}, "'x' stands twice"),
        (np.ones((N_ITEMS, 2)), {"ids": "item_id"}, "a matrix has no such column"),
        (np.full((N_ITEMS, 2), np.inf), {}, "missing or not finite"),
        (np.ones(N_ITEMS), {}, r"shape \(9,\); expected two dimensions"),
        (["a", "b"], {}, "features are list .*; expected a table or a matrix"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    data: Interactions, table: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        dasrec.write_features(data.url, "item", table, **options)
    assert dasrec.open_interactions(data.url).version == data.version


def test_sides_are_users_and_items(data: Interactions) -> None:
    side: Any = "items"
    with pytest.raises(InputError, match='side is \'items\'; expected "user" or "item"'):
        dasrec.write_features(data.url, side, np.eye(N_ITEMS))
    with pytest.raises(InputError, match=r"has no features of items; write them with write_feat"):
        dasrec.open_features(data, "item")


# -- versions --------------------------------------------------------------------------------------


def test_what_is_written_anew_takes_the_place_of_the_old(data: Interactions) -> None:
    first = dasrec.write_features(data.url, "item", np.eye(N_ITEMS))
    both = dasrec.write_features(data.url, "user", np.ones((N_USERS, 1)))
    last = dasrec.write_features(data.url, "item", np.ones((N_ITEMS, 2)))
    assert dense(first, "item").tolist() == dense(both, "item").tolist() == np.eye(N_ITEMS).tolist()
    assert dense(last, "item").shape == (N_ITEMS, 2)
    assert dense(last, "user").tolist() == dense(both, "user").tolist()
    hashes = {dasrec.open_features(each, "item").hash for each in (first, both, last)}
    assert len(hashes) == 2
    assert (last.to_scipy() != data.to_scipy()).nnz == 0
    before = [dense(last, side).tolist() for side in ("user", "item")]
    whole = dasrec.compact(data.url)
    assert [dense(whole, side).tolist() for side in ("user", "item")] == before


@pytest.mark.parametrize("how", ["fails", "killed"])
def test_a_failed_write_leaves_what_was_there(data: Interactions, how: str) -> None:
    before = dasrec.write_features(data.url, "item", np.eye(N_ITEMS))
    stop = killed_before_commit()
    if how == "fails":
        stop = mock.patch.object(store, "publish", side_effect=OSError("failed"))
    with stop, pytest.raises((OSError, KeyboardInterrupt)):
        dasrec.write_features(data.url, "item", np.ones((N_ITEMS, 2)))
    now = dasrec.open_interactions(data.url)
    assert now.version == before.version
    assert np.array_equal(dense(now, "item"), np.eye(N_ITEMS))
    groups = [path.name for path in Path(data.url).iterdir() if path.name.startswith("state-")]
    assert len(groups) == (2 if how == "fails" else 3)
    dasrec.compact(data.url)
    assert len([path for path in Path(data.url).iterdir() if path.is_dir()]) == 1


def test_another_writer_is_not_overwritten(data: Interactions) -> None:
    publish = store.publish

    def late(pointer: Any) -> None:
        with mock.patch.object(store, "publish", publish):
            dasrec.append_interactions(events_of([-9], [-9]), data.url)
        publish(pointer)

    with (
        mock.patch.object(store, "publish", late),
        pytest.raises(StoreError, match="another writer has made version 2"),
    ):
        dasrec.write_features(data.url, "item", np.eye(N_ITEMS))
    now = dasrec.open_interactions(data.url)
    assert now.version == 2
    with pytest.raises(InputError, match="no features"):
        dasrec.open_features(now, "item")


def test_appended_ids_have_zeros_until_they_are_written(data: Interactions) -> None:
    dasrec.write_features(data.url, "item", np.eye(N_ITEMS))
    grown = dasrec.append_interactions(events_of([-9, 1000], [4000, 5000]), data.url)
    assert grown.n_items == N_ITEMS + 2
    expected = np.vstack([np.eye(N_ITEMS), np.zeros((2, N_ITEMS))])
    found = dasrec.open_features(grown, "item")
    assert np.array_equal(found.matrix.toarray(), expected)
    assert np.array_equal(found.read_rows(N_ITEMS, N_ITEMS + 2).toarray(), expected[N_ITEMS:])
    assert dasrec.verify(data.url) == []
    assert np.array_equal(dense(dasrec.compact(data.url), "item"), expected)
    assert dasrec.verify(data.url) == []
    table = pd.DataFrame({"item_id": [5000, -9], "x": [1.0, 2.0]})
    again = dense(dasrec.write_features(data.url, "item", table), "item")
    assert again.ravel().tolist() == [2, *[0] * (N_ITEMS), 1]


@pytest.mark.parametrize("kind", [int, str])
def test_a_forgotten_user_has_no_features_and_their_bytes_go(tmp_path: Path, kind: type) -> None:
    data = write_store(tmp_path / "data", kind=kind)
    values = np.arange(1.0, 2 * N_USERS + 1).reshape(N_USERS, 2)
    values[3, 0] = 123456.789
    before = dasrec.write_features(data.url, "user", values)
    left = values.astype(np.float32)
    left[[3, 5]] = 0
    after = dasrec.forget(data.url, users=data.user_ids.ids[[3, 5]])
    assert dense(before, "user")[3].any()
    assert np.array_equal(dense(after, "user"), left)
    assert np.array_equal(dasrec.open_features(after, "user").read_rows(2, 4).toarray(), left[2:4])
    assert dasrec.verify(data.url) == []
    compacted = dasrec.compact(data.url)
    assert np.array_equal(dense(compacted, "user"), left)
    assert dasrec.open_features(compacted, "user").n_stored == 2 * N_USERS - 4
    assert dasrec.verify(data.url) == []
    (group,) = (path for path in Path(data.url).iterdir() if path.is_dir())
    raw = store.read_array(str(group), "user_features/data")
    assert np.float32(123456.789) not in raw


def test_who_was_forgotten_stays_so_when_more_is_appended(data: Interactions) -> None:
    dasrec.write_features(data.url, "user", np.ones((N_USERS, 1)))
    gone = data.user_ids.ids[2:3]
    dasrec.forget(data.url, users=gone)
    kept = data.user_ids.ids[:1]
    grown = dasrec.append_interactions(events_of([*kept, *gone], [-9, -2]), data.url)
    cells = grown.to_scipy()
    assert cells.indptr[3] == cells.indptr[2]
    assert dense(grown, "user").ravel().tolist() == [1, 1, 0, 1, 1, 1]


@pytest.mark.parametrize("name", ["data", "names"])
def test_verify_finds_damage(data: Interactions, name: str) -> None:
    data = dasrec.write_features(data.url, "item", np.eye(N_ITEMS))
    group = Path(dasrec.open_features(data, "item").group_url)
    chunk = next(path for path in (group / "item_features" / name).rglob("c/*") if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    store._array.cache_clear()
    (fault,) = dasrec.verify(data.url)
    assert "item_features" in fault


def change_pointer(data: Interactions, change: Callable[[dict[str, Any]], None]) -> None:
    """Make a version whose features are said to be other than they are."""
    pointer = store.read_pointer(data.url, "interactions")
    change(pointer.facts["features"]["item"])
    store.publish(pointer._replace(version=pointer.version + 1))


@pytest.mark.parametrize(
    ("key", "message"),
    [("hash", "do not match their hash"), ("ids_hash", "of other items than those of the store")],
)
def test_verify_compares_hashes(data: Interactions, key: str, message: str) -> None:
    data = dasrec.write_features(data.url, "item", np.eye(N_ITEMS))
    change_pointer(data, lambda fact: fact.update({key: "0" * 32}))
    (fault,) = dasrec.verify(data.url)
    assert message in fault
