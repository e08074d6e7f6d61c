"""Slow twins of splits: tables of users, items and times, row by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tests.references import cell_uniform, last_n, mix, time_cut

TARGETS = 0.2
US = {"s": 10**6, "min": 60 * 10**6, "h": 3600 * 10**6, "D": 86_400 * 10**6}


@dataclass(frozen=True)
class Parts:
    """Which rows of a table belong to each part, boolean; ``seen`` is ``train`` if not given."""

    train: pd.Series
    test: pd.Series
    fold_in: pd.Series | None = None

    @property
    def seen(self) -> pd.Series:
        """Return what is known of users."""
        return self.train if self.fold_in is None else self.fold_in


def duration(text: str) -> int:
    """Return microseconds of 7D, 30min and the like."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyzD")
    return int(number) * US[text[len(number) :]]


def draws(table: pd.DataFrame, seed: int) -> pd.Series:
    """Hash each cell to [0, 1)."""
    cells = zip(table["user"].tolist(), table["item"].tolist(), strict=True)
    return pd.Series([cell_uniform(seed, *cell) for cell in cells], table.index, dtype=float)


def by_time(table: pd.DataFrame, fraction: float) -> Parts:
    """Test on what is later than the quantile."""
    test = table["time"] > time_cut(table["time"].to_numpy(), fraction)
    return Parts(~test, test)


def since(table: pd.DataFrame, moment: str) -> Parts:
    """Test on what happened then or later."""
    when = pd.to_datetime(table["time"], unit="us", utc=True)
    test = when >= pd.Timestamp(moment, tz="UTC")
    return Parts(~test, test)


def at_random(table: pd.DataFrame, low: float, high: float, seed: int) -> Parts:
    """Test on the cells whose hash falls in between."""
    test = draws(table, seed).between(low, high, inclusive="left")
    return Parts(~test, test)


def of_users(table: pd.DataFrame, fraction: float, targets: float, seed: int) -> Parts:
    """Hold out users, and test on a share of their rows."""
    held = table["user"].map(lambda user: cell_uniform(seed, user) < fraction).astype(bool)
    test = held & (draws(table, seed + 1) < targets)
    return Parts(~held, test, ~test)


def the_last(table: pd.DataFrame, n: int) -> Parts:
    """Test on the last n of each user who has more."""
    test = last_n(table, n)
    return Parts(~test, test)


def any_n(table: pd.DataFrame, n: int, seed: int) -> Parts:
    """Test on the n rows of least hash of each user who has more."""
    hashed = table.assign(draw=draws(table, seed))
    rank = hashed.groupby("user")["draw"].rank(method="first")
    size = hashed.groupby("user")["draw"].transform("size")
    test = (rank <= n) & (size > n)
    return Parts(~test, test)


def rolling(
    table: pd.DataFrame,
    place: tuple[int, int],
    width: str,
    *,
    gap: str | None = None,
    train: str | None = None,
    end: int | None = None,
) -> Parts:
    """Test on one of several windows that end at ``end``, or just after the newest row."""
    number, windows = place
    stop = int(table["time"].max()) + 1 if end is None else end
    start = stop - (windows - number + 1) * duration(width)
    last = start - (duration(gap) if gap else 0)
    first = last - duration(train) if train else -(2**63)
    time = table["time"]
    return Parts(
        (time >= first) & (time < last), (time >= start) & (time < start + duration(width))
    )


def next_seed(seed: int) -> int:
    """Return what a part is split with that was drawn with this seed before."""
    return mix(seed + 1) >> 2


def check(table: pd.DataFrame, parts: Parts, other: pd.Series | None = None) -> dict[str, Any]:
    """Count what :func:`dasrec.check_split` counts, of one part; ``other`` is tested elsewhere."""
    train, test = table[parts.train], table[parts.test]
    apart = parts.train | parts.seen
    if other is not None:
        apart |= other
    known = len(train) > 0 and len(test) > 0 and "time" in table
    newest = train["time"].max() if known else None
    return {
        "n_train": len(train),
        "n_test": len(test),
        "n_users": test["user"].nunique(),
        "n_items": test["item"].nunique(),
        "overlap": int((apart & parts.test).sum()),
        "leakage": float((test["time"] < newest).mean()) if known else np.nan,
        "cold_users": len({*test["user"]} - {*train["user"]}),
        "cold_items": len({*test["item"]} - {*train["item"]}),
    }
