"""Type aliases and small protocols that several rooms share."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Bools = NDArray[np.bool_]

FeatureMatrix = sparse.csr_array[np.float32]
"""A row for each user or item, a column for each feature."""

Ids = NDArray[Any]
"""Outside ids: int64, or str objects."""

Side = Literal["user_items", "item_users"]
"""An orientation of the matrix: rows are users, or rows are items."""

Entity = Literal["user", "item"]
Unknown = Literal["skip", "add", "error"]

Dedupe = Literal["last", "first", "sum", "max", "mean", "error"]
BadRows = Literal["error", "drop"]
ResolvedIds = Literal["int64", "string", "uuid"]
IdKind = Literal["auto", "int64", "string", "uuid"]
TimeUnit = Literal["s", "ms", "us", "ns"]

Rng = int | np.random.Generator | None
"""A seed, a generator to draw one from, or None for a fresh seed (which results record)."""

Moment = str | datetime.datetime
"""ISO 8601 text like 2026-01-31 or 2026-01-31T12:00, or a datetime; UTC unless told otherwise."""

Duration = str | datetime.timedelta
"""Text like 30min or 7D, or a timedelta."""

Task = Callable[..., Any]


class RowRule(Protocol):
    """Says which rows of a log stay; each rule has a line of its own in the audit."""

    @property
    def step(self) -> str:
        """How the audit calls it."""
        ...

    @property
    def why(self) -> str:
        """What exactly it asks for."""
        ...

    def __call__(self, frame: pd.DataFrame) -> Bools:
        """Return a boolean array, True where the row stays."""
        ...


class Mask(Protocol):
    """Says which interactions belong to a view, by a pure function of the cell."""

    needs_timestamp: bool

    def __call__(self, users: Ints, items: Ints, timestamps: Longs | None) -> Bools:
        """Return a boolean array, True where the interaction belongs to the view."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return JSON-able facts that identify the mask."""
        ...


class Transform(Protocol):
    """Gives interactions other weights, by a pure function of the cell."""

    needs_timestamp: bool

    def __call__(
        self, users: Ints, items: Ints, weights: Floats, timestamps: Longs | None
    ) -> Floats:
        """Return the weights that stand for the given ones."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return JSON-able facts that identify the transform.

        ``user_hash`` and ``item_hash`` are among them where it has learned something of each user
        or item: the vocabularies that it goes with.
        """
        ...


class CsrBlock(NamedTuple):
    """Whole rows of one orientation, in plain arrays that pickle without copies."""

    indptr: Longs
    """int64, shape (n_rows + 1,), begins at 0."""
    indices: Ints
    """int32, ascending within a row."""
    data: Floats
    """float32 weights."""
    n_columns: int
    timestamps: Longs | None = None
    """int64 microseconds since 1970-01-01 UTC, parallel to ``data``."""

    @property
    def n_rows(self) -> int:
        """How many rows the block holds."""
        return len(self.indptr) - 1

    def to_scipy(self) -> sparse.csr_array[np.float32]:
        """Return the weights as a SciPy array that shares the memory of data and indices."""
        # SciPy keeps both index arrays in one type, and would copy the longer one to int64
        narrow = self.indptr[-1] <= np.iinfo(np.int32).max
        indptr = self.indptr.astype(np.int32) if narrow else self.indptr
        return sparse.csr_array(
            (self.data, self.indices, indptr), shape=(self.n_rows, self.n_columns)
        )
