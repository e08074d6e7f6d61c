"""Ids as they come, in any spelling, become integers, texts or UUIDs in canonical text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dasrec.errors import InputError
from dasrec.kernels.csr import gather
from dasrec.typing import Ints, Longs, ResolvedIds

_PLAIN_INTEGER = r"^(0|-?[1-9][0-9]{0,18})$"
_UUID = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_DIGITS = r"^([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})$"
_HYPHENS = (8, 12, 16, 20)  # before these digits
_UUID_BYTES = 16

ID_DTYPES: dict[ResolvedIds, str] = {"int64": "Int64", "string": "str", "uuid": "str"}
"""What a column of ids is in pandas."""


def guess_kind(column: pa.ChunkedArray) -> ResolvedIds:
    """Return what ids of a file are, by some of them."""
    if _is_uuid(column.type):
        return "uuid"
    column = column.drop_null()
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return "int64"
    try:
        text = column.cast(pa.string())
    except pa.ArrowException:  # bytes that are no text, or lists: refused when they are read
        return "string"
    if len(text) == 0:
        return "string"
    whole = pc.match_substring_regex(text, _PLAIN_INTEGER)  # "007" stays a string
    return "int64" if pc.all(whole).as_py() else "string"


def kind_of_type(column: Any) -> ResolvedIds:
    """Return what ids of a table in memory are, by the type of their column alone."""
    kind = getattr(column, "type", None) or getattr(column.dtype, "pyarrow_dtype", None)
    if kind is None:
        # floats are what pandas makes of integers with gaps
        whole = pd.api.types.is_integer_dtype(column.dtype)
        return "int64" if whole or pd.api.types.is_float_dtype(column.dtype) else "string"
    if _is_uuid(kind):
        return "uuid"
    return "int64" if pa.types.is_integer(kind) or pa.types.is_floating(kind) else "string"


def canonical_ids(raw: Any, kind: ResolvedIds, *, name: str, where: str) -> pd.Series:
    """Return a column of ids in canonical form.

    Parameters
    ----------
    raw : pandas Series or Arrow array
    kind : what they are
    name, where : of the column, for messages

    Returns
    -------
    Series of Int64 or str; what is missing, and what is no UUID, is missing

    Raises
    ------
    InputError
        Ids are not all integers that 64 bits hold, or bytes that are no text.
    """
    try:
        if kind == "uuid":
            return _series(_uuids(_array(raw)), raw)
        if not isinstance(raw, pd.Series) or isinstance(raw.dtype, pd.ArrowDtype):
            raw = _series(_plain(_array(raw)), raw)
        if kind == "string":
            texts: pd.Series = raw.astype("str")
            return texts
        return raw if raw.dtype == pd.Int64Dtype() else _series(_integers(raw), raw)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        what, other = ("integers", "string") if kind == "int64" else ("texts", "uuid")
        remedy = f'pass ids="{other}"' + (" if they are UUIDs" if other == "uuid" else "")
        msg = f"{where}: ids of {name!r} are not all {what} ({error}); {remedy}"
        raise InputError(msg) from error


def listed_ids(ids: Iterable[Any], kind: ResolvedIds, *, what: str) -> tuple[int | str, ...]:
    """Return ids that a caller lists in the form in which a log has them, whatever their spelling.

    Raises
    ------
    InputError
        One of them is no id of that kind.
    """
    one = isinstance(ids, str)  # which would be taken apart otherwise
    given = ids.tolist() if isinstance(ids, np.ndarray) else [ids] if one else list(ids)
    texts = pa.array([str(each) for each in given], pa.string())
    if kind == "string":
        return tuple(texts.to_pylist())
    if kind == "uuid":
        found = _uuids(texts).to_pylist()
    else:
        found = [_whole(text) for text in texts.to_pylist()]
    if None in found:
        odd = given[found.index(None)]
        expected = "UUIDs" if kind == "uuid" else "integers"
        msg = f"a list of {what} ids has {odd!r}; expected {expected}, as in the log"
        raise InputError(msg)
    return tuple(found)


def _whole(text: str) -> int | None:
    number = int(text) if re.fullmatch(_PLAIN_INTEGER, text) else None
    return number if number is not None and -(2**63) <= number < 2**63 else None


def number_texts(column: pd.Series) -> tuple[Ints, pd.Series, Longs]:
    """Number texts without gaps in ascending order of code points; none is missing.

    Returns
    -------
    codes : int32, shape (n,)
    distinct : Series of str, ascending
    counts : int64, how often each occurs
    """
    found = _whole_array(column).dictionary_encode()
    order = pc.array_sort_indices(found.dictionary)  # by bytes of UTF-8: the same order
    codes = found.indices.to_numpy()
    ranks = np.empty(len(order), np.int32)
    ranks[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
    codes = gather(ranks, codes)
    distinct: pd.Series = found.dictionary.take(order).to_pandas(types_mapper=pandas_type)
    return codes, distinct, np.bincount(codes, minlength=len(order))


def text_bytes(texts: pd.Series) -> tuple[Longs, NDArray[np.uint8]]:
    """Lay texts one after the other in UTF-8: where each begins, and after them the end; bytes."""
    array = _whole_array(texts).cast(pa.large_string())
    _, offsets, content = array.buffers()
    first = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    laid = np.frombuffer(content or b"", np.uint8)
    return first - first[0], laid[first[0] : first[-1]]


def texts_of(offsets: Longs, content: NDArray[np.uint8]) -> pd.Series:
    """Return what :func:`text_bytes` laid down, or a range of it."""
    buffers = [pa.py_buffer(np.ascontiguousarray(each)) for each in (offsets - offsets[0], content)]
    array = pa.LargeStringArray.from_buffers(len(offsets) - 1, *buffers)
    found: pd.Series = array.to_pandas(types_mapper=pandas_type)
    return found


def _whole_array(texts: pd.Series) -> Any:
    array = pa.chunked_array(texts)
    return array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()


def pandas_type(kind: pa.DataType) -> Any:
    """Keep integers with gaps exact and texts in Arrow: by default they are floats and objects."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pd.StringDtype("pyarrow", na_value=np.nan)
    return pd.Int64Dtype() if pa.types.is_integer(kind) else None


def _series(array: Any, raw: Any) -> pd.Series:
    if pa.types.is_int64(array.type) and not array.null_count:  # pandas would copy them
        values = pd.arrays.IntegerArray(array.to_numpy(), np.zeros(len(array), np.bool_))
        found = pd.Series(values, copy=False)
    else:
        found = array.to_pandas(types_mapper=pandas_type)
    # an index given to Series() would pick rows by label
    return found.set_axis(raw.index) if isinstance(raw, pd.Series) else found


def _array(raw: Any) -> Any:
    if isinstance(raw, (pa.Array, pa.ChunkedArray)):
        return raw
    try:
        return pa.array(raw, from_pandas=True)
    except pa.ArrowException:  # objects of several types, for instance UUIDs beside texts
        return pa.array(raw.astype("str"), from_pandas=True)


def _integers(raw: pd.Series) -> Any:
    # through Arrow, since pandas makes floats of integers with gaps, and 7 of "007"
    array = pa.array(raw, from_pandas=True)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        plain = pc.match_substring_regex(array, _PLAIN_INTEGER)
        for odd in array.filter(pc.invert(plain)).slice(0, 1).to_pylist():
            msg = f"there is {odd!r}"
            raise pa.ArrowInvalid(msg)
    return array.cast(pa.int64())


def _plain(column: Any) -> Any:
    """Make texts of bytes: older writers of Parquet do not mark what is text."""
    if _is_uuid(column.type):
        return _uuids(column)
    return column.cast(pa.string()) if _is_bytes(column.type) else column


def _is_uuid(kind: pa.DataType) -> bool:
    return bool(isinstance(kind, pa.UuidType))


def _is_bytes(kind: pa.DataType) -> bool:
    kinds = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
        pa.types.is_fixed_size_binary,
    )
    return any(each(kind) for each in kinds)


def _uuids(column: Any) -> Any:
    """Return UUIDs as text with hyphens and small letters; what is none is null.

    RFC 9562, section 4. Capital letters, braces, ``urn:uuid:`` and no hyphens at all are usual too.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if _is_uuid(column.type):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_bytes(column.type):
        return _text_of_bytes(column)
    text = column.cast(pa.string())
    if pc.all(pc.match_substring_regex(text, _UUID)).as_py():
        return text
    text = pc.ascii_lower(pc.ascii_trim_whitespace(text))
    text = pc.replace_substring_regex(text, r"^urn:uuid:", "")
    text = pc.replace_substring_regex(text, r"^\{(.*)\}$", r"\1")
    text = pc.replace_substring_regex(text, _DIGITS, r"\1-\2-\3-\4-\5")
    good = pc.match_substring_regex(text, _UUID)
    return pc.if_else(good, text, pa.scalar(None, pa.string()))


def _text_of_bytes(column: Any) -> Any:
    column = column.cast(pa.large_binary())
    good = pc.equal(pc.binary_length(column), _UUID_BYTES)  # null where there is nothing
    column = pc.if_else(good, column, None).cast(pa.binary(_UUID_BYTES))
    whole = column.fill_null(bytes(_UUID_BYTES))
    start = whole.offset * _UUID_BYTES
    content = whole.buffers()[1][start : start + len(whole) * _UUID_BYTES]
    digits = np.frombuffer(content.to_pybytes().hex().encode(), np.uint8)
    rows: NDArray[np.uint8] = digits.reshape(len(whole), 2 * _UUID_BYTES)
    text: NDArray[np.uint8] = np.insert(rows, _HYPHENS, ord("-"), axis=1)
    offsets = np.arange(len(whole) + 1, dtype=np.int32) * text.shape[1]
    texts = pa.StringArray.from_buffers(len(whole), pa.py_buffer(offsets), pa.py_buffer(text))
    return pc.if_else(good, texts, None)
