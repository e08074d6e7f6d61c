"""The same calls on two public data sets: nothing changes but where they lie and column names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

import dasrec
from dasrec import InputError, datasets
from dasrec.cli import main

LOGS = {
    "movielens": (datasets.movielens_100k, (943, 1682, 100_000)),
    "anime": (datasets.anime_ratings, (4714, 7157, 419_943)),
}


@pytest.fixture(scope="module", params=LOGS)
def log(request: pytest.FixtureRequest, data_dir: Path) -> tuple[datasets.LogFiles, Any]:
    find, shape = LOGS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DASREC_DATA_DIR", str(data_dir))
        return find(), shape


def command(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_python(log: tuple[datasets.LogFiles, Any], tmp_path: Path) -> None:
    files, shape = log
    events = dasrec.read_events(list(files.paths), **files.columns)
    store = dasrec.write_interactions(dasrec.clean(events), tmp_path / "store")
    assert (store.n_users, store.n_items, store.n_stored) == shape
    split = dasrec.split_random(store, 0.2, rng=0)
    explicit = dasrec.ALS(factors=8, iterations=5, rng=0), dasrec.Biases(iterations=3)
    ours, theirs = (
        dasrec.evaluate(model.fit(split.train), split, metrics=["rmse"])["rmse"].item()
        for model in explicit
    )
    assert ours < theirs
    implicit = dasrec.ImplicitALS(factors=16, iterations=5, rng=0), dasrec.Popular()
    ours, theirs = (
        dasrec.evaluate(model.fit(split.train), split, n=10, metrics=["ndcg"])["ndcg"].item()
        for model in implicit
    )
    assert ours > 1.3 * theirs
    assert files.titles is not None
    shown = implicit[0].recommend(store.user_ids.ids[:20], n=10, seen=store)["item_id"].values
    assert set(shown.ravel()) <= set(files.titles.index)


def test_command_line(log: tuple[datasets.LogFiles, Any], tmp_path: Path) -> None:
    files, shape = log
    store, model, lists = (tmp_path / name for name in ("store", "model", "lists"))
    columns = [part for name, column in files.columns.items() for part in (f"--{name}", column)]
    record = command("ingest", *files.paths, store, *columns)
    assert (record["n_users"], record["n_items"], record["n_interactions"]) == shape
    small = ("--model", "implicit-als", "--factors", 8, "--iterations", 3, "--seed", 1)
    command("fit", store, model, *small, "--split", "random:0.2")
    found = command("evaluate", model, store, "--split", "random:0.2", "--n", "10")
    assert found["metrics"]["recall@10"] > 0.1
    command("recommend", model, store, lists, "--n", 5)
    table = pd.read_parquet(lists)
    assert table["user_id"].nunique() == record["n_users"]


def test_what_needs_times_says_so_where_there_are_none(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASREC_DATA_DIR", str(data_dir))
    files = datasets.anime_ratings()
    events = dasrec.read_events(list(files.paths), **files.columns)
    store = dasrec.write_interactions(events, tmp_path / "store")
    for split in (dasrec.split_by_time, dasrec.split_last_n):
        with pytest.raises(InputError, match=r"has no timestamps; .* or split at random"):
            split(store)
