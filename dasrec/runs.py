"""Ascending runs of ids: what is written beside a group's ids so that they can be searched."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from dasrec.forgotten import names_somebody
from dasrec.typing import Ids, Longs

MOST_RUNS = 1024
"""A search looks into every run, so what is more than so many times out of order is not searched.

A log is one run, and so is what is appended at a time; compaction lays them one after the other.
"""


class Runs(NamedTuple):
    """Where the ascending runs of an array of ids begin, and the last id of each piece of them.

    The starts of chunks cut runs into pieces. Ids that name nobody break no run.
    """

    starts: Longs
    ends: Ids

    def bounds(self, n: int, chunk: int) -> Longs:
        """Return where the pieces begin, and ``n``; int64, shape (n_pieces + 1,)."""
        cuts = np.union1d(self.starts, np.arange(0, n, chunk))
        # before the first run there are ids that name nobody
        return np.append(cuts[np.isin(cuts, self.starts).cumsum() > 0], n).astype(np.int64)


def find_runs(chunks: Iterable[Ids], kind: np.dtype[Any]) -> Runs | None:
    """Find the runs of an array from its chunks, as they are stored; None if they are too many."""
    starts: list[int] = []
    ends: list[Any] = []
    start, last = 0, None
    for ids in chunks:
        places = np.flatnonzero(names_somebody(ids, start))
        named = ids[places]
        rises = named[1:] > named[:-1]
        if len(named):
            rises = np.append(last is not None and named[0] > last, rises)
        begins = places[~rises]
        # a run ends where another begins, unless that is with the chunk, and so it does a piece
        stops = begins[begins > 0] if starts else begins[1:]
        if starts or len(begins):
            counts = np.searchsorted(places, [*stops, len(ids)])
            ends += [named[count - 1] if count else last for count in counts]
        starts += (start + begins).tolist()
        if len(starts) > MOST_RUNS:
            return None
        last = named[-1] if len(named) else last
        start += len(ids)
    return Runs(np.array(starts, np.int64), np.array(ends, kind))
