"""A plan tells what an ingest takes; a budget is kept to, and one that is too small is refused."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any
from unittest import mock

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pytest
from click.testing import CliRunner

import dasrec
from dasrec import BudgetError, InputError, blocks, plan
from dasrec.cli import main
from dasrec.datasets import simulate_events
from dasrec.memory import piece_rows

COLUMNS = {"user": "user", "item": "item", "value": "value", "timestamp": "timestamp"}


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    return simulate_events(30_000, n_users=500, n_items=200, rng=0)


def write(log: pd.DataFrame, path: Path) -> Path:
    match path.name.partition(".")[2]:
        case "csv":
            log.to_csv(path, index=False)
        case "csv.gz":
            path.write_bytes(gzip.compress(log.to_csv(index=False).encode()))
        case "jsonl":
            log.to_json(path, orient="records", lines=True)
        case "parquet":
            log.to_parquet(path, row_group_size=7_000)
        case "feather":
            feather.write_feather(pa.Table.from_pandas(log), str(path), chunksize=4_000)
    return path


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "parquet", "feather"])
def test_rows_are_told_from_heads(log: pd.DataFrame, tmp_path: Path, kind: str) -> None:
    path = write(log, tmp_path / f"log.{kind}")
    found = dasrec.plan_ingest(dasrec.read_events(path, **COLUMNS))
    least, most = (1, 1) if kind == "parquet" else (0.5, 2)
    assert least <= found.n_rows / len(log) <= most
    assert found.n_parts == (5 if kind == "parquet" else 1)


def test_rows_of_tables_are_known_and_of_dask_frames_not(log: pd.DataFrame) -> None:
    for table in (log, pa.Table.from_pandas(log)):
        assert dasrec.plan_ingest(dasrec.read_events(table, **COLUMNS)).n_rows == len(log)
    lazy = dasrec.read_events(dd.from_pandas(log, npartitions=2), **COLUMNS)
    with pytest.raises(InputError, match="are not known before it is computed; pass files"):
        dasrec.plan_ingest(lazy)


def test_what_is_foreseen_is_near_what_happens(log: pd.DataFrame, tmp_path: Path) -> None:
    events = dasrec.read_events(write(log, tmp_path / "log.parquet"), **COLUMNS)
    found = dasrec.plan_ingest(events)
    ran: list[Any] = []
    run = blocks.run

    def count(task: Any, arguments: Any, **named: Any) -> list[Any]:
        ran.extend(arguments)
        return run(task, arguments, **named)

    with mock.patch.object(blocks, "run", count):
        store = dasrec.write_interactions(events, tmp_path / "store")
    assert found.n_tasks == pytest.approx(len(ran), rel=0.3)
    size = sum(path.stat().st_size for path in Path(store.url).rglob("*") if path.is_file())
    assert size < 2 * found.store_bytes


@pytest.mark.parametrize("needed", [1, 2, 3])
def test_a_budget_bounds_the_tasks_at_a_time(needed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "CPU_COUNT", 3)
    table = pd.DataFrame({"u": np.arange(10), "i": np.arange(10)})
    events = dasrec.read_events(table, user="u", item="i")
    base, task = 10**9, plan._task_bytes(10, len(events.sources))
    monkeypatch.setattr(plan, "room", lambda budget: (base, budget, 3))
    budget = base + needed * task + task // 2
    found = dasrec.plan_ingest(events, memory=budget)
    assert (found.at_once, found.peak_bytes) == (needed, base + needed * task)
    assert found.limit_bytes == budget


def test_what_does_not_fit_is_refused_before_anything_starts(
    log: pd.DataFrame, tmp_path: Path
) -> None:
    events = dasrec.read_events(log, **COLUMNS)
    need = re.escape("takes ") + r"[\d.]+ [GM]B a process, and memory is 1.0 MB; give it more"
    for call in (
        lambda: dasrec.plan_ingest(events, memory="1MB"),
        lambda: dasrec.write_interactions(events, tmp_path / "store", memory=10**6),
    ):
        with pytest.raises(BudgetError, match=need):
            call()
    assert not (tmp_path / "store").exists()
    with pytest.raises(InputError, match="memory is 'much'; expected bytes or a text like \"2GB\""):
        dasrec.plan_ingest(events, memory="much")


def test_more_ids_than_the_caller_may_hold_are_refused(
    log: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_HELD_ID_BYTES", 2**40)
    events = dasrec.read_events(log, **COLUMNS)
    with pytest.raises(BudgetError, match=r"there are [\d,]+ users and items; give it more"):
        dasrec.write_interactions(events, tmp_path / "store", memory="50GB")
    assert not (tmp_path / "store").exists()


def test_tasks_at_a_time_are_kept_to(log: pd.DataFrame, tmp_path: Path) -> None:
    events = dasrec.read_events(write(log, tmp_path / "log.parquet"), **COLUMNS)
    seen: list[int | None] = []
    run = blocks.run

    def watch(*arguments: Any, **named: Any) -> list[Any]:
        seen.append(named.get("at_once"))
        return run(*arguments, **named)

    with (
        mock.patch.object(blocks, "run", watch),
        mock.patch("dasrec.ingest.allowed_tasks", return_value=1),
    ):
        dasrec.write_interactions(events, tmp_path / "store", memory="50GB")
    assert set(seen) == {1}


def test_one_task_at_a_time_means_that() -> None:
    active: list[int] = []
    most: list[int] = []

    def task(number: int) -> int:
        active.append(number)
        most.append(len(active))
        active.remove(number)
        return number

    found = blocks.run(task, [(n,) for n in range(30)], name="one", at_once=1)
    assert found == list(range(30))
    assert max(most) == 1


def test_a_piece_is_never_taken_for_larger_than_it_can_be() -> None:
    table = pd.DataFrame({"u": np.arange(10), "i": np.arange(10)})
    known, unknown = (
        plan._task_bytes(events.count_rows(), len(events.sources))
        for events in (
            dasrec.read_events(table, user="u", item="i"),
            dasrec.read_events(dd.from_pandas(table, npartitions=1), user="u", item="i"),
        )
    )
    assert known < unknown
    assert unknown >= plan._SCAN_ROW_BYTES * piece_rows()


def test_the_command_says_it(log: pd.DataFrame, tmp_path: Path) -> None:
    path = str(write(log, tmp_path / "log.parquet"))
    command = ["plan", "ingest", path, "--user", "user", "--item", "item", "--memory"]
    done = CliRunner().invoke(main, [*command, "50GB", "--json"])
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["n_rows"] == 30_000
    assert record["peak_bytes"] <= record["limit_bytes"]
    for memory, message in (("1MB", "memory is 1.0 MB"), ("x", "memory is 'x'")):
        refused = CliRunner().invoke(main, [*command, memory])
        assert refused.exit_code == 1
        assert message in refused.stderr
        assert "Traceback" not in refused.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["log.parquet"]
