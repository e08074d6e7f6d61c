"""Transforms that need to know little: logarithm, threshold, limits, age."""

from __future__ import annotations

import numpy as np

from dasrec.checks import check_moment, check_number
from dasrec.errors import InputError
from dasrec.interactions import Interactions
from dasrec.normalise.base import Cells, Doubles, Entity, WeightTransform, check_something
from dasrec.schema import USER_ITEMS
from dasrec.typing import Longs, Side

_DAY = 86_400e6  # microseconds


class Log1p(WeightTransform):
    """log(1 + w / epsilon): the tenth play says less than the second.

    Inverse: epsilon (exp(w') - 1). Weights must be >= 0.

    Parameters
    ----------
    epsilon : float, > 0

    Notes
    -----
    Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008,
    doi:10.1109/ICDM.2008.22: their confidence may be 1 + alpha log(1 + r / epsilon).

    Examples
    --------
    >>> import numpy as np
    >>> zeros = np.zeros(3, np.int32)
    >>> print(Log1p()(zeros, zeros, np.array([0, 1, 10], np.float32)).round(2))
    [0.   0.69 2.4 ]
    """

    learns = False

    def __init__(self, *, epsilon: float = 1.0) -> None:
        self.epsilon = epsilon

    def _check(self) -> None:
        check_number(self.epsilon, name="epsilon", above=0)

    def _forward(self, cells: Cells, weights: Doubles) -> Doubles:
        return np.log1p(self._nonnegative(weights) / self.epsilon)

    def _backward(self, cells: Cells, weights: Doubles) -> Doubles:
        with np.errstate(over="ignore"):  # what is too large is told by name later
            return np.expm1(weights) * self.epsilon


class Binarise(WeightTransform):
    """1 where a weight is above the threshold, else 0; such a cell stays stored. No inverse.

    To leave such cells out altogether, clean the log with ``value_range``.

    Parameters
    ----------
    threshold : float
    """

    learns = False

    def __init__(self, *, threshold: float = 0.0) -> None:
        self.threshold = threshold

    def _check(self) -> None:
        check_number(self.threshold, name="threshold")

    def _forward(self, cells: Cells, weights: Doubles) -> Doubles:
        return (weights > self.threshold).astype(np.float64)


class Clip(WeightTransform):
    """min(max(w, low), high). No inverse.

    Parameters
    ----------
    low, high : float, optional
        Without one, that end is open; one at least is given.
    """

    learns = False

    def __init__(self, *, low: float | None = None, high: float | None = None) -> None:
        self.low = low
        self.high = high

    def _check(self) -> None:
        ends = [
            check_number(end, name=name)
            for name, end in (("low", self.low), ("high", self.high))
            if end is not None
        ]
        if not ends or ends != sorted(ends):
            msg = (
                f"low is {self.low!r} and high is {self.high!r}; expected at least one of them, "
                "and low <= high"
            )
            raise InputError(msg)

    def _forward(self, cells: Cells, weights: Doubles) -> Doubles:
        return np.clip(weights, self.low, self.high)


class TimeDecay(WeightTransform):
    """w 2^(-age / half_life), where age is counted back from ``now``; later ones stay as they are.

    Inverse: w' 2^(age / half_life), unless so little is left that float32 has lost it.

    Parameters
    ----------
    half_life : float, > 0
        In days.
    now : ISO 8601 date or time, optional
        UTC unless it says otherwise; if not given, the latest moment in training.

    Attributes
    ----------
    now_ : int64, shape ()
        Microseconds since 1970-01-01 UTC.

    Notes
    -----
    Ding and Li, "Time weight collaborative filtering", CIKM 2005, doi:10.1145/1099554.1099689.
    """

    needs_timestamp = True
    now_: Longs

    def __init__(self, *, half_life: float, now: str | None = None) -> None:
        self.half_life = half_life
        self.now = now

    def _check(self) -> None:
        check_number(self.half_life, name="half_life", above=0)
        if self.now is not None:
            check_moment(self.now, name="now")

    def _learn(self, interactions: Interactions) -> tuple[Entity, ...]:
        given = None if self.now is None else check_moment(self.now, name="now")
        self.now_ = np.array(_latest(interactions) if given is None else given, np.int64)
        return ()

    def _factors(self, cells: Cells) -> Doubles:
        if cells.timestamps is None:
            msg = "TimeDecay needs the timestamps of the cells, and none were given"
            raise InputError(msg)
        ages = np.maximum(self.now_ - np.asarray(cells.timestamps, np.int64), 0)
        return np.exp2(-(ages / (self.half_life * _DAY)))

    def _forward(self, cells: Cells, weights: Doubles) -> Doubles:
        return weights * self._factors(cells)

    def _backward(self, cells: Cells, weights: Doubles) -> Doubles:
        factors = self._factors(cells)
        if (factors < np.finfo(np.float32).tiny).any():
            msg = (
                "some weights are more than 126 half-lives old, and float32 has lost what was left "
                "of them; keep the interactions as they were before TimeDecay"
            )
            raise InputError(msg)
        return weights / factors


def _latest(interactions: Interactions) -> int:
    if not interactions.has_timestamps:
        msg = (
            f"{interactions.url} has no timestamps and TimeDecay needs them; write it again from a "
            "log with a timestamp column"
        )
        raise InputError(msg)
    latest = max(interactions.map_blocks(_latest_block, USER_ITEMS, name="normalise-block"))
    check_something(latest + 1, interactions)
    return int(latest)


def _latest_block(view: Interactions, side: Side, start: int, stop: int) -> int:
    return int(view.read_times(side, start, stop).max(initial=-1))
