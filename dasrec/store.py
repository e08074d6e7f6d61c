"""The only room that opens Zarr; docs/format.md states what is written here.

A place (a path or URL) holds groups that never change once written, and one small file a version
that names the groups it is made of. A version exists when its file does; that appears as a whole.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.errors import BaseZarrError

from dasrec import files
from dasrec.errors import InputError, StoreError
from dasrec.schema import CUTS, DATA, FORMAT_VERSION, INDICES, INDPTR, TIMESTAMPS
from dasrec.typing import CsrBlock, Ids, Longs, Side

CHUNK_CELLS = 2**18
SHARD_CELLS = 2**22
_CELL_TYPES = {DATA: np.float32, INDICES: np.int32, TIMESTAMPS: np.int64}
_EMPTY_TOO: Any = {"write_empty_chunks": True}
_SMALL = (ZstdCodec(level=3), Crc32cCodec())
_POINTER = re.compile(r"version-(\d{8})\.json")
_OURS = ("zarr.json", "state-", "scratch-", "version-", ".version-")


class Pointer(NamedTuple):
    """One version of a place: which groups make it up, since when, and what is known of it."""

    url: str
    kind: str
    version: int
    created: str
    groups: tuple[str, ...]
    facts: dict[str, Any]

    @property
    def group_urls(self) -> tuple[str, ...]:
        """Where the groups lie, oldest first."""
        return tuple(files.join(self.url, group) for group in self.groups)


def pointer_name(version: int) -> str:
    """Return the file whose being there makes a version exist."""
    return f"version-{version:08}.json"


def list_versions(url: str) -> list[int]:
    """Return the versions of a place, ascending; none if nothing finished is there."""
    fs, path = files.locate(url)
    if not fs.isdir(path):
        return []
    fs.invalidate_cache(path)
    names = (each.rstrip("/").rsplit("/", 1)[-1] for each in fs.ls(path, detail=False))
    return sorted(int(found[1]) for name in names if (found := _POINTER.fullmatch(name)))


def read_pointer(url: str, kind: str, version: int | None = None) -> Pointer:
    """Find a version of ``url``, the latest if none is named.

    Raises
    ------
    StoreError
        Nothing is there, the writing was cut off before it was complete, it is of another format
        version, or it is something else than ``kind``.
    """
    place = files.absolute(url)
    versions = list_versions(place)
    if not versions:
        if files.exists(files.join(place, "zarr.json")):
            msg = (
                f"{url} is unfinished: its writing was cut off; write it again with overwrite=True"
            )
        else:
            msg = (
                f"{url} is not there, or not written by dasrec; expected a folder with "
                f"{pointer_name(1)}"
            )
        raise StoreError(msg)
    if version is not None and version not in versions:
        msg = f"{url} has no version {version}; it has: {', '.join(map(str, versions))}"
        raise StoreError(msg)
    return _parse_pointer(place, kind, versions[-1] if version is None else version)


def _parse_pointer(place: str, kind: str, version: int) -> Pointer:
    name = pointer_name(version)
    try:
        content = files.read_json(files.join(place, name))
    except (ValueError, InputError) as error:
        msg = f"{place}: {name} is damaged ({error}); write the store again"
        raise StoreError(msg) from error
    found = content.get("format_version")
    if found != FORMAT_VERSION:
        msg = (
            f"{place} is of format version {found}; this dasrec reads version {FORMAT_VERSION}. "
            "Write it again with this version, or read it with the dasrec that wrote it"
        )
        raise StoreError(msg)
    if content.get("kind") != kind:
        msg = f"{place} holds {content.get('kind')!r}; expected {kind!r}"
        raise StoreError(msg)
    try:
        groups, facts = tuple(map(str, content["groups"])), dict(content["facts"])
        return Pointer(place, kind, version, str(content["created"]), groups, facts)
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{place}: {name} is damaged, it lacks {error}; write the store again"
        raise StoreError(msg) from error


def now() -> str:
    """Return the moment as versions record it: ISO 8601, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")


def publish(pointer: Pointer) -> None:
    """Make a version exist: one small file appears, whole or not at all.

    Raises
    ------
    StoreError
        The version is there already: another writer was quicker.
    """
    content = {"format_version": FORMAT_VERSION, **pointer._asdict()}
    del content["url"]
    place = files.join(pointer.url, pointer_name(pointer.version))
    try:
        with files.writing(pointer.url):
            files.create(place, json.dumps(content, indent=1))
    except FileExistsError as error:
        msg = (
            f"another writer has made version {pointer.version} of {pointer.url} meanwhile; theirs "
            "is kept, run this again to build on it"
        )
        raise StoreError(msg) from error


class Draft:
    """A new version in the making; nobody reads it before :meth:`commit`.

    Parameters
    ----------
    url : path or fsspec URL
    kind : what is written
    overwrite : whether versions that are there may be replaced
    base : the version that the new one builds on; its groups stay, the new one comes after them
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        kind: str,
        *,
        overwrite: bool = False,
        base: Pointer | None = None,
    ) -> None:
        self.url = files.absolute(url)
        self.kind = kind
        self.base = base
        self.group = f"state-{files.token()}"
        self.versions = list_versions(self.url)
        if self.versions and not overwrite and base is None:
            msg = f"{url} exists already; pass overwrite=True (--overwrite) or choose another place"
            raise InputError(msg)
        if self.versions:
            self._check_kind()
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

    def _check_kind(self) -> None:
        """Refuse to replace a store by a model, or the other way round."""
        name, found = pointer_name(self.versions[-1]), self.kind
        with contextlib.suppress(ValueError):  # what is damaged may be replaced
            found = files.read_json(files.join(self.url, name)).get("kind", found)
        if found != self.kind:
            msg = f"{self.url} holds {found!r}; choose another place for {self.kind!r}"
            raise InputError(msg)

    def _names(self) -> list[str]:
        """List what lies at the place, unless it is a finished store."""
        fs, path = files.locate(self.url)
        if self.versions or not fs.exists(path):
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
        for name, dtype in _CELL_TYPES.items():
            if name != TIMESTAMPS or timed:
                _create_cells(group, name, n_stored, dtype)

    def write_index(self, side: Side, indptr: Longs, cuts: Longs) -> None:
        """Write where each row begins and how rows are cut into blocks."""
        group = zarr.open_group(files.join(self.group_url, side), mode="r+")
        for name, values in ((INDPTR, indptr), (CUTS, cuts)):
            with files.writing(self.url):
                group.create_array(
                    name,
                    data=values,
                    chunks=(min(CHUNK_CELLS, len(values)),),
                    compressors=_SMALL,
                    config=_EMPTY_TOO,
                )

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
                    compressors=_SMALL,
                    overwrite=True,
                )
                kind = "array" if whole else "string-array"
                array.attrs.update({"encoding-type": kind, "encoding-version": "0.2.0"})
            array = _open(self.group_url, name, mode="r+")
            values = ids if whole else ids.astype(np.dtypes.StringDType())
            array[start : start + len(ids)] = values

    def write_dataset(self, dataset: xr.Dataset) -> None:
        """Write dense labelled arrays."""
        with files.writing(self.url):
            dataset.to_zarr(self.url, group=self.group, mode="a", zarr_format=3, consolidated=False)

    def commit(self, facts: Mapping[str, Any]) -> Pointer:
        """Make this the latest version; without a base, what was there before is removed then.

        Raises
        ------
        StoreError
            Another writer has made a version since this draft was begun; theirs stays.
        """
        before = self.base.version if self.base else max(self.versions, default=0)
        groups = (*(self.base.groups if self.base else ()), self.group)
        pointer = Pointer(self.url, self.kind, before + 1, now(), groups, dict(facts))
        publish(pointer)
        if self.base is None:
            self._sweep(pointer.version)
        return pointer

    def _sweep(self, version: int) -> None:
        """Remove all but one version, and what never became one."""
        fs, path = files.locate(self.url)
        for each in fs.ls(path, detail=False):
            name = each.rstrip("/").rsplit("/", 1)[-1]
            keep = name in ("zarr.json", self.group, pointer_name(version))
            if name.startswith(_OURS) and not keep:
                fs.rm(each, recursive=True)

    def abandon(self) -> None:
        """Remove what was written, unless it is a version by now; those before stay readable."""
        versions = list_versions(self.url)
        with contextlib.suppress(StoreError):
            latest = _parse_pointer(self.url, self.kind, versions[-1]) if versions else None
            if latest and self.group in latest.groups:
                return
        files.remove(self.group_url)
        if not versions:
            files.remove(self.url)


def _create_cells(group: zarr.Group, name: str, n: int, dtype: Any) -> None:
    group.create_array(
        name,
        shape=(n,),
        dtype=dtype,
        chunks=(min(CHUNK_CELLS, max(1, n)),),
        shards=(SHARD_CELLS,) if n > CHUNK_CELLS else None,
        compressors=(BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec()),
    )


def create_group(url: str, attrs: Mapping[str, Any], sizes: Mapping[str, tuple[int, Any]]) -> None:
    """Make a Zarr group of empty arrays, each of a length and dtype, for :func:`write_cells`."""
    with files.writing(url):
        group = zarr.create_group(url, zarr_format=3, attributes=dict(attrs))
        for name, (n, dtype) in sizes.items():
            _create_cells(group, name, n, dtype)


@lru_cache(maxsize=64)
def _array(group_url: str, name: str) -> zarr.Array[Any]:
    # a state never changes once written, so its open arrays may be kept
    return _open(group_url, name, mode="r")


def _open(group_url: str, name: str, *, mode: Literal["r", "r+"]) -> zarr.Array[Any]:
    """Open an array that takes no missing chunk for zeros, and writes zeros like anything else."""
    missing = mode == "r+"  # a shard in the making is read before it is there
    config: Any = {"write_empty_chunks": True, "read_missing_chunks": missing}
    return zarr.open_array(files.join(group_url, name), mode=mode, config=config)


@lru_cache(maxsize=64)
def matrix_shape(group_url: str, side: Side) -> tuple[int, int]:
    """Return the number of rows and columns of one orientation of a group."""
    with _reading(f"{group_url}/{side}"):
        shape: Any = zarr.open_group(files.join(group_url, side), mode="r").attrs["shape"]
    return int(shape[0]), int(shape[1])


@contextlib.contextmanager
def _reading(place: str) -> Iterator[None]:
    """Turn what missing or damaged bytes raise into a :class:`StoreError` that names the place."""
    try:
        yield
    except (BaseZarrError, FileNotFoundError, ValueError, RuntimeError) as error:
        msg = (
            f"{place} cannot be read: its bytes are damaged, or a newer version took its place "
            f"({str(error).splitlines()[0]}). Open the store again, or run dasrec verify"
        )
        raise StoreError(msg) from error


def read_array(group_url: str, name: str) -> NDArray[Any]:
    """Read a small array as a whole; strings come as str objects."""
    with _reading(f"{group_url}/{name}"):
        values = np.asarray(_array(group_url, name)[:])
    return values.astype(object) if values.dtype.kind == "T" else values


def read_rows(group_url: str, side: Side, start: int, stop: int, *, timed: bool) -> CsrBlock:
    """Read rows ``start:stop`` of one orientation; those past the end are not there.

    Cost: the chunks that these rows touch are read and decoded; nothing else is.
    """
    n_rows, n_columns = matrix_shape(group_url, side)
    start, stop = min(start, n_rows), min(stop, n_rows)
    with _reading(f"{group_url}/{side}"):
        indptr = np.asarray(_array(group_url, f"{side}/{INDPTR}")[start : stop + 1])
        cells = slice(int(indptr[0]), int(indptr[-1]))
        parts = {
            name: np.asarray(_array(group_url, f"{side}/{name}")[cells])
            for name in _CELL_TYPES
            if name != TIMESTAMPS or timed
        }
    return CsrBlock(
        indptr - indptr[0], parts[INDICES], parts[DATA], n_columns, parts.get(TIMESTAMPS)
    )


def write_cells(group_url: str, side: str, start: int, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write stored cells from position ``start``; the caller owns every shard that this touches.

    Two tasks that write one shard would lose data, so ``start`` must be a multiple of
    :data:`SHARD_CELLS` and no other task may write before the next multiple.
    """
    with files.writing(group_url):
        for name, values in columns.items():
            array = _open(group_url, f"{side}/{name}", mode="r+")
            array[start : start + len(values)] = values


def read_dataset(pointer: Pointer) -> xr.Dataset:
    """Open dense labelled arrays, lazily: each variable is a Dask array."""
    dataset: xr.Dataset = xr.open_zarr(
        pointer.url, group=pointer.groups[-1], consolidated=False, chunks={}
    )
    return dataset
