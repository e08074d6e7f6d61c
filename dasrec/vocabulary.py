"""Outside ids and the numbers that stand for them in the matrix, both ways."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dasrec import files
from dasrec.errors import InputError
from dasrec.journal import Journal, Shared
from dasrec.kernels.hashing import number_ids
from dasrec.typing import Bools, Ids, Ints, Longs

ID_ROWS = 2**16
"""Ids in a scratch file: what a range read takes at a time."""

MERGE_ROWS = 2**20
"""Entries that one merging task holds; an id counts once for each part that has it."""


class Lookup(NamedTuple):
    """What :meth:`Vocabulary.lookup` found."""

    numbers: Ints  # -1 for ids that are not known
    unseen: pd.Series  # how often each of those occurs, by id, the most frequent first


class Vocabulary:
    """One side's ids, in memory; the number of an id is its place.

    Parameters
    ----------
    ids : int64 or str, shape (n,), each once
    what : "user" or "item", for messages
    """

    what: str

    def __init__(self, ids: Ids, what: str) -> None:
        self._ids = as_ids(ids)
        self.what = what

    @property
    def ids(self) -> Ids:
        """All ids in order: int64 or str objects, shape (n,)."""
        return self._ids

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the ids: int64, or object for strings."""
        return self._ids.dtype

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        kind = "int64" if self.dtype == np.int64 else "str"
        return f"<Vocabulary of {len(self):,} {self.what} ids ({kind})>"

    @cached_property
    def _index(self) -> pd.Index[Any]:
        index = pd.Index(self.ids)
        if not index.is_unique:
            twice = index[index.duplicated()].tolist()[0]
            msg = f"{self.what} id {twice!r} stands twice in the vocabulary; expected each id once"
            raise InputError(msg)
        return index

    def pieces(self) -> Iterator[Ids]:
        """Yield all ids in order, as many at a time as are at hand."""
        yield self.ids

    @cached_property
    def hash(self) -> str:
        """Content hash: two vocabularies with the same hash give the same numbers."""
        digest = IdHash()
        for ids in self.pieces():
            digest.update(ids)
        return digest.hexdigest(kind="int64" if self.dtype == np.int64 else "str")

    def find(self, ids: Ids) -> Ints:
        """Return the numbers of ``ids`` as int32, -1 for those that are not known."""
        return self._index.get_indexer(pd.Index(as_ids(ids))).astype(np.int32)

    def lookup(self, ids: Ids) -> Lookup:
        """Return the numbers of ``ids``, and which are not known and how often they occur.

        Parameters
        ----------
        ids : int64 or str, shape (m,)

        Returns
        -------
        numbers : int32, shape (m,), -1 for ids that are not known
        unseen : Series of int64, indexed by id
            The most frequent first, equally frequent ones as they come in ``ids``.
        """
        wanted = as_ids(ids)
        numbers = self.find(wanted)
        codes, unseen = pd.factorize(wanted[numbers < 0])
        counts = np.bincount(codes, minlength=len(unseen))
        order = np.argsort(-counts, kind="stable")
        index = pd.Index(unseen[order], name=f"{self.what}_id")
        return Lookup(numbers, pd.Series(counts[order], index, name="count"))

    def numbers(self, ids: Ids) -> Ints:
        """Return the numbers of ``ids`` as int32.

        Raises
        ------
        InputError
            Some are unknown; the message names the most frequent of them and counts the rest.
        """
        numbers, unseen = self.lookup(ids)
        if len(unseen):
            some = ", ".join(
                repr(each) if times == 1 else f"{each!r} ({times} times)"
                for each, times in zip(unseen.index[:3].tolist(), unseen.tolist(), strict=False)
            )
            like = self.ids_of(np.arange(min(1, len(self)))).tolist()
            msg = (
                f"{unseen.sum()} of {len(numbers)} {self.what} ids are not in the vocabulary: "
                f"{some}{', ...' if len(unseen) > 3 else ''}; expected ids like {like}"
            )
            raise InputError(msg)
        return numbers

    def ids_of(self, numbers: Ints | Longs) -> Ids:
        """Return the ids of ``numbers``, shape (m,): int64 or str objects.

        Raises
        ------
        InputError
            A number is not one of 0 to ``len(self) - 1``.
        """
        places: Longs = np.asarray(numbers)
        if not places.size:
            return np.empty(0, self.dtype)
        if places.dtype.kind not in "iu" or places.min() < 0 or places.max() >= len(self):
            msg = (
                f"{self.what} numbers of type {places.dtype} from {places.min()} to "
                f"{places.max()} were given; expected integers from 0 to {len(self) - 1}"
            )
            raise InputError(msg)
        return self._at(places)

    def _at(self, places: Ints | Longs) -> Ids:
        return self.ids[places]

    def take(self, keep: Bools) -> Vocabulary:
        """Return the vocabulary of the marked ids alone, renumbered in the same order."""
        return Vocabulary(self.ids[keep], self.what)

    def load(self) -> Vocabulary:
        """Return the same with all ids in memory, eagerly; it outlives the store."""
        return Vocabulary(self.ids, self.what)


def as_ids(ids: Any) -> Ids:
    """Return ids as int64 or as str objects, shape (n,).

    Raises
    ------
    InputError
        They are neither, or not one-dimensional.
    """
    array = np.asarray(ids)
    if array.dtype.kind == "U" and not isinstance(ids, np.ndarray):
        # NumPy's own strings end before zero characters, and take numbers among strings for strings
        array = np.asarray(ids, object)
    if array.ndim != 1:
        msg = f"ids have shape {array.shape}; expected one dimension"
        raise InputError(msg)
    if np.can_cast(array.dtype, np.int64, "safe") and array.dtype.kind != "b":
        return array.astype(np.int64, copy=False)
    if array.dtype.kind in "UTO" and all(isinstance(each, str) for each in array.tolist()):
        return array.astype(object)
    if array.size == 0:
        return array.astype(np.int64)
    msg = f"ids are of type {array.dtype}, for instance {array[0]!r}; expected integers or strings"
    raise InputError(msg)


class IdHash:
    """Content hash of ids in order, fed in pieces: BLAKE2b, as docs/format.md states."""

    def __init__(self) -> None:
        self._digest = hashlib.blake2b(digest_size=16)

    def update(self, ids: Ids) -> None:
        """Feed the next ids; how they are cut into pieces does not matter."""
        if ids.dtype == np.int64:
            self._digest.update(ids.astype("<i8").tobytes())
            return
        encoded = [each.encode() for each in ids.tolist()]
        self._digest.update(b"".join(len(each).to_bytes(8, "little") + each for each in encoded))

    def hexdigest(self, *, kind: str) -> str:
        """Return the hash of what was fed; ``kind`` is int64 or str, for no ids at all too."""
        digest = self._digest.copy()
        digest.update(kind.encode())
        return digest.hexdigest()


def content_hash(ids: Ids) -> str:
    """Hash ids in order; equal vocabularies give equal hashes."""
    digest = IdHash()
    digest.update(ids)
    return digest.hexdigest(kind="int64" if ids.dtype == np.int64 else "str")


class IdFiles(NamedTuple):
    """The distinct ids of one part of a log, ascending, with their counts, in equal files."""

    folder: str
    firsts: list[Any]  # the first id of each file
    n: int


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
    # a part without any id has one file too: it says what kind of ids there are none of
    for number, start in enumerate(range(0, max(1, len(ids)), ID_ROWS)):
        rows = slice(start, start + ID_ROWS)
        _save(files.join(folder, str(number)), ids.iloc[rows], counts[rows])
    return IdFiles(folder, ids.iloc[::ID_ROWS].tolist(), len(ids))


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
    offsets = np.concatenate(([0], np.cumsum([len(each) for each in found])))
    whole = pd.concat(found, ignore_index=True)
    codes, ids, _ = factorize(whole["ids"])
    counts = np.bincount(codes, weights=whole["counts"], minlength=len(ids)).astype(np.int64)
    files.make_folder(folder)
    _save(files.join(folder, "ids"), ids, counts)
    with files.writing(folder):
        files.write_column(files.join(folder, "ranks"), codes)
    return counts, offsets


def _read_range(part: IdFiles, low: Any, high: Any) -> pd.DataFrame:
    first = 0 if low is None else max(0, bisect.bisect_right(part.firsts, low) - 1)
    stop = len(part.firsts) if high is None else bisect.bisect_left(part.firsts, high)
    names = [files.join(part.folder, str(number)) for number in range(first, max(stop, first + 1))]
    frame = pd.concat([_load(name) for name in names], ignore_index=True)
    keep = np.ones(len(frame), np.bool_)
    if low is not None:
        keep &= (frame["ids"] >= low).to_numpy(np.bool_)
    if high is not None:
        keep &= (frame["ids"] < high).to_numpy(np.bool_)
    return frame[keep]


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
