"""Both orientations of a matrix, written by shard: first by user, on the way bucketed by item."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasrec import files, memory, store
from dasrec.buckets import Pieces, read_bucket, write_buckets
from dasrec.cells import CellBlock, Columns, load_by_user
from dasrec.errors import InputError
from dasrec.journal import Journal, Shared
from dasrec.kernels.csr import cut_rows, indptr_of, places, scatter, split_numbers
from dasrec.schema import (
    DATA,
    INDICES,
    ITEM,
    ITEM_USERS,
    TIMESTAMP,
    TIMESTAMPS,
    USER,
    USER_ITEMS,
    VALUE,
)
from dasrec.typing import Longs, Side

Range = tuple[CellBlock, int, int]


def write_matrices(
    draft: store.Draft,
    found: Sequence[CellBlock],
    item_counts: Longs,
    journal: Journal,
    *,
    older: tuple[Longs | None, Longs | None] = (None, None),
) -> None:
    """Write the cells of all blocks in both orientations, one task a shard and orientation.

    Parameters
    ----------
    draft : Draft
    found : cells sorted by user, of all rows
    item_counts : about how many cells each item has; buckets are cut by it
    journal : of the job
    older : what each user and each item has in groups before this one, so that the blocks that
        readers see are cut for all
    """
    counts = np.concatenate([block.row_counts for block in found])
    shape, timed = (len(counts), len(item_counts)), found[0].timed
    n_stored = int(counts.sum())
    if n_stored == 0:
        msg = "no interactions are left to write; loosen the cleaning rules"
        raise InputError(msg)
    with files.writing(draft.url):
        draft.create_matrix(USER_ITEMS, shape=shape, n_stored=n_stored, timed=timed)
        draft.create_matrix(ITEM_USERS, shape=shape[::-1], n_stored=n_stored, timed=timed)
    # of a bucket that two shards share each of them reads the whole: half a block is less in vain
    cuts = cut_rows(indptr_of(item_counts), memory.block_cells(int(item_counts.sum())) // 2)
    pieces = _write_by_user(draft, found, cuts, journal)
    _write_index(draft, USER_ITEMS, counts, older[0])
    counts = _write_by_item(draft, pieces, cuts, journal)
    _write_index(draft, ITEM_USERS, counts, older[1])


def _write_index(draft: store.Draft, side: Side, counts: Longs, older: Longs | None) -> None:
    indptr = indptr_of(counts)
    whole = indptr if older is None else indptr_of(counts + older)
    with files.writing(draft.url):
        draft.write_index(side, indptr, cut_rows(whole, memory.block_cells(int(whole[-1]))))


def _write_by_user(
    draft: store.Draft, found: Sequence[CellBlock], cuts: Longs, journal: Journal
) -> list[Pieces]:
    """Write the cells as they are, and leave them bucketed by item."""
    shared = journal.share(cuts, "item-cuts")
    offsets = indptr_of(np.array([block.n_cells for block in found], np.int64))
    arguments: list[tuple[Any, ...]] = []
    spent: list[tuple[str, ...]] = []
    spans = list(zip(found, pairwise(offsets.tolist()), strict=True))
    for start in range(0, int(offsets[-1]), store.SHARD_CELLS):
        stop = min(start + store.SHARD_CELLS, int(offsets[-1]))
        ranges = [
            (block.light(), max(start, first) - first, min(stop, end) - first)
            for block, (first, end) in spans
            if first < stop and end > start
        ]
        turned = journal.path(f"turn-{len(arguments)}")
        arguments.append((draft.group_url, start, ranges, shared, turned))
        spent.append(tuple(block.folder for block, (a, b) in spans if start <= a and b <= stop))
    name = f"ingest-write-{USER_ITEMS}"
    pieces = journal.run(_write_user_shard, arguments, name=name, spent=spent)
    journal.drop([block.folder for block in found])
    return pieces


def _write_user_shard(
    group_url: str, start: int, ranges: Sequence[Range], shared: Shared, turned: str
) -> Pieces:
    """Write one shard, and leave its cells bucketed by item."""
    items, cuts = load_by_user(ranges, ITEM), shared.load()
    store.write_cells(group_url, USER_ITEMS, start, {INDICES: items})
    buckets, within = split_numbers(items, cuts)
    del items

    def columns() -> Iterator[tuple[str, NDArray[Any]]]:
        yield ITEM, within
        yield USER, load_by_user(ranges, USER)
        for array in (DATA, TIMESTAMPS) if ranges[0][0].timed else (DATA,):
            name = _stored_as(USER_ITEMS)[array]
            values = load_by_user(ranges, name)
            store.write_cells(group_url, USER_ITEMS, start, {array: values})
            yield name, values

    return write_buckets(turned, buckets, len(cuts) - 1, columns())


def _write_by_item(
    draft: store.Draft, pieces: Sequence[Pieces], cuts: Longs, journal: Journal
) -> Longs:
    """Gather the buckets, sort each by item, write them, and count the cells of each item."""
    offsets = indptr_of(np.sum([np.diff(piece.offsets) for piece in pieces], axis=0))
    where = journal.share((pieces, cuts, offsets), "turned")
    starts = range(0, int(offsets[-1]), store.SHARD_CELLS)
    arguments = [(draft.group_url, start, where) for start in starts]
    counts = journal.run(_write_item_shard, arguments, name=f"ingest-write-{ITEM_USERS}")
    journal.drop([piece.path for piece in pieces])
    return np.concatenate(list(chain.from_iterable(counts)))


def _write_item_shard(group_url: str, start: int, where: Shared) -> list[Longs]:
    """Write one shard; return what each item has of the buckets that begin in it."""
    pieces, cuts, offsets = where.load()
    stop = min(start + store.SHARD_CELLS, int(offsets[-1]))
    # a bucket belongs to the shard in which it begins, those at the very end to the last
    first = int(np.searchsorted(offsets[:-1], start))
    after = len(cuts) - 1
    if stop < offsets[-1]:
        after = int(np.searchsorted(offsets[:-1], stop))
    shard, counts = _empty_shard(stop - start, timed=TIMESTAMP in pieces[0].codecs), []
    for bucket in range(first - (first > 0 and offsets[first] > start), after):
        found = read_bucket(pieces, bucket)
        # pieces come in order of users, so a stable sort by item leaves users ascending within each
        place, rows = places(found.pop(ITEM), int(cuts[bucket + 1] - cuts[bucket]))
        base = int(offsets[bucket])
        low, high = max(start, base), min(stop, int(offsets[bucket + 1]))
        for name in shard:
            values = scatter(found[_stored_as(ITEM_USERS)[name]], place)
            shard[name][low - start : high - start] = values[low - base : high - base]
        if bucket >= first:
            counts.append(np.diff(rows))
    _write_shard(group_url, ITEM_USERS, start, shard)
    return counts


def _stored_as(side: Side) -> dict[str, str]:
    """Return which column of cells each stored array holds."""
    other = ITEM if side == USER_ITEMS else USER
    return {INDICES: other, DATA: VALUE, TIMESTAMPS: TIMESTAMP}


def _empty_shard(n: int, *, timed: bool) -> Columns:
    types = {name: kind for name, kind in store.CELL_TYPES.items() if name != TIMESTAMPS or timed}
    return {name: np.empty(n, kind) for name, kind in types.items()}


def _write_shard(group_url: str, side: Side, start: int, shard: dict[str, NDArray[Any]]) -> None:
    for name in list(shard):  # a shard of all columns is large: what is written is given up
        store.write_cells(group_url, side, start, {name: shard.pop(name)})
