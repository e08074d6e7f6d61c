"""Tables in memory become parts as files do: slices that share memory with what was given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import pandas as pd
import pyarrow as pa

from dasrec import memory
from dasrec.checks import check_columns
from dasrec.errors import InputError
from dasrec.readers.base import Log

_LEAST_ROW_BYTES = 64  # what pandas says of texts is not what they take


class ArrowTable(Protocol):
    """A table that any library can take over without a copy: the Arrow PyCapsule interface."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return a capsule with a stream of record batches."""
        ...


@dataclass(frozen=True)
class Slice:
    """Rows of a table; its pickle has only these, where that of an Arrow slice has the whole."""

    table: Any

    def __reduce__(self) -> tuple[Any, ...]:
        if isinstance(self.table, pd.DataFrame):
            return Slice, (self.table,)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.table.schema) as writer:
            writer.write_table(self.table)
        return _unpickled, (sink.getvalue().to_pybytes(),)


def _unpickled(content: bytes) -> Slice:
    return Slice(pa.ipc.open_stream(content).read_all())


def is_table(given: Any) -> bool:
    """Say whether something is a table in memory.

    Raises
    ------
    InputError
        It is a table that has yet to be computed.
    """
    if hasattr(given, "__arrow_c_stream__") or hasattr(given, "__arrow_c_array__"):
        return True
    if hasattr(type(given), "collect"):
        msg = (
            f"{name_of(given)} is not computed yet; expected a table in memory or files: "
            "pass .collect() of it, or the files it reads"
        )
        raise InputError(msg)
    return False


def name_of(given: Any) -> str:
    """Return how messages call a table."""
    return f"the {_library(given)} {type(given).__name__}"


def _library(given: Any) -> str:
    return type(given).__module__.split(".")[0].lstrip("_")


def open_table(given: Any, columns: Sequence[str]) -> Log:
    """Cut a pandas DataFrame, or whatever offers the Arrow PyCapsule interface, into slices.

    Parameters
    ----------
    given : pandas or polars DataFrame, pyarrow Table or RecordBatch, DuckDB relation, ...
    columns : those that are wanted

    Raises
    ------
    InputError
        A column is missing, or it is no table but a single column.
    """
    where = name_of(given)
    if isinstance(given, pd.DataFrame):
        check_columns([str(name) for name in given.columns], columns, where=where)
        table = given[list(dict.fromkeys(columns))]
        rows = memory.READ_BYTES // _LEAST_ROW_BYTES
        slices = [table.iloc[at : at + rows] for at in range(0, len(table), max(1, rows))]
    else:
        try:
            table = pa.table(given)
        except pa.ArrowInvalid as error:
            msg = f"{where} is no table: {error}; expected one with columns"
            raise InputError(msg) from error
        check_columns(table.column_names, columns, where=where)
        table = _with_objects(table.select(list(dict.fromkeys(columns))), given)
        width = max(_LEAST_ROW_BYTES, table.nbytes // max(1, len(table)))
        rows = max(1, memory.READ_BYTES // width)
        slices = [table.slice(at, rows) for at in range(0, len(table), rows)]
    parts = [Slice(each) for each in slices or [table]]
    first = {name: table[name] for name in columns}
    return Log(parts, _read, first, count_rows=partial(int, len(table)))


def _with_objects(table: pa.Table, given: Any) -> pa.Table:
    """Fetch Python objects from polars, which passes on nothing but their addresses."""
    if _library(given) != "polars":
        return table
    for number, field in enumerate(table.schema):
        if field.type == pa.binary(8):
            values = pa.array(list(given[field.name]))
            table = table.set_column(number, field.name, values)
    return table


def _read(part: Slice) -> Iterator[Any]:
    yield part.table
