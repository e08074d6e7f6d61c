"""Raw logs become canonical events: a lazy table of user, item, value and timestamp."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dasrec import memory
from dasrec.checks import check_choice, check_columns
from dasrec.errors import InputError
from dasrec.readers import Part, find_files, open_log
from dasrec.schema import ITEM, TIMESTAMP, USER, VALUE
from dasrec.typing import BadRows, Dedupe, IdKind, RowRule, TimeUnit

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
    max_user: float | None = None
    rows: tuple[RowRule, ...] = ()


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


class _Layout(NamedTuple):
    """How the raw columns become canonical ones."""

    columns: dict[str, str]  # canonical name -> name in the log
    kinds: dict[str, str]  # user, item -> int64 or string
    unit: TimeUnit
    weights: Mapping[str, float] | None = None  # of event types


def read_events(
    paths: str | os.PathLike[str] | Sequence[str] | pd.DataFrame | dd.DataFrame,
    *,
    user: str,
    item: str,
    value: str | tuple[str, Mapping[str, float]] | None = None,
    timestamp: str | None = None,
    ids: IdKind = "auto",
    timestamp_unit: TimeUnit = "s",
) -> Events:
    """Describe a log of who used what, lazily: only its first rows are read now.

    Parameters
    ----------
    paths : path, fsspec URL, glob, folder or list of them; or a pandas or Dask DataFrame
        Delimited text with a header (``.csv``, ``.tsv``, ``.txt``, ``.dat``; separator found in the
        header; compressed too), JSON lines, Parquet, or Arrow/Feather.
    user, item, value, timestamp : names of columns
        Without ``value`` every event weighs 1; a pair like ``("event", {"click": 1, "buy": 5})``
        names a column of event types and what each weighs, others are bad rows. Numeric timestamps
        count ``timestamp_unit`` since 1970-01-01 UTC; others are parsed as ISO 8601.
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
    name, weights = value if isinstance(value, tuple) else (value, None)
    given = {USER: user, ITEM: item, VALUE: name, TIMESTAMP: timestamp}
    columns = {canonical: name for canonical, name in given.items() if name is not None}
    layout = _Layout(columns, _kinds(ids), timestamp_unit, weights)
    if isinstance(paths, (pd.DataFrame, dd.DataFrame)):
        return _from_frame(paths, layout)
    found = find_files(paths)
    log = open_log(found, list(columns.values()))
    layout = _settle(layout, log.first)
    read = partial(_read_part, log.read, layout)
    with dask.config.set({"dataframe.convert-string": False}):  # strings are what we make them
        frame = dd.from_map(read, log.parts, meta=_meta(layout), label="read-events")
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


def _settle(layout: _Layout, first: pa.Table) -> _Layout:
    """Decide whether ids are integers or strings."""
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
    whole = pc.match_substring_regex(text, _PLAIN_INTEGER)  # "007" stays a string
    return "int64" if pc.all(whole).as_py() else "string"


def _read_part(read: Callable[[Part], pa.Table], layout: _Layout, part: Part) -> pd.DataFrame:
    frame = read(part).to_pandas(types_mapper=_pandas_type)
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
        if layout.weights is not None:
            raw = raw.astype("object").map(layout.weights)
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
    found: pd.Series = whole.to_pandas(types_mapper=_pandas_type)
    return found.set_axis(raw.index)  # an index given to Series() would pick rows by label


def _times(raw: pd.Series, unit: TimeUnit) -> pd.Series:
    if pd.api.types.is_datetime64_any_dtype(raw.dtype):
        utc = raw.dt.tz_convert("UTC").dt.tz_localize(None) if raw.dt.tz is not None else raw
        return utc.astype("datetime64[us]")
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    if raw.dtype == pd.Int64Dtype() and per_second <= 10**6 and not raw.hasnans:
        whole = raw.to_numpy(np.int64)
        most = 2**62 // 10**6 * per_second
        if len(whole) and -most < whole.min() <= whole.max() < most:
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
