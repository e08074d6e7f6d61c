"""Checks at the door; each returns what it checked, or says what was given and what is expected."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from dasrec.errors import InputError
from dasrec.typing import Duration, Moment, Rng

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def check_count(value: int, *, name: str, least: int = 1, most: int | None = None) -> int:
    """Return ``value`` if it is a whole number from ``least`` to ``most``."""
    given: object = value  # annotations do not stop a caller
    whole = isinstance(given, (int, np.integer)) and not isinstance(given, bool)
    if not whole or value < least or (most is not None and value > most):
        limit = f"at least {least}" if most is None else f"from {least} to {most}"
        msg = f"{name} is {value!r}; expected a whole number, {limit}"
        raise InputError(msg)
    return int(value)


def check_number(
    value: float, *, name: str, above: float | None = None, least: float | None = None
) -> float:
    """Return ``value`` if it is a finite number, above ``above``, at least ``least``."""
    given: object = value
    good = isinstance(given, (int, float, np.number)) and np.isfinite(given)
    if good and (above is None or value > above) and (least is None or value >= least):
        return float(value)
    limit = f" greater than {above}" if above is not None else ""
    limit += f" of at least {least}" if least is not None else ""
    msg = f"{name} is {value!r}; expected a finite number{limit}"
    raise InputError(msg)


def check_fraction(value: float, *, name: str) -> float:
    """Return ``value`` if it lies strictly between 0 and 1."""
    given: object = value
    if not isinstance(given, (float, np.floating)) or not 0 < value < 1:
        msg = f"{name} is {value!r}; expected a number between 0 and 1, for instance 0.2"
        raise InputError(msg)
    return float(value)


def check_moment(value: Moment, *, name: str) -> int:
    """Return a date or time in microseconds since 1970, UTC unless it says otherwise."""
    try:
        moment = datetime.datetime.fromisoformat(str(value))
    except ValueError as error:
        msg = f"{name} is {value!r}; expected a date or time like 2026-01-31 or 2026-01-31T12:00"
        raise InputError(msg) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return (moment - _EPOCH) // datetime.timedelta(microseconds=1)


def check_duration(value: Duration, *, name: str) -> int:
    """Return a time above 0 in microseconds."""
    try:
        micros = round(pd.Timedelta(value).total_seconds() * 1e6)
    except (TypeError, ValueError):
        micros = 0
    if micros <= 0:
        msg = f'{name} is {value!r}; expected a time like "30min" or "7D", above 0'
        raise InputError(msg)
    return micros


def check_choice[T](value: T, *, name: str, choices: Collection[T]) -> T:
    """Return ``value`` if it is one of ``choices``."""
    if value not in choices:
        known = ", ".join(str(choice) for choice in choices)
        msg = f"{name} is {value!r}; expected one of: {known}"
        raise InputError(msg)
    return value


def check_columns(present: Sequence[str], wanted: Collection[str], *, where: str) -> None:
    """Refuse a table that lacks one of the ``wanted`` columns, naming those that it has."""
    missing = [name for name in wanted if name not in present]
    if missing:
        msg = (
            f"{where} has no column {', '.join(repr(name) for name in missing)}; "
            f"it has: {', '.join(repr(name) for name in present)}"
        )
        raise InputError(msg)


def check_lengths(lengths: int | Sequence[int], *, n_items: int) -> tuple[int, ...]:
    """Return list lengths, ascending, each from 1 to the size of the catalogue."""
    given = [lengths] if isinstance(lengths, (int, np.integer)) else list(lengths)
    if not given:
        msg = "n is empty; expected one list length or more, for instance n=(10, 20)"
        raise InputError(msg)
    for n in given:
        check_count(n, name="n", least=1)
        if n > n_items:
            msg = f"n is {n}, but the catalogue has only {n_items} items; choose n <= {n_items}"
            raise InputError(msg)
    return tuple(sorted({int(n) for n in given}))


def seed_of(rng: Rng) -> int:
    """Return the seed that ``rng`` stands for; None gives a fresh one."""
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(2**62))
    if rng is None:
        return int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> 2)
    return check_count(rng, name="rng", least=0, most=2**62)
