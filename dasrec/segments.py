"""A vocabulary that stays in its store: it reads the chunks that a question needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from dasrec import memory, store
from dasrec.forgotten import names_somebody, places_of
from dasrec.runs import Runs
from dasrec.typing import Ids, Ints, Longs
from dasrec.vocabulary import Vocabulary, as_ids

LOAD_IDS = 2**20
"""Up to this many ids are kept in memory with an index, once one is looked for.

To make the index takes as long as a few searches, and then an answer takes microseconds.
"""

_BYTES = {"ids": (8, 120), "index": (50, 240)}  # an id takes as integer and, roughly, as string


class StoredVocabulary(Vocabulary):
    """One side's ids, in a store: each group has a segment of them, those that were new in it.

    Parameters
    ----------
    group_urls : sequence of str, oldest first
    name : of the array of ids in each group
    what : "user" or "item", for messages

    Notes
    -----
    Cost: a question reads the chunks that may hold the answers, one at a time; of 10 million ids,
    one is found in some 0.1 s and a million in 5 s, a tenth of that for integers. Of ids in no
    order, and of up to :data:`LOAD_IDS` ids, the first :meth:`find` reads all and keeps them. What
    is kept does not travel with tasks.
    """

    def __init__(self, group_urls: Sequence[str], name: str, what: str) -> None:
        self.what = what
        self._place = (tuple(group_urls), name)

    def __reduce__(self) -> Any:
        return StoredVocabulary, (*self._place, self.what)

    @cached_property
    def _segments(self) -> list[Segment]:
        groups, name = self._place
        return [Segment(group, name) for group in groups]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the ids: int64, or object for strings; reads no id."""
        kind = self._segments[0].dtype
        return kind if kind == np.int64 else np.dtype(object)

    def __len__(self) -> int:
        return sum(segment.n for segment in self._segments)

    @cached_property
    def ids(self) -> Ids:
        """All ids in order, read now and kept: int64 or str objects, shape (n,).

        Raises
        ------
        BudgetError
            They would not fit in memory.
        """
        remedy = "ask find(), numbers(), ids_of() or pieces(), which read what they need"
        self._check_fits("ids", remedy)
        return np.concatenate(list(self.pieces()))

    @cached_property
    def _index(self) -> pd.Index[Any]:
        remedy = "write the store from a log, or with ids that ascend, to search it by the chunk"
        self._check_fits("index", remedy)
        return super()._index

    def _check_fits(self, what: str, remedy: str) -> None:
        memory.check_fits(
            len(self) * _BYTES[what][self.dtype != np.int64],
            limit=memory.limit(),
            what=f"{'holding' if what == 'ids' else 'an index of'} {len(self):,} {self.what} ids",
            remedy=remedy,
        )

    def pieces(self) -> Iterator[Ids]:
        """Yield all ids in order, a chunk at a time."""
        for segment in self._segments:
            # a segment without ids has a piece too, which says of what kind they are
            for start in range(0, max(1, segment.n), segment.chunk):
                yield segment.read(start, start + segment.chunk).astype(self.dtype, copy=False)

    def find(self, ids: Ids) -> Ints:
        """Return the numbers of ``ids`` as int32, -1 for those that are not known."""
        if len(self) <= LOAD_IDS or any(segment.runs is None for segment in self._segments):
            return super().find(ids)
        wanted = as_ids(ids)
        found = np.full(len(wanted), -1, np.int32)
        if wanted.dtype != self.dtype:
            return found
        rows, keys = _stored(wanted)
        base = 0
        for segment in self._segments:
            places = segment.find(keys)
            here = places >= 0
            found[rows[here]] = base + places[here]
            rows, keys = rows[~here], keys[~here]
            base += segment.n
        return found

    def _at(self, places: Ints | Longs) -> Ids:
        if "ids" in vars(self):
            return self.ids[places]
        found = np.empty(len(places), self.dtype)
        starts = np.cumsum([0, *(segment.n for segment in self._segments)])
        for number, rows in _groups(np.searchsorted(starts, places, side="right") - 1):
            found[rows] = self._segments[number].at(places[rows] - starts[number])
        return found


class Segment:
    """The ids that one group adds to a vocabulary, as it stores them."""

    def __init__(self, group_url: str, name: str) -> None:
        self._place = (group_url, name)
        self.n, self.chunk, self.dtype = store.id_layout(group_url, name)

    @cached_property
    def runs(self) -> Runs | None:
        """Where the ids ascend; None if they cannot be searched."""
        return store.read_runs(*self._place)

    def read(self, start: int, stop: int) -> Ids:
        """Read some ids."""
        return store.read_ids(*self._place, start, stop)

    def at(self, places: Longs) -> Ids:
        """Read the ids at some places, each chunk once."""
        found = np.empty(len(places), self.dtype)
        for number, rows in _groups(places // self.chunk):
            found[rows] = self._chunk(number)[places[rows] - number * self.chunk]
        return found

    def find(self, keys: Ids) -> Longs:
        """Return the place of each of some ids, -1 for those that are not there; int64.

        Only where ``runs`` is not None. ``keys`` are as the store holds ids.
        """
        runs: Any = self.runs
        found = np.full(len(keys), -1, np.int64)
        bounds = runs.bounds(self.n, self.chunk)
        firsts = np.searchsorted(bounds, runs.starts)
        chunk_of = lru_cache(maxsize=1)(self._chunk)  # short runs lie in one
        for first, last in pairwise([*firsts, len(bounds) - 1]):
            left = np.flatnonzero(found < 0)
            # the first piece that does not end before the id is the only one that may have it
            pieces = first + np.searchsorted(runs.ends[first:last], keys[left])
            for piece, some in _groups(pieces):
                if piece < last:
                    start, stop = bounds[piece : piece + 2]
                    offset = start % self.chunk
                    ids = chunk_of(start // self.chunk)[offset : offset + stop - start]
                    places = _search(ids, start, keys[left[some]])
                    found[left[some]] = np.where(places >= 0, start + places, -1)
        self._find_nobody(keys, found)
        return found

    def _chunk(self, number: int) -> Ids:
        return self.read(number * self.chunk, (number + 1) * self.chunk)

    def _find_nobody(self, keys: Ids, found: Longs) -> None:
        """Find the ids of forgotten users, which break the order but say their own place."""
        rows = np.flatnonzero(found < 0)
        places = places_of(keys[rows])
        inside = (places >= 0) & (places < self.n)
        rows, places = rows[inside], places[inside]
        same = self.at(places) == keys[rows]
        found[rows[same]] = places[same]


def _groups(numbers: Longs) -> Iterator[tuple[int, Longs]]:
    """Yield each number that occurs, ascending, and where it does."""
    order = np.argsort(numbers, kind="stable")
    values, starts = np.unique(numbers[order], return_index=True)
    # of no numbers, split makes a part all the same
    yield from zip(values.tolist(), np.split(order, starts[1:]), strict=False)


def _search(ids: Ids, start: int, keys: Ids) -> Longs:
    """Return where in a chunk that begins at place ``start`` each id stands, -1 for nowhere."""
    there = np.arange(len(ids))
    if not (ids[1:] > ids[:-1]).all():
        there = np.flatnonzero(names_somebody(ids, start))
        ids = ids[there]
    places = np.minimum(np.searchsorted(ids, keys), len(ids) - 1)
    return np.where(ids[places] == keys, there[places], -1)


def _stored(ids: Ids) -> tuple[Longs, Ids]:
    """Return the ids as a store holds them, and their rows; what no store can hold is left out."""
    rows = np.arange(len(ids))
    if ids.dtype == np.int64:
        return rows, ids
    try:
        return rows, ids.astype(np.dtypes.StringDType())
    except UnicodeEncodeError:  # halves of surrogate pairs, which are no text
        text = [each.encode(errors="ignore").decode() == each for each in ids.tolist()]
        return rows[text], ids[text].astype(np.dtypes.StringDType())
