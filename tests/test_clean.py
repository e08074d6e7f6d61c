"""Rules are checked when asked for; each bad row has one fault, the first that holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dasrec import (
    clean,
    drop_ids,
    keep_ids,
    pseudonymise,
    read_events,
    within,
    write_interactions,
)
from dasrec.clean import FAULTS, AuditStep, audit_dataset, fault_names, row_faults, row_rules
from dasrec.errors import InputError
from dasrec.events import CleanRules, Events

USER, ITEM, VALUE, TIME = range(len(FAULTS))


@pytest.fixture
def events() -> Events:
    log = pd.DataFrame({"u": [1, 1, 2], "i": [1, 1, 2], "v": [1.0, 2.0, 3.0]})
    return read_events(log, user="u", item="i", value="v")


def frame_of(rows: list[tuple[Any, Any, Any, Any]]) -> pd.DataFrame:
    columns = list(zip(*rows, strict=True))
    return pd.DataFrame(
        {
            "user": pd.array(columns[0], "Int64"),
            "item": pd.Series(columns[1], dtype="str"),
            "value": np.array(columns[2], np.float64),
            "timestamp": np.array(columns[3], "datetime64[us]"),
        }
    )


# -- rules -----------------------------------------------------------------------------------------


def test_cleaning_is_a_promise_and_leaves_the_events_alone(events: Events) -> None:
    cleaned = clean(events, dedupe="sum", min_user=2, bad_rows="drop", value_range=(1, 5))
    assert cleaned.rules == CleanRules("drop", "sum", 2, 1, (1, 5))
    assert events.rules == CleanRules()
    assert cleaned.frame is events.frame
    assert cleaned.source == events.source


def test_defaults_have_one_source(events: Events) -> None:
    assert clean(events).rules == CleanRules()


def test_later_rules_take_the_place_of_earlier_ones(events: Events) -> None:
    assert clean(clean(events, min_user=5), dedupe="max").rules == CleanRules(dedupe="max")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"bad_rows": "keep"}, "bad_rows is 'keep'; expected one of: error, drop"),
        (
            {"dedupe": "median"},
            "dedupe is 'median'; expected one of: last, first, sum, max, mean, error",
        ),
        ({"min_user": 0}, "min_user is 0; expected a whole number, at least 1"),
        ({"min_item": 1.5}, "min_item is 1.5; expected a whole number, at least 1"),
        ({"value_range": (5, 1)}, "value_range is (5, 1); expected (low, high) with low <= high"),
        ({"value_range": (0, np.inf)}, "value_range is inf; expected a finite number"),
        ({"value_range": (1, "5")}, "value_range is '5'; expected a finite number"),
    ],
)
def test_rules_that_are_none_are_refused(
    events: Events, rules: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        clean(events, **rules)


# -- faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ((1, "a", 2.5, 10), -1),
        ((0, "", -1, 0), -1),  # zero, an empty text and a negative value are what somebody wrote
        ((None, "a", 1, 1), USER),
        ((1, None, 1, 1), ITEM),
        ((1, "a", np.nan, 1), VALUE),
        ((1, "a", np.inf, 1), VALUE),
        ((1, "a", -np.inf, 1), VALUE),
        ((1, "a", 1e300, 1), VALUE),  # what float32 cannot hold
        ((1, "a", -3.5e38, 1), VALUE),
        ((1, "a", float(np.finfo(np.float32).max), 1), -1),
        ((1, "a", 1, "NaT"), TIME),
        ((1, "a", 1, -1), TIME),
        ((None, None, np.nan, "NaT"), USER),
        ((1, None, np.nan, "NaT"), ITEM),
        ((1, "a", np.nan, "NaT"), VALUE),
    ],
)
def test_each_row_has_its_first_fault(row: tuple[Any, ...], fault: int) -> None:
    good = (7, "b", 1.0, 5)
    assert row_faults(frame_of([good, row, good])).tolist() == [-1, fault, -1]


def test_a_log_without_values_and_times_has_no_faults_of_them() -> None:
    frame = frame_of([(1, "a", np.nan, "NaT"), (None, "a", 1, 1)])[["user", "item"]]
    assert row_faults(frame).tolist() == [-1, USER]


def test_no_rows_have_no_faults() -> None:
    assert row_faults(frame_of([(1, "a", 1, 1)]).iloc[:0]).tolist() == []


def test_faults_of_uuids_say_so(events: Events) -> None:
    assert fault_names(events) == FAULTS
    ids = {"user": "string", "item": "uuid"}
    log = pd.DataFrame({"u": ["x"], "i": ["x"]})
    assert fault_names(read_events(log, user="u", item="i", ids=ids)) == (
        "user id is missing",
        "item id is missing or no UUID",
        *FAULTS[2:],
    )


def test_the_ends_of_a_range_are_inside() -> None:
    frame = pd.DataFrame({"value": [0.5, 1.0, 3.0, 5.0, 5.5]})
    (rule,) = row_rules(CleanRules(value_range=(1, 5)))
    assert rule(frame).tolist() == [False, True, True, True, False]
    assert row_rules(CleanRules()) == ()


# -- audit -----------------------------------------------------------------------------------------


def test_an_audit_is_labelled_by_step() -> None:
    steps = [AuditStep("read", 9, 9, "log.csv"), AuditStep("core", 9, 7, "min_user=2")]
    audit = audit_dataset(steps)
    assert audit["step"].to_numpy().tolist() == ["read", "core"]
    assert audit["rows_in"].to_numpy().tolist() == [9, 9]
    assert audit["rows_out"].sel(step="core").item() == 7
    assert audit["why"].sel(step="core").item() == "min_user=2"


def test_an_empty_audit_has_no_steps() -> None:
    assert audit_dataset([]).sizes == {"step": 0}


# -- rules for rows --------------------------------------------------------------------------------


LOG = pd.DataFrame(
    {
        "u": [1, 1, 2, 2, 3, 3, 3, 3],
        "i": [1, 2, 1, 2, 1, 2, 3, 4],
        "t": pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"] * 2, utc=True),
    }
)


def written(events: Events, folder: Path, **options: Any) -> tuple[set[tuple[int, int]], Any]:
    """Return the pairs of ids that are left, and the audit."""
    interactions = write_interactions(events, folder / "store", **options)
    cells = interactions.to_scipy().tocoo()
    users, items = interactions.user_ids.ids[cells.row], interactions.item_ids.ids[cells.col]
    audit = interactions.audit
    assert audit["rows_in"].values[1:].tolist() == audit["rows_out"].values[:-1].tolist()
    return set(zip(users.tolist(), items.tolist(), strict=True)), audit


def timed_events() -> Events:
    return read_events(LOG, user="u", item="i", timestamp="t")


def test_a_span_of_time_excludes_its_end(tmp_path: Path) -> None:
    span = within(timed_events(), since="2026-01-02", until="2026-01-04")
    pairs, audit = written(span, tmp_path)
    assert pairs == {(1, 2), (2, 1), (3, 2), (3, 3)}
    assert int(audit.sel(step="time")["rows_out"]) == 4


def test_a_span_needs_times_that_can_be_read(events: Events) -> None:
    with pytest.raises(InputError, match="was read without timestamps"):
        within(events, since="2026-01-01")
    with pytest.raises(InputError, match="'soon' is no time"):
        within(timed_events(), until="soon")


def test_lists_allow_and_deny(tmp_path: Path) -> None:
    listed = drop_ids(keep_ids(timed_events(), items=[1, 2, 3]), users=[2])
    pairs, audit = written(listed, tmp_path)
    assert pairs == {(1, 1), (1, 2), (3, 1), (3, 2), (3, 3)}
    assert audit.sel(step="list")["why"].values.tolist() == [
        "item on a list of 3",
        "user not on a list of 1",
    ]


def test_lists_before_pseudonyms_hold_raw_ids_and_after_them_pseudonyms(tmp_path: Path) -> None:
    def left(events: Events, name: str) -> set[str]:
        return set(write_interactions(events, tmp_path / name).user_ids.ids)

    key = b"k" * 32
    everyone = left(pseudonymise(timed_events(), key=key), "all")
    listed = drop_ids(keep_ids(timed_events(), items=[1, 2, 3]), users=["2"])
    before = left(pseudonymise(listed, key=key), "before")
    (gone,) = everyone - before
    after = left(drop_ids(pseudonymise(timed_events(), key=key), users=[gone]), "after")
    assert len(everyone) == 3
    assert after == before
    kept = left(pseudonymise(keep_ids(timed_events(), users=[1, 3]), key=key), "kept")
    assert kept == before


def test_lists_are_of_the_kind_of_the_log(tmp_path: Path) -> None:
    texts = read_events(LOG.astype({"u": str}), user="u", item="i")
    pairs, _ = written(drop_ids(texts, users=[1], items=["4"]), tmp_path)
    assert pairs == {("2", 1), ("2", 2), ("3", 1), ("3", 2), ("3", 3)}
    with pytest.raises(InputError, match="a list of user ids has 'ann'; expected integers"):
        keep_ids(timed_events(), users=["ann"])


def test_cleaning_keeps_rules_for_rows(tmp_path: Path) -> None:
    pairs, _ = written(clean(keep_ids(timed_events(), users=[1, 2]), dedupe="first"), tmp_path)
    assert {user for user, _ in pairs} == {1, 2}


@pytest.mark.parametrize(("most", "left"), [(2, {1, 2}), (4, {1, 2, 3}), (0.5, {1, 2})])
def test_users_with_more_events_than_a_person_are_dropped(
    tmp_path: Path, most: float, left: set[int]
) -> None:
    pairs, audit = written(clean(timed_events(), max_user=most), tmp_path)
    assert {user for user, _ in pairs} == left
    assert int(audit.sel(step="bots")["rows_out"]) == len(pairs)


def test_event_types_have_weights(tmp_path: Path) -> None:
    log = pd.DataFrame(
        {"u": [1, 1, 2, 2], "i": [1, 2, 1, 2], "e": ["click", "buy", "buy", "stare"]}
    )
    weighed = read_events(log, user="u", item="i", value=("e", {"click": 1, "buy": 5}))
    with pytest.raises(InputError, match="1 bad rows of 4: 1 x value is not a finite number"):
        write_interactions(weighed, tmp_path / "refused")
    left = write_interactions(clean(weighed, bad_rows="drop"), tmp_path / "store")
    assert left.to_scipy().toarray().tolist() == [[1, 5], [5, 0]]


def test_bad_rows_go_to_quarantine_with_their_reasons(tmp_path: Path) -> None:
    log = pd.DataFrame(
        {"u": [1, 1, 2, None, 2], "i": [1, 2, 1, 2, 2], "v": [1.0, np.inf, 2.0, 1.0, 3.0]}
    )
    events = clean(read_events(log, user="u", item="i", value="v"), bad_rows="drop")
    write_interactions(events, tmp_path / "store", quarantine=tmp_path / "bad")
    kept = pd.read_parquet(tmp_path / "bad")
    assert kept["reason"].tolist() == ["value is not a finite number", "user id is missing"]
    assert kept["row"].tolist() == [1, 3]


def test_pseudonyms_are_stable_and_hide_the_ids(tmp_path: Path) -> None:
    log = pd.DataFrame({"u": ["ann-4711", "bob-4712", "ann-4711"], "i": [1, 2, 2]})
    events = read_events(log, user="u", item="i")
    key = b"k" * 32
    first = write_interactions(pseudonymise(events, key=key), tmp_path / "first")
    again = write_interactions(pseudonymise(events, key=key), tmp_path / "again")
    other = write_interactions(pseudonymise(events, key=b"o" * 32), tmp_path / "other")
    assert first.user_ids.ids.tolist() == again.user_ids.ids.tolist()
    assert set(first.user_ids.ids).isdisjoint(other.user_ids.ids)
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in first.user_ids.ids)
    stored = b"".join(p.read_bytes() for p in (tmp_path / "first").rglob("*") if p.is_file())
    assert b"4711" not in stored
    assert key not in stored
    with pytest.raises(InputError, match="16 to 64 secret bytes"):
        pseudonymise(events, key=b"short")
