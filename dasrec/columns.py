"""Columns of scratch files, each in as few bytes as what it holds needs.

To write and to read scratch is most of what an ingest does, so half the bytes are half the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dasrec import files
from dasrec.kernels.csr import gather
from dasrec.kernels.hashing import few_values
from dasrec.kernels.words import join_words, split_words

Arrays = list[NDArray[Any]]
_WORD = 2**32
_STEP = 2**40  # of microseconds: some 13 days


class Codec(NamedTuple):
    """How a column is kept: as a place in a book of few values, or as low + word + 2**32 high."""

    dtype: str  # of the column
    words: tuple[str, ...]  # dtypes of the arrays that are kept
    low: int = 0
    book: NDArray[Any] | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes that one value takes."""
        return sum(np.dtype(word).itemsize for word in self.words)


def same(one: Codec, other: Codec) -> bool:
    """Say whether two columns are kept alike, but for what the least of each is."""
    books = [b"" if each.book is None else each.book.tobytes() for each in (one, other)]
    return one[:2] == other[:2] and books[0] == books[1]


def narrow(values: NDArray[Any]) -> tuple[Arrays, Codec]:
    """Return the arrays that keep a column of int32, int64 or float32, and how to :func:`widen`."""
    kind = values.dtype.str
    if values.dtype.kind == "f":
        codes, book = few_values(values)
        if len(book):
            return [codes], Codec(kind, (codes.dtype.str,), book=book)
        return [values], Codec(kind, (kind,))
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    # parts of one column shall have the same low, if possible: it is then added to all at once
    low = 0 if 0 <= low <= high - low else low // _STEP * _STEP if high - low >= _WORD else low
    span = high - low
    if span >= _WORD:
        words = np.empty(len(values), np.uint32)
        highs = np.empty(len(values), np.min_scalar_type(span >> 32))
        split_words(values, np.int64(low), words, highs)
        kept = [words, highs]
    else:
        unsigned = np.dtype(f"u{values.itemsize}").type
        # modulo 2**n, so that no difference is too large
        above = values.view(unsigned)
        if low:
            above = above - unsigned(low % 2 ** (8 * values.itemsize))
        kept = [above.astype(np.min_scalar_type(span), copy=False)]
    return kept, Codec(kind, tuple(each.dtype.str for each in kept), low)


def widen(
    kept: Sequence[NDArray[Any]], codecs: Sequence[Codec], sizes: Sequence[int] = ()
) -> NDArray[Any]:
    """Return the column again.

    ``kept`` may hold several columns one after the other, of so many values each, whose codecs are
    the :func:`same`.
    """
    first = codecs[0]
    if first.book is not None:
        return gather(first.book, kept[0])
    if len(kept) > 1:
        values = join_words(kept[0], kept[1], np.int64(first.low))
    else:
        values = kept[0].astype(first.dtype)
        if first.low:
            values += values.dtype.type(first.low)
    lows = np.array([codec.low for codec in codecs], values.dtype)
    if (lows != lows[0]).any():
        values += np.repeat(lows - lows[0], sizes)
    return values


def write_columns(folder: str, columns: Mapping[str, NDArray[Any]]) -> dict[str, Codec]:
    """Write parallel columns into a folder, one file for each array that is kept."""
    files.make_folder(folder)
    codecs = {}
    with files.writing(folder):
        for name, values in columns.items():
            kept, codecs[name] = narrow(values)
            for number, each in enumerate(kept):
                files.write_column(_place(folder, name, number), each)
    return codecs


def read_column(
    folder: str, name: str, codec: Codec, start: int = 0, stop: int | None = None
) -> NDArray[Any]:
    """Read elements ``start:stop`` of a column that :func:`write_columns` wrote."""
    kept = [
        files.read_column(_place(folder, name, number), np.dtype(word).type, start, stop)
        for number, word in enumerate(codec.words)
    ]
    return widen(kept, [codec])


def _place(folder: str, name: str, number: int) -> str:
    return files.join(folder, f"{name}-{number}")
