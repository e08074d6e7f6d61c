"""Outside ids and the numbers that stand for them in the matrix, both ways."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dasrec.errors import InputError
from dasrec.typing import Bools, Ids, Ints, Longs


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
