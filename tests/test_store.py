"""Stores are what docs/format.md says, and what others read; what is broken is refused by name."""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anndata.io
import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from dasrec import (
    InputError,
    Interactions,
    StoreError,
    files,
    interactions_from_scipy,
    memory,
    open_interactions,
    read_events,
    store,
    write_interactions,
)
from dasrec.schema import FORMAT_VERSION, INTERACTIONS_KIND, MODEL_KIND
from dasrec.store import Draft, list_versions, pointer_name, read_pointer

N_USERS, N_ITEMS, SHARD, CHUNK = 40, 25, 64, 16
FIRST = "version-00000001.json"


def make_log() -> pd.DataFrame:
    draw = np.random.default_rng(3)
    cells = draw.choice(N_USERS * N_ITEMS, 400, replace=False)
    # every user and every item is there
    cells = np.unique([*cells, *range(0, N_USERS * N_ITEMS, N_ITEMS), *range(N_ITEMS)])
    return pd.DataFrame(
        {
            "user": [f"user {n:02}" for n in cells // N_ITEMS],
            "item": cells % N_ITEMS,
            "value": draw.integers(-8, 8, len(cells)) / 4,  # zeros among them
            "time": draw.integers(0, 2**31, len(cells)),
        }
    )


LOG = make_log()
DENSE = LOG.pivot(index="user", columns="item", values="value").to_numpy()
TIMES = LOG.pivot(index="user", columns="item", values="time").to_numpy()
HELD = ~np.isnan(DENSE)


def write(url: Any, *, overwrite: bool = False) -> Interactions:
    events = read_events(LOG, user="user", item="item", value="value", timestamp="time")
    return write_interactions(events, url, overwrite=overwrite)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    """Return a store in one chunk a column."""
    return write(tmp_path_factory.mktemp("whole") / "store")


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    """Return the same store in several shards of several chunks, and in several blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "CHUNK_CELLS", CHUNK)
        patch.setattr(store, "SHARD_CELLS", SHARD)
        patch.setattr(memory, "LEAST_BLOCK_CELLS", 50)
        return write(tmp_path_factory.mktemp("sharded") / "store")


@pytest.fixture(params=["whole", "sharded"])
def stored(request: pytest.FixtureRequest) -> Interactions:
    found: Interactions = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Return a store that a test may break."""
    write(tmp_path / "store")
    return tmp_path / "store"


def refused(message: str, error: type[Exception] = StoreError) -> Any:
    return pytest.raises(error, match=re.escape(message))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- format ----------------------------------------------------------------------------------------


def test_a_place_holds_a_group_a_version_and_nothing_else(stored: Interactions) -> None:
    (group,) = stored.group_urls
    assert names(Path(stored.url)) == sorted([Path(group).name, FIRST, "zarr.json"])
    assert json.loads(Path(stored.url, "zarr.json").read_text())["zarr_format"] == 3


def test_a_version_says_what_it_is(stored: Interactions) -> None:
    content = json.loads(Path(stored.url, FIRST).read_text())
    assert content.pop("groups") == [Path(stored.group_urls[0]).name]
    created = datetime.datetime.fromisoformat(content.pop("created"))
    assert created.utcoffset() == datetime.timedelta(0)
    facts = content.pop("facts")
    assert content == {"format_version": 1, "kind": "interactions", "version": 1}
    assert facts.pop("audit")[0][:3] == ["read", len(LOG), len(LOG)]
    assert facts == {
        "n_users": N_USERS,
        "n_items": N_ITEMS,
        "n_stored": len(LOG),
        "has_timestamps": True,
        "dedupe": "last",
        "user_hash": stored.user_ids.hash,
        "item_hash": stored.item_ids.hash,
    }


def test_hashes_are_those_that_the_format_states(whole: Interactions) -> None:
    items = hashlib.blake2b(digest_size=16)
    items.update(np.arange(N_ITEMS, dtype="<i8").tobytes() + b"int64")
    assert whole.item_hash == items.hexdigest()
    users = hashlib.blake2b(digest_size=16)
    for each in sorted(set(LOG["user"])):
        users.update(np.array([len(each)], "<i8").tobytes() + each.encode())
    users.update(b"str")
    assert whole.user_hash == users.hexdigest()


@pytest.mark.parametrize("side", ["user_items", "item_users"])
def test_arrays_have_the_types_that_the_format_states(stored: Interactions, side: str) -> None:
    group = zarr.open_group(stored.group_urls[0], mode="r")[side]
    dtypes = {name: array.dtype for name, array in group.arrays()}
    assert dtypes == {
        "data": np.float32,
        "indices": np.int32,
        "indptr": np.int64,
        "timestamps": np.int64,
        "cuts": np.int64,
    }
    n_rows, n_columns = (N_USERS, N_ITEMS) if side == "user_items" else (N_ITEMS, N_USERS)
    assert dict(group.attrs) == {
        "encoding-type": "csr_matrix",
        "encoding-version": "0.1.0",
        "shape": [n_rows, n_columns],
    }
    indptr, cuts = group["indptr"][:], group["cuts"][:]
    assert indptr.shape == (n_rows + 1,)
    assert (indptr[0], indptr[-1]) == (0, len(LOG))
    assert (cuts[0], cuts[-1]) == (0, n_rows)
    assert (np.diff(cuts) > 0).all()
    for start, stop in itertools.pairwise(indptr):
        assert (np.diff(group["indices"][start:stop]) > 0).all()


def test_cells_are_compressed_and_everything_is_checked(whole: Interactions) -> None:
    group = zarr.open_group(whole.group_urls[0], mode="r")
    for name in ("data", "indices", "timestamps"):
        found = group[f"user_items/{name}"].compressors[0].to_dict()
        assert found["name"] == "blosc"
        assert found["configuration"]["cname"] == "lz4"
        assert found["configuration"]["shuffle"] == "bitshuffle"
    arrays = [array for _, array in group.arrays()]
    arrays += [array for side in ("user_items", "item_users") for _, array in group[side].arrays()]
    assert len(arrays) == 16
    assert all(isinstance(each.compressors[-1], zarr.codecs.Crc32cCodec) for each in arrays)


def test_large_columns_are_cut_into_shards(sharded: Interactions, whole: Interactions) -> None:
    group = zarr.open_group(sharded.group_urls[0], mode="r")
    for side in ("user_items", "item_users"):
        array = group[f"{side}/data"]
        assert (array.shards, array.chunks) == ((SHARD,), (CHUNK,))
        written = Path(sharded.group_urls[0], side, "data", "c")
        assert len(names(written)) == -(-len(LOG) // SHARD) > 2
        assert len(sharded.cuts(side)) > 3
    array = zarr.open_group(whole.group_urls[0], mode="r")["user_items/data"]
    assert (array.shards, array.chunks) == (None, (len(LOG),))


def test_all_chunks_are_there_those_of_zeros_too(tmp_path: Path) -> None:
    zeros = sparse.csr_array((np.zeros(4), ([0, 0, 1, 1], [0, 1, 0, 1])), shape=(2, 2))
    found = interactions_from_scipy(zeros, tmp_path / "store")
    assert Path(found.group_urls[0], "user_items", "data", "c", "0").is_file()
    assert found.to_scipy().nnz == 4


# -- other readers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["user_items", "item_users"])
def test_anndata_reads_both_orientations(stored: Interactions, side: str) -> None:
    group = zarr.open_group(stored.group_urls[0], mode="r")
    found = anndata.io.read_elem(group[side])
    assert isinstance(found, sparse.csr_matrix)
    assert found.nnz == len(LOG)
    turned = found if side == "user_items" else found.T
    np.testing.assert_array_equal(turned.toarray(), np.nan_to_num(DENSE))


def test_anndata_reads_rows_of_it(sharded: Interactions) -> None:
    group = zarr.open_group(sharded.group_urls[0], mode="r")
    on_disk = anndata.io.sparse_dataset(group["user_items"])
    assert on_disk.shape == (N_USERS, N_ITEMS)
    np.testing.assert_array_equal(on_disk[7:19].toarray(), np.nan_to_num(DENSE[7:19]))


def test_anndata_reads_the_vocabularies(stored: Interactions) -> None:
    group = zarr.open_group(stored.group_urls[0], mode="r")
    assert group["user_ids"].attrs["encoding-type"] == "string-array"
    assert group["item_ids"].attrs["encoding-type"] == "array"
    for name, column in (("user_ids", "user"), ("item_ids", "item")):
        assert group[name].attrs["encoding-version"] == "0.2.0"
        assert list(anndata.io.read_elem(group[name])) == sorted(set(LOG[column]))


# -- reading rows ----------------------------------------------------------------------------------


@given(st.integers(0, N_USERS), st.integers(0, N_USERS), st.booleans())
def test_rows_are_those_of_the_dense_matrix(
    whole: Interactions, sharded: Interactions, start: int, stop: int, timed: bool
) -> None:
    start, stop = sorted((start, stop))
    for found in (whole, sharded):
        block = store.read_rows(found.group_urls[0], "user_items", start, stop, timed=timed)
        rows, columns = np.nonzero(HELD[start:stop])
        assert block.indptr.tolist() == [0, *np.cumsum(HELD[start:stop].sum(axis=1))]
        assert block.indices.tolist() == columns.tolist()
        assert block.data.tolist() == DENSE[start:stop][rows, columns].tolist()
        assert block.n_columns == N_ITEMS
        if timed:
            micros = TIMES[start:stop][rows, columns] * 10**6
            assert block.timestamps is not None
            assert block.timestamps.tolist() == micros.tolist()
        else:
            assert block.timestamps is None


def test_rows_past_the_end_are_not_there(whole: Interactions) -> None:
    block = store.read_rows(
        whole.group_urls[0], "user_items", N_USERS - 1, N_USERS + 5, timed=False
    )
    assert block.n_rows == 1
    assert store.read_rows(whole.group_urls[0], "user_items", 90, 95, timed=False).n_rows == 0


# -- versions --------------------------------------------------------------------------------------


def test_a_place_without_anything(tmp_path: Path) -> None:
    message = f"{tmp_path}/x is not there, or not written by dasrec; expected a folder with {FIRST}"
    with refused(message):
        open_interactions(tmp_path / "x")
    (tmp_path / "x").mkdir()
    with refused(message):
        open_interactions(tmp_path / "x")


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("u,i\n")
    with refused("log.csv is not there, or not written by dasrec; expected a folder with"):
        open_interactions(tmp_path / "log.csv")


def test_a_store_whose_writing_was_cut_off(copied: Path) -> None:
    (copied / FIRST).unlink()
    with refused("store is unfinished: its writing was cut off; run the same call again"):
        open_interactions(copied)
    assert write(copied).to_scipy().nnz == len(LOG)
    assert len(names(copied)) == 3  # what was left of the first attempt is gone


def test_a_version_that_was_not_put_in_place_does_not_count(copied: Path) -> None:
    (copied / f"{FIRST}.0123456789ab").write_text("{}")
    (copied / ".version-00000002.json.0123456789ab").write_text("{}")
    (copied / "version-2.json").write_text("{}")
    assert list_versions(str(copied)) == [1]
    assert open_interactions(copied).version == 1


@pytest.mark.parametrize("found", [2, 0, "1", None])
def test_a_store_of_another_version_is_refused(copied: Path, found: Any) -> None:
    content = json.loads((copied / FIRST).read_text())
    (copied / FIRST).write_text(json.dumps({**content, "format_version": found}))
    with refused(
        f"store is of format version {found}; this dasrec reads version {FORMAT_VERSION}. Write it "
        "again with this version, or read it with the dasrec that wrote it"
    ):
        open_interactions(copied)
    assert write(copied, overwrite=True).version == 2
    assert open_interactions(copied).to_scipy().nnz == len(LOG)


def test_a_store_of_another_kind_is_refused(copied: Path) -> None:
    with refused("store holds 'interactions'; expected 'model'"):
        read_pointer(str(copied), MODEL_KIND)


def test_a_version_that_is_not_there(copied: Path) -> None:
    with refused("store has no version 7; it has: 1"):
        open_interactions(copied, version=7)


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", "\x00"])
def test_a_version_that_is_no_object_is_damaged(copied: Path, content: str) -> None:
    (copied / FIRST).write_text(content)
    with refused(f"store: {FIRST} is damaged ("):
        open_interactions(copied)


@pytest.mark.parametrize("key", ["groups", "created", "facts"])
def test_a_version_that_lacks_something_is_damaged(copied: Path, key: str) -> None:
    content = json.loads((copied / FIRST).read_text())
    del content[key]
    (copied / FIRST).write_text(json.dumps(content))
    with refused(f"store: {FIRST} is damaged, it lacks '{key}'; write the store again"):
        open_interactions(copied)


@pytest.mark.parametrize("key", ["n_users", "has_timestamps", "user_hash", "dedupe"])
def test_a_version_that_lacks_a_fact_is_damaged(copied: Path, key: str) -> None:
    content = json.loads((copied / FIRST).read_text())
    del content["facts"][key]
    (copied / FIRST).write_text(json.dumps(content))
    with refused(f"is damaged, it lacks '{key}'"):
        open_interactions(copied)


@pytest.mark.parametrize(
    "array", ["user_items/data", "user_items/indices", "user_items/indptr", "user_ids", "item_ids"]
)
@pytest.mark.parametrize("how", ["missing", "changed", "cut"])
def test_damaged_bytes_are_an_error_not_a_number(copied: Path, array: str, how: str) -> None:
    found = open_interactions(copied)
    chunk = Path(found.group_urls[0], array, "c", "0")
    content = bytearray(chunk.read_bytes())
    if how == "missing":
        chunk.unlink()
    elif how == "cut":
        chunk.write_bytes(content[:-3])
    else:
        content[len(content) // 2] ^= 1
        chunk.write_bytes(content)
    with refused("cannot be read: its bytes are damaged, or a newer version took its place"):
        _ = found.to_scipy(), found.user_ids.ids, found.item_ids.ids


def test_a_group_that_is_gone_is_an_error(copied: Path) -> None:
    found = open_interactions(copied)
    files.remove(found.group_urls[0])
    for read in (found.to_scipy, lambda: found.user_items, lambda: len(found.user_ids)):
        with refused("cannot be read"):
            read()


# -- drafts ----------------------------------------------------------------------------------------


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return a new place on a disk and one in fsspec's memory."""
    url = str(tmp_path / "place") if request.param == "local" else f"memory://{files.token()}"
    yield url
    files.remove(url)


def test_nobody_reads_a_draft_before_it_is_committed(place: str) -> None:
    draft = Draft(place, INTERACTIONS_KIND)
    with refused("is unfinished"):
        read_pointer(place, INTERACTIONS_KIND)
    written = draft.commit({"a": 1})
    assert written == read_pointer(place, INTERACTIONS_KIND)
    assert written.facts == {"a": 1}
    assert written.groups == (draft.group,)
    assert written.group_urls == (f"{files.absolute(place)}/{draft.group}",)
    assert files.exists(draft.group_url)


def test_an_abandoned_draft_leaves_no_trace(place: str) -> None:
    Draft(place, INTERACTIONS_KIND).abandon()
    assert not files.exists(place)


def test_an_abandoned_draft_leaves_the_state_before(place: str) -> None:
    first = Draft(place, INTERACTIONS_KIND).commit({})
    second = Draft(place, INTERACTIONS_KIND, overwrite=True)
    second.abandon()
    assert read_pointer(place, INTERACTIONS_KIND) == first
    assert files.exists(first.group_urls[0])
    assert not files.exists(second.group_url)


def test_a_committed_draft_cannot_be_abandoned(place: str) -> None:
    draft = Draft(place, INTERACTIONS_KIND)
    committed = draft.commit({})
    draft.abandon()
    assert read_pointer(place, INTERACTIONS_KIND) == committed
    assert files.exists(draft.group_url)


def test_overwriting_makes_the_next_version_and_clears_the_rest_away(place: str) -> None:
    first = Draft(place, INTERACTIONS_KIND).commit({})
    files.make_folder(files.join(place, "scratch-left-by-a-kill"))
    files.replace(files.join(place, "scratch-left-by-a-kill", "x"), b"x")
    files.replace(files.join(place, "readme.md"), b"mine")
    second = Draft(place, INTERACTIONS_KIND, overwrite=True).commit({})
    assert (first.version, second.version) == (1, 2)
    assert list_versions(place) == [2]
    fs, path = files.locate(place)
    left = sorted(each.rsplit("/", 1)[-1] for each in fs.ls(path, detail=False))
    assert left == sorted(["readme.md", second.groups[0], pointer_name(2), "zarr.json"])


def test_a_draft_builds_on_a_base(place: str) -> None:
    first = Draft(place, INTERACTIONS_KIND).commit({})
    second = Draft(place, INTERACTIONS_KIND, base=first).commit({})
    assert second.groups[:1] == first.groups
    assert list_versions(place) == [1, 2]
    assert read_pointer(place, INTERACTIONS_KIND, 1) == first
    assert all(files.exists(url) for url in second.group_urls)


def test_of_two_drafts_the_later_is_told(place: str) -> None:
    first = Draft(place, INTERACTIONS_KIND).commit({})
    quick, slow = (Draft(place, INTERACTIONS_KIND, base=first) for _ in range(2))
    won = quick.commit({})
    with refused("another writer has made version 2 of"):
        slow.commit({})
    slow.abandon()
    assert read_pointer(place, INTERACTIONS_KIND) == won
    assert files.exists(quick.group_url)


def test_a_place_that_is_taken_is_refused(place: str) -> None:
    Draft(place, INTERACTIONS_KIND).commit({})
    with refused("exists already; pass overwrite=True (--overwrite) or choose", InputError):
        Draft(place, INTERACTIONS_KIND)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_store_is_left_alone(tmp_path: Path, overwrite: bool) -> None:
    strangers = tmp_path / "file", tmp_path / "folder", tmp_path / "stranger.zarr"
    strangers[0].write_text("precious")
    strangers[1].mkdir()
    (strangers[1] / "letter.txt").write_text("precious")
    zarr.open_group(strangers[2], mode="w").create_array("precious", data=np.arange(3))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for each in strangers:
        with refused("is something else than a store; choose a new place", InputError):
            write(each, overwrite=overwrite)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_empty_folder_is_a_place(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    assert write(tmp_path / "store").version == 1


def test_a_store_may_lie_in_memory() -> None:
    url = f"memory://{files.token()}/store"
    assert (write(url).to_scipy() != sparse.csr_array(np.nan_to_num(DENSE))).nnz == 0
    assert open_interactions(url).user_ids.ids[0] == "user 00"
    files.remove(url)


# -- shards ----------------------------------------------------------------------------------------


def test_shards_are_written_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHUNK_CELLS", CHUNK)
    monkeypatch.setattr(store, "SHARD_CELLS", SHARD)
    n = 20 * SHARD + 5
    values = np.arange(n, dtype=np.float32)
    draft = Draft(tmp_path / "place", INTERACTIONS_KIND)
    draft.create_matrix("user_items", shape=(2, n), n_stored=n, timed=False)
    starts = np.random.default_rng(0).permutation(range(0, n, SHARD)).tolist()

    def put(start: int) -> None:
        part = values[start : start + SHARD]
        columns = {"data": part, "indices": part.astype(np.int32)}
        store.write_cells(draft.group_url, "user_items", start, columns)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, starts))
    for name in ("data", "indices"):
        found = store.read_array(draft.group_url, f"user_items/{name}")
        np.testing.assert_array_equal(found, values)
    assert len(names(Path(draft.group_url, "user_items", "data", "c"))) == 21


def test_a_store_may_have_more_than_two_to_the_31_cells(tmp_path: Path) -> None:
    # the arrays are declared, not filled: only the offsets are as large as they say
    n, row = 2**31 + 10, 2**31 + 2
    draft = Draft(tmp_path / "place", INTERACTIONS_KIND)
    draft.create_matrix("user_items", shape=(3, 9), n_stored=n, timed=False)
    draft.write_index("user_items", np.array([0, row, row + 3, n]), np.array([0, 3]))
    start = row - row % store.SHARD_CELLS
    part = np.zeros(row + 3 - start, np.int32)
    part[-3:] = [1, 4, 8]
    columns = {"indices": part, "data": part.astype(np.float32) / 2}
    store.write_cells(draft.group_url, "user_items", start, columns)
    block = store.read_rows(draft.group_url, "user_items", 1, 2, timed=False)
    assert block.indptr.tolist() == [0, 3]
    assert block.indices.tolist() == [1, 4, 8]
    assert block.data.tolist() == [0.5, 2.0, 4.0]
