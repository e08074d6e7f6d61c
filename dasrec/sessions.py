"""Sessions: what a user does without a long pause, as rows of their own in place of the user."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasrec import files
from dasrec.cells import SESSION_COUNTS, SESSION_STARTS, CellBlock
from dasrec.numbering import MergedIds
from dasrec.typing import Bools, Ids, Longs


def number_sessions(found: Sequence[CellBlock]) -> list[CellBlock]:
    """Number the sessions of all blocks, in order of users and of time."""
    sizes = [len(block.row_counts) for block in found]
    firsts = np.concatenate(([0], np.cumsum(sizes)))
    return [
        block._replace(first=int(first)) for block, first in zip(found, firsts[:-1], strict=True)
    ]


def session_ids(found: Sequence[CellBlock], users: MergedIds, keep: Bools) -> Iterator[Ids]:
    """Yield the ids of the sessions that ``keep`` marks: the user, and when the session began.

    Parameters
    ----------
    found : the blocks as they were before any session was dropped
    users : of the log
    keep : bool, shape (n_sessions,)
    """
    counts = _gather(found, SESSION_COUNTS)
    starts = _gather(found, SESSION_STARTS)
    user = session = 0
    for ids in users.pieces(np.ones(len(users.counts), np.bool_)):
        own = counts[user : user + len(ids)]
        stop = session + int(own.sum())
        marked = keep[session:stop]
        whose = np.repeat(ids, own)[marked]
        when = np.datetime_as_string(starts[session:stop][marked].view("datetime64[us]"), unit="s")
        named = [
            f"{one}/{moment}" for one, moment in zip(whose.tolist(), when.tolist(), strict=True)
        ]
        user, session = user + len(ids), stop
        yield np.array(named, object)


def _gather(found: Sequence[CellBlock], name: str) -> Longs:
    parts: list[NDArray[Any]] = [
        files.read_column(f"{block.folder}-{name}", np.int64) for block in found
    ]
    return np.concatenate(parts)
