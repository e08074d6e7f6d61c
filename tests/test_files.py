"""Small files change as a whole, columns are read by range, and a full disk is told as such."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from dasrec import files
from dasrec.errors import DasrecError, DiskError, InputError


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give an empty folder on a disk, and one in fsspec's memory."""
    if request.param == "local":
        yield str(tmp_path)
        return
    url = f"memory://{files.token()}"
    files.make_folder(url)
    yield url
    files.remove(url)


def fail_with(number: int) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


def test_paths_mean_the_same_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert files.absolute("a/b") == str(tmp_path / "a" / "b")
    assert files.absolute(Path("a")) == str(tmp_path / "a")
    assert files.absolute(f"file://{tmp_path}/a/") == str(tmp_path / "a")
    assert files.absolute("memory://a/b/") == "memory://a/b"


def test_segments_are_joined_once() -> None:
    assert files.join("memory://a/", "b", "c") == "memory://a/b/c"
    assert files.join("/a", "b") == "/a/b"


def test_only_mounted_file_systems_are_local(tmp_path: Path) -> None:
    assert files.is_local(str(tmp_path))
    assert files.is_local(f"file://{tmp_path}")
    assert not files.is_local("memory://a")


def test_tokens_differ() -> None:
    assert len({files.token() for _ in range(1000)}) == 1000


# -- small files -----------------------------------------------------------------------------------


def test_a_small_file_is_put_in_place(place: str) -> None:
    url = files.join(place, "deeper", "a.json")
    assert not files.exists(url)
    files.replace(url, b'{"a": 1}')
    assert files.read_json(url) == {"a": 1}
    files.replace(url, b'{"a": 2}')
    assert files.read_json(url) == {"a": 2}
    files.replace(url, memoryview(b'{"a": 3}'), durable=False)
    assert files.read_json(url) == {"a": 3}


def test_only_objects_are_read_as_json(place: str) -> None:
    url = files.join(place, "a.json")
    with pytest.raises(FileNotFoundError):
        files.read_json(url)
    files.replace(url, b"[1]")
    with pytest.raises(InputError, match="holds list; expected a JSON object"):
        files.read_json(url)


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_file_stays_what_it_was_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    target = tmp_path / "a.json"
    files.replace(str(target), b"old")
    with monkeypatch.context() as patch:
        owner: Any = os if broken == "fsync" else Path
        patch.setattr(owner, broken, fail_with(errno.ENOSPC))
        with pytest.raises(OSError, match="No space left"):
            files.replace(str(target), b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_readers_see_the_old_or_the_new_never_a_part(tmp_path: Path) -> None:
    url = str(tmp_path / "a")
    contents = [bytes([letter]) * 100_000 for letter in b"xy"]
    files.replace(url, contents[0])

    def write() -> None:
        for turn in range(50):
            files.replace(url, contents[turn % 2])

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        seen = 0
        while not writing.done() or seen == 0:
            assert Path(url).read_bytes() in contents
            seen += 1
        writing.result()


def test_a_file_is_created_once(place: str) -> None:
    url = files.join(place, "version.json")
    files.create(url, "first")
    with pytest.raises(FileExistsError):
        files.create(url, "second")
    fs, path = files.locate(url)
    assert fs.cat_file(path) == b"first"
    assert len(fs.ls(files.locate(place)[1])) == 1


def race_to_create(url: str, n: int) -> list[bool]:
    """Let many writers create one file, each with its number in it; say who succeeded."""

    def attempt(number: int) -> bool:
        try:
            files.create(url, str(number))
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(attempt, range(n)))


def test_of_many_writers_one_creates_the_file(tmp_path: Path) -> None:
    url = str(tmp_path / "version.json")
    won = race_to_create(url, 40)
    assert won.count(True) == 1
    assert Path(url).read_text() == str(won.index(True))
    assert len(list(tmp_path.iterdir())) == 1


# -- trees -----------------------------------------------------------------------------------------


def test_what_is_not_there_is_removed_without_complaint(place: str) -> None:
    files.remove(files.join(place, "nothing"))
    files.replace(files.join(place, "tree", "leaf"), b"x")
    files.remove(files.join(place, "tree"))
    assert not files.exists(files.join(place, "tree", "leaf"))


def test_a_tree_takes_the_place_of_another(place: str) -> None:
    source, target = files.join(place, "new"), files.join(place, "old")
    files.replace(files.join(source, "a"), b"new")
    files.replace(files.join(target, "a"), b"old")
    files.replace(files.join(target, "gone"), b"old")
    files.move(source, target, last="a")
    fs, path = files.locate(target)
    assert fs.cat_file(f"{path}/a") == b"new"
    assert not fs.exists(f"{path}/gone")
    assert not files.exists(source)
    assert len(fs.ls(files.locate(place)[1])) == 1  # nothing is left aside


def test_where_nothing_is_renamed_the_mark_goes_first_and_comes_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = f"memory://{files.token()}"
    for name in ("a", "b", "mark", "z"):
        for folder in ("new", "old"):
            files.replace(files.join(place, folder, name), folder.encode())
    done = []
    for verb in ("cp_file", "rm_file"):
        original = getattr(MemoryFileSystem, verb)

        def record(
            fs: Any, *paths: str, verb: str = verb, original: Any = original, **options: Any
        ) -> Any:
            done.append((verb, paths[-1].removeprefix(place.removeprefix("memory:/"))))
            return original(fs, *paths, **options)

        monkeypatch.setattr(MemoryFileSystem, verb, record)
    files.move(files.join(place, "new"), files.join(place, "old"), last="mark")
    assert done[0] == ("rm_file", "/old/mark")
    copied = [name for verb, name in done if verb == "cp_file"]
    assert (sorted(copied[:3]), copied[3:]) == (["/old/a", "/old/b", "/old/z"], ["/old/mark"])
    assert files.names(place) == {"old"}
    files.remove(place)


def test_a_tree_comes_back_when_another_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "new", tmp_path / "old"
    for folder in (source, target):
        folder.mkdir()
        (folder / "a").write_text(folder.name)
    rename = Path.replace

    def refuse(path: Path, to: Any) -> Path:
        if path == source:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(path, to)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(OSError, match="No space left"):
            files.move(str(source), str(target), last="a")
    assert (target / "a").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]


# -- columns ---------------------------------------------------------------------------------------


@given(
    npst.arrays(
        st.sampled_from([np.int32, np.int64, np.float32, np.int8]),
        st.integers(0, 20),
        elements={"allow_nan": False},
    ),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_columns_are_read_by_range(values: np.ndarray, start: int, stop: int) -> None:
    url = f"memory://{files.token()}"
    start, stop = min(start, len(values)), min(stop, len(values))
    files.write_column(url, values)
    whole = files.read_column(url, values.dtype.type)
    np.testing.assert_array_equal(whole, values)
    part = files.read_column(url, values.dtype.type, start, stop)
    np.testing.assert_array_equal(part, values[start:stop])
    assert whole.dtype == part.dtype == values.dtype
    files.remove(url)


def test_a_column_need_not_be_contiguous(place: str) -> None:
    url = files.join(place, "column")
    values = np.arange(10, dtype=np.int64)[::-2]
    files.write_column(url, values)
    assert files.read_column(url, np.int64).tolist() == values.tolist()


def test_an_empty_column_is_read_empty(place: str) -> None:
    url = files.join(place, "column")
    files.write_column(url, np.empty(0, np.int32))
    assert files.read_column(url, np.int32).tolist() == []


def test_a_column_is_read_past_two_to_the_31_elements(tmp_path: Path) -> None:
    path = tmp_path / "column"
    place = 2**31 + 5
    with path.open("wb") as file:  # all but the end is a hole, which takes no room
        file.seek(4 * place)
        file.write(np.array([7, 8], np.int32).tobytes())
    found = files.read_column(str(path), np.int32, np.int64(place), np.int64(place + 2))
    assert found.tolist() == [7, 8]


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.ENOTDIR]
)
def test_a_disk_that_refuses_is_named(number: int) -> None:
    message = (
        f"cannot write to /data/store: {os.strerror(number)}; nothing half-written is left in use. "
        "Free space or choose another place, then run the same call again"
    )
    with (
        pytest.raises(DiskError, match=f"^{re.escape(message)}$") as caught,
        files.writing("/data/store"),
    ):
        raise OSError(number, os.strerror(number))
    assert isinstance(caught.value, DasrecError)
    assert isinstance(caught.value.__cause__, OSError)


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(FileNotFoundError), files.writing("/data"):
        raise FileNotFoundError(errno.ENOENT, "x")
    with pytest.raises(ZeroDivisionError), files.writing("/data"):
        1 / 0  # noqa: B018


def test_the_innermost_place_is_named() -> None:
    with (
        pytest.raises(DiskError, match="cannot write to inner:"),
        files.writing("outer"),
        files.writing("inner"),
    ):
        raise OSError(errno.ENOSPC, "full")


def test_a_path_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DiskError, match="Not a directory"), files.writing("there"):
        files.make_folder(str(tmp_path / "file" / "below"))


def test_a_missing_scheme_is_told_by_fsspec() -> None:
    with pytest.raises(ValueError, match="Protocol not known: nowhere"):
        files.locate("nowhere://a")
    assert "memory" in fsspec.available_protocols()
