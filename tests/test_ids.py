"""Spellings of one id are one id; what is no id is missing, and never another one."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasrec import clean, drop_ids, read_events, write_interactions
from dasrec.errors import InputError
from dasrec.ids import canonical_ids, listed_ids

SPELLINGS: dict[str, Callable[[uuid.UUID], str]] = {
    "canonical": str,
    "capital": lambda each: str(each).upper(),
    "braces": lambda each: f"{{{each}}}",
    "Braces": lambda each: f"{{{str(each).upper()}}}",
    "urn": lambda each: each.urn,
    "URN": lambda each: each.urn.upper(),
    "digits": lambda each: each.hex,
    "Digits": lambda each: each.hex.upper(),
    "spaces": lambda each: f" {each}\t",
}
NO_UUIDS = [
    "",
    "7",
    "00000000-0000-0000-0000-00000000000",  # a digit too few
    "00000000-0000-0000-0000-0000000000000",
    "g0000000-0000-0000-0000-000000000000",
    "00000000-00000000-0000-0000-00000000",  # hyphens elsewhere
    "00000000-0000-0000-0000-000000000000 x",
    "x00000000-0000-0000-0000-000000000000",
    "{00000000-0000-0000-0000-000000000000",
    "uuid:00000000-0000-0000-0000-000000000000",
    "0000000urn:uuid:0-0000-0000-0000-000000000000",
    "00000000-0000-0000-0000-000000000000\n00000000-0000-0000-0000-000000000000",
]


def uuids(raw: Any) -> list[str | None]:
    found = canonical_ids(raw, "uuid", name="u", where="log")
    assert found.dtype == "str"
    return [None if pd.isna(each) else each for each in found]


@given(st.lists(st.tuples(st.uuids(), st.sampled_from(sorted(SPELLINGS)))))
def test_every_spelling_of_a_uuid_is_one_id(drawn: list[tuple[uuid.UUID, str]]) -> None:
    texts = [SPELLINGS[spelling](each) for each, spelling in drawn]
    wanted = [str(each) for each, _ in drawn]
    assert uuids(pa.array(texts, pa.string())) == wanted
    assert uuids(pd.Series(texts, dtype="str")) == wanted


@pytest.mark.parametrize("odd", NO_UUIDS)
def test_what_is_no_uuid_is_missing(odd: str) -> None:
    good = str(uuid.UUID(int=5))
    assert uuids(pa.array([good.upper(), odd, None, good])) == [good, None, None, good]


KNOWN = [uuid.UUID(int=1), None, uuid.UUID("ffffffff-0123-4567-89ab-cdef01234567")]
TEXTS = [None if each is None else str(each) for each in KNOWN]
BYTES = [None if each is None else each.bytes for each in KNOWN]
COLUMNS: dict[str, Any] = {
    "objects": pd.Series(KNOWN, dtype=object),
    "mixed": pd.Series([KNOWN[0], None, TEXTS[2]], dtype=object),
    "bytes": pd.Series(BYTES, dtype=object),
    "arrow in pandas": pd.Series(pd.array(KNOWN, pd.ArrowDtype(pa.uuid()))),
    "categories": pd.Series(TEXTS, dtype="category"),
    "extension": pa.array(KNOWN, pa.uuid()),
    "chunks": pa.chunked_array([pa.array(KNOWN[:1], pa.uuid()), pa.array(KNOWN[1:], pa.uuid())]),
    "fixed": pa.array(BYTES, pa.binary(16)),
    "binary": pa.array(BYTES, pa.binary()),
    "view": pa.array(BYTES, pa.binary_view()),
    "text view": pa.array(TEXTS, pa.string_view()),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "slice": pa.array([b"x" * 16, *BYTES, b"y" * 16], pa.binary(16)).slice(1, 3),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_every_column_of_uuids_gives_their_texts(kind: str) -> None:
    assert uuids(COLUMNS[kind]) == TEXTS


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_without_rows_have_no_ids(kind: str) -> None:
    assert uuids(COLUMNS[kind][:0]) == []


def test_bytes_of_another_length_are_no_uuids() -> None:
    good = uuid.UUID(int=3)
    assert uuids(pa.array([b"", good.bytes, good.bytes + b"x", b"x"])) == [
        None,
        str(good),
        None,
        None,
    ]
    assert uuids(pa.array([b"12345678"], pa.binary(8))) == [None]


def test_an_index_stays_with_its_rows() -> None:
    raw = pd.Series([str(KNOWN[0]).upper(), "x"], index=[9, 9])
    found = canonical_ids(raw, "uuid", name="u", where="log")
    assert found.index.tolist() == [9, 9]
    assert found.isna().tolist() == [False, True]


def test_arrow_s_uuids_are_known_without_being_asked(tmp_path: Path) -> None:
    table = pa.table({"u": COLUMNS["extension"], "i": [1, 2, 3]})
    pq.write_table(table, tmp_path / "log.parquet")
    frame = pd.DataFrame({"u": COLUMNS["arrow in pandas"], "i": [1, 2, 3]})
    for log in (table, tmp_path / "log.parquet", frame):
        events = read_events(log, user="u", item="i")
        assert events.kinds == {"user": "uuid", "item": "int64"}
        found = events.frame.compute()["user"]
        assert found[found.notna()].tolist() == [TEXTS[0], TEXTS[2]]
        texts = read_events(log, user="u", item="i", ids={"user": "string"}).frame.compute()
        assert texts["user"].dropna().tolist() == [TEXTS[0], TEXTS[2]]


def test_objects_in_polars_are_no_addresses() -> None:
    frame = pl.DataFrame({"u": pl.Series(KNOWN, dtype=pl.Object), "i": [1, 2, 3]})
    events = read_events(frame, user="u", item="i", ids={"user": "uuid"})
    assert events.frame.compute()["user"].dropna().tolist() == [TEXTS[0], TEXTS[2]]


def test_bytes_of_text_are_text(tmp_path: Path) -> None:
    """As writers of Parquet have them that do not mark what is text."""
    table = pa.table({"u": pa.array([b"ann", None]), "i": pa.array(["é".encode(), b"7"])})
    pq.write_table(table, tmp_path / "log.parquet")
    for log in (table, tmp_path / "log.parquet"):
        found = read_events(log, user="u", item="i").frame.compute()
        assert found["item"].tolist() == ["é", "7"]
        assert found["user"].isna().tolist() == [False, True]


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    table = pa.table({"u": pa.array([b"\xff" * 16], pa.binary(16)), "i": [1]})
    pq.write_table(table, tmp_path / "log.parquet")
    frame = pd.DataFrame({"u": [b"\xff" * 16], "i": [1]})
    for log, where in (
        (table, "the pyarrow Table"),
        (tmp_path / "log.parquet",) * 2,
        (frame, "the pandas DataFrame"),
    ):
        events = read_events(log, user="u", item="i")
        with pytest.raises(InputError) as caught:
            events.frame.compute()
        assert str(caught.value).startswith(f"{where}: ids of 'u' are not all texts (")
        assert str(caught.value).endswith('); pass ids="uuid" if they are UUIDs')


def test_two_spellings_are_one_user_and_what_is_none_is_a_bad_row(tmp_path: Path) -> None:
    one, two = uuid.UUID(int=1), uuid.UUID(int=2)
    log = tmp_path / "log.csv"
    log.write_text(f"u,i\n{one},1\n{str(one).upper()},2\n{{{two}}},1\nnobody,2\n{two.hex},3\n")
    events = read_events(log, user="u", item="i", ids={"user": "uuid", "item": "int64"})
    with pytest.raises(InputError, match="has 1 bad rows of 5: 1 x user id is missing"):
        write_interactions(events, tmp_path / "store")
    found = write_interactions(clean(events, bad_rows="drop"), tmp_path / "store")
    assert found.user_ids.ids.tolist() == [str(one), str(two)]
    assert found.n_stored == 4
    step = found.audit.isel(step=1)
    assert int(step["rows_in"] - step["rows_out"]) == 1


def test_listed_ids_are_spelled_as_those_of_the_log() -> None:
    one = uuid.UUID(int=1)
    assert listed_ids([one.urn, one.hex, one], "uuid", what="user") == (str(one),) * 3
    assert listed_ids(["7", 8, np.int64(9)], "int64", what="user") == (7, 8, 9)
    assert listed_ids(np.array([7]), "string", what="user") == ("7",)
    assert listed_ids([], "uuid", what="user") == ()
    assert listed_ids("ann", "string", what="user") == ("ann",)


@pytest.mark.parametrize(
    ("kind", "odd", "message"),
    [
        ("uuid", "ann", "a list of user ids has 'ann'; expected UUIDs, as in the log"),
        ("int64", "07", "a list of user ids has '07'; expected integers, as in the log"),
        ("int64", 1.5, "a list of user ids has 1.5; expected integers, as in the log"),
        (
            "int64",
            str(2**63),
            f"a list of user ids has '{2**63}'; expected integers, as in the log",
        ),
    ],
)
def test_listed_ids_of_another_kind_are_refused(kind: Any, odd: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        listed_ids([odd], kind, what="user")


def test_a_list_of_another_spelling_is_found_in_the_log(tmp_path: Path) -> None:
    ids = [uuid.UUID(int=n) for n in range(3)]
    log = pd.DataFrame({"u": [str(each) for each in ids] * 2, "i": [1, 1, 1, 2, 2, 2]})
    events = drop_ids(
        read_events(log, user="u", item="i", ids={"user": "uuid"}), users=[ids[1].urn]
    )
    found = write_interactions(events, tmp_path / "store")
    assert found.user_ids.ids.tolist() == [str(ids[0]), str(ids[2])]
