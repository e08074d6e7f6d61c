"""Cleaning: bad rows, values out of range, duplicates, rare users and items, each counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from dasrec.checks import check_choice, check_count, check_number
from dasrec.errors import InputError
from dasrec.events import CleanRules, Events
from dasrec.schema import ITEM, STEP, TIMESTAMP, USER, VALUE
from dasrec.typing import BadRows, Bools, Dedupe

FAULTS = (
    "user id is missing",
    "item id is missing",
    "value is not a finite number",
    "timestamp is missing, unparsable or before 1970",
)
"""Why a row is bad; a row counts once, for the first reason that holds."""

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

    Returns
    -------
    Events, with these rules in place of any before.

    Raises
    ------
    InputError
        An argument is not what is expected.

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
    rules = CleanRules(bad_rows, dedupe, min_user, min_item, value_range)
    return replace(events, rules=rules)


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


def outside(frame: pd.DataFrame, value_range: tuple[float, float] | None) -> Bools:
    """Mark the rows whose value lies outside ``value_range``."""
    if value_range is None or VALUE not in frame:
        return np.zeros(len(frame), np.bool_)
    return np.asarray(~frame[VALUE].between(*value_range))


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
