"""Logs of any format become the same canonical rows, however they are cut; bad ones are refused."""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import itertools
import json
import lzma
import re
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.feather as pa_feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasrec import files, memory, read_events
from dasrec.errors import InputError
from dasrec.events import Events, decoding_in_heap

N = 40
COLUMNS = {"user": "who", "item": "what", "value": "stars", "timestamp": "when"}
HEADER = "who,what,stars,when\n"


def make_log() -> pd.DataFrame:
    """Return a log in raw columns: integer users, text items, seconds."""
    draw = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "who": draw.integers(-5, 2**60, N),
            "what": [f"item {n}" for n in draw.integers(0, 9, N)],
            "extra": ["x"] * N,
            "stars": draw.integers(-4, 20, N) / 4,
            "when": draw.integers(0, 2 * 10**9, N),
        }
    )


LOG = make_log()
CANONICAL = pd.DataFrame(
    {
        "user": LOG["who"].astype("Int64"),
        "item": LOG["what"].astype("str"),
        "value": LOG["stars"],
        "timestamp": (LOG["when"] * 10**6).to_numpy().astype("datetime64[us]"),
    }
)


def text_of(separator: str = ",", newline: str = "\n") -> bytes:
    return LOG.to_csv(index=False, sep=separator, lineterminator=newline).encode()


def read(paths: Any, **options: Any) -> Events:
    return read_events(paths, **{**COLUMNS, **options})


def rows(events: Events) -> pd.DataFrame:
    return events.frame.compute().reset_index(drop=True)


def check(events: Events, wanted: pd.DataFrame = CANONICAL) -> None:
    pd.testing.assert_frame_equal(rows(events), wanted)
    pd.testing.assert_frame_equal(events.frame._meta, wanted.iloc[:0], check_index_type=False)


def of_text(folder: Path, text: str, name: str = "log.csv", **options: Any) -> Events:
    path = folder / name
    path.write_bytes(text.encode())
    return read(str(path), **options)


def short(folder: Path, lines: str, **options: Any) -> pd.DataFrame:
    """Read a log of users and items alone."""
    options = {"value": None, "timestamp": None, **options}
    return rows(of_text(folder, f"who,what{lines}", **options))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "READ_BYTES", 256)


def refused(message: str) -> Any:
    return pytest.raises(InputError, match=re.escape(message))


# -- formats ---------------------------------------------------------------------------------------


def write_zstd(path: Path) -> None:
    with pa.output_stream(path, compression="zstd") as out:
        out.write(text_of())


def write_json(path: Path) -> None:
    opener: Any = gzip.open if path.suffix == ".gz" else Path.open
    with opener(path, "wb") as out:
        out.write(LOG.to_json(orient="records", lines=True).encode())


WRITERS: dict[str, Callable[[Path], Any]] = {
    "log.csv": lambda path: path.write_bytes(text_of()),
    "log.tsv": lambda path: path.write_bytes(text_of("\t")),
    "log.txt": lambda path: path.write_bytes(text_of("|")),
    "log.dat": lambda path: path.write_bytes(text_of(";")),
    "LOG.CSV": lambda path: path.write_bytes(text_of()),
    "log.csv.gz": lambda path: path.write_bytes(gzip.compress(text_of())),
    "log.csv.bz2": lambda path: path.write_bytes(bz2.compress(text_of())),
    "log.csv.xz": lambda path: path.write_bytes(lzma.compress(text_of())),
    "log.csv.zst": write_zstd,
    "log.jsonl": write_json,
    "log.ndjson.gz": write_json,
    "log.parquet": lambda path: LOG.to_parquet(path, row_group_size=7),
    "log.pq": lambda path: LOG.to_parquet(path),
    "log.feather": lambda path: pa_feather.write_feather(pa.Table.from_pandas(LOG), str(path)),
    "log.arrow": lambda path: LOG.to_feather(path, compression="uncompressed"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    events = read(path)
    check(events)
    assert events.source == str(path)
    assert events.has_timestamps


class Capsule:
    """A table of some library: nothing but the interface that Arrow asks for."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)


ARROW = pa.Table.from_pandas(LOG, preserve_index=False)
TABLES: dict[str, tuple[Any, str]] = {
    "pandas": (LOG, "the pandas DataFrame"),
    "dask": (dd.from_pandas(LOG, npartitions=3), "the Dask DataFrame"),
    "arrow": (ARROW, "the pyarrow Table"),
    "batch": (ARROW.combine_chunks().to_batches()[0], "the pyarrow RecordBatch"),
    "polars": (pl.DataFrame(LOG), "the polars DataFrame"),
    "other": (Capsule(ARROW), "Capsule"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_give_the_same_rows(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "READ_BYTES", 640)
    table, name = TABLES[kind]
    events = read(table)
    assert events.frame.npartitions > 1
    assert events.frame.partitions[0].compute().shape[0] <= N / 2
    check(events)
    assert events.source.endswith(name.removeprefix("the "))
    assert list(events.kinds.values()) == ["int64", "string"]


@pytest.mark.parametrize("kind", TABLES)
def test_the_type_of_a_column_of_a_table_decides(kind: str) -> None:
    """A text of digits in a table is meant as text, and later ones need not be digits."""
    table, _ = TABLES[kind]
    frame = pd.DataFrame({"who": ["1", "2"], "what": [1, 2]})
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    given_table = {
        "pandas": frame,
        "dask": dd.from_pandas(frame, npartitions=1),
        "arrow": arrow,
        "batch": arrow.to_batches()[0],
        "polars": pl.DataFrame(frame),
        "other": Capsule(arrow),
    }[kind]
    assert type(given_table) is type(table)
    events = read(given_table, value=None, timestamp=None)
    assert [str(each) for each in events.frame.dtypes] == ["str", "Int64"]


@pytest.mark.parametrize("kind", TABLES)
def test_tables_without_rows_have_no_rows(kind: str) -> None:
    table, _ = TABLES[kind]
    empty = {"other": Capsule(ARROW[:0]), "dask": dd.from_pandas(LOG[:0], npartitions=1)}
    found = rows(read(empty.get(kind, table[:0] if kind not in empty else None)))
    assert found.shape == (0, 4)


def test_what_polars_has_other_types_for_is_read() -> None:
    when = [dt.datetime(2026, 1, 31, 12), None]
    frame = pl.DataFrame(
        {
            "who": pl.Series(["a", None], dtype=pl.Categorical),
            "what": pl.Series(["x", "y"], dtype=pl.Enum(["x", "y"])),
            "day": [dt.date(2026, 1, 31), None],
            "when": pl.Series(when, dtype=pl.Datetime("ns")).dt.replace_time_zone("UTC"),
            "stars": pl.Series([7, None], dtype=pl.UInt8),
        }
    )
    found = rows(read(frame))
    assert found["user"].isna().tolist() == [False, True]
    assert found["item"].tolist() == ["x", "y"]
    assert found["value"].tolist()[0] == 7.0
    assert found["timestamp"][0] == pd.Timestamp(when[0])
    days = rows(read(frame, timestamp="day"))["timestamp"]
    assert days[0] == pd.Timestamp("2026-01-31")
    assert days.isna().tolist() == [False, True]


def test_a_table_that_is_not_computed_is_refused() -> None:
    with refused("the polars LazyFrame is not computed yet; expected a table in memory or files"):
        read(pl.DataFrame(LOG).lazy())
    with pytest.raises(InputError, match=re.escape("pass .collect() of it")):
        read(pl.DataFrame(LOG).lazy())


def test_a_single_column_is_no_table() -> None:
    for column in (pa.array([1]), pl.Series([1])):
        with pytest.raises(InputError, match=r"is no table: .*; expected one with columns"):
            read(column)


def test_what_is_neither_table_nor_path_is_refused() -> None:
    for thing in (7, None, [LOG], {"who": [1]}):
        with refused("expected a path, a URL, a list of them, or a table"):
            read(thing)


def test_a_frame_keeps_its_order_whatever_its_index() -> None:
    check(read(LOG.set_index(np.zeros(N, int))))


def test_parquet_is_read_by_row_group(tmp_path: Path) -> None:
    WRITERS["log.parquet"](tmp_path / "log.parquet")
    assert read(tmp_path / "log.parquet").frame.npartitions == -(-N // 7)


def test_columns_may_be_few() -> None:
    events = read(LOG, value=None, timestamp=None)
    assert list(events.frame.columns) == ["user", "item"]
    assert not events.has_timestamps


def test_only_the_first_rows_are_read(
    tmp_path: Path,
    small_parts: None,
    raising_scheduler: Callable[[], AbstractContextManager[Any]],
) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(text_of())
    with raising_scheduler():
        for log in (path, LOG, dd.from_pandas(LOG, npartitions=2)):
            assert list(read(log).frame.columns) == list(CANONICAL)
        with pytest.raises(AssertionError, match="should have stayed lazy"):
            read(path).frame.compute()


# -- many files ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the log in three files, one of them deeper, and what is no data."""
    there = tmp_path / "logs"
    (there / "c").mkdir(parents=True)
    for name, part in (("a.csv", LOG[:10]), ("b.csv", LOG[10:25]), ("c/d.csv", LOG[25:])):
        part.to_csv(there / name, index=False)
    for name in ("_SUCCESS", ".a.csv.crc", ".hidden.csv", "_old.csv", "readme.md", "c/_x.csv"):
        (there / name).write_text("not a log")
    return there


def test_a_folder_is_read_in_order_of_names(folder: Path) -> None:
    check(read(folder))
    assert read(folder).source == f"{folder}/a.csv and 2 more"


def test_globs_and_lists_are_read(folder: Path) -> None:
    check(read(f"{folder}/?.csv"), CANONICAL[:25])
    check(read(f"{folder}/c/*.csv"), CANONICAL[25:].reset_index(drop=True))
    check(read([str(folder / "a.csv"), str(folder / "b.csv"), str(folder / "c")]))


def test_a_log_is_read_by_url(small_parts: None) -> None:
    url = f"memory://{files.token()}"
    for name, part in (("a.csv", LOG[:20]), ("b.csv", LOG[20:])):
        files.replace(f"{url}/{name}", part.to_csv(index=False).encode())
    for paths in (url, f"{url}/*.csv", [f"{url}/a.csv", f"{url}/b.csv"]):
        events = read(paths)
        assert events.frame.npartitions > 2
        check(events)
    assert read(f"{url}/a.csv").source.startswith("memory://")
    files.remove(url)


def test_files_of_one_log_have_the_same_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("who,what\n1,2\n")
    (tmp_path / "b.csv").write_text("what,who\n1,2\n")
    events = read(tmp_path, value=None, timestamp=None)
    with refused("b.csv has the columns ('what', 'who'), others ('who', 'what')"):
        events.frame.compute()


def test_parquet_files_may_order_their_columns(tmp_path: Path) -> None:
    LOG[:20].to_parquet(tmp_path / "a.parquet")
    LOG[20:][list(LOG)[::-1]].to_parquet(tmp_path / "b.parquet")
    check(read(tmp_path))


# -- cuts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("ending", [True, False])
@given(size=st.integers(1, 700))
def test_rows_do_not_depend_on_where_bytes_are_cut(newline: str, ending: bool, size: int) -> None:
    content = text_of(newline=newline)
    content = content if ending else content.removesuffix(newline.encode())
    assert len(content) > 1400
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder_name:
        path = Path(folder_name, "log.csv")
        path.write_bytes(content)
        patch.setattr(memory, "READ_BYTES", size)
        events = read(path)
        assert events.frame.npartitions == -(-len(content) // size) > 1
        if size > 5:  # else there are more parts than a test should wait for
            check(events)


@given(size=st.integers(6, 700))
def test_json_lines_do_not_depend_on_where_bytes_are_cut(size: int) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder_name:
        path = Path(folder_name, "log.jsonl")
        write_json(path)
        patch.setattr(memory, "READ_BYTES", size)
        events = read(path)
        assert events.frame.npartitions > 1
        check(events)


@pytest.mark.parametrize("shift", range(0, 24, 3))
def test_a_log_longer_than_what_is_read_at_first(tmp_path: Path, shift: int) -> None:
    lines = [f"{n},{7 * n},{n % 5},{1000 * n}" for n in range(9000)]
    text = "who,what,stars,when" + " " * shift + "\n" + "\n".join(lines)
    assert len(text) > 2**17
    frame = rows(of_text(tmp_path, text))
    assert frame["item"].tolist() == [7 * n for n in range(9000)]


# -- text ------------------------------------------------------------------------------------------


def test_quotes_hold_separators_and_quotes(tmp_path: Path) -> None:
    frame = short(tmp_path, ',x\n"a,b","say ""hi""",1\n"",c,2\n', ids="string")
    assert frame["user"].tolist()[0] == "a,b"
    assert frame["item"].tolist() == ['say "hi"', "c"]
    assert frame["user"].isna().tolist() == [False, True]


def test_quoted_headers_and_a_byte_order_mark(tmp_path: Path) -> None:
    frame = rows(of_text(tmp_path, '\ufeff"who","what"\n1,2\n', value=None, timestamp=None))
    assert frame.to_numpy().tolist() == [[1, 2]]


def test_the_header_tells_the_separator(tmp_path: Path) -> None:
    for separator in "\t,;|":
        text = separator.join(COLUMNS.values()) + "\n" + separator.join(["1", "a b:c", "2", "3"])
        frame = rows(of_text(tmp_path, text))
        assert frame.iloc[0, :3].tolist() == [1, "a b:c", 2.0]


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    assert short(tmp_path, "\n1,2\n\n3,4\n\n\n")["user"].tolist() == [1, 3]


def test_a_header_without_rows_has_no_rows(tmp_path: Path) -> None:
    for ending in ("", "\n", "\r\n"):
        assert len(short(tmp_path, ending)) == 0


# -- ids -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [["007", "7"], ["1.0", "2"], ["+1", "2"], [" 1", "2"], ["1e3"]])
def test_what_str_would_write_otherwise_stays_a_string(tmp_path: Path, ids: list[str]) -> None:
    frame = short(tmp_path, "".join(f"\n{each},1" for each in ids))
    assert frame["user"].tolist() == ids
    assert frame["item"].dtype == "Int64"


def test_integers_stay_exact_beside_gaps(tmp_path: Path) -> None:
    frame = short(tmp_path, "\n9007199254740993,1\n,2\n-9007199254740993,3\n")
    assert frame["user"].tolist()[::2] == [9007199254740993, -9007199254740993]
    assert frame["user"].isna().tolist() == [False, True, False]


def test_the_longest_integers_are_read_exactly(tmp_path: Path) -> None:
    most = 2**63 - 1
    assert short(tmp_path, f"\n{most},1")["user"].tolist() == [most]
    assert short(tmp_path, f"\n{most},1", ids="string")["user"].tolist() == [str(most)]
    with pytest.raises(InputError, match='pass ids="string"'):
        short(tmp_path, f"\n{most + 1},1")


def test_integers_may_be_asked_for_as_strings(tmp_path: Path) -> None:
    assert short(tmp_path, "\n1,2", ids="string").to_numpy().tolist() == [["1", "2"]]
    frame = rows(
        read(pd.DataFrame({"who": [1], "what": [2]}), value=None, timestamp=None, ids="string")
    )
    assert frame.to_numpy().tolist() == [["1", "2"]]


@pytest.mark.parametrize("odd", ["007", "x", "1.5", "", str(2**63)])
def test_an_id_that_comes_late_is_not_made_another(tmp_path: Path, odd: str) -> None:
    events = of_text(
        tmp_path, "who,what" + "\n1,1" * 20_000 + f"\n{odd},1", value=None, timestamp=None
    )
    assert events.frame.dtypes["user"] == "Int64"  # decided by the first rows
    if odd == "":
        assert events.frame["user"].isna().sum().compute() == 1
        return
    with refused("log.csv: ids of 'who' are not all integers (") as caught:
        events.frame.compute()
    assert str(caught.value).endswith('); pass ids="string"')


def test_words_for_nothing_are_ids_and_nothing_is_none(tmp_path: Path) -> None:
    frame = short(tmp_path, "\nNaN,1\nnull,2\nNone,3\nNA,4\n,5")
    assert frame["user"].tolist()[:4] == ["NaN", "null", "None", "NA"]
    assert frame["user"].isna().tolist() == [False] * 4 + [True]


@pytest.mark.parametrize(
    ("column", "wanted"),
    [
        ([1.0, None, 3.0], [1, None, 3]),  # what pandas makes of integers with gaps
        (pd.array([1, None, 3], "Int64"), [1, None, 3]),
        (pd.array([1, 2, 3], "uint8"), [1, 2, 3]),
        (["a", None, "007"], ["a", None, "007"]),
        (pd.Categorical(["a", None, "b"]), ["a", None, "b"]),
    ],
)
def test_ids_of_frames_keep_their_kind(column: Any, wanted: list[Any]) -> None:
    frame = pd.DataFrame({"who": column, "what": [1, 2, 3]})
    found = rows(read(frame, value=None, timestamp=None))["user"]
    assert [None if pd.isna(each) else each for each in found] == wanted


@pytest.mark.parametrize("column", [[1.5, 2.0], np.array([2**63 + 5, 1], np.uint64)])
def test_ids_that_int64_cannot_hold_are_refused(column: Any) -> None:
    events = read(pd.DataFrame({"who": column, "what": [1, 2]}), value=None, timestamp=None)
    with refused("the pandas DataFrame: ids of 'who' are not all integers"):
        events.frame.compute()


# -- values and timestamps -------------------------------------------------------------------------


def times_of(texts: list[str], folder: Path, **options: Any) -> list[str]:
    lines = "".join(f"\n1,1,1,{text}" for text in texts)
    frame = rows(of_text(folder, HEADER.strip() + lines, **options))
    return [str(each) for each in frame["timestamp"].to_numpy()]


@pytest.mark.parametrize(
    ("unit", "number"),
    [("s", "1.5"), ("ms", "1500"), ("us", "1500000"), ("ns", "1500000000")],
)
def test_numbers_count_units_since_1970(tmp_path: Path, unit: str, number: str) -> None:
    found = times_of([number, "0"], tmp_path, timestamp_unit=unit)
    assert found == ["1970-01-01T00:00:01.500000", "1970-01-01T00:00:00.000000"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_whole_numbers_are_read_as_text_of_them_is(tmp_path: Path, unit: str) -> None:
    draw = np.random.default_rng(0)
    numbers = [*draw.integers(0, 2**50, 50).tolist(), -1, -(2**63), 2**63 - 1, 2**62]
    log = pd.DataFrame({"who": 1, "what": 1, "stars": 1, "when": numbers})
    log.to_csv(tmp_path / "log.csv", index=False)
    log.to_parquet(tmp_path / "log.parquet")
    both = [
        rows(read(tmp_path / f"log.{kind}", timestamp_unit=unit)) for kind in ("csv", "parquet")
    ]
    pd.testing.assert_frame_equal(*both)
    # each alone too: what one row is must not depend on its neighbours
    for number in numbers[-4:]:
        alone = log[log["when"] == number]
        alone.to_parquet(tmp_path / "alone.parquet")
        found = rows(read(tmp_path / "alone.parquet", timestamp_unit=unit))["timestamp"][0]
        wanted = both[0]["timestamp"][numbers.index(number)]
        assert found == wanted or (pd.isna(found) and pd.isna(wanted))


def test_parts_of_microseconds_are_rounded(tmp_path: Path) -> None:
    found = times_of(["0.0000019", "0.0000011", "1700000000.1234567"], tmp_path)
    assert found == [
        "1970-01-01T00:00:00.000002",
        "1970-01-01T00:00:00.000001",
        "2023-11-14T22:13:20.123457",
    ]


def test_dates_are_utc_unless_they_say_otherwise(tmp_path: Path) -> None:
    found = times_of(
        ["2024-02-29", "2024-02-29T12:30:00.25", "2024-02-29 12:30:00+02:00", "2024-02-29T12:30Z"],
        tmp_path,
    )
    assert found == [
        "2024-02-29T00:00:00.000000",
        "2024-02-29T12:30:00.250000",
        "2024-02-29T10:30:00.000000",
        "2024-02-29T12:30:00.000000",
    ]


def test_what_one_row_is_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    texts = ["2024-02-29", "100", "yesterday", "", "inf", "1e300", "2024-02-30"]
    together = times_of(texts, tmp_path)
    alone = list(itertools.chain(*(times_of([text], tmp_path) for text in texts)))
    assert together == alone
    assert together == ["2024-02-29T00:00:00.000000", "1970-01-01T00:01:40.000000", *["NaT"] * 5]


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
@pytest.mark.parametrize("unit", ["s", "ns"])
def test_datetimes_come_as_utc(zone: str | None, unit: str) -> None:
    times = pd.Series(pd.to_datetime(LOG["when"], unit="s").astype(f"datetime64[{unit}]"))
    if zone is not None:
        times = times.dt.tz_localize("UTC").dt.tz_convert(zone)
    check(read(LOG.assign(when=times)))


def test_values_that_are_no_numbers_are_missing(tmp_path: Path) -> None:
    lines = "".join(f"\n1,1,{text},0" for text in ["1", "-2.5", "1e2", "", "many", "nan", "inf"])
    found = rows(of_text(tmp_path, HEADER.strip() + lines))["value"]
    assert found.tolist()[:3] == [1.0, -2.5, 100.0]
    assert found.isna().tolist() == [False] * 3 + [True] * 3 + [False]
    assert found[6] == np.inf  # cleaning counts it


def test_values_with_gaps_are_read(tmp_path: Path) -> None:
    log = LOG.assign(stars=pd.array([None, *range(N - 1)], "Int64"))
    log.to_parquet(tmp_path / "log.parquet")
    for given_log in (tmp_path / "log.parquet", log):
        found = rows(read(given_log))["value"]
        assert found.isna().tolist() == [True] + [False] * (N - 1)
        assert found.dtype == np.float64


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nothing.csv", "*.csv", "."])
def test_a_log_that_is_not_there(tmp_path: Path, name: str) -> None:
    with refused(f"{tmp_path}/{name} is not there; expected a file, a folder with logs, or a"):
        read(f"{tmp_path}/{name}")


@pytest.mark.parametrize("name", ["log.csv", "log.tsv", "log.parquet", "log.feather", "log.jsonl"])
def test_a_missing_column_is_told_with_those_there_are(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    message = f"{tmp_path / name} has no column 'person'; it has: 'who', 'what', 'extra', 'stars'"
    with refused(message):
        read(tmp_path / name, user="person")


@pytest.mark.parametrize("kind", TABLES)
def test_a_missing_column_of_a_table(kind: str) -> None:
    table, name = TABLES[kind]
    with refused(
        f"{name.removeprefix('the ')} has no column 'a', 'b'; it has: 'who', 'what', 'ext"
    ):
        read(table, user="a", item="b")


@pytest.mark.parametrize("name", ["log.csv", "log.parquet", "log.feather", "log.jsonl"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with refused(f"{tmp_path / name} is empty; expected a header and rows"):
        read(tmp_path / name)


def test_an_unknown_type_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.xlsx").write_text("x")
    with refused("log.xlsx is of an unknown type; expected one of: .csv, .tsv, .txt"):
        read(tmp_path / "log.xlsx")


def test_one_type_at_a_time(tmp_path: Path) -> None:
    for name in ("log.csv", "log.parquet"):
        WRITERS[name](tmp_path / name)
    with refused("the files are of several types (.csv, .parquet); expected one at a time"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["log.parquet", "log.feather", "log.csv.gz", "log.jsonl"])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(text_of())
    with refused(f"{path} is "):
        read(path)


@pytest.mark.parametrize("name", ["log.csv.gz", "log.parquet", "log.feather"])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    path.write_bytes(path.read_bytes()[:-20])
    with refused(f"{path} is "):
        read(path)


def test_a_row_with_another_number_of_columns_is_refused(tmp_path: Path) -> None:
    with refused("log.csv is not readable as text separated by ',': "):
        short(tmp_path, "\n1,2\n1,2,3\n")


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes("who,what\nJosé,1\n".encode("latin-1"))
    with refused("log.csv is not readable as text separated by ',': "):
        read(path, value=None, timestamp=None)


def test_lines_that_are_no_json_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"who": 1, "what": 2}) + "\nnonsense\n")
    with refused("log.jsonl is not readable as one JSON object a line: "):
        read(path, value=None, timestamp=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ids": "int"}, "ids is 'int'; expected one of: auto, int64, string, uuid"),
        ({"ids": {"user": "int"}}, "ids is 'int'; expected one of: auto, int64, string, uuid"),
        ({"ids": {"who": "uuid"}}, "a side of ids is 'who'; expected one of: user, item"),
        ({"timestamp_unit": "h"}, "timestamp_unit is 'h'; expected one of: s, ms, us, ns"),
    ],
)
def test_unknown_options_are_refused(options: dict[str, Any], message: str) -> None:
    with refused(message):
        read(LOG, **options)


def test_the_twin_writer_of_arrow_is_read(tmp_path: Path) -> None:
    """Arrow quotes every text; pandas does not."""
    pa_csv.write_csv(pa.Table.from_pandas(LOG, preserve_index=False), tmp_path / "log.csv")
    check(read(tmp_path / "log.csv"))


def test_parquet_without_row_groups_has_no_rows(tmp_path: Path) -> None:
    schema = pa.Table.from_pandas(LOG).schema
    with pq.ParquetWriter(tmp_path / "log.parquet", schema):
        pass
    assert len(rows(read(tmp_path / "log.parquet"))) == 0


# -- memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [None, "mimalloc"])
def test_arrow_decodes_into_the_heap_for_a_while_unless_the_environment_says_so(
    given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ARROW_DEFAULT_MEMORY_POOL", raising=False)
    if given:
        monkeypatch.setenv("ARROW_DEFAULT_MEMORY_POOL", given)
    before = pa.default_memory_pool().backend_name
    assert before != "system"
    with decoding_in_heap():
        assert pa.default_memory_pool().backend_name == (before if given else "system")
    assert pa.default_memory_pool().backend_name == before
