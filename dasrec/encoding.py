"""Tables about users or items become sparse matrices of numbers with named columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from dasrec.checks import check_columns
from dasrec.errors import InputError
from dasrec.ids import canonical_ids
from dasrec.typing import FeatureMatrix, Ids, Longs, Unknown
from dasrec.vocabulary import Vocabulary, as_ids


def encode(
    table: Any,
    *,
    ids: str | Ids | None,
    names: Sequence[str] | None,
    separator: str | None,
    side: str,
) -> tuple[FeatureMatrix, Ids, pd.Series | None]:
    """Return the numbers of a table or matrix, the names of its columns, and the ids of its rows.

    The parameters are those of :func:`dasrec.write_features`; ids are None for those of the
    vocabulary.
    """
    frame = table.to_pandas() if hasattr(table, "to_pandas") else table
    if isinstance(frame, pd.DataFrame):
        if names is not None or not (ids is None or isinstance(ids, str)):
            msg = "a table has names and ids of its own; expected ids= with the name of a column"
            raise InputError(msg)
        column = ids or f"{side}_id"
        check_columns(list(frame.columns), [column], where="the table")
        given: pd.Series | None = frame[column].reset_index(drop=True)
        matrix, columns = _encode_frame(frame.drop(columns=column), separator)
    else:
        if isinstance(ids, str):
            msg = f"ids is {ids!r}, and a matrix has no such column; expected an array of ids"
            raise InputError(msg)
        given = None if ids is None else pd.Series(as_ids(ids))
        matrix = _as_matrix(frame)
        columns = list(map(str, range(matrix.shape[1]) if names is None else names))
    _check_names(columns, matrix.shape[1])
    if not np.isfinite(matrix.data).all():
        msg = "features are missing or not finite as float32; fill them in, or leave them out"
        raise InputError(msg)
    return matrix, np.array(columns, object), given


def _as_matrix(values: Any) -> FeatureMatrix:
    try:
        with np.errstate(over="ignore"):
            matrix: Any = values if sparse.issparse(values) else np.asarray(values, np.float32)
            found = matrix if matrix.ndim != 2 else sparse.csr_array(matrix, dtype=np.float32)
    except (TypeError, ValueError) as error:
        msg = f"features are {type(values).__name__} ({error}); expected a table or a matrix"
        raise InputError(msg) from error
    if matrix.ndim != 2:
        msg = f"features have shape {matrix.shape}; expected two dimensions"
        raise InputError(msg)
    return found


def _check_names(names: Sequence[str], n: int) -> None:
    twice = pd.Index(names)[pd.Index(names).duplicated()]
    if len(names) != n or not n or len(twice):
        why = f"{twice[0]!r} stands twice" if len(twice) else f"{len(names)} names for {n} columns"
        msg = f"features have {why}; expected one column or more, each with a name of its own"
        raise InputError(msg)


def _encode_frame(frame: pd.DataFrame, separator: str | None) -> tuple[FeatureMatrix, list[str]]:
    parts: list[FeatureMatrix] = []
    names: list[str] = []
    for name, values in frame.reset_index(drop=True).items():
        kind = values.dtype
        if pd.api.types.is_numeric_dtype(kind):
            with np.errstate(over="ignore"):  # what does not fit is refused below
                found = values.to_numpy(np.float64, na_value=np.nan).astype(np.float32)
            if not np.isfinite(found).all():
                n_odd = int((~np.isfinite(found)).sum())
                msg = (
                    f"column {name!r} lacks {n_odd} of {len(found)} numbers, or they are not "
                    "finite as float32; fill them in, or leave the column out"
                )
                raise InputError(msg)
            parts.append(sparse.csr_array(found[:, None]))
            names.append(str(name))
        else:
            part, levels = _indicators(values, separator)
            parts.append(part)
            names += [f"{name}={level}" for level in levels]
    if not parts:
        return sparse.csr_array((len(frame), 0), dtype=np.float32), names
    return sparse.csr_array(sparse.hstack(parts, format="csr", dtype=np.float32)), names


def _indicators(values: pd.Series, separator: str | None) -> tuple[FeatureMatrix, list[str]]:
    """Mark which of the texts that a column holds each row has, one or several."""
    n_rows = len(values)
    each = values.astype(object)
    if separator is not None:
        each = each.map(lambda one: one.split(separator) if isinstance(one, str) else one)
    long = each.explode().dropna()
    odd = [one for one in long if not isinstance(one, (str, int, np.integer))]
    if odd:
        msg = (
            f"column {values.name!r} holds {type(odd[0]).__name__}, for instance {odd[0]!r}; "
            "expected numbers, texts or lists of texts"
        )
        raise InputError(msg)
    texts = long.map(lambda one: str(one).strip())
    texts = texts[texts != ""]
    codes, levels = pd.factorize(texts.to_numpy(object), sort=True)
    cells = (np.ones(len(codes), np.float32), (texts.index.to_numpy(), codes))
    matrix = sparse.csr_array(cells, shape=(n_rows, len(levels)))
    matrix.data[:] = 1  # a text that a row has twice
    return matrix, list(levels)


def find_rows(
    n_rows: int, given: pd.Series | None, vocabulary: Vocabulary, unknown: Unknown
) -> tuple[Longs, Ids]:
    """Return which row of the vocabulary each row is of, -1 for none; and the ids to add to it.

    The parameters are those of :func:`encode` and of :func:`dasrec.write_features`.
    """
    nothing = np.empty(0, vocabulary.dtype)
    if given is None or len(given) != n_rows:
        if given is not None or n_rows != len(vocabulary):
            what = vocabulary.what
            others = (
                f"the store has {len(vocabulary)} {what}s" if given is None else f"{len(given)} ids"
            )
            msg = f"features have {n_rows} rows, and {others}; expected one row each"
            raise InputError(msg)
        return np.arange(n_rows), nothing
    ids = _checked(given, vocabulary)
    if unknown == "error":
        return vocabulary.numbers(ids).astype(np.int64), nothing
    numbers = vocabulary.find(ids).astype(np.int64)
    new = np.flatnonzero(numbers < 0)
    if unknown == "add":
        order = new[np.argsort(ids[new])]
        numbers[order] = len(vocabulary) + np.arange(len(order))
        return numbers, ids[order]
    if len(new) == len(ids):
        vocabulary.numbers(ids)  # which says that none is known
    return numbers, nothing


def _checked(given: pd.Series, vocabulary: Vocabulary) -> Ids:
    """Return ids as the vocabulary has them, each once."""
    whole = vocabulary.dtype == np.int64
    name = f"{vocabulary.what}_id" if given.name is None else str(given.name)
    column = canonical_ids(given, "int64" if whole else "string", name=name, where="the table")
    twice = column[column.duplicated()]
    if column.isna().any() or len(twice):
        why = "is missing in a row" if column.isna().any() else f"has {twice.tolist()[0]!r} twice"
        msg = f"{name!r} {why}; expected each {vocabulary.what} once"
        raise InputError(msg)
    return column.to_numpy(np.int64 if whole else object)


def place_rows(matrix: FeatureMatrix, numbers: Longs, n_rows: int) -> FeatureMatrix:
    """Put each row where its number says, and leave out those of -1 and all zeros."""
    cells = matrix.tocoo()
    rows = numbers[cells.row]
    keep = (rows >= 0) & (cells.data != 0)
    shape = (n_rows, matrix.shape[1])
    found = sparse.csr_array((cells.data[keep], (rows[keep], cells.col[keep])), shape=shape)
    found.sort_indices()
    return found
