"""Numbers for the ids of a log, merged by ranges on disk, so that no process holds all ids."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dasrec import files
from dasrec.errors import InputError
from dasrec.ids import number_texts, text_bytes, texts_of
from dasrec.journal import Journal, Shared
from dasrec.kernels.hashing import number_ids
from dasrec.typing import Bools, Ids, Ints, Longs
from dasrec.vocabulary import Vocabulary

ID_ROWS = 2**13
"""Ids in a scratch file: what a range read takes at a time."""

MERGE_ROWS = 2**21
"""Entries that one merging task holds; an id counts once for each part that has it."""


class IdFiles(NamedTuple):
    """The distinct ids of one part of a log, ascending, with their counts."""

    folder: str
    firsts: list[Any]  # every ID_ROWS-th
    n: int
    whole: bool  # whether they are integers


class IdRange(NamedTuple):
    """The distinct ids of all parts within a range, and what number each part's ids have."""

    ids: IdFiles
    base: int  # the number of the first id
    offsets: Longs  # where each part's ranks begin in the file of ranks


class MergedIds(NamedTuple):
    """A vocabulary on disk, numbered in ascending order of ids, known ones before new ones."""

    ranges: list[IdRange]
    counts: Longs  # how often each id occurs, by number
    remap: Ints | None = None  # the number of each id in ascending order, if another
    n_known: int = 0

    def numbers(self, part: int) -> Ints:
        """Return the numbers of one part's distinct ids, in their order."""
        pieces = [
            files.read_column(
                files.join(each.ids.folder, "ranks"),
                np.int32,
                each.offsets[part],
                each.offsets[part + 1],
            )
            + np.int32(each.base)
            for each in self.ranges
        ]
        ranks = np.concatenate(pieces)
        return ranks if self.remap is None else self.remap[ranks]

    def after(self, known: Vocabulary) -> MergedIds:
        """Number the ids that ``known`` has as it does, the others after them, ascending."""
        found = [known.find(ids) for ids in self._all()]
        remap = np.concatenate(found)
        new = remap < 0
        remap[new] = len(known) + np.arange(new.sum(), dtype=np.int32)
        counts = np.zeros(len(known) + int(new.sum()), np.int64)
        counts[remap] = self.counts
        return MergedIds(self.ranges, counts, remap, len(known))

    def _all(self) -> Iterator[Ids]:
        for each in self.ranges:
            ids = _read_ids(each.ids, 0, each.ids.n)
            yield ids.to_numpy(np.int64 if each.ids.whole else object)

    def light(self) -> MergedIds:
        """Return the same without counts, small enough to travel with tasks."""
        return self._replace(counts=np.empty(0, np.int64))

    def pieces(self, keep: Bools) -> Iterator[Ids]:
        """Yield the new ids that ``keep`` marks by number, in order, a range at a time."""
        start = 0
        for ids in self._all():
            span = np.arange(start, start + len(ids))
            numbers = span if self.remap is None else self.remap[span]
            yield ids[keep[numbers] & (numbers >= self.n_known)]
            start += len(ids)


def factorize(column: pd.Series) -> tuple[Ints, pd.Series, Longs]:
    """Number the ids of a column without gaps in ascending order, strings by code point.

    Returns
    -------
    codes : int32, shape (n,)
    ids : Series of the distinct ids, ascending
    counts : int64, how often each occurs
    """
    if not pd.api.types.is_integer_dtype(column.dtype):
        return number_texts(column)
    codes, ids, counts = number_ids(column.to_numpy(np.int64))
    return codes, pd.Series(ids, copy=False), counts


def save_ids(folder: str, ids: pd.Series, counts: Longs) -> IdFiles:
    """Write the distinct ids of one part, so that ranges of them can be read."""
    files.make_folder(folder)
    whole = pd.api.types.is_integer_dtype(ids.dtype)
    found: dict[str, NDArray[Any]] = {"counts": counts}
    if whole:
        found["ids"] = ids.to_numpy(np.int64)
    else:
        found["offsets"], found["texts"] = text_bytes(ids)
    with files.writing(folder):
        for name, values in found.items():
            files.write_column(files.join(folder, name), values)
    return IdFiles(folder, ids.iloc[::ID_ROWS].tolist(), len(ids), whole)


def _read_ids(part: IdFiles, start: int, stop: int) -> pd.Series:
    """Return ids ``start:stop`` of a part."""
    if part.whole:
        ids = files.read_column(files.join(part.folder, "ids"), np.int64, start, stop)
        return pd.Series(ids, copy=False)
    place = files.join(part.folder, "offsets")
    offsets = files.read_column(place, np.int64, start, stop + 1)
    place = files.join(part.folder, "texts")
    return texts_of(offsets, files.read_column(place, np.uint8, offsets[0], offsets[-1]))


def merge_ids(parts: Sequence[IdFiles], journal: Journal, *, what: str) -> MergedIds:
    """Merge the ids of all parts into one numbering that does not depend on how a log is cut.

    Ids are cut into ranges, one task each, so the vocabulary may be larger than memory; only the
    counts, 8 bytes an id, come back to the caller.
    """
    edges, shared = _edges(parts), journal.share(list(parts), f"{what}-ids")
    arguments = [
        (shared, edges[r], edges[r + 1], journal.path(f"{what}-{r}")) for r in range(len(edges) - 1)
    ]
    merged = journal.run(_merge_range, arguments, name=f"ingest-{what}-ids")
    ranges, base = [], 0
    for ids, counts, offsets in merged:
        ranges.append(IdRange(ids, base, offsets))
        base += len(counts)
    if base > np.iinfo(np.int32).max:
        msg = f"there are {base:,} {what} ids; at most {np.iinfo(np.int32).max:,} can be numbered"
        raise InputError(msg)
    return MergedIds(ranges, np.concatenate([counts for _, counts, _ in merged]))


def _edges(parts: Sequence[IdFiles]) -> list[Any]:
    """Cut all ids into ranges of about MERGE_ROWS entries; None is open at either end."""
    firsts = sorted(first for part in parts for first in part.firsts)
    step = max(1, MERGE_ROWS // ID_ROWS)
    inner = sorted(set(firsts[step::step]))
    return [None, *inner, None]


def _merge_range(parts: Shared, low: Any, high: Any, folder: str) -> tuple[IdFiles, Longs, Longs]:
    """Merge the ids in [low, high): them, the counts of each, where each part's ranks begin."""
    found = [_read_range(part, low, high) for part in parts.load()]
    offsets = np.concatenate(([0], np.cumsum([len(ids) for ids, _ in found])))
    codes, ids, _ = factorize(pd.concat([ids for ids, _ in found], ignore_index=True))
    occurs = np.concatenate([each for _, each in found])
    counts = np.bincount(codes, weights=occurs, minlength=len(ids)).astype(np.int64)
    saved = save_ids(folder, ids, counts)
    with files.writing(folder):
        files.write_column(files.join(folder, "ranks"), codes)
    return saved._replace(firsts=[]), counts, offsets


def _read_range(part: IdFiles, low: Any, high: Any) -> tuple[pd.Series, Longs]:
    """Return the ids of a part in [low, high) and how often each occurs."""
    first = 0 if low is None else max(0, bisect.bisect_right(part.firsts, low) - 1)
    stop = len(part.firsts) if high is None else bisect.bisect_left(part.firsts, high)
    rows = first * ID_ROWS, min(max(stop, first + 1) * ID_ROWS, part.n)
    ids = _read_ids(part, *rows)
    counts = files.read_column(files.join(part.folder, "counts"), np.int64, *rows)
    within = slice(
        None if low is None else ids.searchsorted(low),
        None if high is None else ids.searchsorted(high),
    )
    return ids.iloc[within], counts[within]
