"""Files by path or fsspec URL: atomic small files, raw columns read by range, whole trees."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import fsspec
import numpy as np
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from dasrec.errors import DasrecError, DiskError, InputError

_VECTORS = 1024  # arrays that one system call writes
_REFUSALS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EFBIG,
    errno.ENOTDIR,
)
_LOCAL = LocalFileSystem()
_OBJECT_STORES = ("s3", "s3a")
_S3FS_TRIES = 5  # of s3fs itself
_LONGEST_PUT = 300.0  # seconds
_CLIENTS = ("aiobotocore", "aiohttp", "botocore", "s3fs")  # some of their errors are no OSError


def options(url: str) -> dict[str, Any] | None:
    """Return what a URL is opened with beside what the environment and fsspec's settings say.

    The one place for it. To try again after a failure is left to botocore, whose own settings say
    how often; what s3fs adds is bounded here.
    """
    if url.partition("://")[0] not in _OBJECT_STORES:
        return None
    _bound_tries()
    given = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    return {
        # seconds of silence; settings of the user go first, of which fsspec would take all or none
        "config_kwargs": {"connect_timeout": 5, "read_timeout": 10, **given},
        # others write to the same bucket: what a listing said a moment ago need not be true
        "use_listings_cache": False,
        # a file is read a block ahead, and every task would hold 50 MB of it
        "default_block_size": 2**23,
        # to read an object in parts, its size would be asked for before each read
        "max_concurrency": 1,
    }


@functools.cache
def _bound_tries() -> None:
    """Let s3fs try twice what botocore has tried five times, unless somebody has said otherwise.

    Its five times stand in each other's way: to read from a server that takes connections and never
    answers it would ask 5 x 5 x 5 times and wait for half an hour.
    """
    with contextlib.suppress(ImportError):
        from s3fs import S3FileSystem

        if S3FileSystem.retries == _S3FS_TRIES:
            S3FileSystem.retries = 2


def locate(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a path or URL and the path in it."""
    text = os.fspath(url)
    if text.startswith("/") and os.sep == "/" and "::" not in text:
        return _LOCAL, text.rstrip("/") or "/"  # asked for with every range that is read
    try:
        fs, path = url_to_fs(text, **(options(text) or {}))
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


def open_file(url: str, *, compression: str | None = None) -> Any:
    """Open a file for reading in a ``with``; ``compression="infer"`` goes by its name."""
    return fsspec.open(url, "rb", compression=compression, **(options(url) or {}))


def spill_folder() -> str:
    """Return where Dask puts what does not fit in memory, by its settings here."""
    return str(dask.config.get("temporary-directory", None) or tempfile.gettempdir())


def join(url: str, *names: str) -> str:
    """Append path segments to a path or URL."""
    return "/".join([url.rstrip("/"), *names])


def exists(url: str) -> bool:
    """Say whether a file or a folder is there."""
    fs, path = locate(url)
    with reaching(url):
        return bool(fs.exists(path))


def token() -> str:
    """Return a short fresh name for a group or a scratch folder."""
    return uuid.uuid4().hex[:12]


def read_json(url: str) -> dict[str, Any]:
    """Read one JSON object; FileNotFoundError when it is not there."""
    content = json.loads(read_bytes(url))
    if not isinstance(content, dict):
        msg = f"{url} holds {type(content).__name__}; expected a JSON object"
        raise InputError(msg)
    return content


def replace(url: str, content: bytes | memoryview, *, durable: bool = True) -> None:
    """Put a small file in place as a whole: a reader sees the old content or the new, never a part.

    Locally by fsync (unless it need not outlive the machine) and rename; on an object store a
    single put is atomic by itself.
    """
    fs, path = locate(url)
    if not isinstance(fs, LocalFileSystem):
        with reaching(url):
            fs.pipe_file(path, bytes(content), **_within(url))
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{token()}")
    try:
        with draft.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(target)
        if durable:
            _sync_folder(target.parent)
    finally:
        draft.unlink(missing_ok=True)


def create(url: str, content: str) -> None:
    """Put a small file in place as a whole if none is there yet; FileExistsError if one is.

    Of several writers with contents of their own exactly one succeeds: locally by a hard link to a
    finished file, on an object store by a conditional put.
    """
    fs, path = locate(url)
    if not isinstance(fs, LocalFileSystem):
        with reaching(url):
            _put_new(fs, path, content.encode(), within=_within(url))
        return
    draft = f"{path}.{token()}"
    replace(draft, content.encode())
    try:
        os.link(draft, path)
        _sync_folder(Path(path).parent)
    finally:
        Path(draft).unlink()


def _within(url: str) -> dict[str, float]:
    """Return a deadline for a small put: while it waits to send, no timeout of a client runs."""
    return {} if options(url) is None else {"timeout": _LONGEST_PUT}


def _put_new(
    fs: fsspec.AbstractFileSystem, path: str, content: bytes, *, within: dict[str, float]
) -> None:
    try:
        fs.pipe_file(path, content, mode="create", **within)
    except OSError as error:
        answer = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
        if not isinstance(error, FileExistsError) and answer != "PreconditionFailed":
            raise
        # when the reply to a put is lost, the client puts again and then meets its own file
        if fs.cat_file(path) != content:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(url: str) -> None:
    """Remove a file or a tree if it is there."""
    fs, path = locate(url)
    with reaching(url):
        if not fs.exists(path):
            return
        fs.rm(path, recursive=True)
        # a server may refuse single files and say so only in the body of its answer
        if not isinstance(fs, LocalFileSystem) and fs.exists(path):
            raise OSError(errno.EIO, "not everything could be removed")


def move(source: str, target: str, *, last: str) -> None:
    """Put a finished tree where another may be; that one is moved aside first and removed last.

    On an object store there is no rename: the other tree is removed first, and files are copied.
    There the file ``last``, without which nobody takes a tree for whole, goes first and comes last.
    """
    fs, path = locate(source)
    if not is_local(target):
        with reaching(target):
            _move_files(fs, path, target, last)
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


def _move_files(fs: fsspec.AbstractFileSystem, path: str, target: str, last: str) -> None:
    remove(join(target, last))
    remove(target)
    there = locate(target)[1]
    found = [name.removeprefix(path).lstrip("/") for name in fs.find(path)]
    for some in ([name for name in found if name != last], [last]):
        fs.copy(
            [f"{path}/{name}" for name in some],
            [f"{there}/{name}" for name in some],
            on_error="raise",
        )
    fs.rm(path, recursive=True)


def make_folder(url: str) -> None:
    """Make a folder where the file system has such a thing."""
    fs, path = locate(url)
    if options(url) is not None:
        return  # an object store has none; s3fs would make a bucket, out of a typing error too
    with writing(url):
        fs.makedirs(path, exist_ok=True)


def names(url: str) -> set[str]:
    """List what lies in a folder, by the last part of the name; nothing if there is none."""
    fs, path = locate(url)
    with reaching(url):
        fs.invalidate_cache(path)
        try:
            found = [each.rstrip("/") for each in fs.ls(path, detail=False)]
        except (FileNotFoundError, NotADirectoryError):
            return set()
    return {each.rsplit("/", 1)[-1] for each in found if each != path.rstrip("/")}


def read_bytes(url: str, start: int | None = None, stop: int | None = None) -> bytes:
    """Read a file, or bytes ``start:stop`` of it; FileNotFoundError when it is not there."""
    fs, path = locate(url)
    if not isinstance(fs, LocalFileSystem):
        with reaching(url):
            return bytes(fs.cat_file(path, start=start, end=stop))
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - half the cost of what fsspec does
        if start:
            file.seek(start)
        return file.read() if stop is None else file.read(stop - (start or 0))


def write_column(url: str, *values: NDArray[Any]) -> None:
    """Write arrays, one after the other, as raw little-endian bytes; ranges of it can be read."""
    fs, path = locate(url)
    views = [np.ascontiguousarray(each).view(np.uint8).data for each in values]
    if not isinstance(fs, LocalFileSystem):
        with reaching(url), fs.open(path, "wb") as file:
            for view in views:
                file.write(view)
        return
    with open(path, "wb", buffering=0) as file:  # noqa: PTH123
        # many small writes cost five times as much as one: the system then keeps single pages
        for some in itertools.batched(views, _VECTORS):
            left = sum(map(len, some)) - os.writev(file.fileno(), some)
            rest = memoryview(b"".join(some))[-left:] if left else memoryview(b"")
            while len(rest):
                rest = rest[file.write(rest) :]


def read_column(
    url: str, dtype: type[np.generic], start: int = 0, stop: int | None = None
) -> NDArray[Any]:
    """Read elements ``start:stop`` of a column that :func:`write_column` wrote."""
    if stop is None:
        fs, path = locate(url)
        with reaching(url):
            stop = fs.size(path) // np.dtype(dtype).itemsize
    values = np.empty(max(0, stop - start), dtype)
    read_into(url, start * values.itemsize, values)
    return values


def read_into(url: str, start: int, *values: NDArray[Any]) -> None:
    """Fill contiguous arrays, one after the other, with the bytes of a file from ``start`` on."""
    views = [each.view(np.uint8).data for each in values if each.size]
    if not views:
        return
    fs, path = locate(url)
    size = sum(map(len, views))
    if isinstance(fs, LocalFileSystem):
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            n = os.preadv(file.fileno(), views, start)
    else:
        content = read_bytes(url, start, start + size)
        n, at = len(content), 0
        for view in views:
            view[:] = content[at : at + len(view)]
            at += len(view)
    if n != size:
        msg = f"{url} ends after {start + n} bytes; expected {start + size}"
        raise EOFError(msg)


@contextlib.contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turn what a server or the network refuses into a :class:`DiskError` that names the place.

    That a file is there, or is not, is no refusal.
    """
    try:
        yield
    except Exception as error:
        if not _is_refusal(error) or is_local(url):
            raise
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        msg = (
            f"{url} cannot be reached: {reason}. What was there before is still there; check the "
            "endpoint, the credentials and the network, then run the same call again"
        )
        raise DiskError(msg) from error


def _is_refusal(error: Exception) -> bool:
    if isinstance(error, (DasrecError, FileNotFoundError, FileExistsError, NotADirectoryError)):
        return False
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _CLIENTS


@contextlib.contextmanager
def writing(url: str) -> Iterator[None]:
    """Turn the system's refusal to write into a :class:`DiskError` that names the place."""
    try:
        with reaching(url):
            yield
    except OSError as error:
        no_bucket = isinstance(error, FileNotFoundError) and options(url) is not None
        if isinstance(error, DiskError) or not (no_bucket or error.errno in _REFUSALS):
            raise
        reason = error.strerror or error
        msg = (
            f"cannot write to {url}: {reason}; nothing half-written is left in use. "
            "Free space or choose another place, then run the same call again"
        )
        raise DiskError(msg) from error
