"""Outside ids and the numbers that stand for them in the matrix, both ways."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from dasrec.errors import InputError
from dasrec.typing import Bools, Ids, Ints, Longs


class Vocabulary:
    """One side's ids; the number of an id is its place.

    Parameters
    ----------
    ids : int64 or str, shape (n,), each once
    what : "user" or "item", for messages
    """

    def __init__(self, ids: Ids, what: str) -> None:
        self.ids = as_ids(ids)
        self.what = what

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        kind = "int64" if self.ids.dtype == np.int64 else "str"
        return f"<Vocabulary of {len(self):,} {self.what} ids ({kind})>"

    @cached_property
    def _index(self) -> pd.Index[Any]:
        index = pd.Index(self.ids)
        if not index.is_unique:
            twice = index[index.duplicated()][0]
            msg = f"{self.what} id {twice!r} stands twice in the vocabulary; expected each id once"
            raise InputError(msg)
        return index

    @cached_property
    def hash(self) -> str:
        """Content hash: two vocabularies with the same hash give the same numbers."""
        return content_hash(self.ids)

    def find(self, ids: Ids) -> Ints:
        """Return the numbers of ``ids`` as int32, -1 for those that are not known."""
        return self._index.get_indexer(pd.Index(as_ids(ids))).astype(np.int32)

    def numbers(self, ids: Ids) -> Ints:
        """Return the numbers of ``ids`` as int32.

        Raises
        ------
        InputError
            Some are unknown; the message names the first few and counts the rest.
        """
        wanted = as_ids(ids)
        found = self.find(wanted)
        if (found < 0).any():
            unknown = wanted[found < 0]
            some = ", ".join(repr(each) for each in unknown[:3].tolist())
            msg = (
                f"{len(unknown)} of {len(wanted)} {self.what} ids are not in the vocabulary: {some}"
                f"{', ...' if len(unknown) > 3 else ''}; expected ids like {self.ids[:1].tolist()}"
            )
            raise InputError(msg)
        return found

    def take(self, keep: Bools) -> Vocabulary:
        """Return the vocabulary of the marked ids alone, renumbered in the same order."""
        return Vocabulary(self.ids[keep], self.what)


def as_ids(ids: Any) -> Ids:
    """Return ids as int64 or as str objects, shape (n,).

    Raises
    ------
    InputError
        They are neither, or not one-dimensional.
    """
    array = np.asarray(ids)
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


def content_hash(ids: Ids) -> str:
    """Hash ids in order: BLAKE2b over their kind and bytes; docs/format.md has the details."""
    digest = hashlib.blake2b(digest_size=16)
    if ids.dtype == np.int64:
        digest.update(b"int64")
        digest.update(ids.astype("<i8").tobytes())
    else:
        digest.update(b"str")
        encoded = [each.encode() for each in ids.tolist()]
        digest.update(np.array([len(each) for each in encoded], "<i8").tobytes())
        digest.update(b"".join(encoded))
    return digest.hexdigest()


def factorize(column: pd.Series) -> tuple[Ints, pd.Series]:
    """Number the ids of a column without gaps by first appearance.

    Returns
    -------
    codes : int32, shape (n,)
    counts : int64 Series indexed by id: how often each occurs, in order of its code
    """
    values = column.to_numpy(np.int64) if column.dtype == pd.Int64Dtype() else column
    codes, ids = pd.factorize(values)
    counts = np.bincount(codes, minlength=len(ids))
    return codes.astype(np.int32), pd.Series(counts, index=ids, copy=False)


def merge_counts(parts: Sequence[pd.Series], what: str) -> tuple[Vocabulary, Longs]:
    """Merge counts of ids into a vocabulary in sorted order, and each id's total count.

    Integers sort by value, strings by code point, so the numbers do not depend on how a log is cut.
    """
    counts = pd.concat(parts).groupby(level=0, sort=True).sum()
    ids = counts.index
    raw = (
        ids.to_numpy(np.int64) if pd.api.types.is_integer_dtype(ids.dtype) else ids.to_numpy(object)
    )
    return Vocabulary(raw, what), counts.to_numpy(np.int64)
