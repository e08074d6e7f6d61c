"""Splits are masks: disjoint, complete, the same in both orientations and on any seed state."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import dask
import numpy as np
import pandas as pd
import pytest

import dasrec
from dasrec import InputError, Interactions, Split
from dasrec.datasets import simulate_events
from tests import references

SPLITS: dict[str, Callable[[Interactions], Split]] = {
    "time": lambda data: dasrec.split_by_time(data, 0.3),
    "random": lambda data: dasrec.split_random(data, 0.3, rng=4),
    "last": lambda data: dasrec.split_last_n(data, 3),
    "users": lambda data: dasrec.split_users(data, 0.4, targets=0.5, rng=4),
    "fold": lambda data: next(dasrec.split_folds(data, 3, rng=4)),
    "listed": lambda data: dasrec.split_listed(
        data, user_ids=data.user_ids.ids[[0, 1]], item_ids=data.item_ids.ids[[2, 3]], name="x"
    ),
}


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


@pytest.mark.parametrize(
    ("text", "spec"), [("time:0.2", "time:0.2"), ("last:1", "last:1"), ("users:0.1", "users:0.1")]
)
def test_a_text_names_a_split(data: Interactions, text: str, spec: str) -> None:
    assert dasrec.parse_split(data, text, rng=1).spec == spec


@pytest.mark.parametrize("text", ["", "time", "time:x", "last:0.5", "odd:1", "random:"])
def test_other_texts_are_refused(data: Interactions, text: str) -> None:
    with pytest.raises(InputError, match=r"expected time:0\.2, random:0\.2, last:1 or users:0\.1"):
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
