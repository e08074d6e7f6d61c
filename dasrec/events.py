"""Raw logs become canonical events: a lazy table of user, item, value and timestamp."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, cast

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa

from dasrec.checks import check_choice, check_columns
from dasrec.ids import ID_DTYPES, canonical_ids, guess_kind, kind_of_type, pandas_type
from dasrec.readers import (
    ArrowTable,
    Log,
    Part,
    Paths,
    find_files,
    is_table,
    name_of,
    open_log,
    open_table,
)
from dasrec.schema import ITEM, TIMESTAMP, USER, VALUE
from dasrec.typing import BadRows, Dedupe, IdKind, ResolvedIds, RowRule, TimeUnit

_ID_KINDS = ("auto", "int64", "string", "uuid")
FrameChange = Callable[[pd.DataFrame], pd.DataFrame]


@dataclass(frozen=True)
class CleanRules:
    """How a log is cleaned when it is written; :func:`dasrec.clean` explains each rule."""

    bad_rows: BadRows = "error"
    dedupe: Dedupe = "last"
    min_user: int = 1
    min_item: int = 1
    value_range: tuple[float, float] | None = None
    max_user: float | None = None
    session_gap: int | None = None  # microseconds
    rows: tuple[RowRule, ...] = ()


class _Layout(NamedTuple):
    """How the raw columns become canonical ones."""

    columns: dict[str, str]  # canonical name -> name in the log
    kinds: Mapping[str, Any]  # user, item -> what ids are
    unit: TimeUnit
    weights: Mapping[str, float] | None = None  # of event types


class _Reader(NamedTuple):
    """How parts of a log become canonical events."""

    read: Callable[[Any], Iterator[Any]]
    layout: _Layout
    where: str
    stamp: str = ""
    count_rows: Callable[[], int] | None = None
    changes: tuple[FrameChange, ...] = ()


class Source(NamedTuple):
    """One part of a log that is not read yet: small, and made to be sent to a worker."""

    reader: _Reader
    part: Any


class _Parts(NamedTuple):
    """The parts that a lazy frame was made of; of no other frame."""

    frame: str
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Events:
    """A log in canonical columns, not yet read.

    Attributes
    ----------
    frame : dask.dataframe.DataFrame
        ``user`` and ``item`` (Int64 or str), if given ``value`` (float64) and ``timestamp``
        (datetime64[us], UTC). What cannot be read as such is missing here, and counted when
        written. A partition is a whole part of the log: a compressed text file is one, and so is a
        row group, however large. :attr:`sources` are read in pieces of bounded size.
    source : str
        Where they come from, for messages and the audit.
    rules : CleanRules
        What :func:`dasrec.clean` asked for; applied in one pass when the events are written.
    kinds : mapping of ``user`` and ``item`` to int64, string or uuid
        What the ids are.
    parts : what ``sources`` gives, with the name of the frame that was made of it
    """

    frame: dd.DataFrame
    source: str
    rules: CleanRules = field(default_factory=CleanRules)
    kinds: Mapping[str, ResolvedIds] = field(default_factory=dict)
    parts: _Parts | None = field(default=None, repr=False)

    @property
    def has_timestamps(self) -> bool:
        """Whether the log says when."""
        return TIMESTAMP in self.frame.columns

    @property
    def stamp(self) -> str:
        """Changes when the files do that the events come from; empty if they come from none."""
        found = self.sources[:1]
        return found[0].reader.stamp if found and isinstance(found[0], Source) else ""

    def count_rows(self) -> int | None:
        """Say about how many rows there are, looking at no more than heads; None if unknown."""
        found = self.sources[:1]
        count = found[0].reader.count_rows if found and isinstance(found[0], Source) else None
        return count() if count else None

    @property
    def sources(self) -> list[Any]:
        """The parts of the log in order, one for a task to pass to :func:`read_pieces`.

        Each is a :class:`Source`, or the Dask task of a partition where the events come from a Dask
        DataFrame, so that what a task receives is a :class:`Source` or a pandas DataFrame.
        """
        if self.parts is not None and self.parts.frame == self.frame._name:
            return list(self.parts.sources)
        return list(self.frame.to_delayed())


def read_pieces(source: Source | pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield a part of a log as canonical frames of bounded size, one after the other.

    Parameters
    ----------
    source : one of :attr:`Events.sources`; a DataFrame, as a Dask partition is, is one piece

    Yields
    ------
    pandas.DataFrame
        With the columns and types of :attr:`Events.frame`; at least one, maybe without rows. The
        index counts the rows of the part from 0 on through all pieces. Text: about
        ``memory.READ_BYTES`` of whole lines; binary formats: ``memory.piece_rows()`` rows.

    Raises
    ------
    InputError
        The part is damaged, lacks a column, or has ids of another kind than :attr:`Events.kinds`.
    """
    if isinstance(source, pd.DataFrame):
        yield source
        return
    reader, part = source
    where = part.path if isinstance(part, Part) else reader.where
    start, begun = 0, False
    for table in reader.read(part):
        frame = _canonical(table, layout=reader.layout, where=where)
        frame.index = pd.RangeIndex(start, start + len(frame))
        start, begun = start + len(frame), True
        del table  # what is yielded is all that is held while the next piece is read
        yield _changed(frame, reader.changes)
    if not begun:
        yield _changed(_meta(reader.layout), reader.changes)
    pool = pa.default_memory_pool()
    if pool.backend_name != "system":  # whose memory other steps use as well
        pool.release_unused()


@contextlib.contextmanager
def decoding_in_heap() -> Iterator[None]:
    """Let Arrow decode into the heap of the process while the body runs.

    Its own allocator gives memory back within 10 ms, so that every piece of a log is decoded into
    pages that the system has to zero first: for an ingest a twentieth of its time, and a tenth of
    its memory. ``ARROW_DEFAULT_MEMORY_POOL`` in the environment stays as it is.
    """
    before = pa.default_memory_pool()
    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ:
        pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)


def _changed(frame: pd.DataFrame, changes: Sequence[FrameChange]) -> pd.DataFrame:
    for change in changes:
        frame = change(frame)
    return frame


def change_events(
    events: Events, change: FrameChange, *, kinds: Mapping[str, ResolvedIds]
) -> Events:
    """Change canonical frames, lazily; ``kinds`` are those of the ids afterwards."""
    meta = events.frame._meta.astype({side: ID_DTYPES[kind] for side, kind in kinds.items()})
    frame = events.frame.map_partitions(change, meta=meta)
    changed = replace(events, frame=frame, kinds={**events.kinds, **kinds})
    if events.parts is None or events.parts.frame != events.frame._name:
        return changed
    sources = tuple(
        Source(reader._replace(changes=(*reader.changes, change)), part)
        for reader, part in events.parts.sources
    )
    return replace(changed, parts=_Parts(frame._name, sources))


def read_events(
    paths: Paths | pd.DataFrame | dd.DataFrame | ArrowTable,
    *,
    user: str,
    item: str,
    value: str | tuple[str, Mapping[str, float]] | None = None,
    timestamp: str | None = None,
    ids: IdKind | Mapping[str, IdKind] = "auto",
    timestamp_unit: TimeUnit = "s",
) -> Events:
    """Describe a log of who used what, lazily: only its first rows are read now.

    Parameters
    ----------
    paths : path, fsspec URL, glob, folder or list of them; or a table
        Delimited text with a header (``.csv``, ``.tsv``, ``.txt``, ``.dat``; separator found in the
        header), JSON lines, both compressed too (``.gz``, ``.bz2``, ``.xz``, ``.zst``, ``.lz4``),
        Parquet, or Arrow/Feather. Or a pandas or Dask DataFrame, or a table that offers the Arrow
        PyCapsule interface, as those of pyarrow, polars and DuckDB do.
    user, item, value, timestamp : names of columns
        Of the files, or of their folders where these are named ``column=value`` as Hive does; what
        both have is taken from the files. Without ``value`` every event weighs 1; a pair like
        ``("event", {"click": 1, "buy": 5})`` names a column of event types and what each weighs,
        others are bad rows. Numeric timestamps count ``timestamp_unit`` since 1970-01-01 UTC;
        others are parsed as ISO 8601.
    ids : str, or for each side one
        What ids are: ``auto``, ``int64``, ``string`` or ``uuid``; or as ``{"user": "uuid"}``.
        ``auto`` takes integers if the first rows all are, written as ``str`` writes them; in a
        table the type of the column decides. ``uuid`` makes one id of all spellings of a UUID
        (capitals, braces, ``urn:uuid:``, no hyphens, 16 bytes); what is none is a bad row.
    timestamp_unit : {"s", "ms", "us", "ns"}

    Returns
    -------
    Events

    Raises
    ------
    InputError
        Nothing matches the path, a file is empty or of an unknown type, a column is missing, or a
        table is not computed yet.

    Examples
    --------
    >>> import pandas as pd
    >>> log = pd.DataFrame({"who": ["ann", "bob"], "what": [7, 9], "stars": [4.0, 5.0]})
    >>> events = read_events(log, user="who", item="what", value="stars")
    >>> list(events.frame.columns)
    ['user', 'item', 'value']
    """
    check_choice(timestamp_unit, name="timestamp_unit", choices=("s", "ms", "us", "ns"))
    name, weights = value if isinstance(value, tuple) else (value, None)
    given = {USER: user, ITEM: item, VALUE: name, TIMESTAMP: timestamp}
    columns = {canonical: name for canonical, name in given.items() if name is not None}
    layout = _Layout(columns, _kinds(ids), timestamp_unit, weights)
    wanted = list(dict.fromkeys(columns.values()))
    if isinstance(paths, dd.DataFrame):
        return _from_dask(paths, layout)
    if is_table(paths):
        source = name_of(paths)
        log = open_table(paths, wanted)
        layout = _settle(layout, log, kind_of_type)
    else:
        found = find_files(cast("Paths", paths))
        source = found[0] if len(found) == 1 else f"{found[0]} and {len(found) - 1} more"
        log = open_log(found, wanted)
        layout = _settle(layout, log, guess_kind)
    return _from_log(log, layout, source)


def _kinds(ids: IdKind | Mapping[str, IdKind]) -> dict[str, IdKind]:
    given = ids if isinstance(ids, Mapping) else {USER: ids, ITEM: ids}
    for side, kind in given.items():
        check_choice(side, name="a side of ids", choices=(USER, ITEM))
        check_choice(kind, name="ids", choices=_ID_KINDS)
    return {side: given.get(side, "auto") for side in (USER, ITEM)}


def _settle(layout: _Layout, log: Log, guess: Callable[[Any], ResolvedIds]) -> _Layout:
    """Decide what ids are where that is left open."""
    kinds = {
        side: guess(log.first[layout.columns[side]]) if kind == "auto" else kind
        for side, kind in layout.kinds.items()
    }
    return layout._replace(kinds=kinds)


def _from_dask(frame: dd.DataFrame, layout: _Layout) -> Events:
    where = "the Dask DataFrame"
    check_columns([str(name) for name in frame.columns], layout.columns.values(), where=where)
    layout = _settle(layout, Log([], iter, frame._meta), kind_of_type)
    canonical = partial(_canonical, layout=layout, where=where)
    lazy: Any = frame  # the stubs of pandas do not know Dask
    made = lazy.map_partitions(canonical, meta=_meta(layout))
    return Events(made, where, kinds=layout.kinds)


def _from_log(log: Log, layout: _Layout, source: str) -> Events:
    reader = _Reader(log.read, layout, source, log.stamp, log.count_rows)
    with dask.config.set({"dataframe.convert-string": False}):  # strings are what we make them
        frame = dd.from_map(
            partial(_read_whole, reader), log.parts, meta=_meta(layout), label="read-events"
        )
    sources = tuple(Source(reader, part) for part in log.parts)
    return Events(frame, source, kinds=layout.kinds, parts=_Parts(frame._name, sources))


def _read_whole(reader: _Reader, part: Any) -> pd.DataFrame:
    pieces = list(read_pieces(Source(reader, part)))
    return pd.concat(pieces) if len(pieces) > 1 else pieces[0]


def _meta(layout: _Layout) -> pd.DataFrame:
    kinds = {side: ID_DTYPES[layout.kinds[side]] for side in (USER, ITEM)}
    columns = {side: pd.Series([], dtype=kind) for side, kind in kinds.items()}
    if VALUE in layout.columns:
        columns[VALUE] = pd.Series([], dtype="float64")
    if TIMESTAMP in layout.columns:
        columns[TIMESTAMP] = pd.Series([], dtype="datetime64[us]")
    return pd.DataFrame(columns)


def _canonical(table: pa.Table | pd.DataFrame, *, layout: _Layout, where: str) -> pd.DataFrame:
    columns = {}
    for side in (USER, ITEM):
        name = layout.columns[side]
        columns[side] = canonical_ids(table[name], layout.kinds[side], name=name, where=where)
    if VALUE in layout.columns:
        raw = _series(table[layout.columns[VALUE]])
        if layout.weights is not None:
            raw = raw.astype("object").map(layout.weights)
        columns[VALUE] = pd.to_numeric(raw, errors="coerce").astype("float64")
    if TIMESTAMP in layout.columns:
        columns[TIMESTAMP] = _times(_series(table[layout.columns[TIMESTAMP]]), layout.unit)
    return pd.DataFrame(columns, copy=False)


def _series(raw: Any) -> pd.Series:
    if isinstance(raw, pd.Series):
        return raw
    if pa.types.is_date(raw.type):  # pandas would make an object of each day
        raw = raw.cast(pa.timestamp("us" if pa.types.is_date64(raw.type) else "s"))
    found: pd.Series = raw.to_pandas(types_mapper=pandas_type)
    return found


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
