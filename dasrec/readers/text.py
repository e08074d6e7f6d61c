"""Delimited text and JSON lines: cut by bytes, or streamed in whole lines where compressed."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
from fsspec.utils import infer_compression, read_block

from dasrec import files, memory
from dasrec.checks import check_columns
from dasrec.errors import InputError
from dasrec.readers.base import Part, no_rows

_SEPARATORS = "\t,;|"
_HEAD_BYTES = 2**16
_GAIN = 4  # about how much longer logs are than compressed ones
# Arrow brings these codecs along; fsspec would want a package for two of them
_CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}


def is_compressed(path: str) -> bool:
    """Say whether the name of a file ends in a compression suffix."""
    return _ending(path) in _CODECS or infer_compression(path) is not None


def _ending(path: str) -> str:
    return os.path.splitext(path.lower())[1]  # noqa: PTH122 - a URL is no Path


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
    """Open a file for reading, decompressed."""
    codec = _CODECS.get(_ending(path))
    with files.open_file(path, compression=None if codec else "infer") as file:
        if codec is None:
            yield file
            return
        with pa.CompressedInputStream(file, codec) as stream:
            yield stream


def _head(path: str) -> bytes:
    """Return the whole lines at the beginning of a file."""
    with _opened(path) as file:
        head: bytes = file.read(_HEAD_BYTES)
    return head[: head.rfind(b"\n") + 1] if len(head) == _HEAD_BYTES else head


def _byte_parts(path: str) -> list[Part]:
    """Cut a text file by bytes; a compressed one cannot be cut."""
    if is_compressed(path):
        return [Part(path)]
    fs, inside = files.locate(path)
    size, step = fs.size(inside), memory.READ_BYTES
    return [Part(path, start, min(start + step, size)) for start in range(0, size, step)]


def _count_lines(path: str) -> int:
    """Judge the lines of a file by those at its beginning, and by what their compression gains."""
    head = _head(path)
    fs, inside = files.locate(path)
    size: int = fs.size(inside)
    if is_compressed(path):
        size *= _GAIN
    return size * head.count(b"\n") // max(1, len(head))


def _lines(part: Part) -> Iterator[bytes]:
    """Yield the lines that begin within a part, all at once, or in pieces if it is a whole file."""
    with _opened(part.path) as file:
        if part.stop is None:
            yield from _whole_lines(file, memory.READ_BYTES)
        else:
            yield read_block(file, part.start, part.stop - part.start, delimiter=b"\n")


def _whole_lines(file: Any, size: int) -> Iterator[bytes]:
    """Yield a stream in pieces of about ``size`` bytes, each of whole lines."""
    begun: list[bytes] = []  # a line that is longer than a piece
    while block := file.read(size):
        end = block.rfind(b"\n") + 1
        if end:
            yield b"".join([*begun, block[:end]])
            begun = []
        begun.append(block[end:])
    if any(begun):
        yield b"".join(begun)


def _header(content: bytes, separator: str) -> tuple[str, ...]:
    line = content.partition(b"\n")[0].decode("utf-8", "replace").rstrip("\r").lstrip("\ufeff")
    return tuple(name.strip().strip('"') for name in line.split(separator))


@dataclass(frozen=True)
class Delimited:
    """Text with a header, the same in all files."""

    separator: str
    header: tuple[str, ...]

    @classmethod
    def like(cls, path: str) -> Delimited:
        """Find the separator in the header of a file."""
        head = _head(path)
        separator = max(_SEPARATORS, key=lambda each: len(_header(head, each)))
        return cls(separator, _header(head, separator))

    def names(self, path: str) -> Sequence[str]:
        """List the columns of the header."""
        del path
        return self.header

    def parts(self, path: str) -> list[Part]:
        """Cut a file by bytes."""
        return _byte_parts(path)

    def count(self, path: str) -> int:
        """Judge the rows of a file by its head."""
        return _count_lines(path)

    def first(self, path: str, columns: Sequence[str]) -> pa.Table:
        """Return the first rows, all as text."""
        return self._parse(Part(path), _head(path), columns, begins=True)

    def read(self, part: Part, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the lines that begin within a part, all as text."""
        for number, content in enumerate(_lines(part)):
            yield self._parse(part, content, columns, begins=number == 0 and part.start == 0)

    def _parse(
        self, part: Part, content: bytes, columns: Sequence[str], *, begins: bool
    ) -> pa.Table:
        if begins:
            if (names := _header(content, self.separator)) != self.header:
                msg = (
                    f"{part.path} has the columns {names}, others {self.header}; expected the same"
                )
                raise InputError(msg)
            content = content.partition(b"\n")[2]
        if not content.strip():
            return no_rows(columns)
        try:
            return pa_csv.read_csv(
                io.BytesIO(content),
                read_options=pa_csv.ReadOptions(column_names=list(self.header), use_threads=False),
                parse_options=pa_csv.ParseOptions(delimiter=self.separator),
                convert_options=pa_csv.ConvertOptions(
                    include_columns=list(columns),
                    column_types=dict.fromkeys(columns, pa.string()),
                    strings_can_be_null=True,
                    null_values=[""],
                ),
            )
        except pa.ArrowInvalid as error:
            msg = f"{part.path} is not readable as text separated by {self.separator!r}: {error}"
            raise InputError(msg) from error


@dataclass(frozen=True)
class JsonLines:
    """One JSON object a line."""

    def names(self, path: str) -> Sequence[str]:
        """List the keys that the first rows have."""
        return list(self._parse(path, _head(path)).column_names)

    def parts(self, path: str) -> list[Part]:
        """Cut a file by bytes."""
        return _byte_parts(path)

    def count(self, path: str) -> int:
        """Judge the rows of a file by its head."""
        return _count_lines(path)

    def first(self, path: str, columns: Sequence[str]) -> pa.Table:
        """Return the first rows."""
        table = self._parse(path, _head(path))
        check_columns(table.column_names, columns, where=path)
        return table.select(list(columns))

    def read(self, part: Part, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the lines that begin within a part; a key that none of them has is missing."""
        for content in _lines(part):
            table = self._parse(part.path, content)
            for name in columns:
                if name not in table.column_names:
                    table = table.append_column(name, pa.nulls(len(table), pa.string()))
            yield table.select(list(columns))

    def _parse(self, path: str, content: bytes) -> pa.Table:
        if not content.strip():
            return no_rows(())
        try:
            return pa_json.read_json(
                io.BytesIO(content), read_options=pa_json.ReadOptions(use_threads=False)
            )
        except pa.ArrowInvalid as error:
            msg = f"{path} is not readable as one JSON object a line: {error}"
            raise InputError(msg) from error
