"""Interactions: the sparse matrix of who used what, both orientations, as users hold it."""

from __future__ import annotations

import copy
import datetime
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from scipy import sparse

from dasrec import blocks, files, memory, store, versions
from dasrec.cards import Card, Carded, card_of_matrix
from dasrec.clean import AuditStep, audit_dataset
from dasrec.errors import InputError, MismatchError, StoreError
from dasrec.forgotten import NotForgotten
from dasrec.kernels.csr import collapse, indptr_of, kept_indptr, rows_of, sort_cells
from dasrec.schema import (
    CUTS,
    INDPTR,
    INTERACTIONS_KIND,
    ITEM_IDS,
    ITEM_USERS,
    USER_IDS,
    USER_ITEMS,
)
from dasrec.segments import StoredVocabulary
from dasrec.typing import Bools, CsrBlock, Dedupe, Ints, Longs, Mask, Side, Transform
from dasrec.vocabulary import Vocabulary

_FACTS = (
    "n_users",
    "n_items",
    "n_stored",
    "has_timestamps",
    "user_hash",
    "item_hash",
    "dedupe",
)


@dataclass(frozen=True)
class Interactions(Carded):
    """An interaction store, or the part of it that masks let through; read when asked for.

    Attributes
    ----------
    url : str
        The store.
    version : int
        The version of it that this object reads, whatever is appended later.
    group_urls : tuple of str
        The Zarr groups that the version is made of, oldest first; ``anndata`` opens each.
    n_users, n_items : int
        Shape of the matrix; a mask never changes it.
    n_stored : int
        Stored cells of the whole store.
    has_timestamps : bool
    masks : tuple of Mask
        An interaction belongs to this view if all of them say so.
    transforms : tuple of Transform
        What is done to the stored weights when they are read, the first one first.
    """

    url: str
    version: int
    group_urls: tuple[str, ...]
    n_users: int
    n_items: int
    n_stored: int
    has_timestamps: bool
    user_hash: str
    item_hash: str
    dedupe: Dedupe = "last"
    masks: tuple[Mask, ...] = ()
    transforms: tuple[Transform, ...] = ()

    def __repr__(self) -> str:
        part = " (a part of it)" if self.masks else ""
        part += "".join(f", {type(each).__name__}" for each in self.transforms)
        return (
            f"<Interactions: {self.n_users:,} users x {self.n_items:,} items, "
            f"{self.n_stored:,} stored{part}, {self.url}>"
        )

    def _card(self) -> Card:
        return card_of_matrix(self)

    @cached_property
    def user_ids(self) -> Vocabulary:
        """Ids of the rows of ``user_items``, read when asked for."""
        return StoredVocabulary(self.group_urls, USER_IDS, "user")

    @cached_property
    def item_ids(self) -> Vocabulary:
        """Ids of the columns of ``user_items``, read when asked for."""
        return StoredVocabulary(self.group_urls, ITEM_IDS, "item")

    @property
    def state(self) -> str:
        """What this object reads, in one word that no other state of any store shares."""
        return f"{self.group_urls[-1].rsplit('/', 1)[-1]}-{self.version}"

    @property
    def user_items(self) -> da.Array:
        """Users x items, a lazy Dask array whose blocks are SciPy CSR arrays of float32."""
        return self._dask("user_items")

    @property
    def item_users(self) -> da.Array:
        """Items x users, likewise."""
        return self._dask("item_users")

    @property
    def audit(self) -> xr.Dataset:
        """What cleaning did when the store was written: rows in, rows out and why, by step."""
        facts = versions.read_pointer(self.url, INTERACTIONS_KIND, self.version).facts
        return audit_dataset([AuditStep(*step) for step in facts["audit"]])

    def cuts(self, side: Side) -> Longs:
        """Return where the row blocks of one orientation begin, int64, shape (n_blocks + 1,)."""
        known: dict[Side, Longs] = self.__dict__.setdefault("_cuts", {})  # every sweep asks
        if side not in known:
            # those of the latest group are made for all of them
            known[side] = store.read_array(self.group_urls[-1], f"{side}/{CUTS}")
        return known[side]

    def where(self, mask: Mask) -> Interactions:
        """Return the view of those interactions that ``mask`` marks; no data is copied."""
        if mask.needs_timestamp and not self.has_timestamps:
            msg = (
                f"{self.url} has no timestamps; write it again from a log with a timestamp column, "
                "or split at random"
            )
            raise InputError(msg)
        return replace(self, masks=(*self.masks, mask))

    def transform(self, transform: Transform) -> Interactions:
        """Return the view whose weights ``transform`` changes when they are read, lazily.

        Parameters
        ----------
        transform : Transform
            One of :mod:`dasrec.normalise`, fitted on the training part. It is copied: fitting it
            again does not change this view.

        Raises
        ------
        InputError
            It is not fitted, or it needs timestamps and there are none.
        MismatchError
            It was fitted on a store where numbers stand for other users or items.
        """
        facts = transform.describe()
        if transform.needs_timestamp and not self.has_timestamps:
            msg = (
                f"{self.url} has no timestamps and {type(transform).__name__} needs them; write it "
                "again from a log with a timestamp column"
            )
            raise InputError(msg)
        for what, ours in (("user", self.user_hash), ("item", self.item_hash)):
            if facts.get(f"{what}_hash", ours) != ours:
                msg = (
                    f"this {type(transform).__name__} does not belong to {self.url}: their {what} "
                    "vocabularies differ; fit it on this store"
                )
                raise MismatchError(msg)
        return replace(self, transforms=(*self.transforms, copy.copy(transform)))

    def read_rows(self, side: Side, start: int, stop: int, *, timed: bool = False) -> CsrBlock:
        """Read rows ``start:stop`` of this view now."""
        return self._shown(self._stored(side, start, stop, timed=timed), side, start)

    def _stored(self, side: Side, start: int, stop: int, *, timed: bool) -> CsrBlock:
        """Read these rows as they are stored, timed if the view's rules ask for it."""
        merges_by_time = self.has_timestamps and len(self.group_urls) > 1
        rules: tuple[Mask | Transform, ...] = (*self.masks, *self.transforms)
        needed = timed or merges_by_time or any(rule.needs_timestamp for rule in rules)
        parts = [
            store.read_rows(group, side, start, stop, timed=needed) for group in self.group_urls
        ]
        width = self.n_items if side == USER_ITEMS else self.n_users
        return merge_blocks(parts, (stop - start, width), self.dedupe)

    def _shown(self, block: CsrBlock, side: Side, start: int) -> CsrBlock:
        if self.masks:
            block = self._masked(block, side, start)
        return self._transformed(block, side, start) if self.transforms else block

    def read_times(self, side: Side, start: int, stop: int) -> Longs:
        """Read the timestamps of rows ``start:stop`` now; of a whole store nothing else is read."""
        if not self.masks and len(self.group_urls) == 1:
            return store.read_times(self.group_urls[0], side, start, stop)
        times = self.read_rows(side, start, stop, timed=True).timestamps
        assert times is not None  # they were asked for
        return times

    def _masked(self, block: CsrBlock, side: Side, start: int) -> CsrBlock:
        keep = marked(self.masks, block, side, start)
        times = None if block.timestamps is None else block.timestamps[keep]
        return CsrBlock(
            kept_indptr(block.indptr, keep),
            block.indices[keep],
            block.data[keep],
            block.n_columns,
            times,
        )

    def _transformed(self, block: CsrBlock, side: Side, start: int) -> CsrBlock:
        users, items = _cells(block, side, start)
        weights = block.data
        for transform in self.transforms:
            weights = transform(users, items, weights, block.timestamps)
        return block._replace(data=weights)

    def map_blocks(
        self, task: Callable[..., Any], side: Side, *shared: Any, name: str, progress: bool = True
    ) -> list[Any]:
        """Run ``task(self, side, start, stop, *shared)`` for every block; results in order."""
        cuts = self.cuts(side)
        # masks and transforms may hold arrays as long as the vocabularies: one copy a worker
        view = blocks.share(self) if self.masks or self.transforms else self
        arguments = [(view, side, int(start), int(stop), *shared) for start, stop in pairwise(cuts)]
        n_rows = int(cuts[-1] - cuts[0])
        return blocks.run(task, arguments, name=name, progress=progress, rows=n_rows)

    def counts(self, side: Side) -> Longs:
        """Count the interactions of each user (``user_items``) or item (``item_users``) now."""
        if not self.masks and len(self.group_urls) == 1:
            return np.diff(store.read_array(self.group_urls[0], f"{side}/{INDPTR}"))
        return np.concatenate(self.map_blocks(_row_counts, side, name="count-block"))

    def stored_counts(self, n_users: int, n_items: int) -> tuple[Longs, Longs]:
        """Count the stored cells of each row of both sides, over all groups and without masks."""
        totals = (np.zeros(n_users, np.int64), np.zeros(n_items, np.int64))
        for total, side in zip(totals, (USER_ITEMS, ITEM_USERS), strict=True):
            for group in self.group_urls:
                counts = np.diff(store.read_array(group, f"{side}/{INDPTR}"))
                total[: len(counts)] += counts
        return totals

    def to_scipy(self) -> sparse.csr_array[np.float32]:
        """Read the whole view into memory as users x items.

        Raises
        ------
        BudgetError
            It would not fit.
        """
        memory.check_fits(
            20 * self.n_stored + 8 * self.n_users,
            limit=memory.limit(),
            what=f"to_scipy() of {self.n_stored:,} interactions",
            remedy="work on interactions.user_items by block",
        )
        return self.read_rows("user_items", 0, self.n_users).to_scipy()

    def _dask(self, side: Side) -> da.Array:
        cuts = self.cuts(side)
        width = self.n_items if side == USER_ITEMS else self.n_users
        arguments = [(self, side, int(a), int(b)) for a, b in pairwise(cuts)]
        return blocks.stack(_csr, arguments, heights=np.diff(cuts), width=width, name=side)

    def __getstate__(self) -> dict[str, Any]:
        # a task that takes this along must not take cached vocabularies too
        return {each.name: getattr(self, each.name) for each in fields(self)}


def read_both(
    views: tuple[Interactions, Interactions], side: Side, start: int, stop: int
) -> tuple[CsrBlock, CsrBlock]:
    """Read the same rows of two views now; what both find in one store is read once."""
    one, other = views
    # a view of another type has its rows elsewhere
    if not type(one) is type(other) is Interactions or one.group_urls != other.group_urls:
        return one.read_rows(side, start, stop), other.read_rows(side, start, stop)
    rules: tuple[Mask | Transform, ...] = (*other.masks, *other.transforms)
    timed = any(rule.needs_timestamp for rule in rules)
    stored = one._stored(side, start, stop, timed=timed)
    return one._shown(stored, side, start), other._shown(stored, side, start)


def _cells(block: CsrBlock, side: Side, start: int) -> tuple[Ints, Ints]:
    """Return the user and the item of every cell of a block that begins at row ``start``."""
    rows = rows_of(block.indptr) + np.int32(start)
    return (rows, block.indices) if side == USER_ITEMS else (block.indices, rows)


def marked(masks: Sequence[Mask], block: CsrBlock, side: Side, start: int) -> Bools:
    """Mark the cells of a block, which begins at row ``start``, that all masks let through."""
    users, items = _cells(block, side, start)
    keep = np.ones(len(users), np.bool_)
    for mask in masks:
        keep &= mask(users, items, block.timestamps)
    return keep


def _csr(view: Interactions, side: Side, start: int, stop: int) -> sparse.csr_array[np.float32]:
    return view.read_rows(side, start, stop).to_scipy()


def _row_counts(view: Interactions, side: Side, start: int, stop: int) -> Longs:
    return np.diff(view.read_rows(side, start, stop).indptr)


def merge_blocks(parts: Sequence[CsrBlock], shape: tuple[int, int], dedupe: Dedupe) -> CsrBlock:
    """Merge the same rows of several groups; of a cell that several have, ``dedupe`` decides.

    Parameters
    ----------
    parts : sequence of CsrBlock, oldest first; rows that came later are missing in older ones
    shape : of the merged block
    dedupe : as :func:`dasrec.clean`
    """
    if len(parts) == 1:
        return parts[0]._replace(n_columns=shape[1])
    rows = np.concatenate([rows_of(part.indptr) for part in parts])
    columns = np.concatenate([part.indices for part in parts])
    values = np.concatenate([part.data for part in parts])
    times = [part.timestamps for part in parts if part.timestamps is not None]
    stamps = np.concatenate(times) if times else None
    order, starts = sort_cells(rows, columns, stamps, shape=shape)
    first = order[starts]
    kept = first if dedupe == "first" else order[np.append(starts, len(rows))[1:] - 1]
    counts = np.bincount(rows[first], minlength=shape[0])
    return CsrBlock(
        indptr_of(counts),
        columns[first],
        collapse(starts, values[order], dedupe),
        shape[1],
        None if stamps is None else stamps[kept],
    )


def open_interactions(
    url: str | os.PathLike[str], *, version: int | None = None, as_of: str | None = None
) -> Interactions:
    """Open an interaction store, lazily.

    Parameters
    ----------
    url : path or fsspec URL
    version : int, optional
        Read exactly this version, not the latest.
    as_of : ISO 8601 date or time, optional
        Read the version that was the latest then (UTC unless it says otherwise).

    Raises
    ------
    StoreError
        Nothing is there, its writing was cut off, it is of another format version, or it has no
        such version.
    InputError
        Both ``version`` and ``as_of`` are given, or ``as_of`` is no date.
    """
    place = os.fspath(url)
    if as_of is not None:
        if version is not None:
            msg = "version and as_of are both given; expected one of them"
            raise InputError(msg)
        version = _version_of(place, as_of)
    return open_pointer(versions.read_pointer(place, INTERACTIONS_KIND, version))


def _version_of(url: str, as_of: str) -> int:
    try:
        moment = datetime.datetime.fromisoformat(as_of)
    except ValueError as error:
        msg = f"as_of is {as_of!r}; expected a date or time like 2026-01-31 or 2026-01-31T12:00"
        raise InputError(msg) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    for version in reversed(versions.list_versions(files.absolute(url))):
        pointer = versions.read_pointer(url, INTERACTIONS_KIND, version)
        if datetime.datetime.fromisoformat(pointer.created) <= moment:
            return version
    msg = f"{url} has no version as old as {as_of}"
    raise StoreError(msg)


def open_pointer(pointer: versions.Pointer) -> Interactions:
    """Return the interactions of a version."""
    facts = pointer.facts
    try:
        known = {name: facts[name] for name in _FACTS}
    except KeyError as error:
        msg = f"version {pointer.version} of {pointer.url} is damaged, it lacks {error}"
        raise StoreError(msg) from error
    whole = Interactions(pointer.url, pointer.version, pointer.group_urls, **known)
    forgotten = tuple(facts.get("forgotten", ()))
    return whole.where(NotForgotten(forgotten)) if forgotten else whole
