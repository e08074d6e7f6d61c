"""Factor matrices: in memory, or by blocks of rows in files when no process is to hold one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasrec import blocks, files
from dasrec.kernels.narrow import Narrow, Shorts, narrow_rows, round_rows
from dasrec.typing import Floats, Ints, Longs

ROWS = 2**14
"""Rows that are read or multiplied at a time: the same bits however many threads there are."""


@dataclass(frozen=True)
class Generation:
    """A float32 matrix, one file a block of rows, in a folder that all workers reach.

    It is read like an array, ``generation[start:stop]``, and travels to workers as its place alone.

    Parameters
    ----------
    folder : path or fsspec URL
    cuts : row numbers, ascending from 0 to the number of rows: where blocks begin and end
    width : number of columns
    """

    folder: str
    cuts: tuple[int, ...]
    width: int

    dtype = np.dtype(np.float32)
    ndim = 2

    @classmethod
    def begin(cls, place: str, cuts: Sequence[int], width: int) -> Generation:
        """Make one in a folder of its own under ``place``; its blocks are to be written."""
        folder = files.join(place, files.token())
        files.make_folder(folder)
        return cls(folder, tuple(cuts), width)

    @property
    def place(self) -> str:
        """The folder that it was begun in."""
        return self.folder.rpartition("/")[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return self.cuts[-1], self.width

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.cuts[-1]

    def write(self, start: int, rows: Floats) -> None:
        """Write the block that begins with row ``start``; to do so again does no harm."""
        place = self._file(start)
        with files.writing(place):
            files.replace(place, np.ascontiguousarray(rows).data.cast("B"), durable=False)

    def __getitem__(self, index: Any) -> Floats:
        """Read rows ``start:stop``, and some columns of them if two slices are given."""
        rows, columns = index if isinstance(index, tuple) else (index, slice(None))
        start, stop, _ = rows.indices(len(self))
        found = np.empty((max(0, stop - start), self.width), np.float32)
        first = int(np.searchsorted(self.cuts, start, side="right")) - 1
        for low, high in pairwise(self.cuts[first:]):
            a, b = max(low, start), min(high, stop)
            if low >= stop:
                break
            at = (a - low) * self.width * self.dtype.itemsize
            files.read_into(self._file(low), at, found[a - start : b - start].reshape(-1))
        return found[:, columns]

    def take(self, rows: Ints | Longs) -> Floats:
        """Read some rows, ascending, from one range of :data:`ROWS` after the other."""
        found = np.empty((len(rows), self.width), np.float32)
        done = 0
        while done < len(rows):
            start = int(rows[done])
            end = done + int(np.searchsorted(rows[done:], start + ROWS))
            found[done:end] = self[start : int(rows[end - 1]) + 1][rows[done:end] - start]
            done = end
        return found

    def whole(self, make: Callable[[Generation], Any]) -> Any:
        """Return what is made of it, once a process; what it has kept of another one goes."""
        with _LOCK:
            if self.folder not in _KEPT:
                _KEPT.clear()
                _KEPT[self.folder] = make(self)
            return _KEPT[self.folder]

    def _file(self, start: int) -> str:
        return files.join(self.folder, str(start))


class LazyRows:
    """A Dask array of which the thread that asks for some rows reads these, and no others."""

    def __init__(self, array: Any) -> None:
        self._array = array  # no dataclass, since Dask looks into those and would read it all

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        n_rows, width = self._array.shape
        return n_rows, width

    def __getitem__(self, rows: Ints) -> Floats:
        """Read some rows, ascending, all that lie between them too."""
        if len(rows) == 0:
            return np.empty((0, self.shape[1]), np.float32)
        first = int(rows[0])
        part = self._array[first : int(rows[-1]) + 1]
        # within a task, which must not wait for another
        return np.asarray(part.compute(scheduler="synchronous"), np.float32)[rows - first]


Vectors = Floats | Generation
"""A factor matrix, wherever it is."""

_LOCK = threading.Lock()
_KEPT: dict[str, Any] = {}


def row_cuts(n_rows: int) -> tuple[int, ...]:
    """Cut rows by :data:`ROWS`."""
    return (*range(0, n_rows, ROWS), n_rows)


def hold(parts: Iterable[Any], shape: tuple[int, int], place: str | None) -> Vectors:
    """Keep a matrix that comes :data:`ROWS` at a time: in memory or, given a place, in files."""
    cuts = row_cuts(shape[0])
    made = np.empty(shape, np.float32) if place is None else Generation.begin(place, cuts, shape[1])
    for (start, stop), rows in zip(pairwise(cuts), parts, strict=True):
        if isinstance(made, Generation):
            made.write(start, np.asarray(rows, np.float32))
        else:
            made[start:stop] = rows
    return made


def hold_array(matrix: Any, place: str | None) -> Vectors:
    """Keep an array, maybe a lazy one, in memory or, given a place, in files."""
    if place is None:
        return np.asarray(matrix, np.float32)
    return hold((matrix[a:b] for a, b in pairwise(row_cuts(len(matrix)))), matrix.shape, place)


def in_memory(vectors: Vectors) -> Floats:
    """Return a matrix as an array."""
    return vectors[:] if isinstance(vectors, Generation) else vectors


def labelled(vectors: Vectors | None) -> Any:
    """Return what xarray can carry: the array itself, or a lazy Dask array of the files."""
    if isinstance(vectors, Generation):
        return blocks.lazy(vectors, chunks=(ROWS, vectors.width))
    return vectors


def drop(place: str, *, but: Iterable[Vectors | None]) -> None:
    """Remove the generations that lie in ``place``, but for some."""
    kept = {each.folder for each in but if isinstance(each, Generation)}
    for name in files.names(place):
        if files.join(place, name) not in kept:
            files.remove(files.join(place, name))


def gram(vectors: Vectors) -> NDArray[np.float64]:
    """Return V'V, float64, shape (k, k); the same bits however many threads the machine has."""
    total = np.zeros((vectors.shape[1], vectors.shape[1]))
    for part in _by_rows(_square, vectors):
        total += part
    return total


def rotate(vectors: Vectors, rotation: Floats | None, *, rounded: bool = False) -> Vectors:
    """Return the product of both; the same bits however many threads the machine has.

    It may be rounded to what :func:`narrow` holds without loss.
    """
    if rotation is None:
        return vectors
    task = _rounded_product if rounded else np.matmul
    return map_rows(task, vectors, np.ascontiguousarray(rotation))


def _rounded_product(rows: Floats, rotation: Floats) -> Floats:
    product: Floats = rows @ rotation
    round_rows(product)
    return product


def narrow(vectors: Vectors, rows: Longs | None = None) -> Narrow:
    """Return rounded vectors, or some rows of them, in 16 bits a number.

    Those in files are read in this thread, :data:`ROWS` at a time.
    """
    n = len(vectors) if rows is None else len(rows)
    held = np.empty((n, vectors.shape[1]), np.int16), np.empty(n, np.float32)
    if isinstance(vectors, Generation):
        for start, stop in pairwise(row_cuts(n)):
            part = vectors[start:stop] if rows is None else vectors.take(rows[start:stop])
            narrow_rows(part, held[0][start:stop], held[1][start:stop])
    else:
        for _ in _by_rows(_narrow, vectors, *held):
            pass
    return held


def _narrow(vectors: Floats, start: int, stop: int, numbers: Shorts, units: Floats) -> None:
    narrow_rows(vectors[start:stop], numbers[start:stop], units[start:stop])


def eigenbasis(vectors: Vectors) -> tuple[NDArray[np.float64], Floats]:
    """Return the eigenvalues of V'V, none negative, and its eigenvectors in float32."""
    with blocks.ONE_BLAS_THREAD:
        values, rotation = np.linalg.eigh(gram(vectors))
    return np.maximum(values, 0), rotation.astype(np.float32)


def form_of(
    vectors: Vectors, *, diagonal: bool, rounded: bool = False
) -> tuple[Vectors, NDArray[np.float64], Floats | None]:
    """Return vectors, V'V of them, and the basis that they are in now, or None.

    If it is to be diagonal, they are rotated into its eigenbasis, and V'V is its diagonal; if they
    are rounded there, it is that of what they were before.
    """
    if not diagonal:
        return vectors, gram(vectors), None
    values, rotation = eigenbasis(vectors)
    return rotate(vectors, rotation, rounded=rounded), values, rotation


def map_rows(task: Callable[..., Floats], vectors: Vectors, *shared: Any) -> Vectors:
    """Return ``task(rows, *shared)`` of all rows; it must leave them as wide as they are."""
    target: Vectors
    if isinstance(vectors, Generation):
        target = Generation.begin(vectors.place, row_cuts(len(vectors)), vectors.width)
    else:
        target = np.empty(vectors.shape, np.float32)
    for _ in _by_rows(_mapped, vectors, target, task, *shared):
        pass  # each has been written
    return target


def put(target: Vectors, start: int, rows: Floats) -> None:
    """Write rows from ``start`` on into a matrix, wherever it is."""
    if isinstance(target, Generation):
        target.write(start, rows)
    else:
        target[start : start + len(rows)] = rows


def last_column(vectors: Vectors) -> Floats:
    """Return the last column, in memory."""
    return np.concatenate(list(_by_rows(_last, vectors)))


def _last(vectors: Vectors, start: int, stop: int) -> Floats:
    return vectors[start:stop][:, -1].copy()


def _by_rows(task: Callable[..., Any], vectors: Vectors, *shared: Any) -> Iterator[Any]:
    """Give ``task(vectors, start, stop, *shared)`` of :data:`ROWS` at a time, in order."""
    ranges = list(pairwise(row_cuts(len(vectors))))
    if isinstance(vectors, Generation) and not blocks.are_near():
        arguments = [(vectors, *each, *shared) for each in ranges]
        yield from blocks.run(task, arguments, name="factor-rows", progress=False)
        return
    if isinstance(vectors, np.ndarray):
        # else NumPy multiplies without BLAS
        vectors = np.require(vectors, requirements=("C", "A"))
    with blocks.ONE_BLAS_THREAD, ThreadPoolExecutor(blocks.n_threads()) as pool:
        yield from pool.map(lambda each: task(vectors, *each, *shared), ranges)


def _square(vectors: Vectors, start: int, stop: int) -> Floats:
    rows = vectors[start:stop]
    return rows.T @ rows


def _mapped(
    vectors: Vectors, start: int, stop: int, target: Vectors, task: Any, *shared: Any
) -> None:
    put(target, start, task(vectors[start:stop], *shared))
