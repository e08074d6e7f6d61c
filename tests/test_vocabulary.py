"""Ids and numbers go both ways; a vocabulary does not depend on how the log was cut."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasrec import files, numbering
from dasrec.errors import InputError
from dasrec.journal import Journal
from dasrec.numbering import MergedIds, factorize, merge_ids, save_ids
from dasrec.vocabulary import IdHash, Vocabulary, as_ids
from tests.strategies import TEXT_IDS

texts = st.sampled_from(TEXT_IDS)
wholes = st.sampled_from([-(2**63), -1, 0, 1, 7, 2**53 + 1, 2**63 - 1])
parts_of_ids = st.one_of(
    st.lists(st.lists(ids, max_size=12), min_size=1, max_size=4) for ids in (texts, wholes)
).filter(lambda parts: any(parts))


def refused(message: str) -> Any:
    return pytest.raises(InputError, match=f"^{re.escape(message)}$")


def column_of(ids: Sequence[Any], *, whole: bool) -> pd.Series:
    return pd.Series(ids, dtype="Int64" if whole else "str")


# -- one side in memory ----------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [["b", "a", "ä"], [5, -3, 2**62]])
def test_numbers_and_ids_go_both_ways(ids: list[Any]) -> None:
    known = Vocabulary(np.array(ids), "user")
    assert len(known) == 3
    assert known.numbers(np.array(ids)).tolist() == [0, 1, 2]
    assert known.numbers(np.array(ids[::-1])).tolist() == [2, 1, 0]
    assert known.numbers(np.array(ids)).dtype == np.int32
    assert known.ids[known.numbers(np.array(ids))].tolist() == ids


def test_unknown_ids_are_minus_one_or_refused() -> None:
    known = Vocabulary(np.array([5, 6]), "item")
    assert known.find(np.array([6, 7, 5])).tolist() == [1, -1, 0]
    message = "4 of 5 item ids are not in the vocabulary: 1, 2, 3, ...; expected ids like [5]"
    with refused(message):
        known.numbers(np.array([1, 2, 3, 5, 4]))


def test_what_often_occurs_and_is_unknown_is_named_first() -> None:
    known = Vocabulary(np.array([5, 6]), "item")
    message = (
        "6 of 7 item ids are not in the vocabulary: 2 (3 times), 9, 1, ...; expected ids like [5]"
    )
    with refused(message):
        known.numbers(np.array([9, 2, 1, 6, 2, 3, 2]))
    with refused("1 of 1 item ids are not in the vocabulary: 'a'; expected ids like []"):
        Vocabulary(np.array([], np.int64), "item").numbers(np.array(["a"]))


@pytest.mark.parametrize("texts", [False, True])
def test_unseen_ids_are_counted(texts: bool) -> None:
    kind = str if texts else int
    known = Vocabulary(np.array([kind(5), kind(6)]), "user")
    numbers, unseen = known.lookup([kind(each) for each in (9, 6, 2, 1, 2, 6, 5)])
    assert numbers.tolist() == [-1, 1, -1, -1, -1, 1, 0]
    assert numbers.dtype == np.int32
    # equally frequent ones as they came
    assert list(unseen.items()) == [(kind(2), 2), (kind(9), 1), (kind(1), 1)]
    assert (unseen.index.name, unseen.name, unseen.dtype) == ("user_id", "count", np.int64)
    assert len(known.lookup([kind(5)]).unseen) == 0
    assert len(known.lookup([]).unseen) == 0


def test_only_numbers_of_the_vocabulary_have_ids() -> None:
    known = Vocabulary(np.array(["a", "b"]), "user")
    assert known.ids_of(np.array([1, 0, 1], np.int32)).tolist() == ["b", "a", "b"]
    assert known.ids_of([]).dtype == object
    for numbers, what in (([0, 2], "int64 from 0 to 2"), ([-1], "int64 from -1 to -1")):
        with refused(f"user numbers of type {what} were given; expected integers from 0 to 1"):
            known.ids_of(numbers)
    with pytest.raises(InputError, match=r"^user numbers of type float64 from 0\.5 to 0\.5 were"):
        known.ids_of(np.array([0.5]))


def test_an_integer_is_not_the_text_of_it() -> None:
    assert Vocabulary(np.array([7]), "user").find(np.array(["7"])).tolist() == [-1]
    assert Vocabulary(np.array(["7"]), "user").find(np.array([7])).tolist() == [-1]


@pytest.mark.parametrize("ids", [["a", "b", "a"], [5, 6, 5]])
def test_an_id_stands_once(ids: list[Any]) -> None:
    with refused(f"user id {ids[0]!r} stands twice in the vocabulary; expected each id once"):
        Vocabulary(np.array(ids), "user").find(np.array(ids))


def test_a_part_keeps_its_order() -> None:
    part = Vocabulary(np.array([4, 9, 2]), "user").take(np.array([True, False, True]))
    assert part.ids.tolist() == [4, 2]
    assert part.numbers(np.array([2])).tolist() == [1]


def test_a_vocabulary_says_what_it_is() -> None:
    assert repr(Vocabulary(np.arange(1200), "item")) == "<Vocabulary of 1,200 item ids (int64)>"
    assert repr(Vocabulary(np.array(["a"]), "user")) == "<Vocabulary of 1 user ids (str)>"


@pytest.mark.parametrize(
    "given",
    [
        [1, 2],
        np.array([1, 2], np.uint8),
        np.array([1, 2], np.int32),
        pd.Series([1, 2]),
        range(1, 3),
    ],
)
def test_integers_become_int64(given: Any) -> None:
    found = as_ids(given)
    assert found.dtype == np.int64
    assert found.tolist() == [1, 2]


@pytest.mark.parametrize(
    "given",
    [
        ["a", "7"],
        np.array(["a", "7"]),
        np.array(["a", "7"], object),
        np.array(["a", "7"], np.dtypes.StringDType()),
        pd.Series(["a", "7"], dtype="str"),
    ],
)
def test_texts_become_str_objects(given: Any) -> None:
    found = as_ids(given)
    assert found.dtype == object
    assert [type(each) for each in found] == [str, str]
    assert found.tolist() == ["a", "7"]


@pytest.mark.parametrize(
    "given",
    [
        [1.5, 2.0],
        [True, False],
        ["a", 1.5, None],
        ["a", 1],
        [b"a"],
        np.array([2**63 + 1], np.uint64),
        [None],
    ],
)
def test_what_is_neither_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match=r"^ids are of type .*; expected integers or strings$"):
        as_ids(np.array(given, object) if None in given else given)


@pytest.mark.parametrize("ids", [["a\x00", "\x00", "b"], ("a\x00", "\x00")])
def test_zero_characters_are_kept(ids: Sequence[str]) -> None:
    assert as_ids(ids).tolist() == list(ids)


def test_ids_have_one_dimension() -> None:
    with refused("ids have shape (1, 2); expected one dimension"):
        as_ids([[1, 2]])


def test_no_ids_are_ids() -> None:
    assert as_ids([]).tolist() == []
    assert Vocabulary(np.array([1, 2]), "user").numbers([]).tolist() == []


# -- hashes ----------------------------------------------------------------------------------------


def test_equal_ids_have_equal_hashes_and_others_have_not() -> None:
    hashes = [
        Vocabulary(as_ids(ids), "user").hash
        for ids in ([1, 2], [2, 1], ["1", "2"], ["12"], ["1", "2", ""], ["", "1", "2"], [1], ["ä"])
    ]
    assert len(set(hashes)) == len(hashes)
    assert (
        Vocabulary(as_ids([1, 2]), "item").hash
        == hashes[0]
        == Vocabulary(np.array([1, 2]), "user").hash
    )


@given(parts_of_ids)
def test_a_hash_does_not_depend_on_how_ids_are_fed(parts: list[list[Any]]) -> None:
    whole = as_ids([each for part in parts for each in part])
    digest = IdHash()
    for part in parts:
        digest.update(as_ids(part) if part else whole[:0])
    assert (
        digest.hexdigest(kind="int64" if whole.dtype == np.int64 else "str")
        == Vocabulary(whole, "user").hash
    )


# -- merging ---------------------------------------------------------------------------------------


@given(parts_of_ids)
def test_a_column_is_numbered_in_ascending_order(parts: list[list[Any]]) -> None:
    drawn = [each for part in parts for each in part]
    whole = isinstance(drawn[0], int)
    codes, ids, counts = factorize(column_of(drawn, whole=whole))
    assert ids.tolist() == sorted(set(drawn))  # Python too sorts strings by code point
    assert [ids[code] for code in codes] == drawn
    assert dict(zip(ids, counts.tolist(), strict=True)) == Counter(drawn)
    assert codes.dtype == np.int32


def merge(parts: list[list[Any]], scratch: str, *, whole: bool) -> MergedIds:
    saved = []
    for number, part in enumerate(parts):
        _, ids, counts = factorize(column_of(part, whole=whole))
        saved.append(save_ids(files.join(scratch, str(number)), ids, counts))
    return merge_ids(saved, Journal(files.join(scratch, "journal")), what="user")


@given(parts_of_ids, st.sampled_from([(1, 1), (2, 3), (2**16, 2**22)]))
def test_parts_are_merged_as_if_they_were_one(
    parts: list[list[Any]], sizes: tuple[int, int]
) -> None:
    drawn = [each for part in parts for each in part]
    whole = isinstance(drawn[0], int)
    wanted = sorted(set(drawn))
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as scratch:
        patch.setattr(numbering, "ID_ROWS", sizes[0])
        patch.setattr(numbering, "MERGE_ROWS", sizes[1])
        merged = merge(parts, scratch, whole=whole)
        if sizes == (1, 1):
            assert len(merged.ranges) >= len(wanted)  # an id a range: the cuts took effect
        assert merged.counts.tolist() == [drawn.count(each) for each in wanted]
        assert [id_ for ids in merged.pieces(np.ones(len(wanted), bool)) for id_ in ids] == wanted
        keep = np.arange(len(wanted)) % 2 == 0
        assert [id_ for ids in merged.pieces(keep) for id_ in ids] == wanted[::2]
        for number, part in enumerate(parts):
            numbers = merged.light().numbers(number)
            assert [wanted[each] for each in numbers] == sorted(set(part))
            assert numbers.dtype == np.int32


@given(parts_of_ids, st.data())
def test_known_ids_keep_their_numbers_and_new_ones_follow(
    parts: list[list[Any]], data: st.DataObject
) -> None:
    drawn = [each for part in parts for each in part]
    whole = isinstance(drawn[0], int)
    known = data.draw(st.lists(wholes if whole else texts, unique=True))
    every = known + [each for each in sorted(set(drawn)) if each not in known]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as scratch:
        patch.setattr(numbering, "ID_ROWS", 2)
        patch.setattr(numbering, "MERGE_ROWS", 4)
        empty = np.array([], np.int64 if whole else object)
        held = Vocabulary(as_ids(known) if known else empty, "user")
        merged = merge(parts, scratch, whole=whole).after(held)
        assert merged.counts.tolist() == [drawn.count(each) for each in every]
        new = [id_ for ids in merged.pieces(np.ones(len(every), bool)) for id_ in ids]
        assert new == every[len(known) :]
        for number, part in enumerate(parts):
            assert [every[each] for each in merged.numbers(number)] == sorted(set(part))
