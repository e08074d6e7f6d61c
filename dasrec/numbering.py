"""Numbers for the ids of a log, merged by ranges on disk, so that no process holds all ids."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dasrec import files
from dasrec.errors import InputError
from dasrec.journal import Journal, Shared
from dasrec.kernels.hashing import number_ids
from dasrec.typing import Bools, Ids, Ints, Longs
from dasrec.vocabulary import Vocabulary

ID_ROWS = 2**13
"""Ids in a scratch file: what a range read takes at a time."""

MERGE_ROWS = 2**21
"""Entries that one merging task holds; an id counts once for each part that has it."""


_NO_TEXTS = pd.DataFrame({"ids": pd.Series([], dtype="str"), "counts": np.empty(0, np.int64)})


class IdFiles(NamedTuple):
    """The distinct ids of one part of a log, ascending, with their counts."""

    folder: str
    firsts: list[Any]  # every ID_ROWS-th
    n: int
    whole: bool  # whether they are integers


class IdRange(NamedTuple):
    """The distinct ids of all parts within a range, and what number each part's ids have."""

    folder: str
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
                files.join(each.folder, "ranks"),
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
            yield _to_ids(_load(files.join(each.folder, "ids"))["ids"])

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
    codes: Any
    ids: Any
    if pd.api.types.is_integer_dtype(column.dtype):
        codes, ids = number_ids(column.to_numpy(np.int64))
    else:
        codes, ids = pd.factorize(column, sort=True)
    return (
        codes.astype(np.int32, copy=False),
        pd.Series(ids, copy=False),
        np.bincount(codes, minlength=len(ids)),
    )


def save_ids(folder: str, ids: pd.Series, counts: Longs) -> IdFiles:
    """Write the distinct ids of one part, so that ranges of them can be read."""
    files.make_folder(folder)
    whole = pd.api.types.is_integer_dtype(ids.dtype)
    if whole:
        with files.writing(folder):
            files.write_column(files.join(folder, "ids"), ids.to_numpy(np.int64))
            files.write_column(files.join(folder, "counts"), counts)
    else:  # texts have no places by number: equal files, of which a range needs some
        for number, start in enumerate(range(0, len(ids), ID_ROWS)):
            rows = slice(start, start + ID_ROWS)
            _save(files.join(folder, str(number)), ids.iloc[rows], counts[rows])
    return IdFiles(folder, ids.iloc[::ID_ROWS].tolist(), len(ids), whole)


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
    for (_, _, _, folder), (counts, offsets) in zip(arguments, merged, strict=True):
        ranges.append(IdRange(folder, base, offsets))
        base += len(counts)
    if base > np.iinfo(np.int32).max:
        msg = f"there are {base:,} {what} ids; at most {np.iinfo(np.int32).max:,} can be numbered"
        raise InputError(msg)
    return MergedIds(ranges, np.concatenate([counts for counts, _ in merged]))


def _edges(parts: Sequence[IdFiles]) -> list[Any]:
    """Cut all ids into ranges of about MERGE_ROWS entries; None is open at either end."""
    firsts = sorted(first for part in parts for first in part.firsts)
    step = max(1, MERGE_ROWS // ID_ROWS)
    inner = sorted(set(firsts[step::step]))
    return [None, *inner, None]


def _merge_range(parts: Shared, low: Any, high: Any, folder: str) -> tuple[Longs, Longs]:
    """Merge the ids in [low, high): counts of each id, and where each part's ranks begin."""
    found = [_read_range(part, low, high) for part in parts.load()]
    offsets = np.concatenate(([0], np.cumsum([len(ids) for ids, _ in found])))
    codes, ids, _ = factorize(pd.concat([ids for ids, _ in found], ignore_index=True))
    occurs = np.concatenate([each for _, each in found])
    counts = np.bincount(codes, weights=occurs, minlength=len(ids)).astype(np.int64)
    files.make_folder(folder)
    _save(files.join(folder, "ids"), ids, counts)
    with files.writing(folder):
        files.write_column(files.join(folder, "ranks"), codes)
    return counts, offsets


def _read_range(part: IdFiles, low: Any, high: Any) -> tuple[pd.Series, Longs]:
    """Return the ids of a part in [low, high) and how often each occurs."""
    first = 0 if low is None else max(0, bisect.bisect_right(part.firsts, low) - 1)
    stop = len(part.firsts) if high is None else bisect.bisect_left(part.firsts, high)
    stop = min(max(stop, first + 1), len(part.firsts))
    if part.whole:
        rows = first * ID_ROWS, min(stop * ID_ROWS, part.n)
        ids = files.read_column(files.join(part.folder, "ids"), np.int64, *rows)
        counts = files.read_column(files.join(part.folder, "counts"), np.int64, *rows)
        within = slice(
            None if low is None else np.searchsorted(ids, low),
            None if high is None else np.searchsorted(ids, high),
        )
        return pd.Series(ids[within], copy=False), counts[within]
    loaded = [_load(files.join(part.folder, str(number))) for number in range(first, stop)]
    frame = pd.concat([_NO_TEXTS, *loaded], ignore_index=True)
    keep = np.ones(len(frame), np.bool_)
    if low is not None:
        keep &= (frame["ids"] >= low).to_numpy(np.bool_)
    if high is not None:
        keep &= (frame["ids"] < high).to_numpy(np.bool_)
    return frame["ids"][keep], frame["counts"].to_numpy(np.int64)[keep]


def _save(path: str, ids: pd.Series, counts: Longs) -> None:
    fs, inside = files.locate(path)
    frame = pd.DataFrame({"ids": ids.reset_index(drop=True), "counts": counts}, copy=False)
    with files.writing(path), fs.open(inside, "wb") as out:
        frame.to_feather(out, compression="lz4")


def _load(path: str) -> pd.DataFrame:
    fs, inside = files.locate(path)
    with files.reaching(path), fs.open(inside, "rb") as source:
        return pd.read_feather(source)


def _to_ids(column: pd.Series) -> Ids:
    whole = pd.api.types.is_integer_dtype(column.dtype)
    return column.to_numpy(np.int64) if whole else column.to_numpy(object)
