"""A vocabulary in a store answers like one in memory, and reads the chunks that it needs."""

from __future__ import annotations

import pickle
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import assume, given
from hypothesis import strategies as st

import dasrec
from dasrec import BudgetError, InputError, files, memory, runs, segments, store
from dasrec.forgotten import nobody
from dasrec.schema import INTERACTIONS_KIND, USER_IDS
from dasrec.segments import StoredVocabulary
from dasrec.vocabulary import Vocabulary, as_ids

LEAST = -(2**63)
WHOLES = (LEAST, LEAST + 1, LEAST + 2, -(2**40), -1, 0, 1, 7, 2**33, 2**53 + 1, 2**63 - 1)
# in the order of UTF-16 U+FFFF comes after what lies beyond it
TEXTS = ("", "\x00", "a", "a\x00", "aa", "B", "ä", "\uffff", "\U00010000", "\U0001f600", "7")
NOBODIES = ("\x00forgotten-0", "\x00forgotten-1", "\x00forgotten-01", "\x00forgotten-9" * 3)
NEVER = {True: 12345, False: "never"}


@pytest.fixture(autouse=True)
def large() -> Iterator[None]:
    """Take every vocabulary for a large one."""
    with mock.patch.object(segments, "LOAD_IDS", 0):
        yield


def write(place: Any, groups: Sequence[Sequence[Any]], *, chunk: int) -> list[str]:
    """Write a group for each segment, its ids in pieces, and return the groups."""
    found = []
    kind = next(as_ids(ids).dtype for ids in groups if len(ids))
    with mock.patch.object(store, "CHUNK_CELLS", chunk):
        for number, ids in enumerate(groups):
            step = max(3, len(ids) // 7)
            draft = store.Draft(files.join(str(place), str(number)), INTERACTIONS_KIND)
            for start in range(0, max(1, len(ids)), step):
                piece = as_ids(ids[start : start + step]).astype(kind)
                draft.write_ids(USER_IDS, piece, start=start, n=len(ids))
            found.append(draft.group_url)
    return found


def stored(place: Any, groups: Sequence[Sequence[Any]], *, chunk: int) -> StoredVocabulary:
    return StoredVocabulary(write(place, groups, chunk=chunk), USER_IDS, "user")


def is_searched(vocabulary: StoredVocabulary) -> bool:
    """Whether it has answered without all ids at hand."""
    return not {"ids", "_index"} & set(vars(vocabulary))


# -- against a dictionary --------------------------------------------------------------------------


@st.composite
def vocabularies(draw: st.DrawFn) -> list[list[Any]]:
    """Draw the segments of a vocabulary, most of them in order but for forgotten ids."""
    whole = draw(st.booleans())
    pool = st.sampled_from(WHOLES if whole else TEXTS + NOBODIES)
    ids = draw(st.lists(pool, unique=True, min_size=1))
    cut = draw(st.integers(0, len(ids)))
    groups = [ids[:cut], ids[cut:]]
    if draw(st.booleans()) or draw(st.booleans()):
        groups = [sorted(group) for group in groups]  # Python too sorts strings by code point
    gone = draw(st.sets(st.integers(0, cut - 1))) if cut else set()
    names = nobody(np.arange(cut), np.dtype(np.int64 if whole else object)).tolist()
    groups[0] = [names[place] if place in gone else id_ for place, id_ in enumerate(groups[0])]
    assume(len({*groups[0], *groups[1]}) == len(ids))
    return groups


@given(vocabularies(), st.integers(1, 6), st.data())
def test_it_answers_like_a_dictionary(
    groups: list[list[Any]], chunk: int, data: st.DataObject
) -> None:
    ids = [*groups[0], *groups[1]]
    numbers = {id_: number for number, id_ in enumerate(ids)}
    whole = isinstance(ids[0], int)
    pool = [*ids, *(WHOLES if whole else TEXTS + NOBODIES), NEVER[whole]]
    asked = data.draw(st.lists(st.sampled_from(pool), min_size=1))
    places = data.draw(st.lists(st.integers(0, len(ids) - 1)))
    with tempfile.TemporaryDirectory() as place:
        found = stored(place, groups, chunk=chunk)
        assert len(found) == len(ids)
        assert found.find(as_ids(asked)).tolist() == [numbers.get(each, -1) for each in asked]
        assert is_searched(found)
        named = found.ids_of(np.array(places, np.int32))
        assert named.tolist() == [ids[each] for each in places]
        assert named.dtype == found.dtype == as_ids(ids).dtype
        assert found.hash == Vocabulary(as_ids(ids), "user").hash
        assert [id_ for piece in found.pieces() for id_ in piece] == found.ids.tolist() == ids
        assert found.ids_of(places).tolist() == named.tolist()  # from the ids that are held now
        assert found.find(as_ids(ids)).tolist() == list(range(len(ids)))


@pytest.mark.parametrize("ids", [[3, 5, 4, 9], ["b", "a"], [5, 5]])
def test_ids_in_no_order_are_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids: list[Any]
) -> None:
    monkeypatch.setattr(runs, "MOST_RUNS", 1)
    (group,) = write(tmp_path, [ids], chunk=2)
    found = StoredVocabulary([group], USER_IDS, "user")
    assert store.read_runs(group, USER_IDS) is None
    if ids == [5, 5]:
        with pytest.raises(InputError, match="user id 5 stands twice in the vocabulary"):
            found.find(as_ids(ids))
    else:
        assert found.find(as_ids(ids)).tolist() == list(range(len(ids)))
    assert not is_searched(found)


def test_small_vocabularies_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "LOAD_IDS", 3)
    small, large = (stored(tmp_path / str(n), [range(n)], chunk=2) for n in (3, 4))
    assert small.find([2, 9]).tolist() == large.find([2, 9]).tolist() == [2, -1]
    assert (is_searched(small), is_searched(large)) == (False, True)


@pytest.mark.parametrize(
    ("ids", "asked", "numbers"),
    [
        (["a", "b", "c"], ["\ud800", "b", "?", "", "b\udc00"], [-1, 1, -1, -1, -1]),
        (["1", "2", "3"], [2, 7], [-1, -1]),
        ([1, 2, 3], ["2", "7"], [-1, -1]),
        ([1, 2, 3], [], []),
    ],
)
def test_what_the_store_cannot_hold_is_unknown(
    tmp_path: Path, ids: list[Any], asked: list[Any], numbers: list[int]
) -> None:
    found = stored(tmp_path, [ids], chunk=2)
    assert found.find(asked).tolist() == numbers
    assert is_searched(found)


def test_an_unknown_place_has_no_id(tmp_path: Path) -> None:
    found = stored(tmp_path, [["a"], ["b", "c"]], chunk=2)
    for places in ([0, 3], [-1]):
        with pytest.raises(InputError, match=r"^user numbers of type int64 from .*from 0 to 2$"):
            found.ids_of(np.array(places))
    assert found.ids_of([]).tolist() == []


# -- what is read ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [int, str])
def test_few_ids_read_few_chunks(tmp_path: Path, kind: type) -> None:
    ids = np.array([f"{number:06}" for number in range(0, 800, 2)], object).astype(kind)
    found = stored(tmp_path, [ids[:300], ids[300:]], chunk=4)
    with mock.patch.object(store, "read_ids", wraps=store.read_ids) as read:
        assert found.find(ids[[7, 6, 5, 390, 7]]).tolist() == [7, 6, 5, 390, 7]
        spans = [tuple(call.args[2:]) for call in read.call_args_list]
        assert spans == [(4, 8), (88, 92)]  # of the first segment, and of the second
        read.reset_mock()
        assert found.ids_of([399, 0, 398, 1]).tolist() == ids[[399, 0, 398, 1]].tolist()
        assert read.call_count == 2
        read.reset_mock()
        assert found.find(as_ids([kind("999999")])).tolist() == [-1]
        assert read.call_count == 0  # after the last id there is nothing to read


def test_tasks_do_not_carry_ids(tmp_path: Path) -> None:
    found = stored(tmp_path, [range(5000)], chunk=100)
    assert len(found.ids) == 5000
    assert found.find([4999]).tolist() == [4999]
    assert found.hash
    content = pickle.dumps(found)
    assert len(content) < 500
    there = pickle.loads(content)
    assert is_searched(there)
    assert there.find([4999, 5000]).tolist() == [4999, -1]
    assert repr(there) == "<Vocabulary of 5,000 user ids (int64)>"


def test_all_ids_must_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = stored(tmp_path, [[f"{number:06}" for number in range(1000)]], chunk=100)
    monkeypatch.setattr(memory, "limit", lambda: 119_999)
    message = (
        "holding 1,000 user ids needs 0.1 MB and 0.1 MB are available; ask find(), numbers(), "
        "ids_of() or pieces(), which read what they need"
    )
    with pytest.raises(BudgetError, match=f"^{re.escape(message)}$"):
        _ = found.ids
    assert found.find(["000007"]).tolist() == [7]
    monkeypatch.setattr(memory, "limit", lambda: 120_000)
    assert len(found.ids) == 1000


def test_an_index_must_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MOST_RUNS", 1)
    found = stored(tmp_path, [[3, 1, 2]], chunk=2)
    monkeypatch.setattr(memory, "limit", lambda: 149)
    message = "an index of 3 user ids needs 0.0 MB and 0.0 MB are available; write the store from"
    with pytest.raises(BudgetError, match=f"^{re.escape(message)}"):
        found.find([1])
    monkeypatch.setattr(memory, "limit", lambda: 150)
    assert found.find([1]).tolist() == [1]


def test_loaded_ids_outlive_the_store(tmp_path: Path) -> None:
    (group,) = write(tmp_path, [["a", "b"]], chunk=2)
    loaded = StoredVocabulary([group], USER_IDS, "user").load()
    files.remove(group)
    assert type(loaded) is Vocabulary
    assert loaded.find(["b", "c"]).tolist() == [1, -1]
    assert pickle.loads(pickle.dumps(loaded)).ids.tolist() == ["a", "b"]


# -- whole stores ----------------------------------------------------------------------------------


@pytest.fixture
def grown(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dasrec.Interactions]:
    """Return a store with chunks of 4 ids that was appended to; integers, or what a test says."""
    kind = getattr(request, "param", int)
    with mock.patch.object(store, "CHUNK_CELLS", 4):
        for number, users in enumerate((range(0, 60, 3), range(0, 60, 2))):
            log = pd.DataFrame([(user, item) for user in users for item in (1, 2)])
            log = log.astype(kind).set_axis(["u", "i"], axis=1)
            events = dasrec.read_events(log, user="u", item="i")
            if number:
                dasrec.append_interactions(events, tmp_path / "store")
            else:
                dasrec.write_interactions(events, tmp_path / "store")
        yield dasrec.open_interactions(tmp_path / "store")


@pytest.mark.parametrize("grown", [int, str], indirect=True)
def test_forgotten_users_do_not_break_the_search(grown: dasrec.Interactions) -> None:
    kind = type(grown.user_ids.ids_of([0])[0])
    ids = grown.user_ids.ids.tolist()
    assert len(grown.group_urls) == 2
    gone = [0, 4, 5, 6, 7, 19, len(ids) - 1]  # the ends and a whole chunk
    dasrec.forget(grown.url, users=as_ids([ids[place] for place in gone]))
    left = dasrec.compact(grown.url)
    assert dasrec.verify(left.url) == []
    asked = [id_ for place, id_ in enumerate(ids) if place not in gone]
    assert left.user_ids.find(as_ids(asked)).tolist() == [ids.index(each) for each in asked]
    assert left.user_ids.find(as_ids([ids[place] for place in gone])).tolist() == [-1] * len(gone)
    names = left.user_ids.ids_of(gone)
    assert left.user_ids.numbers(names).tolist() == gone
    assert len(left.group_urls) == 1
    assert len(store.read_runs(left.group_urls[0], USER_IDS).starts) == 2  # as it had groups
    assert is_searched(left.user_ids)
    assert {type(each) for each in names} == {kind}


def test_wrong_ends_are_found(grown: dasrec.Interactions) -> None:
    assert dasrec.verify(grown.url) == []
    group = grown.group_urls[0]
    ends = zarr.open_array(f"{group}/{USER_IDS}{store.RUN_ENDS}", mode="r+")
    assert ends.shape == (5,)
    ends[1] = ends[2]
    said = f"{group}: the ascending runs of user_ids are not where it says"
    assert dasrec.verify(grown.url) == [said]


def test_a_store_that_says_nothing_of_runs_is_still_read(
    grown: dasrec.Interactions,
) -> None:
    ids = grown.user_ids.ids.tolist()
    files.remove(f"{grown.group_urls[1]}/{USER_IDS}{store.RUN_ENDS}")
    again = dasrec.open_interactions(grown.url)
    store._array.cache_clear()
    assert again.user_ids.find(as_ids(ids)).tolist() == list(range(len(ids)))
    assert not is_searched(again.user_ids)
    assert dasrec.verify(grown.url) == []
