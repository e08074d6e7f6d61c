"""Files of logs, cut into parts that one task can hold; each part is read as an Arrow table."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.feather as pa_feather
import pyarrow.json as pa_json
import pyarrow.parquet as pq
from fsspec.utils import infer_compression, read_block

from dasrec import files, memory
from dasrec.checks import check_columns
from dasrec.errors import InputError

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".inter", ".data")
JSON_SUFFIXES = (".jsonl", ".ndjson")
PARQUET_SUFFIXES = (".parquet", ".pq")
ARROW_SUFFIXES = (".arrow", ".feather")
SUFFIXES = TEXT_SUFFIXES + JSON_SUFFIXES + PARQUET_SUFFIXES + ARROW_SUFFIXES
_SEPARATORS = "\t,;|"
_HEAD_BYTES = 2**16


class Part(NamedTuple):
    """What one task reads: bytes of a text file, a row group, or a whole file."""

    path: str
    start: int = 0
    stop: int | None = None


class Log(NamedTuple):
    """A log that was found: its parts, how to read one, and its first rows."""

    parts: list[Part]
    read: Callable[[Part], pa.Table]
    first: pa.Table


def find_files(paths: str | os.PathLike[str] | Sequence[str]) -> list[str]:
    """Turn paths, URLs, globs and folders into a sorted list of files of known types.

    Raises
    ------
    InputError
        Nothing matches, a file is empty, or it is of an unknown type.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    found: list[str] = []
    for each in [os.fspath(path) for path in given]:
        fs, path = files.locate(each)
        if "*" in path or "?" in path:
            matches = sorted(name for name in fs.glob(path) if not _is_mark(name))
        elif fs.isdir(path):
            matches = sorted(name for name in fs.find(path) if _counts(name, path))
        else:
            matches = [path] if fs.exists(path) else []
        if not matches:
            msg = f"{each} is not there; expected a file, a folder with logs, or a matching glob"
            raise InputError(msg)
        found += [fs.unstrip_protocol(name) if "://" in each else name for name in matches]
    for name in found:
        if _suffix(name) not in SUFFIXES:
            msg = f"{name} is of an unknown type; expected one of: {', '.join(SUFFIXES)}"
            raise InputError(msg)
        fs, path = files.locate(name)
        if fs.size(path) == 0:
            msg = f"{name} is empty; expected a header and rows"
            raise InputError(msg)
    return found


def open_log(found: Sequence[str], columns: Sequence[str]) -> Log:
    """Cut files of one type into parts and read the first rows.

    Raises
    ------
    InputError
        The files are of several types, or the first lacks one of the ``columns``.
    """
    kinds = {_suffix(name) for name in found}
    for suffixes, opener in (
        (TEXT_SUFFIXES, _open_text),
        (JSON_SUFFIXES, _open_json),
        (PARQUET_SUFFIXES, _open_parquet),
        (ARROW_SUFFIXES, _open_arrow),
    ):
        if kinds <= set(suffixes):
            with _decoding(found[0]):
                log = opener(found, columns)
            return log._replace(read=partial(_read, log.read))
    msg = f"the files are of several types ({', '.join(sorted(kinds))}); expected one at a time"
    raise InputError(msg)


def _read(read: Callable[[Part], pa.Table], part: Part) -> pa.Table:
    with _decoding(part.path):
        return read(part)


@contextlib.contextmanager
def _decoding(path: str) -> Iterator[None]:
    """Turn what damaged bytes raise into an :class:`InputError` that names the file."""
    try:
        yield
    except (pa.ArrowInvalid, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        msg = f"{path} is damaged, or not what its name says: {error}"
        raise InputError(msg) from error


def _counts(path: str, folder: str) -> bool:
    """Say whether a file in a folder is data; Spark and others mark what is not by its name."""
    inner = path.removeprefix(folder).split("/")
    return _suffix(path) in SUFFIXES and not any(_is_mark(name) for name in inner)


def _is_mark(path: str) -> bool:
    return path.rsplit("/", 1)[-1].startswith(("_", "."))


def _suffix(path: str) -> str:
    """Return the type of a file, looking through a compression suffix."""
    stem, suffix = os.path.splitext(path.lower())  # noqa: PTH122 - a URL is no Path
    return str(os.path.splitext(stem)[1] if infer_compression(path) else suffix)  # noqa: PTH122


def _open_text(found: Sequence[str], columns: Sequence[str]) -> Log:
    head = _head(found[0])
    separator = max(_SEPARATORS, key=lambda each: len(_header(head, each)))
    header = _header(head, separator)
    check_columns(header, columns, where=found[0])
    read = partial(_read_text, columns=columns, separator=separator, header=header)
    return Log(_byte_parts(found), read, read(Part(found[0]), content=head))


def _open_json(found: Sequence[str], columns: Sequence[str]) -> Log:
    read = partial(_read_json, columns=columns)
    return Log(_byte_parts(found), read, read(Part(found[0]), content=_head(found[0])))


def _open_parquet(found: Sequence[str], columns: Sequence[str]) -> Log:
    parts = []
    for path in found:
        with fsspec.open(path, "rb") as file:
            parts += [Part(path, group) for group in range(pq.ParquetFile(file).num_row_groups)]
    with fsspec.open(found[0], "rb") as file:
        opened = pq.ParquetFile(file)
        check_columns(opened.schema_arrow.names, columns, where=found[0])
        batch = next(opened.iter_batches(1024, columns=list(columns)), None)
        schema = opened.schema_arrow
    first = schema.empty_table() if batch is None else pa.Table.from_batches([batch])
    return Log(parts or [Part(found[0], -1)], partial(_read_row_group, columns=columns), first)


def _open_arrow(found: Sequence[str], columns: Sequence[str]) -> Log:
    read = partial(_read_arrow, columns=columns)
    return Log([Part(path) for path in found], read, read(Part(found[0])))


def _byte_parts(found: Sequence[str]) -> list[Part]:
    """Cut text files by bytes; a compressed one cannot be cut."""
    parts = []
    for path in found:
        fs, inside = files.locate(path)
        if infer_compression(path):
            parts.append(Part(path))
            continue
        size, step = fs.size(inside), memory.READ_BYTES
        parts += [Part(path, start, min(start + step, size)) for start in range(0, size, step)]
    return parts


def _head(path: str) -> bytes:
    """Return the whole lines at the beginning of a file."""
    with fsspec.open(path, "rb", compression="infer") as file:
        head: bytes = file.read(_HEAD_BYTES)
    return head[: head.rfind(b"\n") + 1] if len(head) == _HEAD_BYTES else head


def _header(content: bytes, separator: str) -> tuple[str, ...]:
    line = content.partition(b"\n")[0].decode("utf-8", "replace").rstrip("\r").lstrip("\ufeff")
    return tuple(name.strip().strip('"') for name in line.split(separator))


def _lines(part: Part) -> bytes:
    """Return the lines that begin within a part."""
    with fsspec.open(part.path, "rb", compression="infer") as file:
        if part.stop is None:
            whole: bytes = file.read()
            return whole
        block: bytes = read_block(file, part.start, part.stop - part.start, delimiter=b"\n")
        return block


def _read_text(
    part: Part,
    *,
    columns: Sequence[str],
    separator: str,
    header: tuple[str, ...],
    content: bytes | None = None,
) -> pa.Table:
    content = _lines(part) if content is None else content
    if part.start == 0:
        if (names := _header(content, separator)) != header:
            msg = f"{part.path} has the columns {names}, others {header}; expected the same"
            raise InputError(msg)
        content = content.partition(b"\n")[2]
    if not content.strip():
        return _nothing(columns)
    try:
        return pa_csv.read_csv(
            io.BytesIO(content),
            read_options=pa_csv.ReadOptions(column_names=list(header), use_threads=False),
            parse_options=pa_csv.ParseOptions(delimiter=separator),
            convert_options=pa_csv.ConvertOptions(
                include_columns=list(columns),
                column_types=dict.fromkeys(columns, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
    except pa.ArrowInvalid as error:
        msg = f"{part.path} is not readable as text separated by {separator!r}: {error}"
        raise InputError(msg) from error


def _read_json(part: Part, *, columns: Sequence[str], content: bytes | None = None) -> pa.Table:
    content = _lines(part) if content is None else content
    if not content.strip():
        return _nothing(columns)
    try:
        table = pa_json.read_json(
            io.BytesIO(content), read_options=pa_json.ReadOptions(use_threads=False)
        )
    except pa.ArrowInvalid as error:
        msg = f"{part.path} is not readable as one JSON object a line: {error}"
        raise InputError(msg) from error
    check_columns(table.column_names, columns, where=part.path)
    return table.select(list(columns))


def _nothing(columns: Sequence[str]) -> pa.Table:
    return pa.table({name: pa.array([], pa.string()) for name in columns})


def _read_row_group(part: Part, *, columns: Sequence[str]) -> pa.Table:
    with fsspec.open(part.path, "rb") as file:
        opened = pq.ParquetFile(file)
        check_columns(opened.schema_arrow.names, columns, where=part.path)
        if part.start < 0:  # a file without any row group
            return opened.schema_arrow.empty_table().select(list(columns))
        return opened.read_row_group(part.start, columns=list(columns), use_threads=False)


def _read_arrow(part: Part, *, columns: Sequence[str]) -> pa.Table:
    with fsspec.open(part.path, "rb") as file:
        table = pa_feather.read_table(io.BytesIO(file.read()))
    check_columns(table.column_names, columns, where=part.path)
    return table.select(list(columns))
