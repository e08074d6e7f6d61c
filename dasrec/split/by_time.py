"""Splits by moments: one for all, or windows that roll over the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dasrec.checks import check_count, check_duration, check_fraction, check_moment
from dasrec.errors import InputError
from dasrec.interactions import Interactions
from dasrec.split.base import ALWAYS, Part, Split, check_timed, halves
from dasrec.typing import Bools, Duration, Ints, Longs, Moment, Side

_BINS = 2**16


@dataclass(frozen=True)
class After(Part):
    """Interactions later than a moment, int64 microseconds since 1970."""

    cut: int
    needs_timestamp = True

    def __call__(self, users: Ints, items: Ints, timestamps: Longs | None) -> Bools:
        """Mark them."""
        return np.equal(_present(timestamps) > self.cut, self.inside)

    @property
    def span(self) -> tuple[int, int]:
        """Return the side of the cut."""
        return (self.cut + 1, ALWAYS[1]) if self.inside else (ALWAYS[0], self.cut)


@dataclass(frozen=True)
class Between(Part):
    """Interactions from a moment on and before another, int64 microseconds since 1970."""

    start: int
    stop: int
    needs_timestamp = True

    def __call__(self, users: Ints, items: Ints, timestamps: Longs | None) -> Bools:
        """Mark them."""
        times = _present(timestamps)
        return np.equal((times >= self.start) & (times < self.stop), self.inside)

    @property
    def span(self) -> tuple[int, int]:
        """Return the window."""
        return (self.start, self.stop - 1) if self.inside else ALWAYS


def _present(timestamps: Longs | None) -> Longs:
    if timestamps is None:
        msg = "a split by time needs timestamps"
        raise InputError(msg)
    return timestamps


def split_by_time(
    interactions: Interactions, fraction: float = 0.2, *, since: Moment | None = None
) -> Split:
    """Test on the latest ``fraction`` of all interactions, as a running service would.

    The moment is found eagerly, in a few passes over the timestamps; interactions at the very same
    moment stay together, so the share may be a little smaller.

    Parameters
    ----------
    interactions : Interactions
    fraction : float
    since : ISO 8601 date or time, optional
        Test on everything from then on instead, UTC unless it says otherwise; nothing is read.

    Raises
    ------
    InputError
        The store has no timestamps, or all of them are equal; ``since`` is no moment.
    """
    if since is not None:
        mask = After(inside=True, cut=check_moment(since, name="since") - 1)
        return halves(check_timed(interactions), f"time:{since}", mask)
    check_fraction(fraction, name="fraction")
    cut = _time_quantile(check_timed(interactions), 1 - fraction)
    return halves(interactions, f"time:{fraction}", After(inside=True, cut=cut))


def split_rolling(
    interactions: Interactions,
    windows: int = 4,
    *,
    width: Duration,
    gap: Duration | None = None,
    train: Duration | None = None,
    end: Moment | None = None,
) -> Iterator[Split]:
    """Yield ``windows`` splits: each tests on one window of time and trains on what came before.

    The windows follow each other, the earliest comes first and the last one ends at ``end``.

    Parameters
    ----------
    interactions : Interactions
    windows : int
    width : text like "7D", or timedelta
        Of each window; its start belongs to it, its end does not.
    gap : the same, optional
        What to leave out between training and the window, as a service does that takes time to
        learn.
    train : the same, optional
        Train on no more than this long before the gap; on everything by default.
    end : ISO 8601 date or time, optional
        UTC unless it says otherwise; just after the newest interaction by default.

    Raises
    ------
    InputError
        The store has no timestamps, an argument is not as above, or the log does not reach back
        to before the first window.

    Notes
    -----
    Without ``end`` the timestamps are read once, now and for all windows; with it, nothing is.
    """
    check_count(windows, name="windows")
    check_timed(interactions)
    step, pause = check_duration(width, name="width"), 0
    spec = f":{_spell(width, step)}"
    if gap is not None:
        pause = check_duration(gap, name="gap")
        spec += f":gap={_spell(gap, pause)}"
    span = None
    if train is not None:
        span = check_duration(train, name="train")
        spec += f":train={_spell(train, span)}"
    if end is None:
        stop = _end_of(interactions, windows * step + pause)
    else:
        stop = check_moment(end, name="end")
        spec += f":end={end}"
    starts = [stop - (windows - number) * step for number in range(windows)]
    tests = [Between(inside=True, start=start, stop=start + step) for start in starts]
    return (
        _window(interactions, f"rolling:{number}/{windows}{spec}", test, (pause, span))
        for number, test in enumerate(tests, 1)
    )


def _window(
    interactions: Interactions, spec: str, test: Between, before: tuple[int, int | None]
) -> Split:
    pause, span = before
    stop = test.start - pause
    mask: Part = After(inside=False, cut=stop - 1)
    if span is not None:
        mask = Between(inside=True, start=stop - span, stop=stop)
    train = interactions.where(mask)
    return Split(spec=spec, train=train, seen=train, test=interactions.where(test))


def _spell(given: Duration, micros: int) -> str:
    return given if isinstance(given, str) else f"{micros}us"


def _end_of(interactions: Interactions, needed: int) -> int:
    """Return the moment just after the newest interaction, if the log is longer than needed."""
    first, last, _ = _ends(interactions)
    if last + 1 - needed <= first:
        days = max(0, last - first) / 86_400e6
        msg = (
            f"the log spans {days:.3g} days, and windows and gap take {needed / 86_400e6:.3g}, "
            "which leaves nothing to train on; choose fewer or narrower windows"
        )
        raise InputError(msg)
    return last + 1


def _time_quantile(interactions: Interactions, share: float) -> int:
    """Find the least moment up to which ``share`` of them happened, by refining histograms."""
    low, high, n = _ends(interactions)
    if low >= high:
        msg = f"all timestamps of {interactions.url} are equal; expected a log that spans some time"
        raise InputError(msg)
    latest = high
    # a little less, since 1 - 0.7 is a little more than 0.3
    goal = share * n * (1 - 1e-12)
    while True:
        width = (high - low) // _BINS + 1
        parts = interactions.map_blocks(
            _time_histogram, "user_items", low, width, name="split-block"
        )
        # a histogram counts what lies before its first bin in its first place
        below = np.cumsum(np.sum(parts, axis=0))
        place = int(np.searchsorted(below[1:], goal))
        low, high = low + place * width, low + (place + 1) * width - 1
        if width == 1:
            return min(int(low), latest - 1)


def _ends(interactions: Interactions) -> tuple[int, int, int]:
    """Return the oldest and the newest moment, and how many interactions there are."""
    ends = interactions.map_blocks(_block_ends, "user_items", name="split-block")
    return min(end[0] for end in ends), max(end[1] for end in ends), sum(end[2] for end in ends)


def _block_ends(view: Interactions, side: Side, start: int, stop: int) -> tuple[int, int, int]:
    times = view.read_times(side, start, stop)
    return int(times.min(initial=ALWAYS[1])), int(times.max(initial=0)), len(times)


def _time_histogram(
    view: Interactions, side: Side, start: int, stop: int, low: int, width: int
) -> NDArray[np.int64]:
    bins = np.clip((view.read_times(side, start, stop) - low) // width + 1, 0, _BINS + 1)
    return np.bincount(bins, minlength=_BINS + 2)
