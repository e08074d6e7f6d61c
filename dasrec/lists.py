"""Lists that somebody has made and written to Parquet, by the numbers of a store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dasrec import files, memory
from dasrec.checks import check_columns
from dasrec.errors import InputError
from dasrec.interactions import Interactions
from dasrec.kernels.csr import indptr_of
from dasrec.kernels.listing import list_unseen
from dasrec.schema import USER_ITEMS
from dasrec.typing import Ids, Ints, Longs
from dasrec.vocabulary import Vocabulary

Rows = tuple[Longs, Ints]
"""Row pointer, int64, and items, int32: one row a user, ascending."""

_COLUMNS = ("user_id", "rank", "item_id")
_LISTED_BYTES = 48  # of a row while it is read and sorted


@dataclass(frozen=True, eq=False)
class Lists:
    """Lists that somebody has made.

    Attributes
    ----------
    indptr, items : int64 and int32: one row a user of the store, best first
    name : str
    unknown_users, unknown_items : int
        How many different ids the store does not know; their rows are left out.
    """

    indptr: Longs = field(repr=False)
    items: Ints = field(repr=False)
    name: str
    unknown_users: int = 0
    unknown_items: int = 0

    def rank(self, users: Ints, n: int, seen: Rows) -> Ints:
        """Return the lists as they are, without what is seen."""
        ends = self.indptr[users], self.indptr[users + 1]
        return unseen(self.items, ends, seen, n, users)

    @property
    def facts(self) -> dict[str, int]:
        """What results say of them."""
        return {
            "unknown_users": self.unknown_users,
            "unknown_items": self.unknown_items,
            "longest_list": int(np.diff(self.indptr).max(initial=0)),
        }


def unseen(items: Ints, ends: tuple[Longs, Longs], seen: Rows, n: int, users: Ints) -> Ints:
    """Return the first n of each list that are not seen, int32, shape (m, n), -1 past the end.

    Parameters
    ----------
    items : int32: lists best first, -1 for none
    ends : where the list of each user begins and ends, int64
    seen : one row a user
    users : int32, shape (m,): their numbers, for messages

    Raises
    ------
    InputError
        A list has an item twice.
    """
    lists, twice = list_unseen(items, *ends, *seen, n)
    if twice >= 0:
        msg = f"the list of user number {users[twice]} has an item twice; expected each once"
        raise InputError(msg)
    return np.asarray(lists)


def read_lists(place: str | os.PathLike[str], interactions: Interactions) -> Lists:
    """Read lists as :func:`dasrec.recommend_all` writes them, eagerly.

    Parameters
    ----------
    place : path or fsspec URL
        A Parquet file, or a folder of them, with the columns ``user_id``, ``rank`` (the lower the
        better) and ``item_id``; others are not read.
    interactions : Interactions
        Whose ids they are.

    Raises
    ------
    InputError
        Nothing is there, columns are missing, or no row names a user and an item of the store.
    BudgetError
        They would not fit: some 48 bytes a row.
    """
    url = files.absolute(place)
    parts = _parts(url)
    n_rows = 0
    for path in parts:
        with files.open_file(path) as file:
            n_rows += pq.ParquetFile(file).metadata.num_rows
    memory.check_fits(
        _LISTED_BYTES * n_rows,
        limit=memory.limit(),
        what=f"reading {n_rows:,} rows of lists",
        remedy="evaluate shorter lists, or those of fewer users",
    )
    sides = [_Numbers(interactions.user_ids), _Numbers(interactions.item_ids)]
    read = [columns for path in parts for columns in _read(path, sides)]
    users, items, ranks = (
        np.concatenate([np.empty(0, np.int32), *each]) for each in zip(*read, strict=True)
    )
    known = (users >= 0) & (items >= 0)
    if not known.any():
        msg = (
            f"none of the {n_rows} rows of {place} names a user and an item of {interactions.url}; "
            f"expected ids like {interactions.user_ids.ids_of(np.arange(1)).tolist()} and "
            f"{interactions.item_ids.ids_of(np.arange(1)).tolist()}"
        )
        raise InputError(msg)
    users, items, ranks = users[known], items[known], ranks[known]
    order = np.lexsort((items, ranks, users))
    indptr = indptr_of(np.bincount(users, minlength=interactions.n_users))
    name = url.rstrip("/").rsplit("/", 1)[-1]
    return Lists(indptr, items[order], name, *(len(side.unknown) for side in sides))


class _Numbers:
    """Numbers of ids that come in pieces, and which are not known."""

    def __init__(self, ids: Vocabulary) -> None:
        self.ids, self.unknown = ids, set[Any]()

    def __call__(self, column: pa.ChunkedArray | pa.Array) -> Ints:
        found = column.dictionary_encode()
        distinct: Ids = found.dictionary.to_numpy(zero_copy_only=False)
        numbers = self.ids.find(distinct)
        self.unknown.update(distinct[numbers < 0].tolist())
        return np.asarray(numbers[found.indices.to_numpy()])


def _read(path: str, sides: list[_Numbers]) -> Iterator[tuple[Ints, Ints, Ints]]:
    with files.open_file(path) as file:
        parquet = pq.ParquetFile(file)
        check_columns(parquet.schema_arrow.names, _COLUMNS, where=path)
        for batch in parquet.iter_batches(memory.piece_rows(), columns=list(_COLUMNS)):
            columns = [batch.column(name) for name in _COLUMNS]
            if any(column.null_count for column in columns):
                msg = f"{path} has rows without {' or '.join(_COLUMNS)}; expected all of them"
                raise InputError(msg)
            users, ranks, items = columns
            yield sides[0](users), sides[1](items), ranks.to_numpy().astype(np.int32)


def _parts(url: str) -> list[str]:
    with files.reaching(url):
        fs, path = files.locate(url)
        if not fs.exists(path):
            msg = f"{url} is not there; expected a Parquet file, or a folder of them"
            raise InputError(msg)
        if not fs.isdir(path):
            return [url]
        names = sorted(name for name in files.names(url) if name.endswith(".parquet"))
    if not names:
        msg = f"{url} has no Parquet files; expected lists as recommend_all writes them"
        raise InputError(msg)
    return [files.join(url, name) for name in names]


def rows_of_users(view: Interactions, numbers: Ints) -> Rows:
    """Read the rows of some users, each block once, and lay them one after the other."""
    users, place = np.unique(numbers, return_inverse=True)
    rows: list[Ints] = []
    for some in np.split(users, np.searchsorted(users, view.cuts(USER_ITEMS)[1:-1])):
        if len(some):
            block = view.read_rows(USER_ITEMS, int(some[0]), int(some[-1]) + 1)
            starts, stops = block.indptr[some - some[0]], block.indptr[some - some[0] + 1]
            # copies, since a slice would keep its whole block in memory
            rows += [block.indices[a:b].copy() for a, b in zip(starts, stops, strict=True)]
    found = [rows[each] for each in place]
    lengths = np.array([len(row) for row in found], np.int64)
    return indptr_of(lengths), np.concatenate([np.empty(0, np.int32), *found])
