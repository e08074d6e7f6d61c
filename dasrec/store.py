"""The only room that opens Zarr; docs/format.md states what is written here.

A place (a path or URL) holds one pointer, ``current.json``, and the group that it names. A new
state is written to a new group; replacing the pointer, one small file, makes it the current one.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from dasrec import files
from dasrec.errors import InputError, StoreError
from dasrec.schema import (
    CUTS,
    DATA,
    FORMAT_VERSION,
    INDICES,
    INDPTR,
    INTERACTIONS_KIND,
    TIMESTAMPS,
)
from dasrec.typing import CsrBlock, Ids, Longs, Side

POINTER = "current.json"
CHUNK_CELLS = 2**18
SHARD_CELLS = 2**22
_OURS = ("zarr.json", "state-", "scratch-", f".{POINTER}.")
_CELL_TYPES = {DATA: np.float32, INDICES: np.int32, TIMESTAMPS: np.int64}


class Pointer(NamedTuple):
    """The current state of a place: which group, since when."""

    url: str
    kind: str
    group: str
    created: str

    @property
    def group_url(self) -> str:
        """Where the group lies."""
        return files.join(self.url, self.group)


def read_pointer(url: str, kind: str) -> Pointer:
    """Find the current state of ``url``.

    Raises
    ------
    StoreError
        Nothing is there, the writing was cut off before it was complete, it is of another format
        version, or it is something else than ``kind``.
    """
    place = files.absolute(url)
    try:
        content = files.read_json(files.join(place, POINTER))
    except (FileNotFoundError, NotADirectoryError) as error:
        if files.exists(files.join(place, "zarr.json")):
            msg = (
                f"{url} is unfinished: its writing was cut off; write it again with overwrite=True"
            )
        else:
            msg = f"{url} is not there, or not written by dasrec; expected a folder with {POINTER}"
        raise StoreError(msg) from error
    except (ValueError, InputError) as error:
        msg = f"{url}: {POINTER} is damaged ({error}); write the store again"
        raise StoreError(msg) from error
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        msg = (
            f"{url} is of format version {version}; this dasrec reads version {FORMAT_VERSION}. "
            "Write it again with this version, or read it with the dasrec that wrote it"
        )
        raise StoreError(msg)
    if content.get("kind") != kind:
        msg = f"{url} holds {content.get('kind')!r}; expected {kind!r}"
        raise StoreError(msg)
    group, created = content.get("group"), content.get("created")
    if not isinstance(group, str) or not isinstance(created, str):
        msg = f"{url}: {POINTER} is damaged, it names no group; write the store again"
        raise StoreError(msg)
    return Pointer(place, kind, group, created)


class Draft:
    """A new state in the making; nobody reads it before :meth:`commit`."""

    def __init__(self, url: str | os.PathLike[str], kind: str, *, overwrite: bool = False) -> None:
        self.url = files.absolute(url)
        self.kind = kind
        self.group = f"state-{files.token()}"
        if files.exists(files.join(self.url, POINTER)) and not overwrite:
            msg = f"{url} exists already; pass overwrite=True (--overwrite) or choose another place"
            raise InputError(msg)
        if not all(name.startswith(_OURS) or name.endswith(".partial") for name in self._names()):
            # what is not ours would be lost if this were abandoned
            msg = f"{url} is something else than a store; choose a new place"
            raise InputError(msg)
        try:
            with files.writing(self.url):
                self.root = zarr.open_group(self.url, mode="a", zarr_format=3)
                self.root.create_group(self.group)
        except BaseException:
            self.abandon()
            raise

    def _names(self) -> list[str]:
        """List what lies at the place, unless it is a finished store."""
        fs, path = files.locate(self.url)
        if not fs.exists(path) or files.exists(files.join(self.url, POINTER)):
            return []
        if not fs.isdir(path):
            return [path]
        return [each.rstrip("/").rsplit("/", 1)[-1] for each in fs.ls(path, detail=False)]

    @property
    def group_url(self) -> str:
        """Where the new group lies; tasks write to it."""
        return files.join(self.url, self.group)

    def create_matrix(
        self, side: Side, *, shape: tuple[int, int], n_stored: int, timed: bool
    ) -> None:
        """Make the empty arrays of one orientation."""
        group = self.root.create_group(f"{self.group}/{side}")
        group.attrs.update(
            {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": list(shape)}
        )
        chunk = min(CHUNK_CELLS, max(1, n_stored))
        sharded = n_stored > CHUNK_CELLS
        for name, dtype in _CELL_TYPES.items():
            if name != TIMESTAMPS or timed:
                group.create_array(
                    name,
                    shape=(n_stored,),
                    dtype=dtype,
                    chunks=(chunk,),
                    shards=(SHARD_CELLS,) if sharded else None,
                    compressors=BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"),
                )

    def write_index(self, side: Side, indptr: Longs, cuts: Longs) -> None:
        """Write where each row begins and how rows are cut into blocks."""
        group = zarr.open_group(files.join(self.group_url, side), mode="r+")
        for name, values in ((INDPTR, indptr), (CUTS, cuts)):
            with files.writing(self.url):
                group.create_array(name, data=values, chunks=(min(CHUNK_CELLS, len(values)),))

    def write_ids(self, name: str, ids: Ids, *, start: int, n: int) -> None:
        """Write ids ``start:start + len(ids)`` of a vocabulary of ``n``, from the first on.

        In the encoding that anndata documents for plain and string arrays.
        """
        whole = ids.dtype == np.int64
        with files.writing(self.url):
            if start == 0:
                array = self.root.create_array(
                    f"{self.group}/{name}",
                    shape=(n,),
                    dtype=np.int64 if whole else np.dtypes.StringDType(),
                    chunks=(min(CHUNK_CELLS, max(1, n)),),
                    overwrite=True,
                )
                kind = "array" if whole else "string-array"
                array.attrs.update({"encoding-type": kind, "encoding-version": "0.2.0"})
            array = zarr.open_array(files.join(self.group_url, name), mode="r+")
            values = ids if whole else ids.astype(np.dtypes.StringDType())
            array[start : start + len(ids)] = values

    def write_dataset(self, dataset: xr.Dataset) -> None:
        """Write dense labelled arrays."""
        with files.writing(self.url):
            dataset.to_zarr(self.url, group=self.group, mode="a", zarr_format=3, consolidated=False)

    def commit(self, attrs: Mapping[str, Any]) -> Pointer:
        """Make this the current state, then remove the one before and what never became one."""
        self.root[self.group].attrs.update({"dasrec": dict(attrs)})
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        pointer = Pointer(self.url, self.kind, self.group, created)
        content = {
            "kind": self.kind,
            "format_version": FORMAT_VERSION,
            "group": self.group,
            "created": created,
        }
        with files.writing(self.url):
            files.replace(files.join(self.url, POINTER), json.dumps(content, indent=1).encode())
        fs, path = files.locate(self.url)
        for each in fs.ls(path, detail=False):
            name = each.rstrip("/").rsplit("/", 1)[-1]
            if name.startswith(("state-", "scratch-")) and name != self.group:
                fs.rm(each, recursive=True)
        return pointer

    def abandon(self) -> None:
        """Remove what was written, unless it is current by now; the state before stays readable."""
        pointer = files.join(self.url, POINTER)
        with contextlib.suppress(OSError, ValueError):
            if files.read_json(pointer).get("group") == self.group:
                return
        files.remove(self.group_url)
        if not files.exists(pointer):
            files.remove(self.url)


@lru_cache(maxsize=64)
def _array(group_url: str, name: str) -> zarr.Array[Any]:
    # a state never changes once written, so its open arrays may be kept
    opened = zarr.open_array(files.join(group_url, name), mode="r")
    return opened


@lru_cache(maxsize=64)
def _shape(group_url: str, side: Side) -> tuple[int, int]:
    shape: Any = zarr.open_group(files.join(group_url, side), mode="r").attrs["shape"]
    return int(shape[0]), int(shape[1])


def read_attrs(pointer: Pointer) -> dict[str, Any]:
    """Return what :meth:`Draft.commit` was told."""
    try:
        attrs = zarr.open_group(pointer.group_url, mode="r").attrs["dasrec"]
    except (FileNotFoundError, KeyError) as error:
        msg = (
            f"{pointer.url} is damaged: it lacks {pointer.group} or its attributes; write it again"
        )
        raise StoreError(msg) from error
    if not isinstance(attrs, dict):
        msg = f"{pointer.url}: its attributes are damaged; write it again"
        raise StoreError(msg)
    return dict(attrs)


def read_array(group_url: str, name: str) -> NDArray[Any]:
    """Read a small array as a whole; strings come as str objects."""
    values = np.asarray(_array(group_url, name)[:])
    return values.astype(object) if values.dtype.kind == "T" else values


def read_rows(group_url: str, side: Side, start: int, stop: int, *, timed: bool) -> CsrBlock:
    """Read rows ``start:stop`` of one orientation.

    Cost: the chunks that these rows touch are read and decoded; nothing else is.
    """
    indptr = np.asarray(_array(group_url, f"{side}/{INDPTR}")[start : stop + 1])
    cells = slice(int(indptr[0]), int(indptr[-1]))
    n_columns = _shape(group_url, side)[1]
    parts = {
        name: np.asarray(_array(group_url, f"{side}/{name}")[cells])
        for name in _CELL_TYPES
        if name != TIMESTAMPS or timed
    }
    return CsrBlock(
        indptr - indptr[0], parts[INDICES], parts[DATA], n_columns, parts.get(TIMESTAMPS)
    )


def write_cells(
    group_url: str, side: Side, start: int, columns: Mapping[str, NDArray[Any]]
) -> None:
    """Write stored cells from position ``start``; the caller owns every shard that this touches.

    Two tasks that write one shard would lose data, so ``start`` must be a multiple of
    :data:`SHARD_CELLS` and no other task may write before the next multiple.
    """
    with files.writing(group_url):
        for name, values in columns.items():
            array = zarr.open_array(files.join(group_url, side, name), mode="r+")
            array[start : start + len(values)] = values


def read_dataset(pointer: Pointer) -> xr.Dataset:
    """Open dense labelled arrays, lazily: each variable is a Dask array."""
    dataset: xr.Dataset = xr.open_zarr(
        pointer.url, group=pointer.group, consolidated=False, chunks={}
    )
    return dataset


def open_interactions_state(url: str | os.PathLike[str]) -> tuple[Pointer, dict[str, Any]]:
    """Find the current state of an interaction store and its attributes."""
    pointer = read_pointer(os.fspath(url), INTERACTIONS_KIND)
    return pointer, read_attrs(pointer)
