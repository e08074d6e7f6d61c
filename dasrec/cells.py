"""Cells of whole rows in scratch files: sort, dedupe, k-core, transpose, and writing by shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dasrec import blocks, files, memory, store
from dasrec.errors import InputError
from dasrec.kernels.csr import (
    collapse,
    counting_sort,
    cut_rows,
    indptr_of,
    run_starts,
    sort_cells,
)
from dasrec.scan import Scan
from dasrec.schema import DATA, INDICES, ITEM, TIMESTAMP, TIMESTAMPS, USER, USER_ITEMS, VALUE
from dasrec.typing import Bools, Longs, Side
from dasrec.vocabulary import MergedIds

CELL_TYPES: Mapping[str, type[np.generic]] = {
    USER: np.int32,
    ITEM: np.int32,
    VALUE: np.float32,
    TIMESTAMP: np.int64,
}


class CellBlock(NamedTuple):
    """Cells of whole rows, one file a column, sorted by (row, column), and what they count."""

    folder: str
    timed: bool
    row_counts: Longs
    column_counts: Longs

    @property
    def n_cells(self) -> int:
        """How many cells the files hold."""
        return int(self.row_counts.sum())

    def light(self) -> CellBlock:
        """Return the same without counts, small enough to travel with many tasks."""
        nothing = np.empty(0, np.int64)
        return self._replace(row_counts=nothing, column_counts=nothing)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Read cells ``start:stop`` of one column."""
        return files.read_column(files.join(self.folder, name), CELL_TYPES[name], start, stop)

    def load(self) -> dict[str, NDArray[Any]]:
        """Read all columns."""
        names = (USER, ITEM, VALUE, TIMESTAMP) if self.timed else (USER, ITEM, VALUE)
        return {name: self.read(name) for name in names}


def save(
    folder: str,
    columns: Mapping[str, NDArray[Any]],
    *,
    row: str,
    span: tuple[int, int],
    n_columns: int,
) -> CellBlock:
    """Write the cells of rows ``span[0]:span[1]``; ``row`` names the side that is the rows."""
    files.make_folder(folder)
    with files.writing(folder):
        for name, values in columns.items():
            files.write_column(files.join(folder, name), values)
    column = ITEM if row == USER else USER
    return CellBlock(
        folder,
        TIMESTAMP in columns,
        np.bincount(columns[row] - span[0], minlength=span[1] - span[0]),
        np.bincount(columns[column], minlength=n_columns),
    )


def sort_by_user(
    scans: Sequence[Scan],
    users: MergedIds,
    items: MergedIds,
    *,
    keep_users: Bools,
    dedupe: str,
    scratch: str,
) -> list[CellBlock]:
    """Encode every part, bucket its rows by user, then sort and dedupe each bucket."""
    counts = users.counts * keep_users
    cuts = cut_rows(indptr_of(counts), memory.block_cells(int(counts.sum())))
    shared = blocks.share((users.light(), items.light(), cuts, keep_users))
    arguments = [(scan, i, shared, files.join(scratch, f"map-{i}")) for i, scan in enumerate(scans)]
    pieces = blocks.share(blocks.run(_encode, arguments, name="ingest-map"))
    spans = [
        (pieces, b, int(cuts[b]), int(cuts[b + 1]), len(items.counts), dedupe, scratch)
        for b in range(len(cuts) - 1)
    ]
    return blocks.run(_reduce, spans, name="ingest-reduce")


def _encode(
    scan: Scan, part: int, shared: tuple[MergedIds, MergedIds, Longs, Bools], folder: str
) -> blocks.Pieces:
    """Turn the codes of one part into numbers and bucket the rows by user."""
    users, items, cuts, keep_users = shared
    names = [USER, ITEM] + [VALUE] * scan.valued + [TIMESTAMP] * scan.timed
    columns: dict[str, NDArray[Any]] = {
        name: files.read_column(files.join(scan.folder, name), CELL_TYPES[name]) for name in names
    }
    numbers = users.numbers(part)
    bucket_of = (np.searchsorted(cuts, numbers, side="right") - 1).astype(np.int32)
    buckets = bucket_of[columns[USER]]
    columns[USER] = numbers[columns[USER]]
    columns[ITEM] = items.numbers(part)[columns[ITEM]]
    files.remove(scan.folder)
    if not keep_users.all():
        stays = keep_users[columns[USER]]
        columns = {name: values[stays] for name, values in columns.items()}
        buckets = buckets[stays]
    return blocks.write_pieces(folder, buckets, len(cuts) - 1, columns)


def _reduce(
    pieces: Sequence[blocks.Pieces],
    bucket: int,
    first: int,
    stop: int,
    n_items: int,
    dedupe: str,
    scratch: str,
) -> CellBlock:
    """Sort one bucket of users by (user, item, time) and keep one cell of each user and item."""
    found = blocks.read_pieces(pieces, bucket, CELL_TYPES)
    n_before = len(found[USER])
    rows = found[USER] - np.int32(first)
    order = sort_cells(rows, found[ITEM], found.get(TIMESTAMP), shape=(stop - first, n_items))
    found = {name: values[order] for name, values in found.items()}
    starts = run_starts(found[USER], found[ITEM])
    if dedupe == "error" and len(starts) < n_before:
        msg = (
            f"{n_before - len(starts)} events or more repeat a user and an item; choose what to "
            'keep with clean(events, dedupe="last") (--dedupe last)'
        )
        raise InputError(msg)
    last = np.append(starts, n_before)[1:] - 1
    kept = {name: values[starts if dedupe == "first" else last] for name, values in found.items()}
    if VALUE in found:
        kept[VALUE] = collapse(starts, found[VALUE], dedupe)
        if not np.isfinite(kept[VALUE]).all():
            msg = "values of one user and item add up to more than float32 holds; scale them down"
            raise InputError(msg)
    else:
        repeats = last - starts + 1 if dedupe == "sum" else np.ones(len(starts))
        kept[VALUE] = repeats.astype(np.float32)
    folder = files.join(scratch, f"users-{bucket}")
    return save(folder, kept, row=USER, span=(first, stop), n_columns=n_items)


def core(
    found: Sequence[CellBlock], *, min_user: int, min_item: int, scratch: str
) -> tuple[Bools, Bools, list[CellBlock]]:
    """Keep users with ``min_user`` and items with ``min_item`` cells, repeated until both hold.

    Returns
    -------
    keep_users, keep_items : bool, shapes (n_users,) and (n_items,)
    blocks : list of CellBlock
        The cells that stay, in the numbers that are left.
    """
    sizes = [len(block.row_counts) for block in found]
    users = np.concatenate([block.row_counts for block in found])
    items = np.sum([block.column_counts for block in found], axis=0)
    keep_users, keep_items = users >= min_user, items >= min_item
    starts = np.concatenate(([0], np.cumsum(sizes)))
    while True:
        shared = blocks.share((keep_users, keep_items))
        if keep_users.all() and keep_items.all():
            return keep_users, keep_items, list(found)
        counts = blocks.run(
            _core_counts, [(block.light(), shared) for block in found], name="ingest-core"
        )
        users = np.sum([each[0] for each in counts], axis=0)
        items = np.sum([each[1] for each in counts], axis=0)
        next_users, next_items = users >= min_user, items >= min_item
        if (next_users == keep_users).all() and (next_items == keep_items).all():
            break
        keep_users, keep_items = next_users, next_items
    arguments = [
        (
            block.light(),
            shared,
            (int(starts[b]), int(starts[b + 1])),
            files.join(scratch, f"core-{b}"),
        )
        for b, block in enumerate(found)
    ]
    return keep_users, keep_items, blocks.run(_keep_core, arguments, name="ingest-core")


def _core_counts(block: CellBlock, shared: tuple[Bools, Bools]) -> tuple[Longs, Longs]:
    """Count what each user and item has left when only the marked ones stay."""
    keep_users, keep_items = shared
    users, items = block.read(USER), block.read(ITEM)
    keep = keep_users[users] & keep_items[items]
    return (
        np.bincount(users[keep], minlength=len(keep_users)),
        np.bincount(items[keep], minlength=len(keep_items)),
    )


def _keep_core(
    block: CellBlock, shared: tuple[Bools, Bools], span: tuple[int, int], folder: str
) -> CellBlock:
    keep_users, keep_items = shared
    columns = block.load()
    keep = keep_users[columns[USER]] & keep_items[columns[ITEM]]
    columns = {name: values[keep] for name, values in columns.items()}
    new_users = np.concatenate(([0], np.cumsum(keep_users)))
    columns[USER] = new_users[columns[USER]].astype(np.int32)
    columns[ITEM] = (np.cumsum(keep_items) - 1)[columns[ITEM]].astype(np.int32)
    files.remove(block.folder)
    return save(
        folder,
        columns,
        row=USER,
        span=(int(new_users[span[0]]), int(new_users[span[1]])),
        n_columns=int(keep_items.sum()),
    )


def transpose(found: Sequence[CellBlock], n_users: int, *, scratch: str) -> list[CellBlock]:
    """Sort the same cells by item: bucket each block by item, then gather every bucket."""
    counts = np.sum([block.column_counts for block in found], axis=0)
    cuts = cut_rows(indptr_of(counts), memory.block_cells(int(counts.sum())))
    arguments = [
        (block.light(), cuts, files.join(scratch, f"turn-{b}")) for b, block in enumerate(found)
    ]
    pieces = blocks.share(blocks.run(_turn_map, arguments, name="ingest-turn"))
    reduce_arguments = [
        (pieces, b, (int(cuts[b]), int(cuts[b + 1])), n_users, files.join(scratch, f"items-{b}"))
        for b in range(len(cuts) - 1)
    ]
    return blocks.run(_turn_reduce, reduce_arguments, name="ingest-gather")


def _turn_map(block: CellBlock, cuts: Longs, folder: str) -> blocks.Pieces:
    columns = block.load()
    buckets = (np.searchsorted(cuts, columns[ITEM], side="right") - 1).astype(np.int32)
    return blocks.write_pieces(folder, buckets, len(cuts) - 1, columns)


def _turn_reduce(
    pieces: Sequence[blocks.Pieces], bucket: int, span: tuple[int, int], n_users: int, folder: str
) -> CellBlock:
    columns = blocks.read_pieces(pieces, bucket, CELL_TYPES)
    # pieces come in order of users, so a stable sort by item leaves users ascending within each
    order, _ = counting_sort(columns[ITEM] - np.int32(span[0]), span[1] - span[0])
    columns = {name: values[order] for name, values in columns.items()}
    saved = save(folder, columns, row=ITEM, span=span, n_columns=n_users)
    # nobody asks how often each user occurs, and every block would come back with all of them
    return saved._replace(column_counts=np.empty(0, np.int64))


def write_matrix(
    draft: store.Draft,
    side: Side,
    found: Sequence[CellBlock],
    *,
    n_columns: int,
    older: Longs | None = None,
) -> None:
    """Write the cells of all blocks as one orientation of a group, one task a shard.

    ``older`` counts what each row has in groups before this one, so that blocks are cut for all.
    """
    counts = np.concatenate([block.row_counts for block in found])
    indptr = indptr_of(counts)
    n_stored = int(indptr[-1])
    if n_stored == 0:
        msg = "no interactions are left to write; loosen the cleaning rules"
        raise InputError(msg)
    with files.writing(draft.url):
        draft.create_matrix(
            side, shape=(len(counts), n_columns), n_stored=n_stored, timed=found[0].timed
        )
        whole = indptr if older is None else indptr_of(counts + older)
        draft.write_index(side, indptr, cut_rows(whole, memory.block_cells(int(whole[-1]))))
    column = ITEM if side == USER_ITEMS else USER
    names = {INDICES: column, DATA: VALUE} | ({TIMESTAMPS: TIMESTAMP} if found[0].timed else {})
    offsets = indptr_of(np.array([block.n_cells for block in found], np.int64))
    arguments = []
    for start in range(0, n_stored, store.SHARD_CELLS):
        stop = min(start + store.SHARD_CELLS, n_stored)
        ranges = [
            (block.light(), max(start - first, 0), min(stop - first, block.n_cells))
            for block, first in zip(found, offsets[:-1].tolist(), strict=True)
            if first < stop and first + block.n_cells > start
        ]
        arguments.append((draft.group_url, side, start, names, ranges))
    blocks.run(_write_shard, arguments, name="ingest-write")


def _write_shard(
    group_url: str,
    side: Side,
    start: int,
    names: Mapping[str, str],
    ranges: Sequence[tuple[CellBlock, int, int]],
) -> None:
    columns = {
        stored: np.concatenate([block.read(name, first, stop) for block, first, stop in ranges])
        for stored, name in names.items()
    }
    store.write_cells(group_url, side, start, columns)
