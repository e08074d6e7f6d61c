"""Parquet by row group and Arrow files by record batch, both in pieces of bounded size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dasrec import files, memory
from dasrec.checks import check_columns
from dasrec.memory import piece_rows
from dasrec.readers.base import Part

_FIRST_ROWS = 1024
_BUFFER_BYTES = 4 * 2**20  # of each column, as it is stored


@dataclass(frozen=True)
class Parquet:
    """A part is a row group.

    A row group is decoded once, from its beginning to its end: Arrow cannot enter one in the
    middle, and to decode and drop what comes before costs the more the further in a part begins.
    """

    def names(self, path: str) -> Sequence[str]:
        """List the columns of a file."""
        with _parquet(path) as file:
            return list(file.schema_arrow.names)

    def parts(self, path: str) -> list[Part]:
        """Give each row group a part."""
        with _parquet(path) as file:
            return [Part(path, group) for group in range(file.num_row_groups)]

    def count(self, path: str) -> int:
        """Return how many rows a file has."""
        with _parquet(path) as file:
            return int(file.metadata.num_rows)

    def first(self, path: str, columns: Sequence[str]) -> pa.Table:
        """Return the first rows."""
        with _parquet(path) as file:
            batch = next(file.iter_batches(_FIRST_ROWS, columns=list(columns)), None)
            if batch is None:
                return file.schema_arrow.empty_table().select(list(columns))
            return pa.Table.from_batches([batch])

    def read(self, part: Part, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield a row group in pieces, holding neither all its rows nor all its bytes."""
        with _parquet(part.path) as file:
            check_columns(file.schema_arrow.names, columns, where=part.path)
            groups = [part.start] if part.start < file.num_row_groups else []
            for batch in file.iter_batches(
                piece_rows(), row_groups=groups, columns=list(columns), use_threads=False
            ):
                yield pa.Table.from_batches([batch]).select(list(columns))


@contextlib.contextmanager
def _parquet(path: str) -> Iterator[Any]:
    # what is local Arrow reads by itself, without Python's lock
    local = files.is_local(path)
    with pa.OSFile(files.locate(path)[1]) if local else files.open_file(path) as file:
        yield pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)


@dataclass(frozen=True)
class ArrowFile:
    """Feather and other Arrow files; a part is as many record batches as a task may hold."""

    def names(self, path: str) -> Sequence[str]:
        """List the columns of a file."""
        with _arrow(path) as file:
            return list(file.schema.names)

    def parts(self, path: str) -> list[Part]:
        """Cut a file between record batches."""
        with _arrow(path) as file:
            n = file.num_record_batches
        fs, inside = files.locate(path)
        step = max(1, memory.READ_BYTES * n // fs.size(inside))
        return [Part(path, start, min(start + step, n)) for start in range(0, n, step)]

    def count(self, path: str) -> int:
        """Judge the rows of a file by its first record batch."""
        with _arrow(path) as file:
            n = file.num_record_batches
            return n * int(file.get_batch(0).num_rows) if n else 0

    def first(self, path: str, columns: Sequence[str]) -> pa.Table:
        """Return the first rows."""
        with _arrow(path, columns) as file:
            batches = [file.get_batch(0)] if file.num_record_batches else []
            table = pa.Table.from_batches(batches, None if batches else file.schema)
            return table.select(list(columns)).slice(0, _FIRST_ROWS)

    def read(self, part: Part, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield record batches, large ones in pieces, small ones joined."""
        with _arrow(part.path, columns) as file:
            stop = file.num_record_batches if part.stop is None else part.stop
            held: list[pa.RecordBatch] = []
            n_held = 0
            for number in range(part.start, stop):
                held.append(file.get_batch(number))
                n_held += held[-1].num_rows
                if n_held >= piece_rows() or number == stop - 1:
                    table = pa.Table.from_batches(held).select(list(columns))
                    for start in range(0, n_held, piece_rows()):
                        yield table.slice(start, piece_rows())
                    held, n_held = [], 0


@contextlib.contextmanager
def _arrow(path: str, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Open an Arrow file, to read only the named columns of it."""
    local = files.is_local(path)
    source = pa.memory_map(files.locate(path)[1]) if local else files.open_file(path)
    with source as opened:
        file = pa.ipc.open_file(opened)
        if columns is not None:
            check_columns(file.schema.names, columns, where=path)
            wanted = sorted(file.schema.get_field_index(name) for name in columns)
            options = pa.ipc.IpcReadOptions(included_fields=wanted, use_threads=False)
            file = pa.ipc.open_file(opened, options=options)
        yield file
