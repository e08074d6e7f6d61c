"""Interactions: the sparse matrix of who used what, both orientations, as users hold it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from scipy import sparse

from dasrec import blocks, memory, store
from dasrec.clean import AuditStep, audit_dataset
from dasrec.errors import InputError
from dasrec.kernels.csr import kept_indptr, rows_of
from dasrec.schema import CUTS, ITEM_IDS, USER_IDS, USER_ITEMS
from dasrec.typing import CsrBlock, Longs, Mask, Side
from dasrec.vocabulary import Vocabulary


@dataclass(frozen=True)
class Interactions:
    """An interaction store, or the part of it that masks let through; read when asked for.

    Attributes
    ----------
    url : str
        The store.
    group_url : str
        The state of it that this object reads; a Zarr group that ``anndata`` opens too.
    n_users, n_items : int
        Shape of the matrix; a mask never changes it.
    n_stored : int
        Stored cells of the whole store.
    has_timestamps : bool
    masks : tuple of Mask
        An interaction belongs to this view if all of them say so.
    """

    url: str
    group_url: str
    n_users: int
    n_items: int
    n_stored: int
    has_timestamps: bool
    user_hash: str
    item_hash: str
    masks: tuple[Mask, ...] = ()

    def __repr__(self) -> str:
        part = " (a part of it)" if self.masks else ""
        return (
            f"<Interactions: {self.n_users:,} users x {self.n_items:,} items, "
            f"{self.n_stored:,} stored{part}, {self.url}>"
        )

    @cached_property
    def user_ids(self) -> Vocabulary:
        """Ids of the rows of ``user_items``."""
        return Vocabulary(store.read_array(self.group_url, USER_IDS), "user")

    @cached_property
    def item_ids(self) -> Vocabulary:
        """Ids of the columns of ``user_items``."""
        return Vocabulary(store.read_array(self.group_url, ITEM_IDS), "item")

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
        attrs = store.open_interactions_state(self.url)[1]
        return audit_dataset([AuditStep(*step) for step in attrs["audit"]])

    def cuts(self, side: Side) -> Longs:
        """Return where the row blocks of one orientation begin, int64, shape (n_blocks + 1,)."""
        return store.read_array(self.group_url, f"{side}/{CUTS}")

    def where(self, mask: Mask) -> Interactions:
        """Return the view of those interactions that ``mask`` marks; no data is copied."""
        if mask.needs_timestamp and not self.has_timestamps:
            msg = (
                f"{self.url} has no timestamps; write it again from a log with a timestamp column, "
                "or split at random"
            )
            raise InputError(msg)
        return replace(self, masks=(*self.masks, mask))

    def read_rows(self, side: Side, start: int, stop: int, *, timed: bool = False) -> CsrBlock:
        """Read rows ``start:stop`` of this view now."""
        needed = timed or any(mask.needs_timestamp for mask in self.masks)
        block = store.read_rows(self.group_url, side, start, stop, timed=needed)
        if not self.masks:
            return block
        rows = rows_of(block.indptr) + np.int32(start)
        users, items = (rows, block.indices) if side == USER_ITEMS else (block.indices, rows)
        keep = np.ones(len(rows), np.bool_)
        for mask in self.masks:
            keep &= mask(users, items, block.timestamps)
        times = None if block.timestamps is None else block.timestamps[keep]
        return CsrBlock(
            kept_indptr(block.indptr, keep),
            block.indices[keep],
            block.data[keep],
            block.n_columns,
            times,
        )

    def map_blocks(
        self, task: Callable[..., Any], side: Side, *shared: Any, name: str, progress: bool = True
    ) -> list[Any]:
        """Run ``task(self, side, start, stop, *shared)`` for every block; results in order."""
        cuts = self.cuts(side)
        arguments = [(self, side, int(start), int(stop), *shared) for start, stop in pairwise(cuts)]
        return blocks.run(task, arguments, name=name, progress=progress)

    def counts(self, side: Side) -> Longs:
        """Count the interactions of each user (``user_items``) or item (``item_users``) now."""
        if not self.masks:
            return np.diff(store.read_array(self.group_url, f"{side}/indptr"))
        return np.concatenate(self.map_blocks(_row_counts, side, name="count-block"))

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


def _csr(view: Interactions, side: Side, start: int, stop: int) -> sparse.csr_array[np.float32]:
    return view.read_rows(side, start, stop).to_scipy()


def _row_counts(view: Interactions, side: Side, start: int, stop: int) -> Longs:
    return np.diff(view.read_rows(side, start, stop).indptr)


def open_interactions(url: str | os.PathLike[str]) -> Interactions:
    """Open an interaction store, lazily.

    Raises
    ------
    StoreError
        Nothing is there, its writing was cut off, or it is of another format version.
    """
    pointer, attrs = store.open_interactions_state(url)
    return Interactions(
        url=pointer.url,
        group_url=pointer.group_url,
        n_users=attrs["n_users"],
        n_items=attrs["n_items"],
        n_stored=attrs["n_stored"],
        has_timestamps=attrs["has_timestamps"],
        user_hash=attrs["user_hash"],
        item_hash=attrs["item_hash"],
    )
