"""Every split is that of its slow twin: on any log, in any blocks, on processes, in any version."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import dask
import numpy as np
import pandas as pd
import pytest
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st

import dasrec
from dasrec import Interactions, Split, blocks
from dasrec.datasets import simulate_events
from tests import references_split as twins
from tests.test_split import table_of

pytestmark = pytest.mark.filterwarnings("ignore::dasrec.LeakageWarning")

SEED = 3
NOON = 1_704_110_400  # 2024-01-01T12:00, seconds

TWINS: dict[str, Callable[[pd.DataFrame], twins.Parts]] = {
    "time:0.3": lambda table: twins.by_time(table, 0.3),
    "time:2024-01-01T12:00:04": lambda table: twins.since(table, "2024-01-01T12:00:04"),
    "random:0.3": lambda table: twins.at_random(table, 0, 0.3, SEED),
    "fold:2/3": lambda table: twins.at_random(table, 1 / 3, 2 / 3, SEED),
    "users:0.5": lambda table: twins.of_users(table, 0.5, 0.2, SEED),
    "users:0.4:0.5": lambda table: twins.of_users(table, 0.4, 0.5, SEED),
    "last:2": lambda table: twins.the_last(table, 2),
    "any:2": lambda table: twins.any_n(table, 2, SEED),
    "rolling:1/2:2s": lambda table: twins.rolling(table, (1, 2), "2s"),
    "rolling:1/2:2s:end=2024-01-01T12:00:08": lambda table: twins.rolling(
        table, (1, 2), "2s", end=(NOON + 8) * 10**6
    ),
    "rolling:2/3:1s:gap=2s": lambda table: twins.rolling(table, (2, 3), "1s", gap="2s"),
    "rolling:2/3:1s:gap=1s:train=3s:end=2024-01-01T12:00:08": lambda table: twins.rolling(
        table, (2, 3), "1s", gap="1s", train="3s", end=(NOON + 8) * 10**6
    ),
}


def write(folder: str | Path, table: pd.DataFrame, *, cells: int) -> Interactions:
    """Write rows of users, items and times (seconds after noon) in blocks of so many cells."""
    log = table.assign(time=table["time"] + NOON)
    events = dasrec.read_events(log, user="user", item="item", timestamp="time")
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", cells):
        return dasrec.write_interactions(events, Path(folder) / "store")


def cells_of(table: pd.DataFrame, marked: pd.Series) -> set[tuple[int, int]]:
    return {*zip(table["user"][marked], table["item"][marked], strict=True)}


def assert_split_as(split: Split, whole: pd.DataFrame, parts: twins.Parts) -> None:
    for name in ("train", "seen", "test"):
        view, marked = getattr(split, name), getattr(parts, name)
        found = table_of(view)
        assert {*zip(found["user"], found["item"], strict=True)} == cells_of(whole, marked), name
        assert len(found) == marked.sum()
        turned = view.read_rows("item_users", 0, view.n_items)
        assert len(turned.indices) == len(found)


@st.composite
def logs(draw: st.DrawFn) -> pd.DataFrame:
    """Draw distinct cells of at least four users, at moments that often are the same."""
    cells = st.tuples(st.integers(0, 7), st.integers(0, 9))
    few = [(user, item) for user in range(4) for item in (user, 9)]
    found = sorted({*few, *draw(st.lists(cells, max_size=40))})
    times = st.lists(st.integers(0, 9), min_size=len(found), max_size=len(found))
    table = pd.DataFrame(found, columns=["user", "item"])
    # the ends are always there, so that windows have something before them
    return table.assign(time=[0, *draw(times)[2:], 9])


@settings(max_examples=25)
@given(table=logs(), cells=st.integers(1, 6), text=st.sampled_from(list(TWINS)))
def test_a_split_is_that_of_its_twin_in_any_blocks(
    table: pd.DataFrame, cells: int, text: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = write(folder, table, cells=cells)
        assert len(made.cuts("user_items")) > 2
        whole = table_of(made)
        assert_split_as(dasrec.parse_split(made, text, rng=SEED), whole, TWINS[text](whole))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    log = simulate_events(2_000, n_users=70, n_items=40, rng=5)
    seconds = log["timestamp"].rank(method="dense").to_numpy() % 9
    table = pd.DataFrame({"user": log["user"], "item": log["item"], "time": seconds})
    table.loc[[0, 1], "time"] = [0, 9]
    made = write(tmp_path_factory.mktemp("large"), table, cells=100)
    assert len(made.cuts("user_items")) > 8
    return made


@pytest.mark.parametrize("text", TWINS)
def test_a_split_is_that_of_its_twin(large: Interactions, text: str) -> None:
    np.random.seed(1)
    whole = table_of(large)
    split = dasrec.parse_split(large, text, rng=SEED)
    assert_split_as(split, whole, TWINS[text](whole))
    np.random.seed(2)  # nothing may hang on the global generator
    again = dasrec.parse_split(large, text, rng=SEED)
    assert (again.train, again.seen, again.test) == (split.train, split.seen, split.test)
    assert len(table_of(split.test)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("text", TWINS)
def test_processes_split_alike(large: Interactions, cluster_client: Client, text: str) -> None:
    split = dasrec.parse_split(large, f"{text},random:0.2", rng=SEED)
    checked = dasrec.check_split(split)
    counts = split.train.counts("item_users")
    assert blocks.active_client() is cluster_client
    with dask.config.set(scheduler="threads"):
        assert blocks.active_client() is None
        here = dasrec.parse_split(large, f"{text},random:0.2", rng=SEED)
        assert here == split
        assert dasrec.check_split(here).identical(checked)
        assert np.array_equal(here.train.counts("item_users"), counts)
        assert_split_as(split, whole := table_of(large), TWINS[text](whole))


@pytest.mark.parametrize("text", TWINS)
def test_a_store_that_grew_is_split_as_a_whole_and_as_it_was(
    large: Interactions, tmp_path: Path, text: str
) -> None:
    table = table_of(large).assign(time=lambda each: each["time"] // 10**6 - NOON)
    early = table["time"] < 6
    first = write(tmp_path, table[early], cells=50)
    before = dasrec.parse_split(first, text, rng=SEED)
    as_it_was = table_of(first)
    later = table[~early].assign(time=lambda each: each["time"] + NOON)
    events = dasrec.read_events(later, user="user", item="item", timestamp="time")
    grown = dasrec.append_interactions(events, tmp_path / "store")
    assert len(grown.group_urls) == 2
    assert len(table_of(grown)) == len(table) > len(as_it_was)
    assert_split_as(
        dasrec.parse_split(grown, text, rng=SEED), whole := table_of(grown), TWINS[text](whole)
    )
    old = dasrec.open_interactions(tmp_path / "store", version=first.version)
    for split in (before, dasrec.parse_split(old, text, rng=SEED)):
        assert_split_as(split, as_it_was, TWINS[text](as_it_was))


def test_what_was_drawn_stays_where_it_is_when_a_store_grows(
    large: Interactions, tmp_path: Path
) -> None:
    """By interaction and by user, since numbers stay."""
    table = table_of(large).assign(time=0)
    first = write(tmp_path, table[::2], cells=50)
    events = dasrec.read_events(table[1::2], user="user", item="item", timestamp="time")
    grown = dasrec.append_interactions(events, tmp_path / "store")
    there = {*zip(*(table_of(first)[name] for name in ("user", "item")), strict=True)}
    for text in ("random:0.3", "users:0.3"):
        small, big = (dasrec.parse_split(each, text, rng=1).test for each in (first, grown))
        found, more = (
            {*zip(*(table_of(view)[name] for name in ("user", "item")), strict=True)}
            for view in (small, big)
        )
        assert found == more & there
        assert len(more) > len(found) > 0
