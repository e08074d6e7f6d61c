"""Files by path or fsspec URL: atomic small files, raw columns read by range, whole trees."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from dasrec.errors import DiskError, InputError


def locate(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a path or URL and the path in it."""
    try:
        fs, path = url_to_fs(os.fspath(url))
    except (ImportError, ValueError) as error:  # no such protocol, or its package is missing
        msg = f"{url} cannot be opened: {error}"
        raise InputError(msg) from error
    return fs, str(path)


def is_local(url: str) -> bool:
    """Say whether ``url`` lies on a mounted file system."""
    return isinstance(locate(url)[0], LocalFileSystem)


def absolute(url: str | os.PathLike[str]) -> str:
    """Return a form of ``url`` that means the same from any working directory."""
    text = os.fspath(url)
    return locate(text)[1] if is_local(text) else text.rstrip("/")


def join(url: str, *names: str) -> str:
    """Append path segments to a path or URL."""
    return "/".join([url.rstrip("/"), *names])


def exists(url: str) -> bool:
    """Say whether a file or a folder is there."""
    fs, path = locate(url)
    return bool(fs.exists(path))


def token() -> str:
    """Return a short fresh name for a group or a scratch folder."""
    return uuid.uuid4().hex[:12]


def read_json(url: str) -> dict[str, Any]:
    """Read one JSON object; FileNotFoundError when it is not there."""
    fs, path = locate(url)
    content = json.loads(fs.cat_file(path))
    if not isinstance(content, dict):
        msg = f"{url} holds {type(content).__name__}; expected a JSON object"
        raise InputError(msg)
    return content


def replace(url: str, content: bytes) -> None:
    """Put a small file in place as a whole: a reader sees the old content or the new, never a part.

    Locally by fsync and rename; on an object store a single put is atomic by itself.
    """
    fs, path = locate(url)
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(path, content)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{token()}")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
        _sync_folder(target.parent)
    finally:
        draft.unlink(missing_ok=True)


def create(url: str, content: str) -> None:
    """Put a small file in place as a whole if none is there yet; FileExistsError if one is.

    Of several writers exactly one succeeds: locally by a hard link to a finished file, on an object
    store by a conditional put.
    """
    fs, path = locate(url)
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(path, content.encode(), mode="create")
        return
    draft = f"{path}.{token()}"
    replace(draft, content.encode())
    try:
        os.link(draft, path)
        _sync_folder(Path(path).parent)
    finally:
        Path(draft).unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(url: str) -> None:
    """Remove a file or a tree if it is there."""
    fs, path = locate(url)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def move(source: str, target: str) -> None:
    """Put a finished tree where another may be; that one is moved aside first and removed last.

    On an object store there is no rename: files are copied, the marker that ends them last by name.
    """
    fs, path = locate(source)
    if not is_local(target):
        remove(target)
        fs.mv(path, locate(target)[1], recursive=True)
        return
    aside = f"{target}.old-{token()}"
    if exists(target):
        Path(target).replace(aside)
    try:
        Path(path).replace(target)
    except BaseException:
        if exists(aside):
            Path(aside).replace(target)
        raise
    remove(aside)


def make_folder(url: str) -> None:
    """Make a folder where the file system has such a thing."""
    fs, path = locate(url)
    with writing(url):
        fs.makedirs(path, exist_ok=True)


def write_column(url: str, values: NDArray[Any]) -> None:
    """Write an array as raw little-endian bytes, from which ranges can be read."""
    fs, path = locate(url)
    with fs.open(path, "wb") as file:
        file.write(np.ascontiguousarray(values).view(np.uint8).data)


def read_column(
    url: str, dtype: type[np.generic], start: int = 0, stop: int | None = None
) -> NDArray[Any]:
    """Read elements ``start:stop`` of a column that :func:`write_column` wrote."""
    if stop is not None and stop <= start:
        return np.empty(0, dtype)
    fs, path = locate(url)
    size = np.dtype(dtype).itemsize
    end = None if stop is None else stop * size
    return np.frombuffer(fs.cat_file(path, start=start * size, end=end), dtype)


@contextlib.contextmanager
def writing(url: str) -> Iterator[None]:
    """Turn the system's refusal to write into a :class:`DiskError` that names the place."""
    try:
        yield
    except OSError as error:
        if isinstance(error, DiskError) or error.errno not in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EROFS,
            errno.EACCES,
            errno.EFBIG,
            errno.ENOTDIR,
        ):
            raise
        msg = (
            f"cannot write to {url}: {error.strerror}; nothing half-written is left in use. "
            "Free space or choose another place, then run the same call again"
        )
        raise DiskError(msg) from error
