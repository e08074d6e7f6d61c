"""Looking after a store: compact it, forget people, verify every byte of it."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from dasrec import blocks, cells, features, files, store, versions
from dasrec.cells import CellBlock
from dasrec.clean import AuditStep
from dasrec.errors import StoreError
from dasrec.forgotten import nobody
from dasrec.ingest import group_facts, write_groups, writing
from dasrec.interactions import Interactions, open_interactions
from dasrec.kernels.csr import rows_of
from dasrec.kernels.hashing import cell_words
from dasrec.runs import Runs
from dasrec.schema import (
    FORGOTTEN,
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
from dasrec.typing import Ids, Side
from dasrec.vocabulary import Vocabulary


def compact(url: str | os.PathLike[str]) -> Interactions:
    """Write what a store holds now as one group, eagerly, and remove all older versions.

    Numbers of users and items stay. The interactions, the features and the ids of forgotten users
    are gone afterwards, from the disk too; their numbers stay, with ids that name nobody.

    Raises
    ------
    StoreError
        There is no store, or another writer has made a version meanwhile.
    DiskError
        The disk is full or may not be written; the store stays as it was.
    """
    whole = open_interactions(url)
    pointer = versions.read_pointer(whole.url, INTERACTIONS_KIND, whole.version)
    draft = store.Draft(whole.url, INTERACTIONS_KIND, overwrite=True)
    with writing(draft) as journal:
        found: list[CellBlock] = whole.map_blocks(
            _save_rows, USER_ITEMS, journal.folder, name="compact-block"
        )
        forgotten = pointer.facts.get(FORGOTTEN, ())
        ids = {
            USER_IDS: _without(whole.user_ids, forgotten),
            ITEM_IDS: whole.item_ids.pieces(),
        }
        n_left = sum(block.n_cells for block in found)
        audit = [AuditStep("compact", whole.n_stored, n_left, f"version {whole.version}")]
        facts = group_facts(
            whole.dedupe, [*audit, *_proofs(pointer)], pointer.facts.get("session_gap")
        )
        left = {USER: _without(whole.user_ids, forgotten), ITEM: whole.item_ids.pieces()}
        facts |= features.rewrite(whole, draft, left)
        write_groups(draft, found, whole.counts(ITEM_USERS), ids, facts, journal)
    return open_interactions(whole.url)


def _save_rows(view: Interactions, side: Side, start: int, stop: int, scratch: str) -> CellBlock:
    block = view.read_rows(side, start, stop, timed=view.has_timestamps)
    columns: dict[str, Any] = {
        USER: rows_of(block.indptr) + np.int32(start),
        ITEM: block.indices,
        VALUE: block.data,
    }
    if block.timestamps is not None:
        columns[TIMESTAMP] = block.timestamps
    folder = files.join(scratch, f"compact-{start}")
    return cells.save_by_user(folder, columns, (start, stop))


def _without(users: Vocabulary, forgotten: Sequence[int]) -> Iterator[Ids]:
    """Yield the ids of users, in which those of forgotten ones name nobody."""
    gone = np.sort(np.array(forgotten, np.int64))
    start = 0
    for ids in users.pieces():
        here = gone[slice(*np.searchsorted(gone, (start, start + len(ids))))]
        left = ids.copy()
        left[here - start] = nobody(here, ids.dtype)
        yield left
        start += len(ids)


def forget(url: str | os.PathLike[str], *, users: Ids) -> Interactions:
    """Forget people, eagerly: no reader of the new version sees interactions or features of theirs.

    They stay forgotten though more is appended. The bytes are gone after :func:`compact`, which
    also ends the older versions. The audit records when and how many, not whom.

    Parameters
    ----------
    url : path or fsspec URL
    users : array of user ids

    Raises
    ------
    InputError
        An id is unknown.
    StoreError
        There is no store, or another writer has made a version meanwhile.
    """
    whole = open_interactions(url)
    pointer = versions.read_pointer(whole.url, INTERACTIONS_KIND, whole.version)
    known = set(pointer.facts.get(FORGOTTEN, ()))
    new = set(whole.user_ids.numbers(users).tolist()) - known
    counts = whole.counts(USER_ITEMS)
    before, gone = int(counts.sum()), int(counts[list(new)].sum())
    moment = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    step = AuditStep("forget", before, before - gone, f"{len(new)} users, {moment}")
    facts = {
        **pointer.facts,
        FORGOTTEN: sorted(known | new),
        "audit": [*_proofs(pointer), step],
    }
    versions.publish(
        pointer._replace(version=pointer.version + 1, created=versions.now(), facts=facts)
    )
    return open_interactions(whole.url)


def _proofs(pointer: versions.Pointer) -> list[AuditStep]:
    """Return the steps of an audit that must outlive compaction."""
    steps = [AuditStep(*step) for step in pointer.facts["audit"]]
    return [step for step in steps if step.step == "forget"]


class _Check(NamedTuple):
    """What reading one block of one group told."""

    n_cells: int
    total: int  # over cells, of words that depend on all that a cell holds
    faults: list[str]


def verify(url: str | os.PathLike[str]) -> list[str]:
    """Read everything that the latest version holds, eagerly, and return what is wrong with it.

    Checks the CRC32C of every chunk, counts, order and range of the numbers, that both orientations
    hold the same cells, and the hashes of both vocabularies and of features.

    Returns
    -------
    list of str
        One sentence a fault, which names the block; empty if all is well.

    Raises
    ------
    StoreError
        There is no store to verify.
    """
    whole = open_interactions(url)
    faults = [*_check_ids(whole), *features.faults_of(whole)]
    for group in whole.group_urls:
        totals = {}
        for side in (USER_ITEMS, ITEM_USERS):
            checks = _check_side(whole, group, side)
            faults += [fault for check in checks for fault in check.faults]
            totals[side] = (
                sum(check.n_cells for check in checks),
                sum(check.total for check in checks) % 2**64,
            )
        if totals[USER_ITEMS] != totals[ITEM_USERS]:
            faults.append(f"{group}: user_items and item_users do not hold the same interactions")
    return faults


def _check_ids(whole: Interactions) -> list[str]:
    faults = []
    for ids, known, name in (
        (whole.user_ids, whole.user_hash, USER_IDS),
        (whole.item_ids, whole.item_hash, ITEM_IDS),
    ):
        try:
            if ids.hash != known:
                faults.append(f"{whole.url}: the {ids.what} ids do not match their hash")
            for group in whole.group_urls:
                runs = store.read_runs(group, name)
                if runs is not None and not _same(runs, store.find_id_runs(group, name)):
                    faults.append(f"{group}: the ascending runs of {name} are not where it says")
        except StoreError as error:
            faults.append(str(error))
    return faults


def _same(runs: Runs, others: Runs | None) -> bool:
    return others is not None and all(
        one.dtype == other.dtype and np.array_equal(one, other)
        for one, other in zip(runs, others, strict=True)
    )


def _check_side(whole: Interactions, group: str, side: Side) -> list[_Check]:
    n_rows, width = store.matrix_shape(group, side)
    edges = whole.cuts(side)
    arguments = [
        (group, side, int(start), int(min(stop, n_rows)), width, whole.has_timestamps)
        for start, stop in pairwise(edges)
        if start < n_rows
    ]
    return blocks.run(_check_block, arguments, name="verify-block")


def _check_block(
    group: str,
    side: Side,
    start: int,
    stop: int,
    width: int,
    timed: bool,  # noqa: FBT001
) -> _Check:
    where = f"{group}/{side}, rows {start} to {stop - 1}"
    try:
        block = store.read_rows(group, side, start, stop, timed=timed)
    except StoreError as error:
        return _Check(0, 0, [f"{where}: {error}"])
    faults = []
    lengths = np.diff(block.indptr)
    if (lengths < 0).any() or block.indptr[-1] != len(block.indices):
        return _Check(0, 0, [f"{where}: the row pointers do not fit the stored cells"])
    rows = rows_of(block.indptr)
    if len(block.indices) and not 0 <= block.indices.min() <= block.indices.max() < width:
        faults.append(f"{where}: a column number is out of range")
    same_row = rows[1:] == rows[:-1]
    if (np.diff(block.indices)[same_row] <= 0).any():
        faults.append(f"{where}: the columns of a row do not ascend")
    if not np.isfinite(block.data).all():
        faults.append(f"{where}: a value is not finite")
    rows += np.int32(start)
    users, items = (rows, block.indices) if side == USER_ITEMS else (block.indices, rows)
    words = cell_words(users, items, block.data, block.timestamps)
    return _Check(len(rows), int(words.sum(dtype=np.uint64)), faults)
