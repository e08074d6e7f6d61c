"""Raw logs become canonical events: a lazy table of user, item, value and timestamp."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import dask.dataframe as dd
import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.feather as pa_feather
import pyarrow.parquet as pq
from fsspec.utils import infer_compression, read_block

from dasrec import files, memory
from dasrec.checks import check_choice, check_columns
from dasrec.errors import InputError
from dasrec.schema import ITEM, TIMESTAMP, USER, VALUE
from dasrec.typing import BadRows, Dedupe, IdKind, TimeUnit

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".inter", ".data")
PARQUET_SUFFIXES = (".parquet", ".pq")
ARROW_SUFFIXES = (".arrow", ".feather")
_SEPARATORS = "\t,;|"
_PLAIN_INTEGER = r"^(0|-?[1-9]\d{0,18})$"
_ID_DTYPES = {"int64": "Int64", "string": "str"}


@dataclass(frozen=True)
class CleanRules:
    """How a log is cleaned when it is written; :func:`dasrec.clean` explains each rule."""

    bad_rows: BadRows = "error"
    dedupe: Dedupe = "last"
    min_user: int = 1
    min_item: int = 1
    value_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Events:
    """A log in canonical columns, not yet read.

    Attributes
    ----------
    frame : dask.dataframe.DataFrame
        ``user`` and ``item`` (Int64 or str), if given ``value`` (float64) and ``timestamp``
        (datetime64[us], UTC). What cannot be read as such is missing here, and counted when
        written.
    rules : CleanRules
        What :func:`dasrec.clean` asked for; applied in one pass when the events are written.
    source : str
        Where they come from, for messages and the audit.
    """

    frame: dd.DataFrame
    source: str
    rules: CleanRules = field(default_factory=CleanRules)

    @property
    def has_timestamps(self) -> bool:
        """Whether the log says when."""
        return TIMESTAMP in self.frame.columns


class _Part(NamedTuple):
    """What one task reads: bytes of a text file, a row group, or a whole file."""

    path: str
    start: int = 0
    stop: int | None = None


class _Layout(NamedTuple):
    """How the raw columns become canonical ones."""

    columns: dict[str, str]  # canonical name -> name in the log
    kinds: dict[str, str]  # user, item -> int64 or string
    unit: TimeUnit
    separator: str = ","
    header: tuple[str, ...] = ()


def read_events(
    paths: str | os.PathLike[str] | Sequence[str] | pd.DataFrame | dd.DataFrame,
    *,
    user: str,
    item: str,
    value: str | None = None,
    timestamp: str | None = None,
    ids: IdKind = "auto",
    timestamp_unit: TimeUnit = "s",
) -> Events:
    """Describe a log of who used what, lazily: only its first rows are read now.

    Parameters
    ----------
    paths : path, fsspec URL, glob, folder or list of them; or a pandas or Dask DataFrame
        Delimited text with a header (``.csv``, ``.tsv``, ``.txt``, ``.dat``; separator found in the
        header; compressed too), Parquet, or Arrow/Feather.
    user, item, value, timestamp : names of columns
        Without ``value`` every event weighs 1. Numeric timestamps count ``timestamp_unit`` since
        1970-01-01 UTC; others are parsed as ISO 8601.
    ids : {"auto", "int64", "string"}
        What ids are. ``auto`` takes integers if the first rows all are, written as ``str`` writes
        them.
    timestamp_unit : {"s", "ms", "us", "ns"}

    Returns
    -------
    Events

    Raises
    ------
    InputError
        Nothing matches the path, a file is empty or of an unknown type, or a column is missing.

    Examples
    --------
    >>> import pandas as pd
    >>> log = pd.DataFrame({"who": ["ann", "bob"], "what": [7, 9], "stars": [4.0, 5.0]})
    >>> events = read_events(log, user="who", item="what", value="stars")
    >>> list(events.frame.columns)
    ['user', 'item', 'value']
    """
    check_choice(ids, name="ids", choices=("auto", "int64", "string"))
    check_choice(timestamp_unit, name="timestamp_unit", choices=("s", "ms", "us", "ns"))
    given = {USER: user, ITEM: item, VALUE: value, TIMESTAMP: timestamp}
    columns = {canonical: name for canonical, name in given.items() if name is not None}
    if isinstance(paths, (pd.DataFrame, dd.DataFrame)):
        return _from_frame(paths, _Layout(columns, _kinds(ids), timestamp_unit))
    found = _expand(paths)
    reader, parts, layout = _plan(found, _Layout(columns, _kinds(ids), timestamp_unit))
    frame = dd.from_map(
        partial(_read_part, reader, layout), parts, meta=_meta(layout), label="read-events"
    )
    source = found[0] if len(found) == 1 else f"{found[0]} and {len(found) - 1} more"
    return Events(frame, source)


def _kinds(ids: IdKind) -> dict[str, str]:
    return {USER: ids, ITEM: ids}


def _from_frame(frame: pd.DataFrame | dd.DataFrame, layout: _Layout) -> Events:
    where = f"the {'Dask' if isinstance(frame, dd.DataFrame) else 'pandas'} DataFrame"
    check_columns([str(name) for name in frame.columns], layout.columns.values(), where=where)
    kinds = {}
    for name in (USER, ITEM):
        dtype = frame[layout.columns[name]].dtype
        # floats are what pandas makes of integers with gaps
        whole = pd.api.types.is_integer_dtype(dtype) or pd.api.types.is_float_dtype(dtype)
        guess = "int64" if whole else "string"
        kinds[name] = guess if layout.kinds[name] == "auto" else layout.kinds[name]
    layout = layout._replace(kinds=kinds)
    if isinstance(frame, pd.DataFrame):
        rows = max(1, memory.READ_BYTES // 64)
        frame = dd.from_pandas(frame.reset_index(drop=True), npartitions=max(1, len(frame) // rows))
    canonical = partial(_canonical, layout=layout, where=where)
    lazy: Any = frame  # the stubs of pandas do not know Dask
    return Events(lazy.map_partitions(canonical, meta=_meta(layout)), where)


def _expand(paths: str | os.PathLike[str] | Sequence[str]) -> list[str]:
    """Turn paths, globs and folders into a sorted list of files."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    suffixes = TEXT_SUFFIXES + PARQUET_SUFFIXES + ARROW_SUFFIXES
    found: list[str] = []
    for each in [os.fspath(path) for path in given]:
        fs, path = files.locate(each)
        if "*" in path or "?" in path:
            matches = sorted(fs.glob(path))
        elif fs.isdir(path):
            matches = sorted(name for name in fs.find(path) if _suffix(name) in suffixes)
        else:
            matches = [path] if fs.exists(path) else []
        if not matches:
            msg = f"{each} is not there; expected a file, a folder with logs, or a matching glob"
            raise InputError(msg)
        found += [fs.unstrip_protocol(name) if "://" in each else name for name in matches]
    for name in found:
        if _suffix(name) not in suffixes:
            msg = f"{name} is of an unknown type; expected one of: {', '.join(suffixes)}"
            raise InputError(msg)
        fs, path = files.locate(name)
        if fs.size(path) == 0:
            msg = f"{name} is empty; expected a header and rows"
            raise InputError(msg)
    return found


def _suffix(path: str) -> str:
    """Return the type of a file, looking through a compression suffix."""
    stem, suffix = os.path.splitext(path.lower())  # noqa: PTH122 - a URL is no Path
    return str(os.path.splitext(stem)[1] if infer_compression(path) else suffix)  # noqa: PTH122


def _plan(
    found: list[str], layout: _Layout
) -> tuple[Callable[[_Part, _Layout], pa.Table], list[_Part], _Layout]:
    """Choose the reader and the parts, and settle what the first rows tell."""
    kinds = {_suffix(name) for name in found}
    if kinds <= set(TEXT_SUFFIXES):
        parts = [part for name in found for part in _text_parts(name)]
        head = _text_head(found[0])
        separator = max(_SEPARATORS, key=lambda each: len(_header(head, each)))
        names = _header(head, separator)
        layout = layout._replace(separator=separator, header=names)
        first = _parse_text(head, layout, found[0], with_header=True)
        return _read_text, parts, _settle(layout, first, names, found[0])
    if kinds <= set(PARQUET_SUFFIXES):
        with fsspec.open(found[0], "rb") as file:
            opened = pq.ParquetFile(file)
            check_columns(opened.schema_arrow.names, layout.columns.values(), where=found[0])
            first = next(opened.iter_batches(1024, columns=list(layout.columns.values())), None)
            schema = opened.schema_arrow
        table = schema.empty_table() if first is None else pa.Table.from_batches([first])
        parts = [part for name in found for part in _parquet_parts(name)]
        return _read_row_group, parts, _settle(layout, table, schema.names, found[0])
    if kinds <= set(ARROW_SUFFIXES):
        table = _read_arrow(_Part(found[0]), layout)
        layout = _settle(layout, table, table.column_names, found[0])
        return _read_arrow, [_Part(name) for name in found], layout
    msg = f"the files are of several types ({', '.join(sorted(kinds))}); expected one at a time"
    raise InputError(msg)


def _settle(layout: _Layout, first: pa.Table, names: Sequence[str], where: str) -> _Layout:
    """Decide whether ids are integers or strings."""
    check_columns(list(names), layout.columns.values(), where=where)
    kinds = {}
    for name in (USER, ITEM):
        kind = layout.kinds[name]
        kinds[name] = _id_kind(first[layout.columns[name]]) if kind == "auto" else kind
    return layout._replace(kinds=kinds)


def _id_kind(column: pa.ChunkedArray) -> str:
    column = column.drop_null()
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return "int64"
    text = column.cast(pa.string())
    if len(text) == 0:
        return "string"
    whole = pc.match_substring_regex(text, r"^(0|-?[1-9]\d{0,17})$")  # "007" stays a string
    return "int64" if pc.all(whole).as_py() else "string"


def _text_head(path: str) -> bytes:
    """Return the whole lines at the beginning of a file."""
    with fsspec.open(path, "rb", compression="infer") as file:
        head: bytes = file.read(2**16)
    return head[: head.rfind(b"\n") + 1] if len(head) == 2**16 else head


def _header(content: bytes, separator: str) -> tuple[str, ...]:
    line = content.partition(b"\n")[0].decode("utf-8", "replace").rstrip("\r").lstrip("\ufeff")
    return tuple(name.strip().strip('"') for name in line.split(separator))


def _text_parts(path: str) -> list[_Part]:
    fs, inside = files.locate(path)
    if infer_compression(path):
        return [_Part(path)]
    size = fs.size(inside)
    step = memory.READ_BYTES
    return [_Part(path, start, min(start + step, size)) for start in range(0, size, step)]


def _parquet_parts(path: str) -> list[_Part]:
    with fsspec.open(path, "rb") as file:
        n_groups = pq.ParquetFile(file).num_row_groups
    return [_Part(path, group) for group in range(n_groups)]


def _read_text(part: _Part, layout: _Layout) -> pa.Table:
    with fsspec.open(part.path, "rb", compression="infer") as file:
        if part.stop is None:
            content = file.read()
        else:
            content = read_block(file, part.start, part.stop - part.start, delimiter=b"\n")
    if part.start == 0 and (names := _header(content, layout.separator)) != layout.header:
        msg = f"{part.path} has the columns {names}, other files {layout.header}; expected the same"
        raise InputError(msg)
    return _parse_text(content, layout, part.path, with_header=part.start == 0)


def _parse_text(content: bytes, layout: _Layout, path: str, *, with_header: bool) -> pa.Table:
    wanted = [name for name in layout.columns.values() if name in layout.header]
    if with_header:
        content = content.partition(b"\n")[2]
    if not content.strip():
        return pa.table({name: pa.array([], pa.string()) for name in wanted})
    try:
        return pa_csv.read_csv(
            io.BytesIO(content),
            read_options=pa_csv.ReadOptions(column_names=list(layout.header), use_threads=False),
            parse_options=pa_csv.ParseOptions(delimiter=layout.separator),
            convert_options=pa_csv.ConvertOptions(
                include_columns=wanted,
                column_types=dict.fromkeys(wanted, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
    except pa.ArrowInvalid as error:
        msg = f"{path} is not readable as text separated by {layout.separator!r}: {error}"
        raise InputError(msg) from error


def _read_row_group(part: _Part, layout: _Layout) -> pa.Table:
    with fsspec.open(part.path, "rb") as file:
        opened = pq.ParquetFile(file)
        check_columns(opened.schema_arrow.names, layout.columns.values(), where=part.path)
        return opened.read_row_group(
            part.start, columns=list(layout.columns.values()), use_threads=False
        )


def _read_arrow(part: _Part, layout: _Layout) -> pa.Table:
    with fsspec.open(part.path, "rb") as file:
        table = pa_feather.read_table(io.BytesIO(file.read()))
    check_columns(table.column_names, layout.columns.values(), where=part.path)
    return table.select(list(layout.columns.values()))


def _read_part(
    reader: Callable[[_Part, _Layout], pa.Table], layout: _Layout, part: _Part
) -> pd.DataFrame:
    frame = reader(part, layout).to_pandas(types_mapper=_pandas_type)
    return _canonical(frame, layout=layout, where=part.path)


def _pandas_type(kind: pa.DataType) -> Any:
    """Keep integers with gaps exact: the default would make floats of them."""
    return pd.Int64Dtype() if pa.types.is_integer(kind) else None


def _meta(layout: _Layout) -> pd.DataFrame:
    columns = {name: pd.Series([], dtype=_ID_DTYPES[layout.kinds[name]]) for name in (USER, ITEM)}
    if VALUE in layout.columns:
        columns[VALUE] = pd.Series([], dtype="float64")
    if TIMESTAMP in layout.columns:
        columns[TIMESTAMP] = pd.Series([], dtype="datetime64[us]")
    return pd.DataFrame(columns)


def _canonical(frame: pd.DataFrame, *, layout: _Layout, where: str) -> pd.DataFrame:
    columns = {
        name: _ids(frame[layout.columns[name]], layout.kinds[name], where) for name in (USER, ITEM)
    }
    if VALUE in layout.columns:
        raw = frame[layout.columns[VALUE]]
        columns[VALUE] = pd.to_numeric(raw, errors="coerce").astype("float64")
    if TIMESTAMP in layout.columns:
        columns[TIMESTAMP] = _times(frame[layout.columns[TIMESTAMP]], layout.unit)
    return pd.DataFrame(columns, copy=False)


def _ids(raw: pd.Series, kind: str, where: str) -> pd.Series:
    if kind == "string":
        return raw.astype("str")
    if raw.dtype == pd.Int64Dtype():
        return raw
    try:
        # through Arrow, since pandas makes floats of integers with gaps, and 7 of "007"
        array = pa.array(raw, from_pandas=True)
        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            plain = pc.match_substring_regex(array, _PLAIN_INTEGER)
            for odd in array.filter(pc.invert(plain)).slice(0, 1).to_pylist():
                msg = f"there is {odd!r}"
                raise pa.ArrowInvalid(msg)
        whole = array.cast(pa.int64())
    except pa.ArrowException as error:
        msg = f'{where}: ids of {raw.name!r} are not all integers ({error}); pass ids="string"'
        raise InputError(msg) from error
    return pd.Series(whole.to_pandas(types_mapper=_pandas_type), index=raw.index)


def _times(raw: pd.Series, unit: TimeUnit) -> pd.Series:
    if pd.api.types.is_datetime64_any_dtype(raw.dtype):
        utc = raw.dt.tz_convert("UTC").dt.tz_localize(None) if raw.dt.tz is not None else raw
        return utc.astype("datetime64[us]")
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    if raw.dtype == pd.Int64Dtype() and per_second <= 10**6 and not raw.hasnans:
        whole = raw.to_numpy(np.int64)
        if len(whole) and np.abs(whole).max() < 2**62 // 10**6 * per_second:
            exact = (whole * (10**6 // per_second)).view("datetime64[us]")
            return pd.Series(exact, index=raw.index, copy=False)
    numbers = pd.to_numeric(raw, errors="coerce")
    micros = numbers.astype("float64") * (1e6 / per_second)
    known = micros.where(micros.abs() < 2.0**62)  # what no calendar holds is as good as unparsable
    times = known.fillna(0).round().astype("int64").to_numpy().astype("datetime64[us]")
    times[known.isna()] = np.datetime64("NaT", "us")
    texts = (numbers.isna() & raw.notna()).to_numpy()
    if texts.any():  # told row by row, so that it does not matter how a log is cut
        parsed = pd.to_datetime(raw[texts], errors="coerce", utc=True, format="ISO8601")
        times[texts] = parsed.dt.tz_localize(None).to_numpy("datetime64[us]")
    return pd.Series(times, index=raw.index)
