"""The n best items of every user, written block by block to Parquet; stopped, it can be resumed."""

from __future__ import annotations

import hashlib
import json
import os
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dasrec import blocks, files
from dasrec.checks import check_lengths
from dasrec.errors import InputError
from dasrec.factors import row_cuts
from dasrec.interactions import Interactions
from dasrec.memory import listed_users
from dasrec.models.base import Model, view_of
from dasrec.scorers import Vectors, check_room
from dasrec.typing import Floats, Ids, Ints, Longs, Side

DONE = "_SUCCESS"


class _Job(NamedTuple):
    vectors: Vectors
    item_ids: Ids
    n: int


def recommend_all(
    model: Model,
    seen: Interactions,
    *,
    n: int = 10,
    out: str | os.PathLike[str],
    overwrite: bool = False,
) -> str:
    """Write the ``n`` best items of every user to a folder of Parquet files, eagerly; return where.

    Parameters
    ----------
    model : Model
    seen : Interactions
        What is not to be recommended again: usually the whole store.
    n : int
        Length of each list, at most the size of the catalogue.
    out : path or fsspec URL
        Columns ``user_id``, ``rank`` (int32, from 1), ``item_id``, ``score`` (float32), sorted by
        user and rank. A user who has seen nearly everything gets a shorter list. The file
        ``_SUCCESS`` comes last, as Spark writes it: a folder without it is unfinished.
    overwrite : bool
        Whether lists that are there already are replaced. They stay readable until the new are
        whole; on an object store, which cannot rename, until these are copied in their place.

    Raises
    ------
    InputError
        ``n`` is larger than the catalogue, or ``out`` is taken, with ``overwrite`` by something
        else than lists.
    MismatchError
        The model does not belong to the store.
    DiskError
        The disk is full or may not be written. Free space and call again: finished parts are kept.

    BudgetError
        It would not fit in memory; nothing was started. :func:`plan_ranking` says what it takes.

    Notes
    -----
    Cost: n_users n_items d multiply-adds. A task holds one block, and the lists of as many of its
    users at a time as make some 10 MB.
    """
    model.check_belongs(seen)
    (length,) = check_lengths(n, n_items=seen.n_items)
    place = files.absolute(out)
    _check_place(place, overwrite=overwrite)
    users, items = model.lazy_vectors()
    vectors = Vectors.of(users, items, model.name)
    check_room(vectors, seen, length)
    # the same call finds its own finished parts again, another call does not
    draft = f"{place}.part-{_fingerprint(users, items, seen, length)}"
    files.make_folder(draft)
    job = _Job(vectors, model.item_ids_.ids, length)
    seen.map_blocks(_write_block, "user_items", blocks.share(job), draft, name="recommend-block")
    with files.writing(place):
        files.replace(files.join(draft, DONE), b"")
        files.move(draft, place, last=DONE)
    return place


def _check_place(place: str, *, overwrite: bool) -> None:
    """Refuse a place that is taken, and to replace anything but lists."""
    if not files.exists(place):
        return
    if not overwrite:
        msg = f"{place} exists already; pass overwrite=True (--overwrite) or choose another place"
        raise InputError(msg)
    fs, path = files.locate(place)
    with files.reaching(place):
        is_folder, names = fs.isdir(path), files.names(place)
    if not is_folder or not all(name == DONE or name.startswith("part-") for name in names):
        msg = f"{place} is something else than lists; choose another place"
        raise InputError(msg)


def _fingerprint(users: Any, items: Floats, seen: Interactions, n: int) -> str:
    digest = hashlib.blake2b(digest_size=6)
    digest.update(json.dumps([view_of(seen), n], sort_keys=True, default=str).encode())
    parts = (users[start:stop] for start, stop in pairwise(row_cuts(len(users))))
    for vectors in (*parts, items):
        digest.update(np.ascontiguousarray(vectors).data)
    return digest.hexdigest()


def _write_block(
    seen: Interactions, side: Side, start: int, stop: int, job: _Job, draft: str
) -> None:
    target = files.join(draft, f"part-{start:09d}.parquet")
    if files.exists(target):
        return
    known = seen.read_rows(side, start, stop)
    sink, height = pa.BufferOutputStream(), listed_users(job.n)
    schema = pa.schema(
        [
            ("user_id", _kind(seen.user_ids.dtype)),
            ("rank", pa.int32()),
            ("item_id", _kind(job.item_ids.dtype)),
            ("score", pa.float32()),
        ]
    )
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for top in range(0, stop - start, height):
            indptr = known.indptr[top : top + height + 1]
            table = _lists(seen, start + top, (indptr, known.indices), job)
            writer.write_table(table)
    with files.writing(draft):
        files.replace(target, sink.getvalue().to_pybytes())


def _lists(seen: Interactions, start: int, known: tuple[Longs, Ints], job: _Job) -> pa.Table:
    """Rank for as many users from ``start`` on as there are rows of what they know."""
    stop = start + len(known[0]) - 1
    lists, scores = job.vectors.best(np.arange(start, stop, dtype=np.int32), job.n, known)
    kept = lists >= 0
    rows, places = np.nonzero(kept)
    # the store's ids are the model's, and a task reads no more of them than its own
    user_ids = seen.user_ids.ids_of(np.arange(start, stop))
    columns: dict[str, Any] = {
        "user_id": _arrow(user_ids[rows]),
        "rank": pa.array((places + 1).astype(np.int32)),
        "item_id": _arrow(job.item_ids[lists[kept]]),
        "score": pa.array(scores[kept]),
    }
    return pa.table(columns)


def _arrow(ids: Ids) -> pa.Array:
    return pa.array(ids, _kind(ids.dtype))


def _kind(dtype: np.dtype[Any]) -> pa.DataType:
    return pa.int64() if dtype == np.int64 else pa.string()
