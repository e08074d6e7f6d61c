"""From events to a store: an external bucket sort whose tasks fit in memory.

scan (read, judge rows, count ids) -> vocabularies -> map (encode, bucket by user)
-> reduce (sort, dedupe) -> k-core -> write by user, bucket by item -> sort and write by item
-> commit.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from dasrec import blocks, cells, files, store, versions
from dasrec.cells import CellBlock
from dasrec.clean import AuditStep
from dasrec.errors import DasrecError, InputError
from dasrec.events import Events
from dasrec.interactions import Interactions, open_interactions
from dasrec.journal import Journal, job_key, resuming
from dasrec.kernels.csr import rows_of
from dasrec.memory import from_heap
from dasrec.numbering import merge_ids
from dasrec.plan import allowed_tasks, check_held
from dasrec.scan import judge, scan_log
from dasrec.schema import (
    FEATURES,
    FORGOTTEN,
    INTERACTIONS_KIND,
    ITEM,
    ITEM_IDS,
    USER,
    USER_IDS,
    VALUE,
)
from dasrec.sessions import number_sessions, session_ids
from dasrec.shards import write_matrices
from dasrec.typing import Bools, Ids, Longs
from dasrec.vocabulary import IdHash, Vocabulary

logger = logging.getLogger(__name__)


def write_interactions(
    events: Events,
    url: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    quarantine: str | os.PathLike[str] | None = None,
    memory: str | int | None = None,
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
    quarantine : path or fsspec URL, optional
        Folder where bad rows are kept as Parquet, with ``part``, ``row`` and ``reason``.
    memory : bytes or text like "2GB", optional
        What this process, or each worker of a client, may hold; fewer tasks then run at a time.
        :func:`dasrec.plan_ingest` says what comes of it.

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
    BudgetError
        ``memory`` is too little for one task, or for what the caller holds.

    Notes
    -----
    A task holds one piece of the log (32 MB of text, a million rows) or one block (about a
    million events); the caller some 30 bytes a user and an item, never the ids. Disk: some 24 bytes
    an event of scratch beside the store while it runs. What was stopped or killed on a local disk
    goes on where it stopped when the same call is made again.
    """
    place = files.absolute(quarantine) if quarantine else None
    at_once = allowed_tasks(events, memory)
    key = _key_of(events, place)
    draft = store.Draft(url, INTERACTIONS_KIND, overwrite=overwrite)
    with writing(draft, key=key, at_once=at_once) as journal:
        _ingest(events, draft, journal, quarantine=place, budget=memory)
    return open_interactions(draft.url)


def append_interactions(
    events: Events, url: str | os.PathLike[str], *, memory: str | int | None = None
) -> Interactions:
    """Add events to a store, eagerly: a new version; nothing that is there is rewritten.

    Users and items that the store knows keep their numbers, new ones come after them in sorted
    order. Of a cell that old and new events share, the store's dedupe rule decides, with what is
    new as the later one where times are equal or not known.

    Parameters
    ----------
    events : Events
        Cleaned by the rules of the store, without ``min_user`` and ``min_item``.
    url : path or fsspec URL
    memory : as for ``write_interactions``

    Returns
    -------
    Interactions, the new version

    Raises
    ------
    InputError
        As :func:`write_interactions`; or the events do not go with the store: other kinds of ids,
        timestamps on one side only, or another dedupe rule.
    StoreError
        There is no store, or another writer has appended meanwhile: theirs is kept, try again.
    """
    base = open_interactions(url)
    _check_goes_with(events, base)
    pointer = versions.read_pointer(base.url, INTERACTIONS_KIND, base.version)
    if events.rules.session_gap or pointer.facts.get("session_gap"):
        msg = "what is new may belong to sessions that are there; write the whole log again"
        raise InputError(msg)
    at_once = allowed_tasks(events, memory)
    key = _key_of(events, base.version)
    draft = store.Draft(base.url, INTERACTIONS_KIND, base=pointer)
    with writing(draft, key=key, at_once=at_once) as journal:
        _ingest(events, draft, journal, base, budget=memory)
    return open_interactions(base.url)


def _key_of(events: Events, *details: Any) -> str | None:
    return job_key(events.frame._name, events.stamp, events.rules, *details)


@contextlib.contextmanager
def writing(
    draft: store.Draft, *, key: str | None = None, at_once: int | None = None
) -> Iterator[Journal]:
    """Give a journal for what becomes a version; what fails is removed, what is killed stays."""
    resumable = False
    try:
        with (
            from_heap(),
            blocks.job("ingest"),
            resuming(draft.url, key, at_once=at_once) as journal,
        ):
            resumable = journal.resumable
            if resumable and key is not None:
                draft.take_over(key)
            yield journal
    except BaseException as error:
        if isinstance(error, DasrecError) or not resumable:
            draft.abandon()
        raise


def _check_goes_with(events: Events, base: Interactions) -> None:
    rules = events.rules
    if events.has_timestamps != base.has_timestamps:
        has = ("has", "lacks") if base.has_timestamps else ("lacks", "has")
        msg = (
            f"{base.url} {has[0]} timestamps and {events.source} {has[1]} them; expected both alike"
        )
        raise InputError(msg)
    if base.dedupe in ("mean", "error") or rules.dedupe != base.dedupe:
        msg = (
            f"{base.url} dedupes by {base.dedupe!r} and the events by {rules.dedupe!r}; expected "
            "the same of both, and one of last, first, sum, max"
        )
        raise InputError(msg)
    if rules.min_user > 1 or rules.min_item > 1:
        msg = "min_user and min_item cannot hold for a part alone; leave them out when appending"
        raise InputError(msg)
    kinds = [events.frame.dtypes[side] for side in (USER, ITEM)]
    for side, kind, known in zip((USER, ITEM), kinds, (base.user_ids, base.item_ids), strict=True):
        if pd.api.types.is_integer_dtype(kind) != (known.dtype == np.int64):
            msg = f"{side} ids are {kind} in {events.source}, other than in {base.url}; pass ids="
            raise InputError(msg)


def _ingest(
    events: Events,
    draft: store.Draft,
    journal: Journal,
    base: Interactions | None = None,
    quarantine: str | None = None,
    budget: str | int | None = None,
) -> None:
    rules = events.rules
    scans = scan_log(events, journal, quarantine)
    audit = judge(scans, events)
    users = merge_ids([scan.users for scan in scans], journal, what=USER)
    items = merge_ids([scan.items for scan in scans], journal, what=ITEM)
    if base is not None:
        users, items = users.after(base.user_ids), items.after(base.item_ids)
    _check_sides(len(users.counts), len(items.counts))
    check_held(len(users.counts) + len(items.counts), budget)
    people = _people(users.counts, rules.max_user)
    n_all, n_left = int(users.counts.sum()), int(users.counts[people].sum())
    if rules.max_user is not None:
        audit.append(AuditStep("bots", n_all, n_left, f"max_user={rules.max_user}"))
    found = cells.sort_by_user(scans, users, items, keep_users=people, rules=rules, journal=journal)
    whole = found = number_sessions(found) if rules.session_gap else found
    n_cells = sum(block.n_cells for block in found)
    n_rows = sum(len(block.row_counts) for block in found)
    if rules.session_gap:
        why = f"{n_rows} of {people.sum()} users, pauses over {rules.session_gap / 1e6:g} s"
        audit.append(AuditStep("sessions", n_left, n_left, why))
    audit.append(AuditStep("duplicates", n_left, n_cells, f"dedupe={rules.dedupe!r}"))
    keep_users, keep_items = (np.ones(n, np.bool_) for n in (n_rows, len(items.counts)))
    if base is None and (rules.min_user > 1 or rules.min_item > 1 or not people.all()):
        keep_users, keep_items, found = cells.core(
            found,
            len(keep_items),
            min_user=rules.min_user,
            min_item=rules.min_item,
            journal=journal,
        )
        _check_sides(int(keep_users.sum()), int(keep_items.sum()))
    if base is None:
        n_core = sum(block.n_cells for block in found)
        why = f"min_user={rules.min_user}, min_item={rules.min_item}"
        audit.append(AuditStep("core", n_cells, n_core, why))
    rows = session_ids(whole, users, keep_users) if rules.session_gap else users.pieces(keep_users)
    ids = {USER_IDS: rows, ITEM_IDS: items.pieces(keep_items)}
    facts = group_facts(rules.dedupe, audit, session_gap=rules.session_gap)
    write_groups(draft, found, items.counts[keep_items], ids, facts, journal, base=base)
    logger.info("wrote %s interactions to %s", sum(block.n_cells for block in found), draft.url)


def _people(counts: Longs, max_user: float | None) -> Bools:
    """Mark the users whose number of events a person may have."""
    if max_user is None:
        return np.ones(len(counts), np.bool_)
    return counts <= (max_user if max_user >= 1 else np.quantile(counts[counts > 0], max_user))


def group_facts(
    dedupe: str, audit: Sequence[AuditStep], session_gap: int | None = None
) -> dict[str, Any]:
    """Return what a version says of how it came to be."""
    facts = {"dedupe": dedupe, "audit": [list(step) for step in audit]}
    return {**facts, "session_gap": session_gap} if session_gap else facts


def write_groups(
    draft: store.Draft,
    found: Sequence[CellBlock],
    item_counts: Longs,
    ids: Mapping[str, Iterable[Ids]],
    facts: Mapping[str, Any],
    journal: Journal,
    *,
    base: Interactions | None = None,
) -> None:
    """Write both orientations and the ids that are new, then make a version of them.

    Parameters
    ----------
    draft : Draft
    found : cells sorted by user, of all rows
    item_counts : about how many cells each item has
    ids : of both sides, in pieces; without those that ``base`` has
    facts : what the version says of itself beside sizes and hashes
    journal : of the job
    base : the version that the draft builds on
    """
    n_users = sum(len(block.row_counts) for block in found)
    n_items = len(item_counts)
    older = base.stored_counts(n_users, n_items) if base else (None, None)
    write_matrices(draft, found, item_counts, journal, older=older)
    known = (base.user_ids, base.item_ids) if base else (None, None)
    draft.commit(
        {
            **_kept_facts(draft),
            "n_users": n_users,
            "n_items": n_items,
            "n_stored": sum(block.n_cells for block in found) + (base.n_stored if base else 0),
            "has_timestamps": found[0].timed,
            "user_hash": _write_ids(draft, USER_IDS, n_users, ids[USER_IDS], known[0]),
            "item_hash": _write_ids(draft, ITEM_IDS, n_items, ids[ITEM_IDS], known[1]),
            **facts,
        }
    )


def _kept_facts(draft: store.Draft) -> dict[str, Any]:
    """Return what stays true of a version when more comes after it."""
    before = draft.base.facts if draft.base else {}
    return {name: before[name] for name in (FEATURES, FORGOTTEN) if name in before}


def _write_ids(
    draft: store.Draft, name: str, n: int, pieces: Iterable[Ids], known: Vocabulary | None
) -> str:
    """Write the new ids of a vocabulary piece by piece and return the hash of all."""
    digest = IdHash()
    whole = None if known is None else known.dtype == np.int64
    if known is not None:
        for ids in known.pieces():
            digest.update(ids)
    new = n - (len(known) if known is not None else 0)
    start = 0
    for ids in pieces:
        whole = ids.dtype == np.int64
        draft.write_ids(name, ids, start=start, n=new)
        digest.update(ids)
        start += len(ids)
    return digest.hexdigest(kind="int64" if whole else "str")


def _check_sides(n_users: int, n_items: int) -> None:
    for n, what in ((n_users, USER), (n_items, ITEM)):
        if n < 2:
            msg = (
                f"there {'is one' if n else 'is no'} {what} left after cleaning; "
                "expected at least two users and two items, else there is nothing to learn. "
                "Check the column names, or loosen min_user and min_item"
            )
            raise InputError(msg)


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
    with np.errstate(over="ignore"):
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
    with writing(draft) as journal:
        found = cells.save_by_user(journal.path("users-0"), columns, (0, len(users)))
        ids = {USER_IDS: [users.ids], ITEM_IDS: [items.ids]}
        facts = group_facts("last", [AuditStep("read", matrix.nnz, matrix.nnz, "SciPy matrix")])
        item_counts = np.bincount(columns[ITEM], minlength=len(items))
        write_groups(draft, [found], item_counts, ids, facts, journal)
    return open_interactions(draft.url)


def _given_ids(ids: Ids | None, n: int, what: str) -> Vocabulary:
    vocabulary = Vocabulary(np.arange(n) if ids is None else ids, what)
    if len(vocabulary) != n:
        msg = f"{len(vocabulary)} {what} ids were given for {n} {what}s; expected one each"
        raise InputError(msg)
    vocabulary.find(vocabulary.ids[:0])  # refuses ids that stand twice
    return vocabulary
