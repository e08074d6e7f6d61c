"""Cleaning: bad rows, values out of range, duplicates, rare users and items, each counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from dasrec.checks import check_choice, check_count, check_duration, check_number
from dasrec.errors import InputError
from dasrec.events import CleanRules, Events, change_events
from dasrec.ids import listed_ids
from dasrec.schema import ITEM, STEP, TIMESTAMP, USER, VALUE
from dasrec.typing import BadRows, Bools, Dedupe, ResolvedIds, RowRule

FAULTS = (
    "user id is missing",
    "item id is missing",
    "value is not a finite number",
    "timestamp is missing, unparsable or before 1970",
)
"""Why a row is bad; a row counts once, for the first reason that holds. See :func:`fault_names`."""

_DEFAULT = CleanRules()


class AuditStep(NamedTuple):
    """One line of the audit: what a step was given, what it left, and why."""

    step: str
    rows_in: int
    rows_out: int
    why: str


def clean(
    events: Events,
    *,
    bad_rows: BadRows = _DEFAULT.bad_rows,
    dedupe: Dedupe = _DEFAULT.dedupe,
    min_user: int = _DEFAULT.min_user,
    min_item: int = _DEFAULT.min_item,
    value_range: tuple[float, float] | None = _DEFAULT.value_range,
    max_user: float | None = _DEFAULT.max_user,
) -> Events:
    """Ask for cleaning, lazily; :func:`dasrec.write_interactions` does it in its one pass.

    Parameters
    ----------
    events : Events
    bad_rows : {"error", "drop"}
        Rows without a user or an item, with a value that is not a finite number, or a timestamp
        that is missing, unparsable or before 1970: refuse the log, or drop and count them.
    dedupe : {"last", "first", "sum", "max", "mean", "error"}
        What to keep of several events of one user with one item, in order of time (of arrival where
        times are equal or not given). Any choice keeps the latest timestamp, ``first`` the
        earliest.
    min_user, min_item : int
        Keep users and items with at least so many interactions, repeated until both hold (the
        k-core: Seidman, "Network structure and minimum degree", 1983,
        doi:10.1016/0378-8733(83)90028-X).
    value_range : (low, high), optional
        Drop events whose value lies outside, ends included.
    max_user : number, optional
        Drop users with more events than this, as no person has: a count of at least 1, or below 1
        the share of users to keep, for instance 0.999.

    Returns
    -------
    Events
        With these rules in place of any before; rules for rows, like :func:`within`, and
        :func:`by_session` stay.

    Raises
    ------
    InputError
        An argument is not what is expected, or a range is given for events without values.

    Examples
    --------
    >>> import pandas as pd
    >>> from dasrec import read_events
    >>> log = pd.DataFrame({"u": [1, 1, 2], "i": [1, 1, 2]})
    >>> clean(read_events(log, user="u", item="i"), dedupe="sum").rules.dedupe
    'sum'
    """
    check_choice(bad_rows, name="bad_rows", choices=("error", "drop"))
    check_choice(dedupe, name="dedupe", choices=("last", "first", "sum", "max", "mean", "error"))
    check_count(min_user, name="min_user", least=1)
    check_count(min_item, name="min_item", least=1)
    if value_range is not None:
        low, high = (check_number(end, name="value_range") for end in value_range)
        if low > high:
            msg = f"value_range is {value_range!r}; expected (low, high) with low <= high"
            raise InputError(msg)
        if VALUE not in events.frame.columns:
            msg = f"{events.source} was read without values; name their column in read_events"
            raise InputError(msg)
    if max_user is not None:
        check_number(max_user, name="max_user", above=0)
    before = events.rules
    rules = CleanRules(
        *(bad_rows, dedupe, min_user, min_item, value_range, max_user),
        session_gap=before.session_gap,
        rows=before.rows,
    )
    return replace(events, rules=rules)


@dataclass(frozen=True)
class _InRange:
    """Rows whose value lies in a range, ends included."""

    low: float
    high: float
    step = "range"

    @property
    def why(self) -> str:
        return f"value from {self.low} to {self.high}"

    def __call__(self, frame: pd.DataFrame) -> Bools:
        return np.asarray(frame[VALUE].between(self.low, self.high))


@dataclass(frozen=True)
class _Within:
    """Rows of a span of time, its end excluded."""

    since: str | None
    until: str | None
    step = "time"

    @property
    def why(self) -> str:
        return f"since={self.since}, until={self.until}"

    def __call__(self, frame: pd.DataFrame) -> Bools:
        stays = np.ones(len(frame), np.bool_)
        if self.since is not None:
            stays &= (frame[TIMESTAMP] >= _moment(self.since)).to_numpy()
        if self.until is not None:
            stays &= (frame[TIMESTAMP] < _moment(self.until)).to_numpy()
        return stays


@dataclass(frozen=True)
class _Listed:
    """Rows whose id is on a list, or is not."""

    side: str
    ids: tuple[int | str, ...]
    on_list: bool
    step = "list"

    @property
    def why(self) -> str:
        return f"{self.side} {'on' if self.on_list else 'not on'} a list of {len(self.ids)}"

    def __call__(self, frame: pd.DataFrame) -> Bools:
        return np.asarray(frame[self.side].isin(self.ids) == self.on_list)


def within(events: Events, *, since: str | None = None, until: str | None = None) -> Events:
    """Keep the events of a span of time, lazily.

    Parameters
    ----------
    since, until : ISO 8601 date or time, UTC unless it says otherwise
        The end is not part of the span.

    Raises
    ------
    InputError
        The events have no timestamps, or a time cannot be read.
    """
    if not events.has_timestamps:
        msg = f"{events.source} was read without timestamps; name their column in read_events"
        raise InputError(msg)
    for text in (since, until):
        if text is not None:
            _moment(text)
    return _with_rule(events, _Within(since, until))


def keep_ids(events: Events, *, users: Any = None, items: Any = None) -> Events:
    """Keep the events of listed users, of listed items, or of both, lazily.

    Parameters
    ----------
    events : Events
    users, items : iterables of ids, optional
        As the log has them when this is called, in any spelling: integers as texts too, UUIDs as
        objects or texts. Before :func:`pseudonymise` raw ids, after it pseudonyms.

    Raises
    ------
    InputError
        One of them is no id of the kind that the log has.
    """
    return _with_lists(events, users, items, on_list=True)


def drop_ids(events: Events, *, users: Any = None, items: Any = None) -> Events:
    """Drop the events of listed users and of listed items, lazily; as :func:`keep_ids` lists."""
    return _with_lists(events, users, items, on_list=False)


def _with_lists(events: Events, users: Any, items: Any, *, on_list: bool) -> Events:
    for side, ids in ((USER, users), (ITEM, items)):
        if ids is not None:
            known = listed_ids(ids, _kind(events, side), what=side)
            events = _with_rule(events, _Listed(side, known, on_list))
    return events


def _kind(events: Events, side: str) -> ResolvedIds:
    """Return what ids are; events that were put together by hand say it by their types."""
    whole = pd.api.types.is_integer_dtype(events.frame.dtypes[side])
    return events.kinds.get(side, "int64" if whole else "string")


def _with_rule(events: Events, rule: RowRule) -> Events:
    rules = replace(events.rules, rows=(*events.rules.rows, rule))
    return replace(events, rules=rules)


def _moment(text: str) -> pd.Timestamp:
    try:
        moment = pd.Timestamp(text)
    except ValueError as error:
        msg = f"{text!r} is no time; expected one like 2026-01-31 or 2026-01-31T12:00"
        raise InputError(msg) from error
    return moment.tz_convert("UTC").tz_localize(None) if moment.tz is not None else moment


def by_session(events: Events, *, gap: str) -> Events:
    """Make a row of each session in place of its user, lazily.

    A session ends where the user pauses for longer than ``gap``. Its id is like
    ``ann/2026-01-31T12:00:00``: the user, and when it began. ``dedupe`` and ``min_user`` then hold
    for sessions, ``max_user`` still for users. Such a store is not appended to, since what comes
    later may belong to a session that is there; ``forget`` takes the ids of sessions.

    Parameters
    ----------
    events : Events
    gap : text like "30min", at least a second

    Raises
    ------
    InputError
        The events have no timestamps, or the gap cannot be read or is too short.
    """
    if not events.has_timestamps:
        msg = f"{events.source} was read without timestamps; name their column in read_events"
        raise InputError(msg)
    micros = check_duration(gap, name="gap")
    if micros < 10**6:  # two sessions of one user must not begin within one second
        msg = f"gap is {gap!r}; expected at least a second"
        raise InputError(msg)
    return replace(events, rules=replace(events.rules, session_gap=micros))


def pseudonymise(events: Events, *, key: bytes) -> Events:
    """Replace user ids by keyed hashes, lazily, so that raw ids never reach a store.

    BLAKE2b with ``key``, 128 bits, as 32 hexadecimal digits; the same id and key always give the
    same pseudonym. Whoever has the key can find out whether an id they know is in a store.
    RFC 7693.

    Ids that :func:`keep_ids` and :func:`drop_ids` listed before are replaced likewise.

    Parameters
    ----------
    events : Events
    key : bytes
        16 to 64 secret bytes; they are in the graph of ``events.frame``, never in a store.

    Raises
    ------
    InputError
        The key is too short or too long.
    """
    if not 16 <= len(key) <= 64:
        msg = "key must be 16 to 64 secret bytes, for instance secrets.token_bytes(32)"
        raise InputError(msg)
    rows = tuple(
        replace(rule, ids=tuple(_pseudonym(each, key) for each in rule.ids))
        if isinstance(rule, _Listed) and rule.side == USER
        else rule
        for rule in events.rules.rows
    )
    hidden = change_events(events, partial(_pseudonyms, key=key), kinds={USER: "string"})
    return replace(hidden, rules=replace(events.rules, rows=rows))


def _pseudonyms(frame: pd.DataFrame, *, key: bytes) -> pd.DataFrame:
    codes, ids = pd.factorize(frame[USER])
    names = [_pseudonym(each, key) for each in ids]
    hashed = pd.Series(names, dtype="str").reindex(codes).set_axis(frame.index)
    return frame.assign(**{USER: hashed})


def _pseudonym(each: int | str, key: bytes) -> str:
    return blake2b(str(each).encode(), digest_size=16, key=key).hexdigest()


def fault_names(events: Events) -> tuple[str, ...]:
    """Return :data:`FAULTS` in the words that fit a log: an id that is no UUID is missing, too."""
    return tuple(
        f"{fault} or no UUID" if events.kinds.get(side) == "uuid" else fault
        for fault, side in zip_longest(FAULTS, (USER, ITEM))
    )


def row_faults(frame: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.int8]]:
    """Return for each row the number of its fault in :data:`FAULTS`, -1 for a good row."""
    tests: list[Bools] = [
        frame[USER].isna().to_numpy(),
        frame[ITEM].isna().to_numpy(),
        _bad_values(frame[VALUE]) if VALUE in frame else np.zeros(len(frame), np.bool_),
        _bad_times(frame[TIMESTAMP]) if TIMESTAMP in frame else np.zeros(len(frame), np.bool_),
    ]
    faults = np.full(len(frame), -1, np.int8)
    for number in reversed(range(len(FAULTS))):
        faults[tests[number]] = number
    return faults


def _bad_values(values: pd.Series) -> Bools:
    # stored as float32, where a larger number would be infinite
    return np.asarray(~(np.abs(values.to_numpy()) <= np.finfo(np.float32).max))


def _bad_times(times: pd.Series) -> Bools:
    # not-a-time is the least of all integers
    return np.asarray(times.to_numpy("datetime64[us]").view(np.int64) < 0)


def row_rules(rules: CleanRules) -> tuple[RowRule, ...]:
    """Return all that is asked of each row by itself, in the order in which it is applied."""
    return (*rules.rows, *([_InRange(*rules.value_range)] if rules.value_range else []))


def audit_dataset(steps: Sequence[AuditStep]) -> xr.Dataset:
    """Label the audit: ``rows_in``, ``rows_out`` and ``why`` by ``step``."""
    columns = list(zip(*steps, strict=True)) if steps else [(), (), (), ()]
    return xr.Dataset(
        {
            "rows_in": (STEP, np.array(columns[1], np.int64)),
            "rows_out": (STEP, np.array(columns[2], np.int64)),
            "why": (STEP, np.array(columns[3], object)),
        },
        coords={STEP: np.array(columns[0], object)},
    )
