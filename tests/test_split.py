"""Splits are masks: disjoint, complete, the same in both orientations and on any seed state."""

from __future__ import annotations

import datetime
import itertools
import pickle
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import dask
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dasrec
from dasrec import InputError, Interactions, Split
from dasrec.datasets import simulate_events
from tests import references

pytestmark = pytest.mark.filterwarnings("ignore::dasrec.LeakageWarning")

SPLITS: dict[str, Callable[[Interactions], Split]] = {
    "time": lambda data: dasrec.split_by_time(data, 0.3),
    "random": lambda data: dasrec.split_random(data, 0.3, rng=4),
    "since": lambda data: dasrec.split_by_time(data, since=middle_of(data)),
    "last": lambda data: dasrec.split_last_n(data, 3),
    "any": lambda data: dasrec.split_any_n(data, 2, rng=4),
    "users": lambda data: dasrec.split_users(data, 0.4, targets=0.5, rng=4),
    "fold": lambda data: next(dasrec.split_folds(data, 3, rng=4)),
    "listed": lambda data: dasrec.split_listed(
        data, user_ids=data.user_ids.ids[[0, 1]], item_ids=data.item_ids.ids[[2, 3]], name="x"
    ),
}


def middle_of(view: Interactions) -> str:
    return str(np.datetime64(int(table_of(view)["time"].median()), "us"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    log = simulate_events(3_000, n_users=90, n_items=50, rng=2)
    events = dasrec.read_events(log, user="user", item="item", value="value", timestamp="timestamp")
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 300):
        made = dasrec.write_interactions(events, tmp_path_factory.mktemp("split") / "store")
    assert len(made.cuts("user_items")) > 4
    return made


def table_of(view: Interactions) -> pd.DataFrame:
    block = view.read_rows("user_items", 0, view.n_users, timed=True)
    users = np.repeat(np.arange(view.n_users), np.diff(block.indptr))
    return pd.DataFrame({"user": users, "item": block.indices, "time": block.timestamps})


def pairs(view: Interactions) -> set[tuple[int, int]]:
    table = table_of(view)
    return set(zip(table["user"], table["item"], strict=True))


@pytest.mark.parametrize("name", SPLITS)
def test_parts_are_disjoint_and_complete(data: Interactions, name: str) -> None:
    split = SPLITS[name](data)
    train, seen, test = (pairs(view) for view in (split.train, split.seen, split.test))
    assert test
    assert train <= seen
    assert not seen & test
    assert seen | test == pairs(data)
    assert (train == seen) == (name != "users") == (not split.folds_in)


@pytest.mark.parametrize("name", SPLITS)
def test_both_orientations_agree(data: Interactions, name: str) -> None:
    for view in (SPLITS[name](data).train, SPLITS[name](data).test):
        turned = view.read_rows("item_users", 0, data.n_items).to_scipy()
        assert (turned.T != view.to_scipy()).nnz == 0
        assert view.counts("user_items").sum() == view.counts("item_users").sum() == turned.nnz


@pytest.mark.parametrize("name", SPLITS)
def test_the_same_seed_gives_the_same_split(data: Interactions, name: str) -> None:
    np.random.seed(1)
    first = SPLITS[name](data)
    np.random.seed(2)
    again = SPLITS[name](data)
    assert first.test == again.test
    assert pairs(first.test) == pairs(pickle.loads(pickle.dumps(again.test)))


def test_another_seed_gives_another_split(data: Interactions) -> None:
    one, other = (pairs(dasrec.split_random(data, 0.3, rng=seed).test) for seed in (1, 2))
    assert one != other
    share = len(one) / len(pairs(data))
    assert 0.25 < share < 0.35


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.99])
def test_time_is_cut_at_the_quantile(data: Interactions, fraction: float) -> None:
    table = table_of(data)
    cut = references.time_cut(table["time"].to_numpy(), fraction)
    test = table_of(dasrec.split_by_time(data, fraction).test)
    assert sorted(test["time"]) == sorted(table["time"][table["time"] > cut])


def timed(folder: Path, times: list[int]) -> Interactions:
    """Write a store with these times, in seconds, one interaction each."""
    log = pd.DataFrame(
        {"user": np.arange(len(times)) % 5, "item": np.arange(len(times)), "time": times}
    )
    events = dasrec.read_events(log, user="user", item="item", timestamp="time")
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 4):
        return dasrec.write_interactions(events, folder / "store")


@settings(max_examples=15)
@given(
    times=st.lists(
        st.one_of(st.integers(0, 5), st.integers(0, 4 * 10**9)), min_size=5, max_size=40
    ).filter(lambda times: len(set(times)) > 1),
    fraction=st.floats(0.01, 0.99).map(lambda each: round(each, 2)),
)
def test_time_is_cut_at_the_quantile_of_any_times(times: list[int], fraction: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = timed(Path(folder), times)
        test = table_of(dasrec.split_by_time(made, fraction).test)
    cut = references.time_cut(np.array(times) * 10**6, fraction)
    assert sorted(test["time"]) == sorted(10**6 * each for each in times if 10**6 * each > cut)
    assert len(test) > 0
    # NumPy agrees where its floats do, which need not be at the edge between two ranks
    if abs((1 - fraction) * len(times) - round((1 - fraction) * len(times))) > 1e-9:
        quantile = np.quantile(times, 1 - fraction, method="inverted_cdf")
        assert min(quantile * 10**6, max(times) * 10**6 - 1) == cut


@pytest.mark.parametrize("fraction", [round(0.1 * tenth, 1) for tenth in range(1, 10)])
def test_a_share_of_distinct_times_is_exact(tmp_path: Path, fraction: float) -> None:
    made = timed(tmp_path, list(range(100, 110)))
    split = dasrec.split_by_time(made, fraction)
    assert split.test.to_scipy().nnz == round(10 * fraction)


def test_windows_read_no_more_than_they_must(data: Interactions) -> None:
    """Nothing where their end is given; else the timestamps once, and neither items nor weights."""
    with mock.patch("dasrec.blocks.run", side_effect=AssertionError("something was read")):
        given = [*dasrec.split_rolling(data, 3, width="7D", end="2024-12-01")]
        dasrec.split_by_time(data, since="2024-12-01")
    assert [split.spec[:11] for split in given] == ["rolling:1/3", "rolling:2/3", "rolling:3/3"]
    with (
        mock.patch("dasrec.store.read_rows", side_effect=AssertionError("rows were read")),
        mock.patch("dasrec.store.read_times", wraps=dasrec.store.read_times) as read,
    ):
        found = [*dasrec.split_rolling(data, 3, width=datetime.timedelta(days=7))]
    assert read.call_count == len(data.cuts("user_items")) - 1
    assert found[0].spec == "rolling:1/3:604800000000us"
    times = table_of(data)["time"]
    tested = [table_of(split.test)["time"] for split in found]
    assert sum(map(len, tested)) == (times > times.max() - 21 * 86_400 * 10**6).sum()
    assert tested[2].max() == times.max()
    assert dasrec.parse_split(data, found[0].spec) == found[0]


def test_windows_that_make_no_sense_are_refused(data: Interactions, tmp_path: Path) -> None:
    for options, message in (
        ({"windows": 0, "width": "7D"}, "windows is 0; expected a whole number, at least 1"),
        ({"width": "0s"}, "width is '0s'; expected a time like"),
        ({"width": "7D", "gap": "soon"}, "gap is 'soon'; expected a time like"),
        ({"width": "7D", "train": "-1D"}, "train is '-1D'; expected a time like"),
        ({"width": "7D", "end": "soon"}, "end is 'soon'; expected a date or time like"),
        ({"width": "92D"}, "days, and windows and gap take 368, which leaves nothing to train on"),
        ({"width": "90D", "gap": "9D"}, "days, and windows and gap take 369, which leaves noth"),
    ):
        with pytest.raises(InputError, match=message):
            dasrec.split_rolling(data, **options)
    untimed = dasrec.interactions_from_scipy(np.eye(4), tmp_path / "untimed")
    for options in ({}, {"end": "2024-12-01"}):
        with pytest.raises(InputError, match="has no timestamps; write it again from a log with"):
            dasrec.split_rolling(untimed, width="7D", **options)
    with pytest.raises(InputError, match="has no timestamps; write it again from a log with"):
        dasrec.split_by_time(untimed, since="2024-12-01")


def test_equal_times_cannot_be_cut(tmp_path: Path) -> None:
    made = timed(tmp_path, [7] * 10)
    with pytest.raises(InputError, match=r"all timestamps of .* are equal; expected a log that"):
        dasrec.split_by_time(made)


def test_a_part_can_be_split_again(data: Interactions) -> None:
    outer = dasrec.split_by_time(data, 0.3)
    for cut in (
        lambda view: dasrec.split_by_time(view, 0.3),
        lambda view: dasrec.split_last_n(view, 2),
        lambda view: dasrec.split_random(view, 0.3, rng=1),
    ):
        inner = cut(outer.train)
        parts = [pairs(view) for view in (inner.train, inner.test, outer.test)]
        assert all(parts)
        assert sum(map(len, parts)) == len(set().union(*parts)) == len(pairs(data))
    table = table_of(outer.train)
    wanted = table[references.last_n(table, 2)]
    assert pairs(dasrec.split_last_n(outer.train, 2).test) == set(
        zip(wanted["user"], wanted["item"], strict=True)
    )


def test_held_out_users_are_not_trained_on(data: Interactions) -> None:
    split = dasrec.split_users(data, 0.4, targets=0.5, rng=4)
    counts = {name: getattr(split, name).counts("user_items") for name in ("train", "seen", "test")}
    whole = data.counts("user_items")
    out = counts["train"] == 0
    assert 0.2 < out.mean() < 0.6
    assert (counts["train"][~out] == whole[~out]).all()
    assert not counts["test"][~out].any()
    assert counts["test"][out].sum() / whole[out].sum() == pytest.approx(0.5, abs=0.1)
    assert split.folds_in


def test_listed_pairs_are_tested(data: Interactions) -> None:
    table = table_of(data)
    some = table.iloc[::17]
    absent = sorted(set(itertools.product(range(data.n_users), range(data.n_items))) - pairs(data))[
        0
    ]
    users, items = [*some["user"], absent[0]], [*some["item"], absent[1]]
    split = dasrec.split_listed(
        data, user_ids=data.user_ids.ids[users], item_ids=data.item_ids.ids[items], name="ours"
    )
    assert pairs(split.test) == set(zip(some["user"], some["item"], strict=True))
    assert split.spec == "listed:ours"
    nothing = data.user_ids.ids[:0]
    with pytest.raises(InputError, match="no pairs were given; expected at least one to test on"):
        dasrec.split_listed(data, user_ids=nothing, item_ids=nothing, name="x")
    with pytest.raises(InputError, match="2 users and 1 items were given; expected pairs"):
        dasrec.split_listed(
            data, user_ids=data.user_ids.ids[:2], item_ids=data.item_ids.ids[:1], name="x"
        )


def test_a_seed_is_kept_with_the_split(data: Interactions) -> None:
    fresh = dasrec.split_random(data, 0.3)
    assert fresh.seed is not None
    assert dasrec.split_random(data, 0.3, rng=fresh.seed).test == fresh.test
    assert dasrec.split_by_time(data).seed is None
    draws = [dasrec.split_random(data, 0.3, rng=np.random.default_rng(5)) for _ in range(2)]
    assert draws[0].test == draws[1].test


@pytest.mark.parametrize("n", [1, 2, 40])
def test_the_last_n_of_each_user_are_tested(data: Interactions, n: int) -> None:
    table = table_of(data)
    marked = table[references.last_n(table, n)]
    assert pairs(dasrec.split_last_n(data, n).test) == set(
        zip(marked["user"], marked["item"], strict=True)
    )


def test_each_interaction_is_tested_in_one_fold(data: Interactions) -> None:
    tested = [pairs(split.test) for split in dasrec.split_folds(data, 4, rng=1)]
    assert len(tested) == 4
    assert sum(map(len, tested)) == len(set().union(*tested)) == len(pairs(data))


def test_masks_are_lazy(data: Interactions) -> None:
    def raising(*_: object, **__: object) -> None:
        msg = "something was computed"
        raise RuntimeError(msg)

    with dask.config.set(scheduler=raising):
        split = dasrec.split_random(data, 0.2, rng=1)
        lazy = split.train.user_items[:10]
        assert lazy.shape == (10, data.n_items)
        with pytest.raises(RuntimeError, match="something was computed"):
            lazy.compute()
    assert lazy.compute().nnz == split.train.read_rows("user_items", 0, 10).indptr[-1]


WORDS: dict[str, Callable[[Interactions], Split]] = {
    "time:0.2": lambda data: dasrec.split_by_time(data, 0.2),
    "time:2024-06-30": lambda data: dasrec.split_by_time(data, since="2024-06-30"),
    "time:2024-06-30T12:00+02:00": lambda data: dasrec.split_by_time(
        data, since=datetime.datetime.fromisoformat("2024-06-30T10:00Z")
    ),
    "random:0.2": lambda data: dasrec.split_random(data, 0.2, rng=1),
    "last:1": lambda data: dasrec.split_last_n(data, 1),
    "any:1": lambda data: dasrec.split_any_n(data, 1, rng=1),
    "users:0.1": lambda data: dasrec.split_users(data, 0.1, rng=1),
    "users:0.1:0.5": lambda data: dasrec.split_users(data, 0.1, targets=0.5, rng=1),
    "fold:2/3": lambda data: [*dasrec.split_folds(data, 3, rng=1)][1],
    "rolling:2/3:7D": lambda data: [*dasrec.split_rolling(data, 3, width="7D")][1],
    "rolling:1/3:7D:gap=1D:train=90D:end=2024-12-01T12:00": lambda data: next(
        dasrec.split_rolling(data, 3, width="7D", gap="1D", train="90D", end="2024-12-01T12:00")
    ),
}


@pytest.mark.parametrize("text", WORDS)
def test_a_text_names_a_split(data: Interactions, text: str) -> None:
    named, made = dasrec.parse_split(data, text, rng=1), WORDS[text](data)
    assert named.spec == text
    assert (named.train, named.seen, named.test) == (made.train, made.seen, made.test)
    assert named.seed == made.seed
    if "+" not in text:  # the same moment can be spelled in many ways
        assert made.spec == text
    assert pairs(named.test)


ALL_FORMS = (
    "expected one of time:0.2 or time:2026-01-31, random:0.2, last:1, any:1, users:0.1, "
    "fold:1/5, rolling:1/4:7D, or two with a comma between them"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ALL_FORMS),
        ("odd:1", ALL_FORMS),
        ("time:0.2,odd", ALL_FORMS),
        ("time", "expected time:0.2 or time:2026-01-31"),
        ("time:x", "expected time:0.2 or time:2026-01-31"),
        ("time:2026-13-01", "since is '2026-13-01'; expected a date or time like 2026-01-31 or"),
        ("last:0.5", "expected last:1"),
        ("random:", "expected random:0.2"),
        ("users:0.1:x", "expected users:0.1"),
        ("fold:3", "expected fold:1/5"),
        ("fold:4/3", "the first number of 4/3 is 4; expected a whole number, from 1 to 3"),
        ("rolling:1/4", "expected rolling:1/4:7D"),
        ("rolling:1/4:7D:step=1D", "expected rolling:1/4:7D"),
        ("rolling:1/4:soon", "width is 'soon'; expected a time like"),
        ("time:0.2,last:1,any:1", "expected two at most, one to test and one to validate"),
    ],
)
def test_other_texts_are_refused(data: Interactions, text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        dasrec.parse_split(data, text)


def test_bad_amounts_and_missing_times_are_refused(data: Interactions, tmp_path: Path) -> None:
    for text, message in (("time:1.5", "fraction is 1.5"), ("last:0", "n is 0")):
        with pytest.raises(InputError, match=message):
            dasrec.parse_split(data, text)
    untimed = dasrec.interactions_from_scipy(np.eye(4), tmp_path / "untimed")
    for split in (dasrec.split_by_time, dasrec.split_last_n):
        with pytest.raises(InputError, match="has no timestamps"):
            split(untimed)
    with pytest.raises(InputError, match="not in the vocabulary"):
        dasrec.split_listed(data, user_ids=[10**9], item_ids=data.item_ids.ids[:1], name="x")
