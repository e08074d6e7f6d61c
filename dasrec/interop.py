"""The same matrix in other tools' forms: AnnData, binsparse, coordinates, tables of ratings."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
from dask.delayed import delayed
from numpy.typing import NDArray
from scipy import sparse

from dasrec import blocks, files, memory, store
from dasrec.errors import InputError
from dasrec.events import read_events
from dasrec.ingest import interactions_from_scipy, write_interactions
from dasrec.interactions import Interactions
from dasrec.kernels.csr import indptr_of, rows_of
from dasrec.schema import ITEM_ID, ITEM_IDS, TIMESTAMP, USER_ID, USER_IDS, USER_ITEMS
from dasrec.typing import Ids

WEIGHT = "weight"
BINSPARSE = "binsparse"
BINSPARSE_VERSION = "0.1"
_ID_BYTES = 120
"""What an id takes in a pandas table and its index, roughly."""


def to_coo(interactions: Interactions) -> dd.DataFrame:
    """Return the interactions as a lazy table, one row each, in order of users and items.

    Returns
    -------
    dask.dataframe.DataFrame
        ``user_id`` and ``item_id`` (int64 or str), ``weight`` (float32) and, if the store has
        timestamps, ``timestamp`` (datetime64[us], UTC); one partition a block. A task holds its
        block; each worker that takes part holds the vocabularies once.
    """
    ids = delayed(_both_ids, pure=False, traverse=False)(interactions)
    read = delayed(_coo_block, pure=False, traverse=False)
    cuts = interactions.cuts(USER_ITEMS).tolist()
    parts = [read(interactions, start, stop, ids) for start, stop in pairwise(cuts)]
    nothing = (interactions.user_ids.ids[:0], interactions.item_ids.ids[:0])
    columns: dict[str, Any] = {
        USER_ID: _id_column(nothing[0]),
        ITEM_ID: _id_column(nothing[1]),
        WEIGHT: np.empty(0, np.float32),
    }
    if interactions.has_timestamps:
        columns[TIMESTAMP] = np.empty(0, "datetime64[us]")
    table: dd.DataFrame = dd.from_delayed(
        parts, meta=pd.DataFrame(columns), prefix="coo", verify_meta=False
    )
    return table


def _both_ids(view: Interactions) -> tuple[Ids, Ids]:
    return view.user_ids.ids, view.item_ids.ids


def _id_column(ids: Ids) -> pd.Series:
    return pd.Series(ids, dtype="int64" if ids.dtype == np.int64 else "str")


def _coo_block(view: Interactions, start: int, stop: int, ids: tuple[Ids, Ids]) -> pd.DataFrame:
    block = view.read_rows(USER_ITEMS, start, stop, timed=view.has_timestamps)
    columns: dict[str, Any] = {
        USER_ID: _id_column(ids[0][rows_of(block.indptr) + start]),
        ITEM_ID: _id_column(ids[1][block.indices]),
        WEIGHT: block.data,
    }
    if block.timestamps is not None and view.has_timestamps:
        columns[TIMESTAMP] = block.timestamps.view("datetime64[us]")
    return pd.DataFrame(columns, copy=False)


def to_anndata(interactions: Interactions) -> Any:
    """Read the whole view into memory as an ``anndata.AnnData`` of users x items.

    Returns
    -------
    anndata.AnnData
        ``X`` is CSR, float32; ``obs_names`` and ``var_names`` are the ids as text, and the ids as
        they are stand in ``obs["user_id"]`` and ``var["item_id"]``. Timestamps stay behind.

    Raises
    ------
    InputError
        The extra ``anndata`` is not installed.
    BudgetError
        It would not fit.
    """
    anndata = _anndata()
    n_ids = interactions.n_users + interactions.n_items
    memory.check_fits(
        20 * interactions.n_stored + 8 * interactions.n_users + _ID_BYTES * n_ids,
        limit=memory.limit(),
        what=f"to_anndata() of {interactions.n_stored:,} interactions",
        remedy="open the store's own arrays with anndata.experimental.read_elem_lazy",
    )
    tables = [
        pd.DataFrame({name: pd.Series(ids, index=_texts(ids), dtype=ids.dtype)})
        for name, ids in zip((USER_ID, ITEM_ID), _both_ids(interactions), strict=True)
    ]
    return anndata.AnnData(X=interactions.to_scipy(), obs=tables[0], var=tables[1])


def _texts(ids: Ids) -> pd.Index[Any]:
    # objects, since anndata asks pandas for an option that is going away when it writes str
    return pd.Index([str(each) for each in ids.tolist()], dtype=object)


def interactions_from_anndata(
    adata: Any, url: str | os.PathLike[str], *, layer: str | None = None, overwrite: bool = False
) -> Interactions:
    """Write an AnnData of users x items as an interaction store, eagerly.

    Parameters
    ----------
    adata : anndata.AnnData; or path of an ``.h5ad`` file, path or URL of an AnnData in Zarr
        Read into memory as a whole. Ids are ``obs["user_id"]`` and ``var["item_id"]`` if they are
        there, else ``obs_names`` and ``var_names``.
    url : path or fsspec URL
    layer : str, optional
        A layer to take in place of ``X``. Stored cells are the interactions.
    overwrite : bool
        Whether a store that is there already is replaced.

    Raises
    ------
    InputError
        As :func:`dasrec.interactions_from_scipy`; or there is no such file, layer or ``X``, or the
        extra ``anndata`` is not installed.
    """
    if isinstance(adata, (str, os.PathLike)):
        adata = _read_anndata(os.fspath(adata))
    if layer is not None and layer not in adata.layers:
        msg = f"the AnnData has no layer {layer!r}; it has: {', '.join(map(repr, adata.layers))}"
        raise InputError(msg)
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        msg = "the AnnData has no X; name the layer to take instead with layer="
        raise InputError(msg)
    for reader in ("to_memory", "compute"):  # of a file that is open, of a Dask array
        matrix = getattr(matrix, reader)() if hasattr(matrix, reader) else matrix
    return interactions_from_scipy(
        sparse.csr_array(matrix),
        url,
        user_ids=_ids_of(adata.obs, USER_ID),
        item_ids=_ids_of(adata.var, ITEM_ID),
        overwrite=overwrite,
    )


def _read_anndata(path: str) -> Any:
    anndata = _anndata()
    if not files.exists(path):
        msg = f"{path} is not there; expected an .h5ad file or an AnnData in Zarr"
        raise InputError(msg)
    if path.lower().endswith((".h5ad", ".h5")):
        return anndata.io.read_h5ad(path)
    return anndata.io.read_zarr(path)


def _ids_of(table: pd.DataFrame, name: str) -> Ids:
    values: Any = table[name] if name in table else table.index
    return np.asarray(values)


def _anndata() -> Any:
    try:
        import anndata
    except ImportError as error:
        msg = 'anndata is not installed; install it with: pip install "dasrec[anndata]"'
        raise InputError(msg) from error
    return anndata


def interactions_from_table(
    table: Any,
    url: str | os.PathLike[str],
    *,
    user: str = "user",
    item: str = "item",
    rating: str | None = "rating",
    timestamp: str | None = None,
    overwrite: bool = False,
) -> Interactions:
    """Write a table of ratings, as Spark's ALS takes, as an interaction store, eagerly.

    The same as :func:`dasrec.read_events` and :func:`dasrec.write_interactions`, which know more:
    of several ratings of one user and item the last stays, and bad rows are refused.

    Parameters
    ----------
    table : pandas or Dask DataFrame; path, URL or glob; or a folder of Parquet that Spark wrote
        Files whose names begin with ``_`` or ``.``, like ``_SUCCESS``, are passed over.
    url : path or fsspec URL
    user, item, rating, timestamp : names of columns
        The defaults are those of Spark's ALS. Without ``rating`` every row weighs 1.
    overwrite : bool
        Whether a store that is there already is replaced.

    Raises
    ------
    InputError
        As the two functions.
    """
    events = read_events(table, user=user, item=item, value=rating, timestamp=timestamp)
    return write_interactions(events, url, overwrite=overwrite)


def to_binsparse(
    interactions: Interactions, url: str | os.PathLike[str], *, overwrite: bool = False
) -> str:
    """Write the view as a binsparse 0.1 CSR matrix in Zarr, eagerly, and return where.

    The group holds ``pointers_to_1`` (int64), ``indices_1`` (int32) and ``values`` (float32), with
    the descriptor in its attribute ``binsparse``; beside them ``user_ids`` and ``item_ids``.

    Parameters
    ----------
    interactions : Interactions
    url : path or fsspec URL
        Under a distributed client every worker must reach it.
    overwrite : bool
        Whether a binsparse matrix that is there already is replaced.

    Raises
    ------
    InputError
        Something is there already, and ``overwrite`` is False or it is no binsparse matrix.
    DiskError
        The disk is full or may not be written; what was there stays.

    Notes
    -----
    The matrix appears whole or not at all. A task holds some four million cells. The format:
    https://graphblas.org/binsparse-specification/
    """
    place = files.absolute(url)
    _check_place(place, overwrite=overwrite)
    draft = f"{place}.partial-{files.token()}"
    try:
        _write_binsparse(interactions, draft)
        with files.writing(place):
            files.move(draft, place, last="zarr.json")
    except BaseException:
        files.remove(draft)
        raise
    return place


def _check_place(place: str, *, overwrite: bool) -> None:
    if not files.exists(place):
        return
    metadata = files.join(place, "zarr.json")
    known = files.exists(metadata) and BINSPARSE in files.read_json(metadata).get("attributes", {})
    if not (overwrite and known):
        what = "exists already; pass overwrite=True or" if known else "is something else;"
        msg = f"{place} {what} choose another place"
        raise InputError(msg)


def _write_binsparse(view: Interactions, url: str) -> None:
    indptr = indptr_of(view.counts(USER_ITEMS))
    n_cells = int(indptr[-1])
    whole: dict[str, NDArray[Any]] = {"pointers_to_1": indptr}
    for name, ids in zip((USER_IDS, ITEM_IDS), _both_ids(view), strict=True):
        whole[name] = ids if ids.dtype == np.int64 else ids.astype(np.dtypes.StringDType())
    cells: dict[str, Any] = {"indices_1": np.dtype(np.int32), "values": np.dtype(np.float32)}
    types = {"pointers_to_1": indptr.dtype, **cells}
    descriptor = {
        "version": BINSPARSE_VERSION,
        "format": "CSR",
        "shape": [view.n_users, view.n_items],
        "number_of_stored_values": n_cells,
        "data_types": {name: dtype.name for name, dtype in types.items()},
    }
    sizes: dict[str, Any] = {name: (len(values), values.dtype) for name, values in whole.items()}
    sizes |= {name: (n_cells, dtype) for name, dtype in cells.items()}
    store.create_group(url, {BINSPARSE: descriptor}, sizes)
    store.write_cells(*_split(url), 0, whole)
    shared = blocks.share(view)
    arguments: list[tuple[Any, ...]] = []
    for start in range(0, n_cells, store.SHARD_CELLS):
        stop = min(start + store.SHARD_CELLS, n_cells)
        first = int(np.searchsorted(indptr, start, side="right")) - 1
        last = int(np.searchsorted(indptr, stop))
        arguments.append((shared, url, (first, last), (start, stop), start - int(indptr[first])))
    blocks.run(_write_shard, arguments, name="binsparse-write")


def _write_shard(
    view: Interactions, url: str, rows: tuple[int, int], cells: tuple[int, int], skip: int
) -> None:
    """Write the cells of one shard; ``skip`` of those in the rows belong to the one before."""
    block = view.read_rows(USER_ITEMS, *rows)
    part = slice(skip, skip + cells[1] - cells[0])
    columns = {"indices_1": block.indices[part], "values": block.data[part]}
    store.write_cells(*_split(url), cells[0], columns)


def _split(url: str) -> tuple[str, str]:
    folder, _, name = url.rpartition("/")
    return folder, name
