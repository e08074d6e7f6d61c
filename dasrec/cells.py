"""Cells of whole rows in scratch files, sorted by user: sort, dedupe, k-core."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dasrec import columns, files, memory
from dasrec.buckets import Pieces, read_bucket, write_buckets
from dasrec.columns import Codec
from dasrec.errors import InputError
from dasrec.events import CleanRules
from dasrec.journal import Journal, Shared
from dasrec.kernels.csr import (
    collapse,
    count_rows,
    cut_rows,
    cut_sessions,
    gather,
    indptr_of,
    rows_of,
    sort_cells,
)
from dasrec.numbering import MergedIds
from dasrec.scan import Scan
from dasrec.schema import ITEM, TIMESTAMP, USER, VALUE
from dasrec.typing import Bools, Longs

Columns = dict[str, NDArray[Any]]

SESSION_COUNTS, SESSION_STARTS = "session-counts", "session-starts"
_COUNTS = "counts"
_COUNTING_TASKS = 16  # each comes back with a count of every user and item


class CellBlock(NamedTuple):
    """Cells of whole rows in scratch, one file a column, sorted by (row, column)."""

    folder: str
    codecs: dict[str, Codec]
    first: int  # the number of the first row
    row_counts: Longs

    @property
    def n_cells(self) -> int:
        """How many cells the files hold."""
        return int(self.row_counts.sum())

    @property
    def timed(self) -> bool:
        """Whether cells have timestamps."""
        return TIMESTAMP in self.codecs

    def light(self) -> CellBlock:
        """Return the same without counts, small enough to travel with many tasks."""
        return self._replace(row_counts=np.empty(0, np.int64))

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Read cells ``start:stop`` of one column."""
        return columns.read_column(self.folder, name, self.codecs[name], start, stop)

    def rows(self, start: int = 0, stop: int | None = None) -> NDArray[np.int32]:
        """Return the row of each of the cells ``start:stop``."""
        counts = files.read_column(files.join(self.folder, _COUNTS), np.int64)
        return rows_of(np.clip(indptr_of(counts), start, stop)) + np.int32(self.first)


def load_by_user(ranges: Sequence[tuple[CellBlock, int, int | None]], name: str) -> NDArray[Any]:
    """Read a column of ranges of cells of blocks whose rows are users, one after the other."""
    if name == USER:
        return np.concatenate([block.rows(start, stop) for block, start, stop in ranges])
    return np.concatenate([block.read(name, start, stop) for block, start, stop in ranges])


def save_by_user(folder: str, found: Columns, span: tuple[int, int]) -> CellBlock:
    """Write the cells of users ``span[0]:span[1]``, sorted by (user, item)."""
    counts = count_rows(found[USER], *span)
    others = {name: values for name, values in found.items() if name != USER}
    codecs = columns.write_columns(folder, others)
    with files.writing(folder):
        files.write_column(files.join(folder, _COUNTS), counts)
    return CellBlock(folder, codecs, span[0], counts)


def sort_by_user(
    scans: Sequence[Scan],
    users: MergedIds,
    items: MergedIds,
    *,
    keep_users: Bools,
    rules: CleanRules,
    journal: Journal,
) -> list[CellBlock]:
    """Encode every part, bucket its rows by user, then sort and dedupe each bucket.

    Under ``rules.session_gap`` the rows of a block are sessions, numbered within it.
    """
    counts = users.counts * keep_users
    cuts = cut_rows(indptr_of(counts), memory.block_cells(int(counts.sum())))
    shared = journal.share((users.light(), items.light(), cuts, keep_users), "numbers")
    arguments = [(scan, i, shared, journal.path(f"map-{i}")) for i, scan in enumerate(scans)]
    pieces = journal.run(
        _encode, arguments, name="ingest-map", spent=[(scan.folder,) for scan in scans]
    )
    where = journal.share(pieces, "pieces")
    shape = [(int(a), int(b), len(items.counts)) for a, b in pairwise(cuts)]
    reduces = [(where, b, each, rules, journal.path(f"users-{b}")) for b, each in enumerate(shape)]
    found = journal.run(_reduce, reduces, name="ingest-reduce")
    journal.drop([piece.path for piece in pieces])
    return found


def _encode(scan: Scan, part: int, shared: Shared, path: str) -> Pieces:
    """Turn the codes of one part into numbers and bucket the rows by user."""
    users, items, cuts, keep_users = shared.load()
    found: Columns = {
        name: columns.read_column(scan.folder, name, codec) for name, codec in scan.codecs.items()
    }
    numbers = users.numbers(part)
    bucket_of = (np.searchsorted(cuts, numbers, side="right") - 1).astype(np.int32)
    within = numbers - cuts[bucket_of].astype(np.int32)  # counted from the first of the bucket
    keeps = keep_users[numbers]
    if not keeps.all():
        stays = gather(keeps, found[USER])
        found = {name: values[stays] for name, values in found.items()}
    buckets = gather(bucket_of, found[USER])
    found[USER] = gather(within, found[USER])
    found[ITEM] = gather(items.numbers(part), found[ITEM])
    given = ((name, found.pop(name)) for name in list(found))
    return write_buckets(path, buckets, len(cuts) - 1, given)


def _reduce(
    where: Shared, bucket: int, shape: tuple[int, int, int], rules: CleanRules, folder: str
) -> CellBlock:
    """Sort one bucket of users by (user, item, time) and keep one cell of each user and item."""
    first, stop, n_items = shape
    found = read_bucket(where.load(), bucket)
    if rules.session_gap is not None:
        found[USER], counts, begins = cut_sessions(
            found[USER], found[TIMESTAMP], stop - first, rules.session_gap
        )
        with files.writing(folder):
            files.write_column(f"{folder}-{SESSION_COUNTS}", counts)
            files.write_column(f"{folder}-{SESSION_STARTS}", begins)
        first, stop = 0, len(begins)
    one = _one_each(found, (stop - first, n_items), rules.dedupe)
    one[USER] += np.int32(first)
    return save_by_user(folder, one, (first, stop))


def _one_each(found: Columns, shape: tuple[int, int], dedupe: str) -> Columns:
    """Sort events by row, item and time, and keep one of each row and item."""
    n_before = len(found[USER])
    order, starts = sort_cells(found[USER], found[ITEM], found.get(TIMESTAMP), shape=shape)
    if dedupe == "error" and len(starts) < n_before:
        msg = (
            f"{n_before - len(starts)} events or more repeat a user and an item; choose what to "
            'keep with clean(events, dedupe="last") (--dedupe last)'
        )
        raise InputError(msg)
    ends = np.append(starts, n_before)[1:]
    kept = gather(order, starts if dedupe == "first" else ends - 1)
    one = {name: gather(values, kept) for name, values in found.items()}
    if VALUE not in found:
        repeats = ends - starts if dedupe == "sum" else np.ones(len(starts))
        one[VALUE] = repeats.astype(np.float32)
    elif dedupe not in ("first", "last"):
        one[VALUE] = collapse(starts, found[VALUE][order], dedupe)
        if not np.isfinite(one[VALUE]).all():
            msg = "values of one user and item add up to more than float32 holds; scale them down"
            raise InputError(msg)
    return one


def core(
    found: Sequence[CellBlock], n_items: int, *, min_user: int, min_item: int, journal: Journal
) -> tuple[Bools, Bools, list[CellBlock]]:
    """Keep users with ``min_user`` and items with ``min_item`` cells, repeated until both hold.

    Returns
    -------
    keep_users, keep_items : bool, shapes (n_users,) and (n_items,)
    blocks : list of CellBlock
        The cells that stay, in the numbers that are left.
    """
    keep_users = np.concatenate([block.row_counts for block in found]) >= min_user
    keep_items = np.ones(n_items, np.bool_)
    step = -(-len(found) // _COUNTING_TASKS)
    groups = [[block.light() for block in found[i : i + step]] for i in range(0, len(found), step)]
    for turn in count():
        shared = journal.share((keep_users, keep_items), f"core-{turn}")
        counts = journal.run(
            _core_counts, [(group, shared) for group in groups], name=f"ingest-core-{turn}"
        )
        next_users = np.sum([each[0] for each in counts], axis=0) >= min_user
        next_items = np.sum([each[1] for each in counts], axis=0) >= min_item
        if (next_users == keep_users).all() and (next_items == keep_items).all():
            break
        keep_users, keep_items = next_users, next_items
    if keep_users.all() and keep_items.all():
        return keep_users, keep_items, list(found)
    arguments = [
        (block.light(), block.first + len(block.row_counts), shared, journal.path(f"core-{b}"))
        for b, block in enumerate(found)
    ]
    kept = journal.run(
        _keep_core, arguments, name="ingest-core", spent=[(block.folder,) for block in found]
    )
    return keep_users, keep_items, kept


def _core_counts(group: Sequence[CellBlock], shared: Shared) -> tuple[Longs, Longs]:
    """Count what each user and item has left when only the marked ones stay."""
    keep_users, keep_items = shared.load()
    by_user, by_item = np.zeros(len(keep_users), np.int64), np.zeros(len(keep_items), np.int64)
    for block in group:
        users, items = block.rows(), block.read(ITEM)
        keep = keep_users[users] & keep_items[items]
        by_user += np.bincount(users[keep], minlength=len(by_user))
        by_item += np.bincount(items[keep], minlength=len(by_item))
    return by_user, by_item


def _keep_core(block: CellBlock, stop: int, shared: Shared, folder: str) -> CellBlock:
    keep_users, keep_items = shared.load()
    names = (USER, *block.codecs)
    found = {name: load_by_user([(block, 0, None)], name) for name in names}
    keep = keep_users[found[USER]] & keep_items[found[ITEM]]
    found = {name: values[keep] for name, values in found.items()}
    new_users = np.concatenate(([0], np.cumsum(keep_users)))
    found[USER] = new_users[found[USER]].astype(np.int32)
    found[ITEM] = (np.cumsum(keep_items) - 1)[found[ITEM]].astype(np.int32)
    return save_by_user(folder, found, (int(new_users[block.first]), int(new_users[stop])))
