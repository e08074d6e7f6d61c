"""Appending, versions, compacting, forgetting and verifying."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dasrec
from dasrec import InputError, Interactions, StoreError, store
from dasrec.schema import INTERACTIONS_KIND

COLUMNS = {"user": "user", "item": "item", "value": "value", "timestamp": "time"}
POLICIES = ("last", "first", "sum", "max")


def make_log(n: int, *, seed: int, users: int = 30, items: int = 20) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "user": rng.integers(0, users, n),
            "item": rng.integers(0, items, n),
            "value": rng.integers(1, 6, n).astype(float),
            "time": rng.integers(10**9, 10**9 + 1000, n),
        }
    )


def events_of(log: pd.DataFrame, **rules: object) -> dasrec.Events:
    return dasrec.clean(dasrec.read_events(log, **COLUMNS), **rules)


def cells_of(view: Interactions) -> dict[tuple[object, object], float]:
    """Return what a view holds by ids, after checking that both orientations agree."""
    rows = view.to_scipy().tocoo()
    turned = view.read_rows("item_users", 0, view.n_items).to_scipy()
    assert (turned.T != view.to_scipy()).nnz == 0
    users, items = view.user_ids.ids[rows.row], view.item_ids.ids[rows.col]
    return dict(zip(zip(users, items, strict=True), rows.data.tolist(), strict=True))


def expected_cells(log: pd.DataFrame, dedupe: str) -> dict[tuple[object, object], float]:
    ordered = log.sort_values("time", kind="stable").groupby(["user", "item"])["value"]
    return getattr(ordered, dedupe)().to_dict()


@settings(max_examples=10)
@given(
    sizes=st.lists(st.integers(5, 60), min_size=2, max_size=4),
    seed=st.integers(0, 1000),
    dedupe=st.sampled_from(POLICIES),
    text=st.booleans(),
)
def test_appended_parts_hold_what_the_whole_log_holds(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], seed: int, dedupe: str, text: bool
) -> None:
    place = tmp_path_factory.mktemp("store") / "s"
    logs = [make_log(n, seed=seed + i, users=10 + 10 * i) for i, n in enumerate(sizes)]
    if text:
        logs = [log.assign(user="u" + log["user"].astype(str)) for log in logs]
    first = dasrec.write_interactions(events_of(logs[0], dedupe=dedupe), place)
    for log in logs[1:]:
        last = dasrec.append_interactions(events_of(log, dedupe=dedupe), place)
    assert len(last.group_urls) == last.version == len(logs)
    assert cells_of(last) == expected_cells(pd.concat(logs), dedupe)
    assert last.user_ids.ids[: first.n_users].tolist() == first.user_ids.ids.tolist()
    assert dasrec.verify(place) == []
    small = dasrec.compact(place)
    assert len(small.group_urls) == 1
    assert cells_of(small) == expected_cells(pd.concat(logs), dedupe)
    assert small.user_ids.ids.tolist() == last.user_ids.ids.tolist()
    assert dasrec.verify(place) == []


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """A store of two versions."""
    place = tmp_path / "store"
    dasrec.write_interactions(events_of(make_log(200, seed=1)), place)
    dasrec.append_interactions(events_of(make_log(100, seed=2, users=40)), place)
    return place


def test_a_version_reads_exactly_that_state(grown: Path) -> None:
    old = dasrec.open_interactions(grown, version=1)
    assert cells_of(old) == expected_cells(make_log(200, seed=1), "last")
    assert dasrec.open_interactions(grown).version == 2
    with pytest.raises(StoreError, match="has no version 7; it has: 1, 2"):
        dasrec.open_interactions(grown, version=7)


def test_as_of_reads_what_was_the_latest_then(grown: Path) -> None:
    first, second = (
        datetime.datetime.fromisoformat(store.read_pointer(grown, INTERACTIONS_KIND, v).created)
        for v in (1, 2)
    )
    assert first < second
    assert dasrec.open_interactions(grown, as_of=first.isoformat()).version == 1
    later = (second + datetime.timedelta(days=1)).date().isoformat()
    assert dasrec.open_interactions(grown, as_of=later).version == 2
    with pytest.raises(StoreError, match="no version as old as 1999-01-01"):
        dasrec.open_interactions(grown, as_of="1999-01-01")
    with pytest.raises(InputError, match="expected a date or time like 2026-01-31"):
        dasrec.open_interactions(grown, as_of="last week")
    with pytest.raises(InputError, match="both given"):
        dasrec.open_interactions(grown, version=1, as_of="2026-01-01")


def test_of_two_writers_one_wins_and_the_other_is_told(grown: Path) -> None:
    base = store.read_pointer(grown, INTERACTIONS_KIND)
    slow = store.Draft(grown, INTERACTIONS_KIND, base=base)
    third = dasrec.append_interactions(events_of(make_log(50, seed=3)), grown)
    with pytest.raises(StoreError, match="another writer has made version 3"):
        slow.commit(base.facts)
    slow.abandon()
    assert dasrec.open_interactions(grown) == third
    assert not Path(slow.group_url).exists()
    assert dasrec.verify(grown) == []


def test_a_failed_append_leaves_no_trace(grown: Path) -> None:
    before = sorted(path.name for path in grown.iterdir())
    bad = make_log(50, seed=3)
    bad.loc[7, "value"] = np.nan
    with pytest.raises(InputError, match="1 bad rows of 50"):
        dasrec.append_interactions(events_of(bad), grown)
    assert sorted(path.name for path in grown.iterdir()) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log": {"user": "x"}}, "user ids are"),
        ({"rules": {"dedupe": "sum"}}, "dedupes by 'last' and the events by 'sum'"),
        ({"rules": {"min_user": 2}}, "cannot hold for a part alone"),
        ({"drop": "timestamp"}, "has timestamps and"),
    ],
)
def test_events_that_do_not_go_with_the_store(
    grown: Path, change: dict[str, dict[str, object]], message: str
) -> None:
    log = make_log(20, seed=4).assign(**change.get("log", {}))
    columns = {key: name for key, name in COLUMNS.items() if key != change.get("drop")}
    events = dasrec.clean(dasrec.read_events(log, **columns), **change.get("rules", {}))
    with pytest.raises(InputError, match=message):
        dasrec.append_interactions(events, grown)
    assert dasrec.open_interactions(grown).version == 2


def test_forgotten_people_are_gone_at_once_and_for_good_after_compaction(tmp_path: Path) -> None:
    log = make_log(300, seed=5).assign(user=lambda each: "person-" + each["user"].astype(str))
    place = tmp_path / "store"
    whole = dasrec.write_interactions(events_of(log), place)
    left = dasrec.forget(place, users=np.array(["person-3", "person-4"], object))
    kept = {key: v for key, v in cells_of(whole).items() if key[0] not in ("person-3", "person-4")}
    assert cells_of(left) == kept
    assert left.counts("item_users").sum() == len(kept)
    step = left.audit.sel(step="forget")
    assert (int(step["rows_in"]), int(step["rows_out"])) == (len(cells_of(whole)), len(kept))
    small = dasrec.compact(place)
    assert cells_of(small) == kept
    assert "forget" in small.audit["step"].values
    everything = b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())
    assert b"person-4" not in everything
    assert small.user_ids.find(np.array(["person-3", "person-5"], object)).tolist()[0] == -1
    with pytest.raises(StoreError, match="has no version 1"):
        dasrec.open_interactions(place, version=1)
    assert dasrec.verify(place) == []


def test_a_user_is_forgotten_once(tmp_path: Path) -> None:
    place = tmp_path / "store"
    dasrec.write_interactions(events_of(make_log(300, seed=5)), place)
    dasrec.forget(place, users=np.array([3]))
    left = dasrec.forget(place, users=np.array([4, 3, 4]))
    steps = left.audit.sel(step="forget")["why"].values.tolist()
    assert [step.split(",")[0] for step in steps] == ["1 users", "1 users"]
    assert left.audit["rows_in"].values[1] == left.audit["rows_out"].values[0]


def test_forgetting_a_stranger_is_refused(grown: Path) -> None:
    with pytest.raises(InputError, match="not in the vocabulary: 999"):
        dasrec.forget(grown, users=np.array([999]))


def test_an_old_reader_is_told_when_its_version_is_gone(grown: Path) -> None:
    old = dasrec.open_interactions(grown)
    dasrec.compact(grown)
    with pytest.raises(StoreError, match="a newer version took its place"):
        old.to_scipy()


@pytest.mark.parametrize("name", ["data", "indices", "indptr", "timestamps"])
def test_verify_names_the_damaged_block(grown: Path, name: str) -> None:
    group = Path(dasrec.open_interactions(grown).group_urls[0])
    (chunk,) = [path for path in (group / "user_items" / name / "c").iterdir() if path.is_file()]
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 0xFF
    chunk.write_bytes(content)
    faults = dasrec.verify(grown)
    assert any(f"{group.name}/user_items, rows 0 to" in fault for fault in faults)


def test_verify_sees_a_chunk_that_is_missing(grown: Path) -> None:
    group = Path(dasrec.open_interactions(grown).group_urls[1])
    (group / "item_users" / "data" / "c" / "0").unlink()
    assert any("item_users" in fault for fault in dasrec.verify(grown))


def test_verify_sees_other_cells_behind_good_checksums(grown: Path) -> None:
    group = dasrec.open_interactions(grown).group_urls[0]
    block = store.read_rows(group, "user_items", 0, 5, timed=True)
    store.write_cells(group, "user_items", 0, {"data": block.data + 1})
    assert dasrec.verify(grown) == [
        f"{group}: user_items and item_users do not hold the same interactions"
    ]
