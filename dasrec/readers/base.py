"""What the readers of all formats share: parts, pieces, and words for damaged bytes."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from dasrec import files
from dasrec.errors import InputError


class Part(NamedTuple):
    """What one task reads: bytes of a text file, a row group, or some record batches."""

    path: str
    start: int = 0
    stop: int | None = None


class Log(NamedTuple):
    """A log that was found.

    Attributes
    ----------
    parts : what the tasks read, one each
    read : gives a part as tables, one after the other, so that a task holds one of them
    first : some values of each column
    stamp : changes when the files do
    count_rows : says about how many rows there are, looking at no more than heads
    """

    parts: list[Any]
    read: Callable[[Any], Iterator[Any]]
    first: Mapping[str, Any]
    stamp: str = ""
    count_rows: Callable[[], int] | None = None


class Format(Protocol):
    """How files of one type are read; small and picklable."""

    def names(self, path: str) -> Sequence[str]:
        """List the columns of a file."""
        ...

    def parts(self, path: str) -> list[Part]:
        """Cut a file into parts."""
        ...

    def count(self, path: str) -> int:
        """Say about how many rows a file has, looking at no more than its head."""
        ...

    def first(self, path: str, columns: Sequence[str]) -> pa.Table:
        """Return the first rows of a file."""
        ...

    def read(self, part: Part, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield a part in pieces of bounded size."""
        ...


def no_rows(columns: Sequence[str]) -> pa.Table:
    """Return a table without rows."""
    return pa.table({name: pa.array([], pa.string()) for name in columns})


@contextlib.contextmanager
def decoding(path: str) -> Iterator[None]:
    """Turn what damaged bytes raise into an :class:`InputError` that names the file."""
    with files.reaching(path):
        try:
            yield
        except (
            pa.ArrowInvalid,
            EOFError,
            OSError,
            zlib.error,
            lzma.LZMAError,
        ) as error:
            # Arrow's codecs raise a bare OSError; one with a number comes from the system
            if isinstance(error, OSError) and not _is_damage(error):
                raise
            msg = f"{path} is damaged, or not what its name says: {error}"
            raise InputError(msg) from error


def _is_damage(error: OSError) -> bool:
    bare = type(error) is OSError and error.errno is None
    return bare or isinstance(error, gzip.BadGzipFile)
