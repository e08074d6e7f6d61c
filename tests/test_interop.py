"""Other tools' forms of the same matrix: there and back, lazily, and as their documents say."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import anndata as ad
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import zarr
from anndata.experimental import read_elem_lazy
from distributed import Client
from hypothesis import given, settings
from scipy import sparse

import dasrec
from dasrec import BudgetError, InputError, Interactions, Log1p, memory, store
from tests.snippets import run_page
from tests.strategies import sparse_matrices

COLUMNS = {"user": "user", "item": "item", "value": "value", "timestamp": "time"}


def make_log(*, text: bool, n: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    log = pd.DataFrame(
        {
            "user": rng.integers(0, 40, n),
            "item": rng.integers(0, 30, n),
            "value": rng.integers(1, 20, n) / 4,
            "time": rng.integers(10**9, 10**9 + 10**6, n),
        }
    )
    return log.assign(user="ü" + log["user"].astype(str)) if text else log


def write(log: pd.DataFrame, place: Path) -> Interactions:
    events = dasrec.read_events(log, **COLUMNS)
    with mock.patch.object(memory, "block_cells", return_value=50):
        return dasrec.write_interactions(events, place)


@pytest.fixture(params=[False, True], ids=["int64", "str"])
def whole(request: pytest.FixtureRequest, tmp_path: Path) -> Interactions:
    found = write(make_log(text=request.param), tmp_path / "store")
    assert len(found.cuts("user_items")) > 4
    return found


@pytest.fixture
def view(whole: Interactions) -> Interactions:
    """Return a part with other weights, so that what is stored will not do."""
    return dasrec.split_random(whole, 0.3, rng=0).train.transform(Log1p())


def assert_same(found: Any, wanted: Any) -> None:
    found, wanted = sparse.csr_array(found), sparse.csr_array(wanted)
    assert found.shape == wanted.shape
    np.testing.assert_array_equal(found.indptr, wanted.indptr)
    np.testing.assert_array_equal(found.indices, wanted.indices)
    np.testing.assert_array_equal(found.data, wanted.data)


# -- coordinates -----------------------------------------------------------------------------------


def test_coordinates_hold_what_scipy_holds(whole: Interactions, view: Interactions) -> None:
    for each in (whole, view):
        table = dasrec.to_coo(each)
        assert isinstance(table, dd.DataFrame)
        assert table.npartitions == len(each.cuts("user_items")) - 1
        found = table.compute()
        assert found.dtypes.equals(table.dtypes)
        assert list(found.columns) == ["user_id", "item_id", "weight", "timestamp"]
        wanted = each.to_scipy().tocoo()
        assert found["user_id"].tolist() == each.user_ids.ids[wanted.row].tolist()
        assert found["item_id"].tolist() == each.item_ids.ids[wanted.col].tolist()
        np.testing.assert_array_equal(found["weight"], wanted.data)
        micros = each.read_rows("user_items", 0, each.n_users, timed=True).timestamps
        np.testing.assert_array_equal(found["timestamp"].to_numpy().view(np.int64), micros)


def test_coordinates_are_lazy(
    view: Interactions, raising_scheduler: Callable[[], AbstractContextManager[Any]]
) -> None:
    with raising_scheduler(), mock.patch.object(Interactions, "read_rows", side_effect=OSError):
        means = dasrec.to_coo(view).groupby("item_id")["weight"].mean()
    assert len(means.compute()) == (view.counts("item_users") > 0).sum()


def test_coordinates_without_timestamps(whole: Interactions, tmp_path: Path) -> None:
    bare = dasrec.interactions_from_scipy(whole.to_scipy(), tmp_path / "bare")
    assert list(dasrec.to_coo(bare).compute().columns) == ["user_id", "item_id", "weight"]


def test_coordinates_from_workers(cluster_client: Client, tmp_path: Path) -> None:
    whole = write(make_log(text=True), tmp_path / "there")
    found = dasrec.to_coo(whole).compute()
    assert found["weight"].sum() == whole.to_scipy().sum()
    assert found["user_id"].nunique() == whole.n_users


def test_coordinates_make_the_same_store_again(view: Interactions, tmp_path: Path) -> None:
    table = dasrec.to_coo(view)
    again = dasrec.interactions_from_table(
        table,
        tmp_path / "a",
        user="user_id",
        item="item_id",
        rating="weight",
        timestamp="timestamp",
    )
    assert again.has_timestamps
    assert (
        dasrec.to_coo(again)
        .compute()
        .reset_index(drop=True)
        .equals(table.compute().reset_index(drop=True))
    )


# -- tables of ratings -----------------------------------------------------------------------------


def spark_folder(log: pd.DataFrame, place: Path) -> Path:
    """Write Parquet as Spark leaves it: parts, one of them empty, markers and checksums."""
    place.mkdir()
    (place / "_SUCCESS").touch()
    (place / "._SUCCESS.crc").write_bytes(b"crc\x00")
    (place / "_temporary").mkdir()
    (place / "_temporary" / "part-0.parquet").write_bytes(b"half a file")
    for number, part in enumerate((log.iloc[:0], log.iloc[:100], log.iloc[100:])):
        name = f"part-{number:05}-5a1e-c000.snappy.parquet"
        part.to_parquet(place / name, index=False, compression="snappy")
        (place / f".{name}.crc").write_bytes(b"crc\x00")
    return place


def test_a_folder_that_spark_wrote(whole: Interactions, tmp_path: Path) -> None:
    text = whole.user_ids.ids.dtype == object
    log = make_log(text=text).rename(columns={"value": "rating"})
    place = spark_folder(log, tmp_path / "ratings.parquet")
    found = dasrec.interactions_from_table(place, tmp_path / "s", timestamp="time")
    assert_same(found.to_scipy(), whole.to_scipy())
    assert (found.user_hash, found.item_hash) == (whole.user_hash, whole.item_hash)
    assert found.has_timestamps


def test_a_table_in_memory(tmp_path: Path) -> None:
    log = make_log(text=False)[["user", "item"]].drop_duplicates()
    for table in (log, dd.from_pandas(log, npartitions=3)):
        found = dasrec.interactions_from_table(table, tmp_path / "s", rating=None, overwrite=True)
        assert set(found.to_scipy().data) == {1.0}
        assert found.n_stored == len(log)
    with pytest.raises(InputError, match="has no column 'rating'"):
        dasrec.interactions_from_table(log, tmp_path / "t")
    with pytest.raises(InputError, match="exists already"):
        dasrec.interactions_from_table(log, tmp_path / "s", rating=None)


# -- AnnData ---------------------------------------------------------------------------------------


def test_anndata_there_and_back(view: Interactions, tmp_path: Path) -> None:
    adata = dasrec.to_anndata(view)
    assert sparse.issparse(adata.X)
    assert adata.X.format == "csr"
    assert adata.X.dtype == np.float32
    assert_same(adata.X, view.to_scipy())
    assert adata.obs_names.tolist() == [str(each) for each in view.user_ids.ids]
    assert adata.var_names.tolist() == [str(each) for each in view.item_ids.ids]
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.write_zarr(tmp_path / "a.zarr")
    sources = [
        adata,
        tmp_path / "a.h5ad",
        str(tmp_path / "a.zarr"),
        ad.io.read_h5ad(tmp_path / "a.h5ad", backed="r"),
        ad.experimental.read_lazy(tmp_path / "a.zarr"),
    ]
    for number, source in enumerate(sources):
        back = dasrec.interactions_from_anndata(source, tmp_path / f"s{number}")
        assert_same(back.to_scipy(), view.to_scipy())
        assert (back.user_hash, back.item_hash) == (view.user_hash, view.item_hash)


@settings(max_examples=10)
@given(matrix=sparse_matrices(least=2))
def test_foreign_anndata(
    tmp_path_factory: pytest.TempPathFactory, matrix: sparse.csr_array[np.float32]
) -> None:
    place = tmp_path_factory.mktemp("anndata") / "s"
    matrix = sparse.csr_array(sparse.hstack([matrix, np.ones((matrix.shape[0], 1))]))
    adata = ad.AnnData(X=matrix.tocsc().astype(np.float32))
    adata.obs_names = [f"cell-{n}" for n in range(matrix.shape[0])]
    adata.layers["twice"] = 2 * matrix.toarray()
    found = dasrec.interactions_from_anndata(adata, place)
    assert_same(found.to_scipy(), matrix)
    assert found.user_ids.ids.tolist() == adata.obs_names.tolist()
    assert found.item_ids.ids.tolist() == [str(n) for n in range(matrix.shape[1])]
    found = dasrec.interactions_from_anndata(adata, place, layer="twice", overwrite=True)
    np.testing.assert_array_equal(found.to_scipy().toarray(), adata.layers["twice"])


def test_anndata_that_is_not_to_be_had(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.h5ad is not there; expected an .h5ad file"):
        dasrec.interactions_from_anndata(tmp_path / "none.h5ad", tmp_path / "s")
    empty = ad.AnnData(shape=(2, 3))
    with pytest.raises(InputError, match="the AnnData has no X; name the layer to take instead"):
        dasrec.interactions_from_anndata(empty, tmp_path / "s")
    with pytest.raises(InputError, match="the AnnData has no layer 'raw'; it has: "):
        dasrec.interactions_from_anndata(empty, tmp_path / "s", layer="raw")


def test_the_extra_is_named_when_it_is_missing(
    whole: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "anndata", None)
    message = r'install it with: pip install "dasrec\[anndata\]"'
    with pytest.raises(InputError, match=message):
        dasrec.to_anndata(whole)
    with pytest.raises(InputError, match=message):
        dasrec.interactions_from_anndata(tmp_path / "a.h5ad", tmp_path / "s")


def test_what_does_not_fit_is_not_begun(whole: Interactions) -> None:
    with mock.patch.object(memory, "limit", return_value=1000):
        with pytest.raises(BudgetError, match=r"to_anndata\(\) of .* interactions needs"):
            dasrec.to_anndata(whole)


def test_anndata_opens_the_store_in_place(whole: Interactions) -> None:
    group = zarr.open_group(whole.group_urls[0], mode="r")
    for side, wanted in (
        ("user_items", whole.to_scipy()),
        ("item_users", whole.to_scipy().T.tocsr()),
    ):
        matrix = group[side]
        assert isinstance(matrix, zarr.Group)
        dataset = ad.io.sparse_dataset(matrix)
        assert_same(dataset[1:5], wanted[1:5])
        assert_same(dataset.to_memory(), wanted)
        assert_same(ad.io.read_elem(matrix), wanted)
        lazy = read_elem_lazy(matrix)
        assert isinstance(lazy, da.Array)
        assert_same(lazy.compute(), wanted)
    assert ad.io.read_elem(group["user_ids"]).tolist() == whole.user_ids.ids.tolist()


# -- binsparse -------------------------------------------------------------------------------------


def read_binsparse(place: str) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """Read a CSR matrix by the text of binsparse 0.1 alone."""
    group = zarr.open_group(place, mode="r")
    descriptor: Any = group.attrs["binsparse"]
    arrays = {name: array[:] for name, array in group.arrays()}
    for name, kind in descriptor["data_types"].items():
        assert arrays[name].dtype.name == kind
    assert len(arrays["values"]) == descriptor["number_of_stored_values"]
    parts = (arrays["values"], arrays["indices_1"], arrays["pointers_to_1"])
    return descriptor, sparse.csr_array(parts, shape=descriptor["shape"]), arrays


def test_binsparse_is_what_its_text_says(view: Interactions, tmp_path: Path) -> None:
    place = dasrec.to_binsparse(view, tmp_path / "b")
    descriptor, matrix, arrays = read_binsparse(place)
    assert descriptor == {
        "version": "0.1",
        "format": "CSR",
        "shape": [view.n_users, view.n_items],
        "number_of_stored_values": int(view.counts("user_items").sum()),
        "data_types": {"pointers_to_1": "int64", "indices_1": "int32", "values": "float32"},
    }
    assert_same(matrix, view.to_scipy())
    assert arrays["user_ids"].tolist() == view.user_ids.ids.tolist()
    assert arrays["item_ids"].tolist() == view.item_ids.ids.tolist()


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_binsparse_by_shards(view: Interactions, tmp_path: Path, chunk: int) -> None:
    with (
        mock.patch.object(store, "CHUNK_CELLS", chunk),
        mock.patch.object(store, "SHARD_CELLS", 2 * chunk),
    ):
        place = dasrec.to_binsparse(view, tmp_path / "b")
    group = zarr.open_group(place, mode="r")
    assert group["values"].shards == (2 * chunk,)
    assert_same(read_binsparse(place)[1], view.to_scipy())


def test_binsparse_of_an_empty_view(whole: Interactions, tmp_path: Path) -> None:
    nothing = dasrec.split_random(whole, 1e-9, rng=0).test
    descriptor, matrix, _ = read_binsparse(dasrec.to_binsparse(nothing, tmp_path / "b"))
    assert descriptor["number_of_stored_values"] == 0
    assert matrix.shape == (whole.n_users, whole.n_items)
    assert matrix.nnz == 0


def test_binsparse_takes_no_place_that_is_taken(whole: Interactions, tmp_path: Path) -> None:
    place = tmp_path / "b"
    dasrec.to_binsparse(whole, place)
    with pytest.raises(InputError, match="exists already; pass overwrite=True or choose another"):
        dasrec.to_binsparse(whole, place)
    part = dasrec.split_random(whole, 0.5, rng=0).test
    assert_same(
        read_binsparse(dasrec.to_binsparse(part, place, overwrite=True))[1], part.to_scipy()
    )
    for other in (whole.url, str(tmp_path)):
        with pytest.raises(InputError, match="is something else; choose another place"):
            dasrec.to_binsparse(whole, other, overwrite=True)
    assert_same(dasrec.open_interactions(whole.url).to_scipy(), whole.to_scipy())


def test_an_interrupted_binsparse_leaves_what_was_there(
    whole: Interactions, tmp_path: Path
) -> None:
    place = dasrec.to_binsparse(whole, tmp_path / "b")
    names = sorted(path.name for path in tmp_path.iterdir())
    part = dasrec.split_random(whole, 0.5, rng=0).test
    with mock.patch.object(store, "write_cells", side_effect=KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            dasrec.to_binsparse(part, place, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert_same(read_binsparse(place)[1], whole.to_scipy())


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_page("interop.md")
    assert_same(names["back"].to_scipy(), names["ratings"].to_scipy())
    assert_same(names["again"].to_scipy(), names["ratings"].to_scipy())
