"""Parts are read in pieces of bounded size, whose rows are those of the whole, in order."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as pa_feather
import pyarrow.parquet as pq
import pytest

from dasrec import blocks, files, memory, pseudonymise, read_events
from dasrec.errors import InputError
from dasrec.events import Events, read_pieces

N = 300
COLUMNS = {"user": "who", "item": "what", "value": "stars", "timestamp": "when"}
draw = np.random.default_rng(0)
LOG = pd.DataFrame(
    {
        "who": draw.integers(0, 2**60, N),
        "what": [f"item {n}" for n in draw.integers(0, 9, N)],
        "stars": draw.integers(-4, 20, N) / 4,
        "when": draw.integers(0, 2 * 10**9, N),
        "extra": "x",
    }
)
TABLE = pa.Table.from_pandas(LOG, preserve_index=False)


def pieces_of(events: Events) -> list[list[pd.DataFrame]]:
    """Return the pieces of each part of events without a Dask DataFrame behind them."""
    return [list(read_pieces(source)) for source in events.sources]


def check(events: Events, log: pd.DataFrame = LOG) -> list[list[pd.DataFrame]]:
    """Check that pieces and frame both hold the log, and return the pieces."""
    wanted = pd.DataFrame(
        {
            "user": log["who"].astype("Int64"),
            "item": log["what"].astype("str"),
            "value": log["stars"].astype(float),
            "timestamp": (log["when"] * 10**6).to_numpy().astype("datetime64[us]"),
        }
    ).reset_index(drop=True)
    parts = pieces_of(events)
    for part in parts:
        index = np.concatenate([piece.index for piece in part])
        assert index.tolist() == list(range(len(index)))
    whole = pd.concat([piece for part in parts for piece in part], ignore_index=True)
    pd.testing.assert_frame_equal(whole, wanted)
    pd.testing.assert_frame_equal(events.frame.compute().reset_index(drop=True), wanted)
    return parts


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a piece be about 512 bytes of text or 16 rows."""
    monkeypatch.setattr(memory, "READ_BYTES", 512)


def refused(message: str) -> Any:
    return pytest.raises(InputError, match=re.escape(message))


# -- compressed text -------------------------------------------------------------------------------


CODECS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


def compressed(path: Path, content: bytes) -> Path:
    """Write a file with the codec that its suffix names."""
    if (codec := CODECS.get(path.suffix[1:])) is not None:
        path.write_bytes(codec(content))
    else:
        name = {".zst": "zstd", ".lz4": "lz4"}[path.suffix]
        with pa.output_stream(path, compression=name) as out:
            out.write(content)
    return path


CSV = LOG.to_csv(index=False).encode()
JSON = LOG.to_json(orient="records", lines=True).encode()
ENDINGS = ["gz", "bz2", "xz", "zst", "lz4"]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", ["csv", "jsonl"])
def test_compressed_text_is_streamed(
    tmp_path: Path, small_pieces: None, name: str, ending: str
) -> None:
    content = CSV if name == "csv" else JSON
    path = compressed(tmp_path / f"log.{name}.{ending}", content)
    (part,) = check(read_events(path, **COLUMNS))
    assert len(part) >= len(content) // 512 - 1
    assert max(map(len, part)) <= 512 // 30


@pytest.mark.parametrize("size", [1, 7, 100, 10**6])
def test_lines_may_be_longer_than_a_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(memory, "READ_BYTES", size)
    for ending in (b"", b"\n"):
        content = b"who,what,stars,when\r\n1,a,1,1\r\n2," + b"b" * 150 + b",2,2\r\n3,c,3,3" + ending
        path = compressed(tmp_path / "log.csv.gz", content)
        events = read_events(path, **COLUMNS)
        frame = pd.concat(pieces_of(events)[0])
        assert frame["user"].tolist() == [1, 2, 3]
        assert frame["item"].str.len().tolist() == [1, 150, 1]


def test_a_compressed_file_of_several_streams_is_read_whole(
    tmp_path: Path, small_pieces: None
) -> None:
    for suffix, codec in CODECS.items():
        path = tmp_path / f"log.csv.{suffix}"
        path.write_bytes(codec(CSV[:1000]) + codec(CSV[1000:]))
        check(read_events(path, **COLUMNS))


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_stream_that_was_cut_off_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(memory, "READ_BYTES", 2**15)
    many = b"who,what\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(30_000))
    path = compressed(tmp_path / f"log.csv.{ending}", many)
    events = read_events(path, user="who", item="what")
    path.write_bytes(path.read_bytes()[:-20])
    with refused(f"{path} is damaged, or not what its name says: "):
        pieces_of(events)


def test_the_system_s_own_errors_stay_as_they_are(tmp_path: Path) -> None:
    path = compressed(tmp_path / "log.csv.gz", CSV)
    events = read_events(path, **COLUMNS)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        pieces_of(events)


def test_a_key_that_a_piece_lacks_is_missing_there(tmp_path: Path, small_pieces: None) -> None:
    rows = [{"who": n, "what": n, **({"stars": 1.5} if n < 20 else {})} for n in range(200)]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for each in (path, compressed(tmp_path / "log.jsonl.gz", path.read_bytes())):
        events = read_events(each, user="who", item="what", value="stars")
        frame = events.frame.compute()
        assert frame["value"].notna().tolist() == [n < 20 for n in range(200)]


# -- binary formats --------------------------------------------------------------------------------


def test_a_large_row_group_is_read_in_pieces(tmp_path: Path, small_pieces: None) -> None:
    pq.write_table(TABLE, tmp_path / "log.parquet", row_group_size=200)
    parts = check(read_events(tmp_path / "log.parquet", **COLUMNS))
    assert memory.piece_rows() == 16
    assert [[len(piece) for piece in part] for part in parts] == [[16] * 12 + [8], [16] * 6 + [4]]


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_arrow_files_are_cut_between_record_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    path = tmp_path / "log.feather"
    pa_feather.write_feather(TABLE, str(path), chunksize=10, compression=compression)
    monkeypatch.setattr(memory, "READ_BYTES", path.stat().st_size // 8)
    parts = check(read_events(path, **COLUMNS))
    assert len(parts) == 10
    assert [sum(map(len, part)) for part in parts] == [30] * 10
    monkeypatch.setattr(memory, "READ_BYTES", 1)
    events = read_events(path, **COLUMNS)
    assert len(events.sources) == 30
    assert {len(piece) for piece in pieces_of(events)[0]} == {1}


def test_large_record_batches_are_split_and_small_ones_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = tmp_path / "small.arrow", tmp_path / "large.arrow"
    pa_feather.write_feather(TABLE, str(small), chunksize=10)
    pa_feather.write_feather(TABLE, str(large), chunksize=N)
    monkeypatch.setattr(memory, "READ_BYTES", 10**6)
    assert [len(piece) for piece in check(read_events(small, **COLUMNS))[0]] == [N]
    monkeypatch.setattr("dasrec.readers.binary.piece_rows", lambda: 64)
    assert [len(piece) for piece in check(read_events(large, **COLUMNS))[0]] == [64] * 4 + [44]
    assert [len(piece) for piece in check(read_events(small, **COLUMNS))[0]] == [64, 6] * 4 + [20]


@pytest.mark.parametrize("name", ["log.parquet", "log.arrow"])
def test_binary_files_are_read_by_url(small_pieces: None, name: str) -> None:
    url = f"memory://{files.token()}/{name}"
    sink = pa.BufferOutputStream()
    if name == "log.parquet":
        pq.write_table(TABLE, sink)
    else:
        with pa.ipc.new_file(sink, TABLE.schema) as out:
            out.write_table(TABLE, max_chunksize=100)
    files.replace(url, sink.getvalue().to_pybytes())
    assert sum(map(len, check(read_events(url, **COLUMNS)))) > 3
    files.remove(url.rsplit("/", 1)[0])


def test_arrow_files_without_batches_have_no_rows(tmp_path: Path) -> None:
    with pa.ipc.new_file(tmp_path / "log.arrow", TABLE.schema):
        pass
    events = read_events(tmp_path / "log.arrow", **COLUMNS)
    ((piece,),) = pieces_of(events)
    pd.testing.assert_frame_equal(piece, events.frame._meta, check_index_type=False)


# -- folders that name columns ---------------------------------------------------------------------


def partitioned(folder: Path, kind: str, log: pd.DataFrame, *columns: str) -> Path:
    """Write a file for each combination of values of the columns, as Hive does."""
    for values, rows in log.groupby(list(columns), sort=True):
        names = [f"{name}={value}" for name, value in zip(columns, values, strict=True)]
        place = folder.joinpath(*names)
        place.mkdir(parents=True)
        rest = rows.drop(columns=list(columns))
        if kind == "csv":
            rest.to_csv(place / "part-0.csv", index=False)
        else:
            getattr(rest, f"to_{kind}")(place / f"part-0.{kind}")
    return folder


DAYS = pd.DataFrame(
    {
        "day": ["2026-01-01", "2026-01-01", "2026-01-02", "2026-01-02", "2026-01-03"],
        "shop": ["north", "south", "north", "north", "south"],
        "u": [1, 2, 3, 4, 5],
        "i": [10, 20, 30, 40, 50],
    }
)


@pytest.mark.parametrize("kind", ["csv", "parquet", "feather"])
def test_folders_name_columns_as_hive_does(tmp_path: Path, kind: str) -> None:
    partitioned(tmp_path, kind, DAYS.reset_index(drop=True), "day", "shop")
    events = read_events(tmp_path, user="u", item="shop", timestamp="day")
    frame = events.frame.compute()
    assert frame["item"].tolist() == ["north", "south", "north", "north", "south"]
    assert frame["user"].tolist() == [1, 2, 3, 4, 5]
    assert frame["timestamp"].dt.day.tolist() == [1, 1, 2, 2, 3]
    assert events.kinds == {"user": "int64", "item": "string"}


def test_pyarrow_s_partitions_are_read(tmp_path: Path) -> None:
    log = LOG.assign(stars=LOG["stars"].astype(int))
    pq.write_to_dataset(
        pa.Table.from_pandas(log, preserve_index=False), tmp_path, partition_cols=["what", "stars"]
    )
    found = read_events(tmp_path, **COLUMNS).frame.compute().sort_values(["user"])
    wanted = log.sort_values("who")
    assert found["item"].tolist() == wanted["what"].tolist()  # "item 1" is item%201 in a path
    assert found["value"].tolist() == wanted["stars"].tolist()


def test_numbers_in_folders_may_be_ids_and_nothing_is_missing(tmp_path: Path) -> None:
    for name in ("7", "-12", "__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / f"_u={name}").mkdir()
        (tmp_path / f"_u={name}" / "a.csv").write_text("i\n1\n2\n")
    events = read_events(tmp_path, user="_u", item="i")
    found = events.frame.compute()["user"]
    assert found.dtype == "Int64"
    assert sorted(found.dropna()) == [-12, -12, 7, 7]
    assert found.isna().sum() == 2


def test_all_folders_decide_what_ids_are(tmp_path: Path) -> None:
    for name in ("1", "2", "three"):
        (tmp_path / f"u={name}").mkdir()
        (tmp_path / f"u={name}" / "a.csv").write_text("i\n1\n")
    found = read_events(tmp_path, user="u", item="i").frame.compute()
    assert found["user"].tolist() == ["1", "2", "three"]


def test_columns_may_all_be_in_folders(tmp_path: Path) -> None:
    for kind in ("csv", "parquet"):
        folder = partitioned(tmp_path / kind, kind, DAYS[["u", "i", "day"]], "u", "i")
        found = read_events(folder, user="u", item="i").frame.compute()
        assert found.to_numpy().tolist() == DAYS[["u", "i"]].to_numpy().tolist()


def test_what_a_file_says_goes_before_its_folder(tmp_path: Path) -> None:
    (tmp_path / "u=9").mkdir()
    (tmp_path / "u=9" / "a.csv").write_text("u,i\n1,1\n")
    assert read_events(tmp_path, user="u", item="i").frame.compute()["user"].tolist() == [1]


def test_a_folder_that_does_not_name_the_column_is_refused(tmp_path: Path) -> None:
    for name in ("day=1", "night=2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.csv").write_text("u,i\n1,1\n")
    message = f"the folder of {tmp_path}/night=2/a.csv has no column 'day'"
    with refused(message):
        read_events(tmp_path, user="u", item="i", timestamp="day")
    with refused("day=1/a.csv has no column 'hour'; it has: 'u', 'i', 'day'"):
        read_events(tmp_path, user="u", item="i", timestamp="hour")


# -- sources ---------------------------------------------------------------------------------------


def logs(folder: Path) -> dict[str, Any]:
    """Return the log in every way in which it can be given."""
    (folder / "log.csv").write_bytes(CSV)
    compressed(folder / "log.csv.gz", CSV)
    return {
        "csv": folder / "log.csv",
        "gz": folder / "log.csv.gz",
        "pandas": LOG,
        "arrow": TABLE,
        "dask": dd.from_pandas(LOG, npartitions=4),
    }


def counted(source: Any) -> tuple[int, int]:
    """Return how many pieces a source has and how many rows; a task that works on one."""
    lengths = [len(piece) for piece in read_pieces(source)]
    return len(lengths), sum(lengths)


@pytest.mark.parametrize("kind", ["csv", "gz", "pandas", "arrow", "dask"])
def test_sources_go_to_tasks(tmp_path: Path, small_pieces: None, kind: str) -> None:
    events = read_events(logs(tmp_path)[kind], **COLUMNS)
    assert len(events.sources) == events.frame.npartitions
    assert (len(events.sources) > 1) == (kind != "gz")
    found = blocks.run(counted, [(source,) for source in events.sources], name="count")
    assert sum(rows for _, rows in found) == N
    assert all((pieces > 1) == (kind == "gz") for pieces, _ in found)


@pytest.mark.parametrize("kind", ["csv", "gz", "pandas", "arrow", "dask"])
def test_pseudonyms_reach_the_pieces(tmp_path: Path, small_pieces: None, kind: str) -> None:
    events = read_events(logs(tmp_path)[kind], **COLUMNS)
    hidden = pseudonymise(pseudonymise(events, key=b"k" * 32), key=b"l" * 32)
    pieces = blocks.run(users_of, [(source,) for source in hidden.sources], name="users")
    found = [user for part in pieces for user in part]
    assert found == hidden.frame.compute()["user"].tolist()
    assert all(re.fullmatch("[0-9a-f]{32}", user) for user in found)
    once = pseudonymise(events, key=b"k" * 32).frame.compute()["user"].tolist()
    assert set(found).isdisjoint(once)


def users_of(source: Any) -> list[str]:
    return [user for piece in read_pieces(source) for user in piece["user"]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "gz", "pandas", "arrow", "dask"])
def test_sources_go_to_other_processes(
    tmp_path: Path, cluster_client: Any, small_pieces: None, kind: str
) -> None:
    events = read_events(logs(tmp_path)[kind], **COLUMNS)
    hidden = pseudonymise(events, key=b"k" * 32)
    found = blocks.run(users_of, [(source,) for source in hidden.sources], name="users")
    assert [user for part in found for user in part] == hidden.frame.compute()["user"].tolist()


def test_sources_of_a_frame_that_was_put_in_are_its_own(tmp_path: Path) -> None:
    events = read_events(logs(tmp_path)["csv"], **COLUMNS)
    fewer = replace(events, frame=events.frame[events.frame["value"] > 2])
    (found,) = blocks.run(counted, [(source,) for source in fewer.sources], name="count")
    assert found == (1, int((LOG["stars"] > 2).sum()))


def test_sources_of_files_are_small(tmp_path: Path, small_pieces: None) -> None:
    events = read_events(logs(tmp_path)["csv"], **COLUMNS)
    assert max(len(pickle.dumps(source)) for source in events.sources) < 2000


def test_a_slice_of_a_table_is_sent_alone_and_shares_memory_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "READ_BYTES", 2**16)
    table = pa.table({"who": np.arange(10**5), "what": np.arange(10**5)})
    events = read_events(table, user="who", item="what")
    parts = [source.part for source in events.sources]
    assert len(parts) == 98
    buffers = {part.table["who"].chunk(0).buffers()[1].address for part in parts}
    assert buffers == {table["who"].chunk(0).buffers()[1].address}
    sent = pickle.dumps(events.sources[5])
    assert len(sent) < 2**15
    (piece,) = read_pieces(pickle.loads(sent))
    assert piece["user"].tolist() == list(range(5 * 1024, 6 * 1024))


def test_events_of_a_file_that_changed_are_others(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("u,i\n1,1\n")
    first = read_events(path, user="u", item="i")
    assert read_events(path, user="u", item="i").frame._name == first.frame._name
    path.unlink()
    path.write_text("u,i\n2,2\n")
    assert read_events(path, user="u", item="i").frame._name != first.frame._name
