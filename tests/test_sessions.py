"""Sessions agree with plain loops over each user's events, however the log is cut."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dasrec
from dasrec import InputError, memory
from dasrec.kernels.csr import cut_sessions
from dasrec.upkeep import verify

START = 1_700_000_000
COLUMNS = {"user": "user", "item": "item", "value": "value", "timestamp": "time"}


def name_of(user: str, time: int) -> str:
    return f"{user}/{pd.Timestamp(time, unit='s').isoformat()}"


def sessions_of(log: pd.DataFrame, gap: int) -> dict[str, dict[Any, float]]:
    """Return the last value of each item by session, one event after the other."""
    found: dict[str, dict[Any, float]] = {}
    for user, events in log.groupby("user"):
        before, name = None, ""
        # a stable sort: of equal times the one that came last wins
        for event in events.sort_values("time", kind="stable").itertuples():
            if before is None or event.time - before > gap:
                name = name_of(user, event.time)
                found[name] = {}
            found[name][event.item] = event.value
            before = event.time
    return found


def content(store: dasrec.Interactions) -> dict[str, dict[Any, float]]:
    cells = store.to_scipy().tocoo()
    found: dict[str, dict[Any, float]] = defaultdict(dict)
    users, items = store.user_ids.ids, store.item_ids.ids
    for row, column, value in zip(*cells.coords, cells.data, strict=True):
        found[users[row]][items[column]] = float(value)
    return dict(found)


logs = st.lists(
    st.tuples(
        st.sampled_from(["ann", "ann b", "bob", "é", "zoe"]),
        st.integers(0, 4),
        st.integers(0, 20),
        st.integers(0, 400),
    ),
    min_size=2,
    max_size=40,
).filter(lambda drawn: len({row[0] for row in drawn}) > 1 and len({row[1] for row in drawn}) > 1)


@settings(max_examples=25)
@given(drawn=logs, gap=st.integers(1, 90), size=st.sampled_from([2, 5, 2**20]))
def test_sessions_are_those_of_a_plain_loop(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[Any], gap: int, size: int
) -> None:
    log = pd.DataFrame(drawn, columns=["user", "item", "value", "time"])
    log["time"] += START
    folder = tmp_path_factory.mktemp("sessions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "BLOCK_CELLS", size)
        patch.setattr(memory, "LEAST_BLOCK_CELLS", 1)
        events = dasrec.by_session(dasrec.read_events(log, **COLUMNS), gap=f"{gap}s")
        store = dasrec.write_interactions(dasrec.clean(events), folder / "store")
    wanted = sessions_of(log, gap)
    assert content(store) == wanted
    assert store.n_users == len(wanted)
    names = np.array(list(wanted), object)
    assert (store.user_ids.ids[store.user_ids.find(names)] == names).all()
    assert verify(store.url) == []


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), max_size=30), st.integers(0, 9))
def test_the_kernel_numbers_sessions_by_row_and_time(drawn: list[Any], gap: int) -> None:
    rows = np.array([row for row, _ in drawn], np.int32)
    times = np.array([time for _, time in drawn], np.int64)
    sessions, counts, starts = cut_sessions(rows, times, 4, gap)
    wanted: dict[int, int] = {}
    firsts: list[int] = []
    per_row = [0] * 4
    before: tuple[int, int] | None = None
    for place in sorted(range(len(drawn)), key=lambda place: drawn[place]):
        row, time = drawn[place]
        if before is None or before[0] != row or time - before[1] > gap:
            firsts.append(time)
            per_row[row] += 1
        wanted[place], before = len(firsts) - 1, (row, time)
    assert sessions.tolist() == [wanted[place] for place in range(len(drawn))]
    assert counts.tolist() == per_row
    assert starts.tolist() == firsts
    assert sessions.dtype == np.int32


@pytest.fixture
def log() -> pd.DataFrame:
    """Return three sessions of ann, of which one is short, and one of bob."""
    times = [0, 60, 120, 10_000, 20_000, 20_030, 50, 70, 80]
    users = ["ann"] * 6 + ["bob"] * 3
    items = ["a", "b", "a", "c", "a", "b", "b", "c", "a"]
    frame = pd.DataFrame({"user": users, "item": items, "value": 1.0, "time": times})
    return frame.assign(time=frame["time"] + START)


def test_rules_hold_for_sessions_and_the_audit_says_so(log: pd.DataFrame, tmp_path: Path) -> None:
    events = dasrec.by_session(dasrec.read_events(log, **COLUMNS), gap="30min")
    events = dasrec.clean(events, min_user=2, dedupe="sum")
    store = dasrec.write_interactions(events, tmp_path / "store")
    names = [name_of(who, START + at) for who, at in (("ann", 0), ("ann", 20_000), ("bob", 50))]
    assert store.user_ids.ids.tolist() == names
    assert content(store)[names[0]] == {"a": 2.0, "b": 1.0}
    steps = store.audit.to_dataframe()
    assert steps.loc["sessions", "why"] == "4 of 2 users, pauses over 1800 s"
    assert (steps["rows_in"].to_numpy()[1:] == steps["rows_out"].to_numpy()[:-1]).all()
    plain = dasrec.clean(dasrec.read_events(log, **COLUMNS), dedupe="sum")
    for interactions in (store, dasrec.compact(store.url)):
        with pytest.raises(InputError, match="what is new may belong to sessions that are there"):
            dasrec.append_interactions(plain, interactions.url)


def test_gaps_that_mean_nothing_are_refused(log: pd.DataFrame) -> None:
    events = dasrec.read_events(log, **COLUMNS)
    for gap, message in (
        ("soon", "gap is 'soon'; expected a time like"),
        ("1ms", "gap is '1ms'; expected at least a second"),
    ):
        with pytest.raises(InputError, match=message):
            dasrec.by_session(events, gap=gap)
    untimed = dasrec.read_events(log, user="user", item="item")
    with pytest.raises(InputError, match="was read without timestamps"):
        dasrec.by_session(untimed, gap="1h")
