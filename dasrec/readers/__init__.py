"""Logs cut into parts that one task reads, piece by piece: files of any type, tables in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pa_dataset

from dasrec import files
from dasrec.checks import check_columns
from dasrec.errors import InputError
from dasrec.readers.base import Format, Log, Part, decoding
from dasrec.readers.binary import ArrowFile, Parquet
from dasrec.readers.given import ArrowTable, is_table, name_of, open_table
from dasrec.readers.text import Delimited, JsonLines, is_compressed

__all__ = [
    "ArrowTable",
    "Log",
    "Part",
    "Paths",
    "find_files",
    "is_table",
    "name_of",
    "open_log",
    "open_table",
]

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".inter", ".data")
JSON_SUFFIXES = (".jsonl", ".ndjson")
PARQUET_SUFFIXES = (".parquet", ".pq")
ARROW_SUFFIXES = (".arrow", ".feather")
SUFFIXES = TEXT_SUFFIXES + JSON_SUFFIXES + PARQUET_SUFFIXES + ARROW_SUFFIXES


type Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def find_files(paths: Paths) -> list[str]:
    """Turn a path, URL, glob or folder, or a list of them, into files of known types, sorted.

    Raises
    ------
    InputError
        Nothing matches, a file is empty, or it is of an unknown type; or it is no path at all.
    """
    given: list[Any] = list(paths) if isinstance(paths, (list, tuple)) else [paths]
    for odd in (each for each in given if not isinstance(each, (str, os.PathLike))):
        msg = f"there is a {type(odd).__name__}; expected a path, a URL, a list of them, or a table"
        raise InputError(msg)
    found: list[str] = []
    for each in [os.fspath(path) for path in given]:
        with files.reaching(each):
            matches = _matches(each)
        if not matches:
            msg = f"{each} is not there; expected a file, a folder with logs, or a matching glob"
            raise InputError(msg)
        found += matches
    for name in found:
        if _suffix(name) not in SUFFIXES:
            msg = f"{name} is of an unknown type; expected one of: {', '.join(SUFFIXES)}"
            raise InputError(msg)
        fs, path = files.locate(name)
        with files.reaching(name):
            is_empty = fs.size(path) == 0
        if is_empty:
            msg = f"{name} is empty; expected a header and rows"
            raise InputError(msg)
    return found


def _matches(url: str) -> list[str]:
    fs, path = files.locate(url)
    if "*" in path or "?" in path:
        matches = sorted(name for name in fs.glob(path) if not _is_mark(name))
    elif fs.isdir(path):
        matches = sorted(name for name in fs.find(path) if _counts(name, path))
    else:
        matches = [path] if fs.exists(path) else []
    return [fs.unstrip_protocol(name) if "://" in url else name for name in matches]


def _counts(path: str, folder: str) -> bool:
    """Say whether a file in a folder is data; Spark and others mark what is not by its name."""
    inner = path.removeprefix(folder).split("/")
    return _suffix(path) in SUFFIXES and not any(_is_mark(name) for name in inner)


def _is_mark(path: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _suffix(path: str) -> str:
    """Return the type of a file, looking through a compression suffix."""
    stem, suffix = os.path.splitext(path.lower())  # noqa: PTH122 - a URL is no Path
    return os.path.splitext(stem)[1] if is_compressed(path) else suffix  # noqa: PTH122


def open_log(found: Sequence[str], columns: Sequence[str]) -> Log:
    """Cut files of one type into parts and read the first rows.

    Parameters
    ----------
    found : files, as :func:`find_files` gives them
    columns : those that are wanted; what the files lack is sought in their folders' names

    Raises
    ------
    InputError
        The files are of several types, or one lacks one of the ``columns``.
    """
    with decoding(found[0]):
        kind = _format_of(found)
        names = kind.names(found[0])
        check_columns([*names, *_folder_keys(found[0])], columns, where=found[0])
        # a file is read even if all that is wanted is in its folders' names: it has the row count
        inside = [name for name in columns if name in names] or list(names[:1])
        first = kind.first(found[0], inside)
    outside = [name for name in columns if name not in names]
    folders = [_folder_values(path, outside) for path in found]
    values = {name: first[name] for name in inside}
    for name in outside:
        values[name] = pa.array([each[name] for each in folders], pa.string())
    parts = []
    for path in found:
        with decoding(path):
            parts += kind.parts(path)
    read = partial(_read, kind, inside, outside)
    count = partial(_count, kind, found)
    return Log(parts or [Part(found[0])], read, values, _stamp(found), count)


def _count(kind: Format, found: Sequence[str]) -> int:
    return sum(kind.count(path) for path in found)


def _stamp(found: Sequence[str]) -> str:
    """Return a text that changes when a file does, so that a killed job is not taken up wrongly."""
    digest = sha256()
    for path in found:
        fs, inside = files.locate(path)
        digest.update(fs.ukey(inside).encode())
    return digest.hexdigest()


def _format_of(found: Sequence[str]) -> Format:
    kinds = {_suffix(name) for name in found}
    if kinds <= set(TEXT_SUFFIXES):
        return Delimited.like(found[0])
    known: tuple[tuple[tuple[str, ...], Format], ...] = (
        (JSON_SUFFIXES, JsonLines()),
        (PARQUET_SUFFIXES, Parquet()),
        (ARROW_SUFFIXES, ArrowFile()),
    )
    for suffixes, kind in known:
        if kinds <= set(suffixes):
            return kind
    msg = f"the files are of several types ({', '.join(sorted(kinds))}); expected one at a time"
    raise InputError(msg)


def _folder_keys(path: str) -> list[str]:
    """List the columns that the folders of a file name as Hive does: ``day=2026-01-31``."""
    return [name.partition("=")[0] for name in path.split("/")[:-1] if "=" in name]


def _folder_values(path: str, columns: Sequence[str]) -> Mapping[str, str | None]:
    """Return what the folders of a file say, as texts, which are read as those of CSV are."""
    if not columns:
        return {}
    hive = pa_dataset.HivePartitioning(pa.schema([(name, pa.string()) for name in columns]))
    values: Mapping[str, str | None] = pa_dataset.get_partition_keys(hive.parse(path))
    check_columns(list(values), columns, where=f"the folder of {path}")
    return values


def _read(
    kind: Format, inside: Sequence[str], outside: Sequence[str], part: Part
) -> Iterator[pa.Table]:
    values = _folder_values(part.path, outside)
    with decoding(part.path):
        for piece in kind.read(part, inside):
            table = piece
            for name in outside:
                column = pa.repeat(pa.scalar(values[name], pa.string()), len(table))
                table = table.append_column(name, column)
            yield table
