"""The only room that opens Zarr; docs/format.md states what is written here.

Groups never change once written; dasrec/versions.py says which of them make up a version.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.errors import BaseZarrError

from dasrec import files
from dasrec.errors import InputError, StoreError
from dasrec.runs import Runs, find_runs
from dasrec.schema import CUTS, DATA, INDICES, INDPTR, TIMESTAMPS
from dasrec.typing import CsrBlock, Ids, Longs
from dasrec.versions import (
    Pointer,
    list_versions,
    now,
    pointer_name,
    publish,
    read_pointer,
)

CHUNK_CELLS = 2**17
SHARD_CELLS = 2**22
INDEX_CHUNK = 2**16  # each block that is read decodes one or two
RUN_STARTS, RUN_ENDS = "_run_starts", "_run_ends"
"""What follows the name of an array of ids in the names of the arrays that let readers search."""

CELL_TYPES: Mapping[str, Any] = {DATA: np.float32, INDICES: np.int32, TIMESTAMPS: np.int64}
_EMPTY_TOO: Any = {"write_empty_chunks": True}
_SMALL = (ZstdCodec(level=3), Crc32cCodec())
# all chunks of a call in one go, not each as a task of Zarr's one event loop
_PIPELINE = "zarr.core.codec_pipeline.FusedCodecPipeline"
_OPENING = threading.Lock()  # Zarr's settings are those of the whole process
_ZARR_ENDS = 0.1  # seconds in which Zarr's threads end what they began when another write failed

_OURS = ("zarr.json", "state-", "scratch-", "version-", ".version-")


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
                self.root = _open_group(self.url, mode="a")
                self.root.require_group(self.group)
        except BaseException:
            self.abandon()
            raise

    def take_over(self, key: str) -> None:
        """Write into the group of a job, in which a killed run of it may have begun.

        The caller sees to it that no other run of the job is alive.
        """
        files.remove(self.group_url)
        # the version is part of the name: the same job may have written what is there
        self.group = f"state-{key}-{max(self.versions, default=0) + 1}"
        with files.writing(self.url):
            self.root.require_group(self.group)

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
        if self.versions or not files.exists(self.url):
            return []
        fs, path = files.locate(self.url)
        with files.reaching(self.url):
            return list(files.names(self.url)) if fs.isdir(path) else [path]

    @property
    def group_url(self) -> str:
        """Where the new group lies; tasks write to it."""
        return files.join(self.url, self.group)

    def create_matrix(
        self, side: str, *, shape: tuple[int, int], n_stored: int, timed: bool
    ) -> None:
        """Make the empty arrays of one orientation, or of features."""
        group = self.root.require_group(f"{self.group}/{side}")
        group.attrs.update(
            {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": list(shape)}
        )
        for name, dtype in CELL_TYPES.items():
            if name not in group and (name != TIMESTAMPS or timed):
                _create_cells(group, name, n_stored, dtype)

    def write_index(self, side: str, indptr: Longs, cuts: Longs) -> None:
        """Write where each row begins and how rows are cut into blocks."""
        group = _open_group(files.join(self.group_url, side), mode="r+")
        for name, values in ((INDPTR, indptr), (CUTS, cuts)):
            with files.writing(self.url):
                group.create_array(
                    name,
                    data=values,
                    chunks=(min(INDEX_CHUNK, len(values)),),
                    compressors=_SMALL,
                    config=_EMPTY_TOO,
                    overwrite=True,
                )

    def write_ids(self, name: str, ids: Ids, *, start: int, n: int) -> None:
        """Write ids ``start:start + len(ids)`` of a vocabulary of ``n``, from the first on.

        In the encoding that anndata documents for plain and string arrays. With the last of them
        comes what lets readers search: where they ascend.
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
            runs = _find_runs(array) if start + len(ids) == n else None
            for part, found in zip((RUN_STARTS, RUN_ENDS), runs or (), strict=False):
                self.root.create_array(
                    f"{self.group}/{name}{part}",
                    data=found,
                    chunks=(max(1, len(found)),),
                    compressors=_SMALL,
                    config=_EMPTY_TOO,
                    overwrite=True,
                )

    def write_dataset(self, dataset: xr.Dataset) -> None:
        """Write dense labelled arrays."""
        with files.writing(self.url):
            dataset.to_zarr(
                self.url,
                group=self.group,
                mode="a",
                zarr_format=3,
                consolidated=False,
                storage_options=files.options(self.url),
            )

    def commit(self, facts: Mapping[str, Any], *, beside: bool = False) -> Pointer:
        """Make this the latest version; without a base, what was there before is removed then.

        The group of a draft ``beside`` holds no interactions: the facts name it.

        Raises
        ------
        StoreError
            Another writer has made a version since this draft was begun; theirs stays.
        """
        before = self.base.version if self.base else max(self.versions, default=0)
        groups = (*(self.base.groups if self.base else ()), *(() if beside else (self.group,)))
        pointer = Pointer(self.url, self.kind, before + 1, now(), groups, dict(facts))
        publish(pointer)
        if self.base is None:
            self._sweep(pointer.version)
        return pointer

    def _sweep(self, version: int) -> None:
        """Remove all but one version, and what never became one."""
        for name in files.names(self.url):
            keep = name in ("zarr.json", self.group, pointer_name(version))
            if name.startswith(_OURS) and not keep:
                files.remove(files.join(self.url, name))

    def abandon(self) -> None:
        """Remove what was written, unless it is a version by now; those before stay readable."""
        versions = list_versions(self.url)
        with contextlib.suppress(StoreError):
            if read_pointer(self.url, self.kind).names_group(self.group):
                return
        time.sleep(_ZARR_ENDS)  # it would put back what is removed
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
        group = zarr.create_group(
            url, zarr_format=3, attributes=dict(attrs), storage_options=files.options(url)
        )
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
    with _OPENING, zarr.config.set({"codec_pipeline.path": _PIPELINE}):
        return zarr.open_array(
            files.join(group_url, name),
            mode=mode,
            zarr_format=3,  # else each opening looks for files of format 2 as well
            config=config,
            storage_options=files.options(group_url),
        )


def _open_group(url: str, *, mode: Literal["r", "r+", "a"]) -> zarr.Group:
    return zarr.open_group(url, zarr_format=3, storage_options=files.options(url), mode=mode)


@lru_cache(maxsize=64)
def matrix_shape(group_url: str, side: str) -> tuple[int, int]:
    """Return the number of rows and columns of one orientation of a group."""
    with _reading(f"{group_url}/{side}"):
        shape: Any = _open_group(files.join(group_url, side), mode="r").attrs["shape"]
    return int(shape[0]), int(shape[1])


@contextlib.contextmanager
def _reading(place: str) -> Iterator[None]:
    """Turn what missing or damaged bytes raise into a :class:`StoreError` that names the place."""
    try:
        with files.reaching(place):
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


def id_layout(group_url: str, name: str) -> tuple[int, int, np.dtype[Any]]:
    """Return how many ids a group adds to a vocabulary, how many a chunk has, and their dtype."""
    with _reading(f"{group_url}/{name}"):
        array = _array(group_url, name)
    return int(array.shape[0]), int(array.chunks[0]), np.dtype(array.dtype)


def read_ids(group_url: str, name: str, start: int, stop: int) -> NDArray[Any]:
    """Read ids ``start:stop`` of a group as they are stored: int64, or variable-width strings.

    Cost: the chunks that these touch are read and decoded; nothing else is.
    """
    with _reading(f"{group_url}/{name}"):
        return np.asarray(_array(group_url, name)[start:stop])


def read_runs(group_url: str, name: str) -> Runs | None:
    """Read where the ascending runs of a group's ids are; None if it does not say."""
    try:
        with files.reaching(group_url):
            arrays = [_array(group_url, f"{name}{part}") for part in (RUN_STARTS, RUN_ENDS)]
    except FileNotFoundError:
        return None
    with _reading(f"{group_url}/{name}"):
        return Runs(*(np.asarray(array[:]) for array in arrays))


def find_id_runs(group_url: str, name: str) -> Runs | None:
    """Find what :func:`read_runs` should return, from the ids themselves."""
    with _reading(f"{group_url}/{name}"):
        return _find_runs(_array(group_url, name))


def _find_runs(array: zarr.Array[Any]) -> Runs | None:
    step = array.chunks[0]
    chunks = (np.asarray(array[first : first + step]) for first in range(0, array.shape[0], step))
    return find_runs(chunks, array.dtype)


def read_rows(group_url: str, side: str, start: int, stop: int, *, timed: bool) -> CsrBlock:
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
            for name in CELL_TYPES
            if name != TIMESTAMPS or timed
        }
    return CsrBlock(
        indptr - indptr[0], parts[INDICES], parts[DATA], n_columns, parts.get(TIMESTAMPS)
    )


def read_times(group_url: str, side: str, start: int, stop: int) -> NDArray[np.int64]:
    """Read the timestamps of rows ``start:stop``, and neither their columns nor their weights."""
    with _reading(f"{group_url}/{side}"):
        indptr = np.asarray(_array(group_url, f"{side}/{INDPTR}")[start : stop + 1])
        cells = slice(int(indptr[0]), int(indptr[-1]))
        return np.asarray(_array(group_url, f"{side}/{TIMESTAMPS}")[cells])


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
    with files.reaching(pointer.url):
        dataset: xr.Dataset = xr.open_zarr(
            pointer.url,
            group=pointer.groups[-1],
            consolidated=False,
            chunks={},
            zarr_format=3,
            storage_options=files.options(pointer.url),
        )
    return dataset
