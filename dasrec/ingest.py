"""From events to a store: an external bucket sort whose tasks fit in memory.

scan (read, judge rows, count ids) -> vocabularies -> map (encode, bucket by user)
-> reduce (sort, dedupe) -> k-core -> transpose by the same two steps -> write by shard -> commit.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from dasrec import blocks, cells, files, memory, store
from dasrec.cells import CELL_TYPES, CellBlock
from dasrec.clean import FAULTS, AuditStep, outside, row_faults
from dasrec.errors import InputError
from dasrec.events import CleanRules, Events
from dasrec.interactions import Interactions, open_interactions
from dasrec.kernels.csr import collapse, cut_rows, indptr_of, rows_of, run_starts, sort_cells
from dasrec.schema import (
    INTERACTIONS_KIND,
    ITEM,
    ITEM_IDS,
    ITEM_USERS,
    TIMESTAMP,
    USER,
    USER_IDS,
    USER_ITEMS,
    VALUE,
)
from dasrec.typing import Ids, Longs
from dasrec.vocabulary import (
    IdFiles,
    IdHash,
    MergedIds,
    Vocabulary,
    factorize,
    merge_ids,
    save_ids,
)

logger = logging.getLogger(__name__)


class _Scan(NamedTuple):
    """What reading one part of the log told."""

    folder: str
    n_rows: int
    faults: Longs  # rows by fault
    n_outside: int
    example: str
    timed: bool
    valued: bool
    users: IdFiles  # codes in scratch are places in these
    items: IdFiles


def write_interactions(
    events: Events, url: str | os.PathLike[str], *, overwrite: bool = False
) -> Interactions:
    """Clean the events and write them as an interaction store, eagerly, in one pass over the log.

    Parameters
    ----------
    events : Events
        What :func:`dasrec.read_events` gave, with the rules of :func:`dasrec.clean` if asked for.
    url : path or fsspec URL
        Under a distributed client every worker must reach it.
    overwrite : bool
        Whether a store that is there already is replaced. It stays readable until the new one is
        whole.

    Returns
    -------
    Interactions

    Raises
    ------
    InputError
        Bad rows (unless ``clean(events, bad_rows="drop")``), no rows left, duplicates under
        ``dedupe="error"``, fewer than two users or items, or a place that is taken.
    DiskError
        The disk is full or may not be written; the state before stays readable.

    Notes
    -----
    A task holds one part of the log (32 MB of text) or one block (about a million events); the two
    vocabularies and one copy of each on every worker must fit in memory. Disk: some 24 bytes an
    event of scratch beside the store while it runs.
    """
    draft = store.Draft(url, INTERACTIONS_KIND, overwrite=overwrite)
    try:
        with blocks.scratch(draft.url) as scratch:
            _ingest(events, draft, scratch)
    except BaseException:
        draft.abandon()
        raise
    return open_interactions(draft.url)


def _ingest(events: Events, draft: store.Draft, scratch: str) -> None:
    arguments = [
        (part, events.rules, files.join(scratch, f"scan-{i}"), i)
        for i, part in enumerate(events.frame.to_delayed())
    ]
    scans = blocks.run(_scan, arguments, name="ingest-scan")
    audit = _judge(scans, events)
    users = merge_ids([scan.users for scan in scans], scratch=scratch, what="user")
    items = merge_ids([scan.items for scan in scans], scratch=scratch, what="item")
    _check_sides(len(users.counts), len(items.counts))
    rules = events.rules
    found = _sort_by_user(scans, users, items, rules, scratch)
    n_before, n_cells = int(users.counts.sum()), sum(block.n_cells for block in found)
    audit.append(AuditStep("duplicates", n_before, n_cells, f"dedupe={rules.dedupe!r}"))
    keep_users, keep_items, found = cells.core(
        found, min_user=rules.min_user, min_item=rules.min_item, scratch=scratch
    )
    n_core = sum(block.n_cells for block in found)
    why = f"min_user={rules.min_user}, min_item={rules.min_item}"
    audit.append(AuditStep("core", n_cells, n_core, why))
    _check_sides(int(keep_users.sum()), int(keep_items.sum()))
    ids = {USER_IDS: users.pieces(keep_users), ITEM_IDS: items.pieces(keep_items)}
    _write(draft, found, ids, audit=audit, scratch=scratch)
    logger.info("wrote %s interactions to %s", n_core, draft.url)


def _write(
    draft: store.Draft,
    found: Sequence[CellBlock],
    ids: Mapping[str, Iterable[Ids]],
    *,
    audit: Sequence[AuditStep],
    scratch: str,
) -> None:
    """Write both orientations and the vocabularies, then make them the current state."""
    n_users = sum(len(block.row_counts) for block in found)
    n_items = len(found[0].column_counts)
    turned = cells.transpose(found, n_users, scratch=scratch)
    cells.write_matrix(draft, USER_ITEMS, found, n_columns=n_items)
    cells.write_matrix(draft, ITEM_USERS, turned, n_columns=n_users)
    draft.commit(
        {
            "n_users": n_users,
            "n_items": n_items,
            "n_stored": sum(block.n_cells for block in found),
            "has_timestamps": found[0].timed,
            "user_hash": _write_ids(draft, USER_IDS, n_users, ids[USER_IDS]),
            "item_hash": _write_ids(draft, ITEM_IDS, n_items, ids[ITEM_IDS]),
            "audit": [list(step) for step in audit],
        }
    )


def _write_ids(draft: store.Draft, name: str, n: int, pieces: Iterable[Ids]) -> str:
    """Write a vocabulary piece by piece and return its hash."""
    digest, start, kind = IdHash(), 0, ""
    for ids in pieces:
        kind = "int64" if ids.dtype == np.int64 else "str"
        draft.write_ids(name, ids, start=start, n=n)
        digest.update(ids)
        start += len(ids)
    return digest.hexdigest(kind=kind)


def _scan(frame: pd.DataFrame, rules: CleanRules, folder: str, part: int) -> _Scan:
    """Judge the rows of one part, keep the good ones in scratch, and count their ids."""
    faults = row_faults(frame)
    bad = faults >= 0
    beyond = ~bad & outside(frame, rules.value_range)
    good = frame if not (bad | beyond).any() else frame[~(bad | beyond)]
    columns, ids = _numbered(good)
    files.make_folder(folder)
    with files.writing(folder):
        for name, values in columns.items():
            files.write_column(files.join(folder, name), values)
    saved = {side: save_ids(files.join(folder, f"{side}-ids"), *ids[side]) for side in (USER, ITEM)}
    example = ""
    if bad.any():
        first = int(np.argmax(bad))
        example = f"row {first + 1} of part {part + 1}: {frame.iloc[first].to_dict()}"
    counts = np.bincount(faults[bad], minlength=len(FAULTS))
    return _Scan(
        folder,
        len(frame),
        counts,
        int(beyond.sum()),
        example,
        TIMESTAMP in columns,
        VALUE in columns,
        saved[USER],
        saved[ITEM],
    )


def _numbered(
    frame: pd.DataFrame,
) -> tuple[dict[str, NDArray[Any]], dict[str, tuple[pd.Series, Longs]]]:
    """Return the columns with ids as codes of this part alone, and each side's ids and counts."""
    columns: dict[str, NDArray[Any]] = {}
    ids = {}
    for side in (USER, ITEM):
        columns[side], distinct, counts = factorize(frame[side])
        ids[side] = (distinct, counts)
    if VALUE in frame:
        columns[VALUE] = frame[VALUE].to_numpy(np.float32)
    if TIMESTAMP in frame:
        columns[TIMESTAMP] = frame[TIMESTAMP].to_numpy("datetime64[us]").view(np.int64)
    return columns, ids


def _judge(scans: Sequence[_Scan], events: Events) -> list[AuditStep]:
    """Begin the audit, or refuse a log with bad rows or none."""
    rows = sum(scan.n_rows for scan in scans)
    if rows == 0:
        msg = f"{events.source} has no rows; expected at least one event below the header"
        raise InputError(msg)
    faults = np.sum([scan.faults for scan in scans], axis=0)
    if faults.any() and events.rules.bad_rows == "error":
        reasons = "; ".join(f"{n} x {why}" for n, why in zip(faults, FAULTS, strict=True) if n)
        example = next(scan.example for scan in scans if scan.example)
        msg = (
            f"{events.source} has {faults.sum()} bad rows of {rows}: {reasons}. "
            f"The first is {example}. "
            'Mend them, or drop them with clean(events, bad_rows="drop") (--bad-rows drop)'
        )
        raise InputError(msg)
    audit = [AuditStep("read", rows, rows, events.source)]
    for number, why in zip(faults.tolist(), FAULTS, strict=True):
        audit.append(AuditStep("bad rows", rows, rows - number, why))
        rows -= number
    n_outside = sum(scan.n_outside for scan in scans)
    audit.append(
        AuditStep("range", rows, rows - n_outside, f"value_range={events.rules.value_range}")
    )
    if rows == n_outside:
        msg = f"{events.source}: none of its rows is left after cleaning; loosen the rules"
        raise InputError(msg)
    return audit


def _check_sides(n_users: int, n_items: int) -> None:
    for n, what in ((n_users, USER), (n_items, ITEM)):
        if n < 2:
            msg = (
                f"there {'is one' if n else 'is no'} {what} left after cleaning; "
                "expected at least two users and two items, else there is nothing to learn. "
                "Check the column names, or loosen min_user and min_item"
            )
            raise InputError(msg)


def _sort_by_user(
    scans: Sequence[_Scan],
    users: MergedIds,
    items: MergedIds,
    rules: CleanRules,
    scratch: str,
) -> list[CellBlock]:
    """Encode every part, bucket its rows by user, then sort and dedupe each bucket."""
    cuts = cut_rows(indptr_of(users.counts), memory.block_cells(int(users.counts.sum())))
    shared = blocks.share((users.light(), items.light(), cuts))
    arguments = [(scan, i, shared, files.join(scratch, f"map-{i}")) for i, scan in enumerate(scans)]
    pieces = blocks.run(_encode, arguments, name="ingest-map")
    spans = [
        (pieces, b, int(cuts[b]), int(cuts[b + 1]), len(items.counts), rules.dedupe, scratch)
        for b in range(len(cuts) - 1)
    ]
    return blocks.run(_reduce, spans, name="ingest-reduce")


def _encode(
    scan: _Scan, part: int, shared: tuple[MergedIds, MergedIds, Longs], folder: str
) -> blocks.Pieces:
    """Turn the codes of one part into numbers and bucket the rows by user."""
    users, items, cuts = shared
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
    last = np.append(starts[1:], n_before) - 1
    kept = {name: values[starts if dedupe == "first" else last] for name, values in found.items()}
    if VALUE in found:
        kept[VALUE] = collapse(starts, found[VALUE], dedupe)
    else:
        repeats = last - starts + 1 if dedupe == "sum" else np.ones(len(starts))
        kept[VALUE] = repeats.astype(np.float32)
    folder = files.join(scratch, f"users-{bucket}")
    return cells.save(folder, kept, row=USER, span=(first, stop), n_columns=n_items)


def interactions_from_scipy(
    user_items: Any,
    url: str | os.PathLike[str],
    *,
    user_ids: Ids | None = None,
    item_ids: Ids | None = None,
    overwrite: bool = False,
) -> Interactions:
    """Write a SciPy matrix as an interaction store, eagerly.

    Parameters
    ----------
    user_items : SciPy sparse matrix or array, shape (n_users, n_items)
        Stored cells are the interactions, explicit zeros too; duplicates are summed.
    url : path or fsspec URL
    user_ids, item_ids : int64 or str, optional
        Ids of rows and columns; their numbers if not given.
    overwrite : bool
        Whether a store that is there already is replaced.

    Raises
    ------
    InputError
        A value is not finite, ids do not fit the shape or are not unique, or a place is taken.
    """
    matrix: Any = sparse.csr_array(user_items, dtype=np.float32)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()  # sum_duplicates would change the caller's arrays
        matrix.sum_duplicates()
    if not np.isfinite(matrix.data).all():
        msg = "the matrix holds NaN or infinite values; expected finite numbers"
        raise InputError(msg)
    users = _given_ids(user_ids, matrix.shape[0], "user")
    items = _given_ids(item_ids, matrix.shape[1], "item")
    _check_sides(len(users), len(items))
    columns = {
        USER: rows_of(matrix.indptr.astype(np.int64)),
        ITEM: matrix.indices.astype(np.int32),
        VALUE: matrix.data,
    }
    draft = store.Draft(url, INTERACTIONS_KIND, overwrite=overwrite)
    audit = [AuditStep("read", matrix.nnz, matrix.nnz, "a SciPy matrix")]
    try:
        with blocks.scratch(draft.url) as scratch:
            found = cells.save(
                files.join(scratch, "users-0"),
                columns,
                row=USER,
                span=(0, len(users)),
                n_columns=len(items),
            )
            ids = {USER_IDS: [users.ids], ITEM_IDS: [items.ids]}
            _write(draft, [found], ids, audit=audit, scratch=scratch)
    except BaseException:
        draft.abandon()
        raise
    return open_interactions(draft.url)


def _given_ids(ids: Ids | None, n: int, what: str) -> Vocabulary:
    vocabulary = Vocabulary(np.arange(n) if ids is None else ids, what)
    if len(vocabulary) != n:
        msg = f"{len(vocabulary)} {what} ids were given for {n} {what}s; expected one each"
        raise InputError(msg)
    vocabulary.find(vocabulary.ids[:0])  # refuses ids that stand twice
    return vocabulary
