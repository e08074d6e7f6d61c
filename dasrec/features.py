"""Features of users and of items: numbers that describe them, kept in the store of the cells."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np

from dasrec import files, memory, store, versions
from dasrec.checks import check_choice
from dasrec.encoding import encode, find_rows, place_rows
from dasrec.errors import InputError, StoreError
from dasrec.interactions import Interactions, open_interactions
from dasrec.kernels.csr import cut_rows, indptr_of, kept_indptr, rows_of
from dasrec.schema import (
    CUTS,
    DATA,
    FEATURES,
    FORGOTTEN,
    INDICES,
    INTERACTIONS_KIND,
    ITEM,
    ITEM_USERS,
    USER,
    USER_ITEMS,
)
from dasrec.typing import Entity, FeatureMatrix, Floats, Ids, Unknown
from dasrec.vocabulary import IdHash, Vocabulary

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Features:
    """Features of all users or all items of a version, a sparse matrix; read when asked for.

    Attributes
    ----------
    side : "user" or "item"
    group_url : str
        The Zarr group that holds them.
    n_rows : int
        Users or items of the version. Those that came after the features were written have none.
    n_features : int
    n_stored : int
        Cells that are not zero.
    n_unknown : int
        Rows of what was written whose ids the store did not know: they are left out.
    hash : str
        Content hash of the features as they were written.
    forgotten : tuple of int
        Users whose features no reader sees.
    """

    side: Entity
    group_url: str
    n_rows: int
    n_features: int
    n_stored: int
    n_unknown: int
    hash: str
    forgotten: tuple[int, ...] = ()

    def __repr__(self) -> str:
        shape = f"{self.n_rows:,} {self.side}s x {self.n_features:,}"
        return f"<Features: {shape}, {self.n_stored:,} stored>"

    @property
    def name(self) -> str:
        """What their arrays are called in the group."""
        return f"{self.side}_{FEATURES}"

    @property
    def names(self) -> Ids:
        """What each column says; str objects, shape (n_features,)."""
        return store.read_array(self.group_url, f"{self.name}/names")

    @property
    def matrix(self) -> FeatureMatrix:
        """All rows, in the order of the vocabulary; float32, shape (n_rows, n_features)."""
        return self.read_rows(0, self.n_rows)

    def read_rows(self, start: int, stop: int) -> FeatureMatrix:
        """Read rows ``start:stop`` now."""
        found = store.read_rows(self.group_url, self.name, start, stop, timed=False)
        rows = rows_of(found.indptr) + np.int32(start)
        keep = np.isin(rows, np.array(self.forgotten, np.int32), invert=True)
        indptr = kept_indptr(found.indptr, keep)
        # rows that came later are empty
        indptr = np.append(indptr, np.full(stop - start - found.n_rows, indptr[-1]))
        return found._replace(
            indptr=indptr, indices=found.indices[keep], data=found.data[keep]
        ).to_scipy()

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield where blocks of about a million stored cells begin and end."""
        yield from pairwise(store.read_array(self.group_url, f"{self.name}/{CUTS}").tolist())


def multiply(matrix: FeatureMatrix, weights: Floats) -> Floats:
    """Return features times weights, float32; one thread of BLAS multiplies those mostly there."""
    n_rows, n_features = matrix.shape
    many = 2 * matrix.nnz > n_rows * n_features
    product: Floats = (matrix.toarray() if many else matrix) @ weights
    return product


def open_features(interactions: Interactions, side: Entity) -> Features:
    """Open the features of a version's users or items, lazily; masks of a view do not matter.

    Raises
    ------
    InputError
        There are none.
    """
    found = known_features(interactions).get(side)
    if found is None:
        msg = (
            f"version {interactions.version} of {interactions.url} has no features of {side}s; "
            "write them with write_features (dasrec features) and open it again"
        )
        raise InputError(msg)
    return found


def known_features(interactions: Interactions) -> dict[Entity, Features]:
    """Return what features a version has of users and of items, by side."""
    facts = versions.read_pointer(interactions.url, INTERACTIONS_KIND, interactions.version).facts
    forgotten = facts.get(FORGOTTEN, ())
    return {
        side: _features(interactions, side, fact, forgotten)
        for side, fact in facts.get(FEATURES, {}).items()
    }


def _features(
    interactions: Interactions, side: Entity, fact: dict[str, Any], forgotten: Sequence[int]
) -> Features:
    known = {name: fact[name] for name in ("n_features", "n_stored", "n_unknown", "hash")}
    return Features(
        side,
        files.join(interactions.url, fact["group"]),
        interactions.n_users if side == USER else interactions.n_items,
        **known,
        forgotten=tuple(forgotten) if side == USER else (),
    )


def write_features(
    url: str | os.PathLike[str],
    side: Entity,
    table: Any,
    *,
    ids: str | Ids | None = None,
    names: Sequence[str] | None = None,
    separator: str | None = "|",
    unknown: Unknown = "skip",
) -> Interactions:
    """Write what is known of users or items into their store, eagerly: a new version of it.

    It takes the place of what was written of that side before, as a whole; older versions keep
    theirs until :func:`dasrec.compact`.

    Parameters
    ----------
    url : path or fsspec URL
        An interaction store.
    side : "user" or "item"
    table : DataFrame, pyarrow table, SciPy sparse or NumPy matrix
        Numbers are kept as float32. Of a table, a column of texts, of categories or of lists of
        texts becomes one column of zeros and ones for each of its values, in sorted order, with a
        name like ``genre=Drama``; what is missing there has none of them.
    ids : str or array of ids, optional
        Of a table the column of ids, by default ``user_id`` or ``item_id``. Of a matrix the ids of
        its rows; by default they are those of the vocabulary, in its order.
    names : sequence of str, optional
        Of a matrix's columns; by default their numbers.
    separator : str or None
        What stands between several values in one text.
    unknown : {"skip", "add", "error"}
        What becomes of rows whose ids the store does not know: they are left out, and a warning
        says how many, as ``n_unknown`` of :func:`open_features` does; or their ids come after those
        that are there, as users or items without interactions; or they are an error.

    Returns
    -------
    Interactions, the new version
        Users and items that the table lacks have zeros, and so have those that are appended later.

    Raises
    ------
    InputError
        Ids are missing, stand twice, or are all unknown to the store; numbers are missing or not
        finite; a column is neither numbers nor texts.
    StoreError
        There is no store, or another writer has made a version meanwhile.
    DiskError
        The disk is full or may not be written; the store stays as it was.

    Notes
    -----
    The caller holds the whole matrix: 8 bytes a number that is not zero.
    """
    whole = open_interactions(url)
    pointer = versions.read_pointer(whole.url, INTERACTIONS_KIND, whole.version)
    vocabulary, ids_hash = _vocabulary(whole, side)
    matrix, columns, given = encode(table, ids=ids, names=names, separator=separator, side=side)
    check_choice(unknown, name="unknown", choices=("skip", "add", "error"))
    numbers, new = find_rows(matrix.shape[0], given, vocabulary, unknown)
    if n_unknown := int((numbers < 0).sum()):
        logger.warning(
            "%d of %d rows are of %ss that %s does not know, and are left out",
            n_unknown,
            matrix.shape[0],
            side,
            whole.url,
        )
    draft = store.Draft(whole.url, INTERACTIONS_KIND, base=pointer)
    try:
        grown = _add_ids(draft, whole, side, new) if len(new) else {}
        placed = place_rows(matrix, numbers, len(vocabulary) + len(new))
        fact = _save(draft, side, placed, columns) | {"n_unknown": n_unknown}
        fact["ids_hash"] = grown.get(f"{side}_hash", ids_hash)
        features = {**pointer.facts.get(FEATURES, {}), side: fact}
        draft.commit({**pointer.facts, **grown, FEATURES: features}, beside=not grown)
    except BaseException:
        draft.abandon()
        raise
    return open_interactions(whole.url)


def _vocabulary(whole: Interactions, side: Entity) -> tuple[Vocabulary, str]:
    if side not in (USER, ITEM):
        msg = f'side is {side!r}; expected "user" or "item"'
        raise InputError(msg)
    if side == USER:
        return whole.user_ids, whole.user_hash
    return whole.item_ids, whole.item_hash


def _add_ids(
    draft: store.Draft, whole: Interactions, side: Entity, new: Ids
) -> dict[str, int | str]:
    """Write a group without interactions to a draft, whose vocabulary has the ids that are new."""
    size = {USER: whole.n_users, ITEM: whole.n_items}
    size[side] += len(new)
    shape, counts = (size[USER], size[ITEM]), whole.stored_counts(size[USER], size[ITEM])
    for n_rows, n_columns, name, total, vocabulary in (
        (*shape, USER_ITEMS, counts[0], whole.user_ids),
        (*shape[::-1], ITEM_USERS, counts[1], whole.item_ids),
    ):
        timed = whole.has_timestamps
        draft.create_matrix(name, shape=(n_rows, n_columns), n_stored=0, timed=timed)
        cuts = cut_rows(indptr_of(total), memory.block_cells(int(total.sum())))
        draft.write_index(name, np.zeros(n_rows + 1, np.int64), cuts)
        ids = new if vocabulary.what == side else new[:0].astype(vocabulary.dtype)
        draft.write_ids(f"{vocabulary.what}_ids", ids, start=0, n=len(ids))
    vocabulary = _vocabulary(whole, side)[0]
    ids_hash = _hash_ids(chain(vocabulary.pieces(), [new]), size[side], vocabulary.dtype)
    return {"n_users": size[USER], "n_items": size[ITEM], f"{side}_hash": ids_hash}


def _save(draft: store.Draft, side: Entity, matrix: FeatureMatrix, names: Ids) -> dict[str, Any]:
    """Write a matrix and its names to the group of a draft, and return what to say of it."""
    name = f"{side}_{FEATURES}"
    n_rows, n_features = matrix.shape
    indptr = matrix.indptr.astype(np.int64)
    draft.create_matrix(name, shape=(n_rows, n_features), n_stored=matrix.nnz, timed=False)
    draft.write_index(name, indptr, cut_rows(indptr, memory.block_cells(matrix.nnz)))
    if matrix.nnz:
        columns = {INDICES: matrix.indices.astype(np.int32), DATA: matrix.data}
        store.write_cells(draft.group_url, name, 0, columns)
    draft.write_ids(f"{name}/names", names, start=0, n=n_features)
    return {
        "group": draft.group,
        "n_rows": n_rows,
        "n_features": n_features,
        "n_stored": int(matrix.nnz),
        "hash": _hash(matrix, names),
    }


def _hash(matrix: FeatureMatrix, names: Ids) -> str:
    """Hash the names, then the numbers; docs/format.md states how."""
    digest = hashlib.blake2b(Vocabulary(names, "feature").hash.encode(), digest_size=16)
    for values, kind in ((matrix.indptr, "<i8"), (matrix.indices, "<i4"), (matrix.data, "<f4")):
        digest.update(np.ascontiguousarray(values, kind).data)
    return digest.hexdigest()


def rewrite(
    whole: Interactions, draft: store.Draft, ids: Mapping[str, Iterable[Ids]]
) -> dict[str, Any]:
    """Write the features of a version again, for the version that takes its place.

    ``ids`` are those that it will have. Rows of forgotten users are empty.
    """
    found = {}
    for side, features in known_features(whole).items():
        fact = _save(draft, side, features.matrix, features.names)
        ids_hash = _hash_ids(ids[side], features.n_rows, _vocabulary(whole, side)[0].dtype)
        found[side] = fact | {"ids_hash": ids_hash, "n_unknown": features.n_unknown}
    return {FEATURES: found} if found else {}


def _hash_ids(pieces: Iterable[Ids], n: int, kind: np.dtype[Any]) -> str:
    """Return the content hash of the first ``n`` ids."""
    digest = IdHash()
    for ids in pieces:
        digest.update(ids[:n])
        n -= min(n, len(ids))
    return digest.hexdigest(kind="int64" if kind == np.int64 else "str")


def faults_of(whole: Interactions) -> list[str]:
    """Read all features of a version and say what is wrong with them, a sentence a fault."""
    facts = versions.read_pointer(whole.url, INTERACTIONS_KIND, whole.version).facts
    faults = []
    for side, fact in facts.get(FEATURES, {}).items():
        features = _features(whole, side, fact, ())
        where = f"{features.group_url}/{features.name}"
        try:
            matrix, names = features.read_rows(0, fact["n_rows"]), features.names
            if _hash(matrix, names) != fact["hash"]:
                faults.append(f"{where}: the features do not match their hash")
            ids = _vocabulary(whole, side)[0]
            if _hash_ids(ids.pieces(), fact["n_rows"], ids.dtype) != fact["ids_hash"]:
                faults.append(f"{where}: the features are of other {side}s than those of the store")
        except StoreError as error:
            faults.append(str(error))
    return faults
